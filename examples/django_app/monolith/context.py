"""What every template of the monolith knows besides what Django tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.http import HttpRequest


def fallback(request: HttpRequest) -> dict[str, str]:
    """Say why the monolith answers if a modern service should have, and could not."""
    return {"fallback": request.META.get("strangle.fallback", "")}
