"""Identity in a FastAPI service, behind `identity.asgi.IdentityMiddleware`: who asks, as a dependency."""

from __future__ import annotations

from fastapi import HTTPException
from starlette.requests import HTTPConnection  # noqa: TC002 - FastAPI reads the annotation at run time

from strangle_mw.core.identity import Identity


def identity(connection: HTTPConnection) -> Identity:
    """Return the user of a request or WebSocket; answer 401 if there is none. For `Depends(identity)`."""
    found = connection.scope["strangle_identity"]  # KeyError: the middleware is missing
    if not isinstance(found, Identity):
        raise HTTPException(401, headers={"www-authenticate": "Strangle-Identity"})
    return found
