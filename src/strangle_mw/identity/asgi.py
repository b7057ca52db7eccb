"""Identity in an ASGI service (Starlette, FastAPI, any other): `IdentityMiddleware(app, Verifier(...))`.

Pure ASGI; needs no framework. FastAPI's dependency is in `identity.fastapi`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strangle_mw.identity.gate import answer, read_scope
from strangle_mw.identity.verifying import IdentityError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from strangle_mw.identity.verifying import Verifier

    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class IdentityMiddleware:
    """Check the token of each request and each WebSocket.

    `scope["strangle_identity"]`, `request.state.strangle_identity` in Starlette and FastAPI, is the user, or
    None. A bad token is 401, for a WebSocket too if the server can (else 403); so is none, if `required`.
    """

    def __init__(self, app: Any, verifier: Verifier, *, required: bool = False) -> None:
        self.app, self.verifier, self.required = app, verifier, required

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            try:
                user = await read_scope(scope).acheck(self.verifier, required=self.required)
            except IdentityError as exc:
                await _refuse(exc, scope, send)
                return
            state = {**scope.get("state", {}), "strangle_identity": user}
            scope = {**scope, "strangle_identity": user, "state": state}
        await self.app(scope, receive, send)


async def _refuse(error: IdentityError, scope: MutableMapping[str, Any], send: Send) -> None:
    status, fields, body = answer(error)
    headers = [(n.encode(), v.encode()) for n, v in {**fields, "content-length": str(len(body))}.items()]
    kind = "http.response"
    if scope["type"] == "websocket":
        kind = "websocket.http.response"
        if kind not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
            return
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
