"""The pages of the orders, an upload, and an export that streams."""

from __future__ import annotations

import csv
import io
import time
from typing import TYPE_CHECKING

from django.contrib import messages
from django.db import transaction
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from .forms import AttachmentForm, OrderForm
from .models import Attachment, Order

if TYPE_CHECKING:
    from collections.abc import Iterator


def find(request: HttpRequest, number: int) -> Order:
    """Return an order that this user may see, else 404."""
    return get_object_or_404(Order.objects.visible_to(request.user).with_totals(), pk=number)  # type: ignore[no-any-return]


def order_list(request: HttpRequest) -> HttpResponse:
    found = Order.objects.visible_to(request.user).with_totals().select_related("customer")
    return render(request, "orders/list.html", {"orders": found})


def detail(request: HttpRequest, number: int) -> HttpResponse:
    return render(request, "orders/detail.html", {"order": find(request, number)})


def new(request: HttpRequest) -> HttpResponse:
    form = OrderForm(request.POST or None)
    if not form.is_valid():
        return render(request, "orders/new.html", {"form": form}, status=400 if form.is_bound else 200)
    with transaction.atomic():
        order = Order.objects.create(customer=request.user)
        order.add(form.cleaned_data)
    return redirect("order", order.pk)


def cancel(request: HttpRequest, number: int) -> HttpResponse:
    order = find(request, number)
    if request.method != "POST":
        return render(request, "orders/cancel.html", {"order": order})
    # What has been shipped meanwhile stays shipped.
    Order.objects.filter(pk=order.pk, status=Order.Status.OPEN).update(status=Order.Status.CANCELLED)
    return redirect("order", order.pk)


# --- files


def attachments(request: HttpRequest, number: int) -> HttpResponse:
    order = find(request, number)
    form = AttachmentForm(request.POST or None, request.FILES or None)
    if not form.is_valid():
        status = 400 if form.is_bound else 200
        return render(request, "orders/attachments.html", {"order": order, "form": form}, status=status)
    file = form.cleaned_data["file"]
    order.attachments.create(file=file, name=file.name)
    messages.success(request, f"{file.name} is uploaded.")
    return redirect("attachments", order.pk)


def attachment(request: HttpRequest, number: int, key: int) -> FileResponse:
    found = get_object_or_404(Attachment, pk=key, order=find(request, number))
    return FileResponse(found.file.open(), as_attachment=True, filename=found.name)


# --- the export


def export(request: HttpRequest) -> StreamingHttpResponse:
    """Send all orders while they are still being read."""
    answer = StreamingHttpResponse(report(request.user), content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = 'attachment; filename="orders.csv"'
    answer["Cache-Control"] = "no-store"
    return answer


def report(user: object, pause: float = 0.03) -> Iterator[str]:
    """Yield one chunk an order. The pause stands for the query that takes its time."""
    yield "order,customer,placed,status,product,quantity,price,writtenAt\r\n"
    orders = Order.objects.visible_to(user).select_related("customer").prefetch_related("lines")
    for order in orders.iterator(chunk_size=100):
        text = io.StringIO()
        csv.writer(text).writerows(
            [
                order.pk, order.customer.get_username(), order.placed_at.date(), order.status,
                line.product, line.quantity, line.price, time.time(),
            ]
            for line in order.lines.all()
        )  # fmt: skip
        yield text.getvalue()
        time.sleep(pause)
