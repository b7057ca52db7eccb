"""How the ASGI driver reads a request's head, and has its user named where that takes a wait.

Nothing is decided here, and nothing of a body is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strangle_mw.core.messages import RequestHead

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from strangle_mw.core.decision import HeadReader
    from strangle_mw.core.identity import NeedsIdentity
    from strangle_mw.engine import Engine

    Scope = MutableMapping[str, Any]


def _read(source: Scope, method: str, path: bytes, authority: bytes, scheme: str) -> RequestHead:
    client = source.get("client")
    head = RequestHead(
        method,
        path,
        source.get("query_string", b""),
        source["headers"],
        scheme,
        client[0] if client else "",
        authority,
        source.get("http_version", "1.1"),
        source,
    )
    head.waits = True
    return head


class _Http:
    encoding = "utf-8"

    @staticmethod
    def head(source: Scope, path: bytes, authority: bytes) -> RequestHead:
        return _read(source, source["method"], path, authority, source.get("scheme", "http"))


class _WebSocket:
    encoding = "utf-8"

    @staticmethod
    def head(source: Scope, path: bytes, authority: bytes) -> RequestHead:
        scheme = "https" if source.get("scheme") in ("wss", "https") else "http"
        head = _read(source, "GET", path, authority, scheme)  # RFC 6455 section 4.1; the scope has no method
        head.opens_websocket = True
        return head


HTTP: HeadReader = _Http()
WEBSOCKET: HeadReader = _WebSocket()


class _Known:
    """Reads the same request once more."""

    encoding = "utf-8"

    def __init__(self, head: RequestHead) -> None:
        self._head = head

    def head(self, source: Scope, path: bytes, authority: bytes) -> RequestHead:  # noqa: ARG002 - `HeadReader`
        return self._head


async def identified(engine: Engine, needs: NeedsIdentity) -> HeadReader:
    """Ask who the user is; return how to read the request again, which decides with that."""
    ask = engine.snapshot.crowd.aidentify
    needs.head.__dict__["identity"] = None if ask is None else await ask(needs.head)
    return _Known(needs.head)
