"""Message heads: a request as conditions and forwarding see it, and the library's own error answers.

Which headers cross, and how a body is framed, is `hygiene`.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from strangle_mw.core.identity import Identity

Header = tuple[bytes, bytes]

STANDARD_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"))

is_token = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
"""RFC 9110 section 5.6.2; methods and field names."""

# What may stand in a target that is sent on: no blanks, controls, fragment (RFC 9112 section 3.2).
_LEGAL_IN_TARGET = bytes(b for b in range(0x21, 256) if b not in (0x7F, 0x23))

# Not what else Python takes for blank: 0x85 and 0xA0 are parts of UTF-8 characters.
_BLANKS = " \t"

_TITLES: Mapping[int, str] = {
    400: "Bad Request",
    403: "Forbidden",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    508: "Loop Detected",
}


class Refused(Exception):  # noqa: N818 - not an error of the program: the request is answered with `status`
    """The request cannot be forwarded as it is."""

    def __init__(self, status: int, reason: str) -> None:
        self.status = status
        self.reason = reason
        super().__init__(reason)


class RequestHead:
    """A request as conditions, `when` and the forwarding code see it; treat it as read-only.

    `path` and `query` are raw bytes, `headers` a list of `(lower-case name, value)` bytes in their order,
    `peer` the address of the other end as the server reports it ("" if it has none), `authority` that of an
    absolute-form target, which goes before `Host` (RFC 9112 section 3.2.2). `source` is what the request was
    read from: the ASGI scope, the WSGI environ, or a framework's own request.
    """

    identify: Callable[[RequestHead], Identity | None] | None = None
    """Names the user; set by `decision.prepare`."""

    waits = False
    """Whether who asks can wait for an answer (ASGI)."""

    opens_websocket = False
    """Whether this is the handshake of a WebSocket."""

    def __init__(
        self,
        method: str,
        path: bytes,
        query: bytes,
        headers: Sequence[Header],
        scheme: str = "http",
        peer: str = "",
        authority: bytes = b"",
        http_version: str = "1.1",
        source: Any = None,
    ) -> None:
        self.source = source
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.scheme = scheme
        self.peer = peer
        self.authority = authority
        self.http_version = http_version

    def __repr__(self) -> str:
        return f"<request {self.method} {self.path!r}>"

    def header(self, name: str) -> str | None:
        """Return a header's values joined with commas and trimmed, or None (promise P10)."""
        wanted = name.lower().encode("latin-1")
        values = [v.strip() for n, v in self.headers if n == wanted]
        return b", ".join(values).decode("latin-1") if values else None

    @property
    def raw_host(self) -> bytes:
        """The authority that the client asked for, as it came."""
        return self.authority or next((v.strip() for n, v in self.headers if n == b"host"), b"")

    @cached_property
    def host(self) -> str:
        """The host asked for: lower case, without port and final dot (proxy trap 31)."""
        return normalize_host(self.raw_host.decode("latin-1"))

    @cached_property
    def identity(self) -> Identity | None:
        """The user, as `identify` has named it; None for nobody. Asked once a request, and only if needed."""
        return None if self.identify is None else self.identify(self)

    @property
    def user(self) -> str | None:
        """The user's id; None for nobody."""
        found = self.identity
        return None if found is None else found.subject

    @cached_property
    def cookies(self) -> Mapping[str, str]:
        """The request's cookies; of two with one name the first counts (RFC 6265 section 5.4 order)."""
        found: dict[str, str] = {}
        for pair in ";".join(v.decode("latin-1") for n, v in self.headers if n == b"cookie").split(";"):
            name, equals, value = pair.strip(_BLANKS).partition("=")
            if equals:
                found.setdefault(name.strip(_BLANKS), value.strip(_BLANKS).strip('"'))
        return found

    @cached_property
    def query_params(self) -> Mapping[str, str]:
        """The decoded query; of a repeated parameter the first counts (Gateway API)."""
        return dict(reversed(parse_qsl(self.query.decode("latin-1"), keep_blank_values=True)))


def normalize_host(host: str) -> str:
    """Lower-case a host and drop its port and one final dot (RFC 9110 section 4.2.3)."""
    host = host.lower()
    name, colon, port = host.rpartition(":")
    if colon and (not port or port.isdigit()) and (":" not in name or name.endswith("]")):
        host = name
    return host.removesuffix(".")


def status_class(status: int) -> str:
    """Return "2xx" for 200..299 and so on (RFC 9110 section 15): a label from a closed set (promise P17)."""
    return f"{status // 100}xx"


def check_target(target: bytes) -> None:
    """Refuse a request target that has no place on a request line (RFC 9112 section 3.2)."""
    if target.translate(None, _LEGAL_IN_TARGET):
        raise Refused(400, "bad-target")


def check_method(method: str) -> None:
    """Refuse a method that cannot be forwarded: CONNECT (promise P3), or no token (RFC 9110 section 9.1)."""
    if method == "CONNECT":
        raise Refused(405, "connect")
    if not is_token(method.encode("latin-1", "replace")):
        raise Refused(400, "bad-method")


def problem(status: int, reason: str, request_id: str, retry_after: int = 0) -> tuple[list[Header], bytes]:
    """Build the library's own error answer: RFC 9457, no addresses, nothing of the request in it (P23)."""
    title = _TITLES.get(status, "Error")
    body = (
        f'{{"type":"urn:strangle-mw:{reason}","title":"{title}","status":{status},"request_id":"{request_id}"}}'
    ).encode()
    headers: list[Header] = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 503:  # noqa: PLR2004 - RFC 9110 section 10.2.3
        headers.append((b"retry-after", b"%d" % (retry_after or 1)))
    if status == 405:  # noqa: PLR2004 - RFC 9110 section 15.5.6
        headers.append((b"allow", b"GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"))
    return headers, body
