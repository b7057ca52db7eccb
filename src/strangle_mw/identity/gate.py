"""What the middlewares of the other side have in common: reading a request, and the answer to a bad token."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from strangle_mw.core.identity import HEADER
from strangle_mw.identity.remote import PAUSE
from strangle_mw.identity.verifying import IdentityError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strangle_mw.core.identity import Identity
    from strangle_mw.identity.verifying import Verifier

logger = logging.getLogger("strangle_mw")


class Seen(NamedTuple):
    """What a token is checked with; `token` is None if there is none, and two joined are never good."""

    token: str | bytes | None
    method: str
    path: str | bytes
    query: str | bytes

    def check(self, verifier: Verifier, *, required: bool) -> Identity | None:
        """Return the user, or None for nobody; raise `IdentityError`."""
        if (token := self._given(required=required)) is None:
            return None
        return verifier.verify(token, method=self.method, path=self.path, query=self.query)

    async def acheck(self, verifier: Verifier, *, required: bool) -> Identity | None:
        """Do as `check`, without blocking the event loop."""
        if (token := self._given(required=required)) is None:
            return None
        return await verifier.averify(token, method=self.method, path=self.path, query=self.query)

    def _given(self, *, required: bool) -> str | bytes | None:
        if self.token is None and required:
            raise IdentityError("anonymous")
        return self.token


def read_environ(environ: Mapping[str, Any]) -> Seen:
    """Read a WSGI request. Servers decode the path, so it is encoded again; they join headers given twice."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return Seen(
        environ.get("HTTP_STRANGLE_IDENTITY"),
        environ["REQUEST_METHOD"],
        quote(path.encode("latin-1")),
        environ.get("QUERY_STRING", ""),
    )


def read_scope(scope: Mapping[str, Any]) -> Seen:
    """Read an ASGI request, or the handshake of a WebSocket, which is a GET (RFC 6455 section 4.1)."""
    tokens = [value for name, value in scope["headers"] if name == HEADER]
    return Seen(
        b",".join(tokens) if tokens else None,
        scope.get("method", "GET"),
        scope.get("raw_path") or quote(scope["path"]),
        scope.get("query_string", b""),
    )


def answer(error: IdentityError) -> tuple[int, dict[str, str], bytes]:
    """Build the answer to a refused request: status, headers, and a body as of RFC 9457."""
    logger.info("%s", error)
    title, name, value = (
        ("Service Unavailable", "retry-after", str(PAUSE))
        if error.status == 503  # noqa: PLR2004 - RFC 9110 section 10.2.3
        else ("Unauthorized", "www-authenticate", "Strangle-Identity")  # section 15.5.2 wants one
    )
    problem = {"type": f"urn:strangle-mw:identity-{error.reason}", "title": title, "status": error.status}
    headers = {"content-type": "application/problem+json", "cache-control": "no-store", name: value}
    return error.status, headers, json.dumps(problem).encode()
