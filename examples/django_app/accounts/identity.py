"""What the modern services are told about a user, beside the id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from strangle_mw.identity import Identity


def claims(identity: Identity) -> dict[str, Any]:
    """Return what goes into the token. No queries here: under ASGI this runs in the event loop."""
    return {"name": identity.user.get_username(), "staff": identity.user.is_staff}
