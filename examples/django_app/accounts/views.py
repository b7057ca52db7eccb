"""The profile; login and logout are Django's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.shortcuts import render

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse


def profile(request: HttpRequest) -> HttpResponse:
    return render(request, "accounts/profile.html", {"groups": request.user.groups.order_by("name")})
