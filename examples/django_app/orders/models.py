"""Orders, their lines, and the files that belong to them."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import models
from django.utils import timezone

if TYPE_CHECKING:
    from collections.abc import Mapping

CATALOGUE = {
    "Coffee beans, 1 kg": Decimal("14.50"),
    "Tea sampler": Decimal("9.90"),
    "Enamel mug": Decimal("7.25"),
    "Hand grinder": Decimal("38.00"),
}
NEWEST_FIRST = ("-placed_at", "-id")


class Orders(models.QuerySet):  # type: ignore[misc]
    """Orders, as somebody may see them."""

    def visible_to(self, user: Any) -> Orders:
        """Keep a user's own; the staff sees all."""
        return self if user.is_staff else self.filter(customer=user)

    def with_totals(self) -> Orders:
        """Add `items` and `total`."""
        price = models.F("lines__quantity") * models.F("lines__price")
        total = models.Sum(
            price, default=0, output_field=models.DecimalField(decimal_places=2, max_digits=10)
        )
        found = self.annotate(items=models.Sum("lines__quantity", default=0), total=total)
        return found.order_by(*NEWEST_FIRST)  # type: ignore[no-any-return]  # Django forgets it here


class Order(models.Model):  # type: ignore[misc]
    """What somebody has ordered."""

    class Status(models.TextChoices):  # type: ignore[misc]
        """How far an order is."""

        OPEN = "open"
        SHIPPED = "shipped"
        CANCELLED = "cancelled"

    customer = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="orders")
    placed_at = models.DateTimeField(default=timezone.now)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.OPEN)

    objects = Orders.as_manager()

    class Meta:
        ordering = NEWEST_FIRST

    def __str__(self) -> str:
        return f"Order {self.pk}"

    def add(self, quantities: Mapping[str, int]) -> None:
        """Add a line for each product of the catalogue that is wanted."""
        OrderLine.objects.bulk_create(
            OrderLine(order=self, product=product, quantity=number, price=CATALOGUE[product])
            for product, number in quantities.items()
        )


class OrderLine(models.Model):  # type: ignore[misc]
    """One product of an order, at the price of that day."""

    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    product = models.CharField(max_length=60)
    quantity = models.PositiveSmallIntegerField()
    price = models.DecimalField(max_digits=8, decimal_places=2)

    def __str__(self) -> str:
        return f"{self.quantity} x {self.product}"

    @property
    def total(self) -> Decimal:
        return Decimal(self.quantity * self.price)


class Attachment(models.Model):  # type: ignore[misc]
    """A file that was uploaded for an order, kept on the disk."""

    order = models.ForeignKey(Order, models.CASCADE, related_name="attachments")
    file = models.FileField(upload_to="orders")
    name = models.CharField(max_length=100)
    uploaded_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return str(self.name)
