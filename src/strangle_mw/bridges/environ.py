"""The WSGI environ of an ASGI scope (PEP 3333, RFC 3875), as gunicorn would have made it.

Nothing is read or awaited here: who reads `wsgi.input` and runs the app is in `threads`.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from strangle_mw.core.messages import normalize_host
from strangle_mw.core.paths import quote_path

if TYPE_CHECKING:
    from collections.abc import Mapping

_OURS = "strangle."
_COOKIE = "HTTP_COOKIE"
_LENGTH = "CONTENT_LENGTH"
_CGI = ("CONTENT_TYPE", _LENGTH)
_PORTS = {"http": "80", "https": "443"}
_REPLACED = "\ufffd"


def make_environ(scope: Mapping[str, Any], source: Any, *, cleaned: bool = False) -> dict[str, Any]:
    """Build the environ of one request; `source` becomes `wsgi.input`.

    `RAW_URI` and `REQUEST_URI` hold the target as it came. Headers whose names have `_` are left out, since
    they would pass for those with `-` (promise P10), unless they are `cleaned` already; repeated ones are
    joined, cookies as RFC 9113 section 8.2.3 says. Of the scope's own keys those that begin
    with `strangle.` are handed on.
    """
    scheme = scope.get("scheme", "http")
    query = scope["query_string"].decode("latin-1")
    target = _target(scope)
    if query:
        target = f"{target}?{query}"
    environ: dict[str, Any] = {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": source,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "REQUEST_METHOD": scope["method"],
        "QUERY_STRING": query,
        "RAW_URI": target,
        "REQUEST_URI": target,
        "SERVER_PROTOCOL": _protocol(scope.get("http_version", "1.1")),
    }
    environ["SCRIPT_NAME"], environ["PATH_INFO"] = _paths(scope)
    _add_headers(environ, scope["headers"], cleaned=cleaned)
    _add_ends(environ, scope, scheme)
    environ.update((k, v) for k, v in scope.items() if k.startswith(_OURS))
    return environ


def declared_length(headers: Any) -> int | None:
    """Return a body's declared length in bytes, or None; of two the last counts, as in the environ."""
    length = None
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            length = int(value)
    return length


def may_have_body(scope: Mapping[str, Any]) -> bool:
    """Tell whether the headers announce a body, or cannot tell (RFC 9112 section 6.3, RFC 9113)."""
    return not scope.get("http_version", "1.1").startswith("1") or any(
        n == b"transfer-encoding" or (n == b"content-length" and v.strip() != b"0")
        for n, v in scope["headers"]
    )


def _protocol(version: str) -> str:
    return "HTTP/1.0" if version == "1" else f"HTTP/{version}"  # granian leaves the zero out


def _target(scope: Mapping[str, Any]) -> str:
    raw = scope.get("raw_path")
    if not raw:
        raw = quote_path(scope["path"].encode("utf-8", "surrogateescape"))
    return str(raw, "latin-1")


def _paths(scope: Mapping[str, Any]) -> tuple[str, str]:
    """Split the path at the root path, by whole segments; servers differ in whether it is part of it."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    decoded = _native(path, scope.get("raw_path"))
    if not root:
        return "", decoded
    script = _native(root, None)
    if path == root or path.startswith(root + "/"):
        decoded = decoded[len(script) :]
    return script, decoded


def _native(path: str, raw: bytes | None) -> str:
    """Return a path as PEP 3333 wants it: its bytes as latin-1.

    Servers put U+FFFD for bytes that are no UTF-8; the raw path still has them.
    """
    if raw and _REPLACED in path:
        once = unquote_to_bytes(raw)
        if once.decode("utf-8", "replace") == path:
            return once.decode("latin-1")
    return path.encode("utf-8", "surrogateescape").decode("latin-1")


def _add_headers(environ: dict[str, Any], headers: Any, *, cleaned: bool) -> None:
    for name, value in headers:
        if b"_" in name and not cleaned:
            continue
        key = _key(name)
        text = value.decode("latin-1")
        if key in environ and key not in _CGI:
            text = environ[key] + ("; " if key == _COOKIE else ",") + text
        environ[key] = text


@lru_cache(maxsize=512)
def _key(name: bytes) -> str:
    """Return a header's key (RFC 3875 section 4.1.18)."""
    key = name.upper().replace(b"-", b"_").decode("latin-1")
    return key if key in _CGI else f"HTTP_{key}"


def _add_ends(environ: dict[str, Any], scope: Mapping[str, Any], scheme: str) -> None:
    """Say who talks to whom; a Unix socket has no port, and its client no address."""
    client, server = scope.get("client"), scope.get("server")
    environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = (client[0] or "", str(client[1])) if client else ("", "")
    if server and server[1] is not None:
        environ["SERVER_NAME"], environ["SERVER_PORT"] = server[0], str(server[1])
    else:  # PEP 3333 wants both, so `Host` must do, as under gunicorn
        host = environ.get("HTTP_HOST", "")
        port = host.rpartition(":")[2]
        environ["SERVER_NAME"] = normalize_host(host) or "localhost"
        environ["SERVER_PORT"] = port if port.isdecimal() and port != host else _PORTS.get(scheme, "80")
    if scheme == "https":
        environ["HTTPS"] = "on"
