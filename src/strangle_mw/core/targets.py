"""Addresses of upstreams: from what a user writes to an `Endpoint`, or one clear refusal.

The address of a forwarded request comes from here alone, never from the request (promise P3).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from strangle_mw.core.model import Endpoint
from strangle_mw.core.patterns import PatternError, parse_template

_PORTS = {"http": 80, "https": 443}
SCHEMES = ("http://", "https://", "unix:", "lambda:", "asgi:", "wsgi:", "arn:")
"""How a target starts that is not an upstream's name."""


def is_target(text: str) -> bool:
    """Tell whether a `to` is an address rather than the name of an upstream."""
    return text.startswith(SCHEMES) or "://" in text


def parse_endpoint(url: str) -> Endpoint:
    """Take an upstream's URL apart; raise `PatternError` with the remedy."""
    if url.startswith("unix:"):
        return _unix(url.removeprefix("unix:"))
    if not url.isprintable() or " " in url:
        raise PatternError("must not contain blanks or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise PatternError(f"is not a URL: {exc}") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise PatternError("must be an address like http://host:port, https://host or unix:/path.sock")
    if parts.username is not None or parts.password is not None:
        raise PatternError("must not hold a user name or password; use request_headers to send credentials")
    if port == 0:
        raise PatternError("must have a port of 1..65535")
    if "?" in url or "#" in url:
        raise PatternError("must not hold a query or fragment; those come from the request")
    return _http(parts.scheme, parts.hostname, port, parts.path)


def _http(scheme: str, host: str, port: int | None, path: str) -> Endpoint:
    base = path.rstrip("/")
    sent = parse_template(base, ()).fill({}) if base else b""
    name = f"[{host}]" if ":" in host else _ascii(host)
    default = _PORTS[scheme]
    authority = name if port in (None, default) else f"{name}:{port}"
    return Endpoint(
        "https" if scheme == "https" else "http",
        name.strip("[]"),
        default if port is None else port,
        authority.encode(),
        sent,
    )


def _ascii(host: str) -> str:
    try:
        name = host.encode("idna").decode()
    except UnicodeError:
        raise PatternError(f"has an unusable host name {host!r}") from None
    if not all(c.isalnum() or c in "-._" for c in name):
        raise PatternError(f"has an unusable host name {host!r}")
    return name


def _unix(path: str) -> Endpoint:
    if not path.startswith("/"):
        raise PatternError("must be unix: and an absolute path, as in unix:/run/leads.sock")
    return Endpoint("unix", "", 0, b"localhost", b"", path)
