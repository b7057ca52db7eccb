"""A forwarded request as an app in this process sees it: the ASGI scope or the WSGI environ.

It is what the same app would see behind its own server: path after the rewrite, cleaned headers, ours added,
and no mount point (`root_path`, `SCRIPT_NAME`), since only the wrapped app stands below that of the server.
So an app that moves out of this process keeps all its paths. Of what the server in front gave, only facts
about the connection cross: nothing that another middleware or the wrapped app has left there may steer the
called app (a router, a user), and no extension of a server is offered. Pure; who calls is elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from strangle_mw.core.hygiene import CHUNKED
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strangle_mw.core.decision import Forward
    from strangle_mw.core.messages import Header

_HOST, _CHUNKED = b"host", (b"transfer-encoding", b"chunked")
_DENIAL = "websocket.http.response"
_SERVER_KEYS = (
    *("SERVER_NAME", "SERVER_PORT", "SERVER_SOFTWARE", "REMOTE_ADDR", "REMOTE_PORT", "HTTPS"),
    *(
        "wsgi.version",
        "wsgi.url_scheme",
        "wsgi.errors",
        "wsgi.multithread",
        "wsgi.multiprocess",
        "wsgi.run_once",
    ),
)


class Call(NamedTuple):
    """A request for an app in this process; `source` is the scope or environ that the server gave.

    `length` is the body's, as far as it is known by now (see `hygiene`).
    """

    forward: Forward
    source: Mapping[str, Any]
    length: int


def call_headers(forward: Forward, length: int) -> list[Header]:
    """Return the headers as they would stand on the wire, `Host` first."""
    host = forward.host(0)
    headers = forward.headers
    if length == CHUNKED and forward.head.http_version < "2":
        headers.append(_CHUNKED)
    return [(_HOST, host), *headers] if host else headers


def asgi_scope(forward: Forward, scope: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Build the HTTP scope for an ASGI app out of that of the server (ASGI specification, HTTP 2.5)."""
    head = forward.head
    raw, _, query = forward.target.partition(b"?")
    return {
        "type": "http",
        "asgi": scope.get("asgi", {"version": "3.0"}),
        "http_version": head.http_version,
        "method": head.method,
        "scheme": head.scheme,
        "path": _text(raw),
        "raw_path": raw,
        "query_string": query,
        "root_path": "",
        "headers": call_headers(forward, length),
        "client": scope.get("client"),
        "server": scope.get("server"),
    }


def websocket_scope(forward: Forward, scope: Mapping[str, Any]) -> dict[str, Any]:
    """Build the WebSocket scope for an ASGI app; of extensions, only denial with an answer crosses."""
    made = asgi_scope(forward, scope, 0)
    del made["method"]
    return {
        **made,
        "type": "websocket",
        "scheme": scope.get("scheme", "ws"),
        "subprotocols": scope.get("subprotocols", []),
        "extensions": {k: {} for k in scope.get("extensions") or () if k == _DENIAL},
    }


def scope_of_environ(forward: Forward, environ: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Build the HTTP scope for an ASGI app that is called under WSGI."""
    port = str(environ.get("SERVER_PORT", ""))
    client_port = str(environ.get("REMOTE_PORT", ""))
    peer = environ.get("REMOTE_ADDR")
    source = {
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "client": (peer, int(client_port) if client_port.isdecimal() else 0) if peer else None,
        "server": (environ.get("SERVER_NAME", ""), int(port) if port.isdecimal() else None),
    }
    return asgi_scope(forward, source, length)


def wsgi_environ(forward: Forward, environ: Mapping[str, Any], length: int) -> dict[str, Any]:
    """Build the environ for a WSGI app out of that of the server (PEP 3333); `wsgi.input` is the caller's."""
    head = forward.head
    raw, _, query = forward.target.partition(b"?")
    target = forward.target.decode("latin-1")
    made = {k: environ[k] for k in _SERVER_KEYS if k in environ}
    made |= {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(raw).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "RAW_URI": target,
        "REQUEST_URI": target,
        "SERVER_PROTOCOL": environ.get("SERVER_PROTOCOL", "HTTP/1.1"),
    }
    for name, value in call_headers(forward, length):
        _add(made, name, value.decode("latin-1"))
    return made


def final_status(status: object) -> int:
    """Return the status of an app's answer (RFC 9110 section 15); raise `ForwardError` for anything else."""
    if not isinstance(status, int) or not 200 <= status <= 599:  # noqa: PLR2004 - as above
        raise ForwardError("head", f"{status!r} is no status of an answer", request_sent=True)
    return int(status)


def _add(environ: dict[str, Any], name: bytes, value: str) -> None:
    """Add one header under its name of CGI (RFC 3875 section 4.1.18), joined to one that is there."""
    key = name.decode("latin-1").upper().replace("-", "_")
    if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = f"HTTP_{key}"
    if key in environ:
        value = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + value
    environ[key] = value


def _text(raw: bytes) -> str:
    """Decode a path as ASGI servers do."""
    if b"%" in raw:
        raw = unquote_to_bytes(raw)
    return raw.decode("utf-8", "replace")
