"""Addresses of upstreams: from what a user writes to an `Endpoint` or a function, or one clear refusal.

The address of a forwarded request comes from here alone, never from the request (promise P3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from strangle_mw.core.model import Endpoint
from strangle_mw.core.patterns import PatternError, parse_template

_PORTS = {"http": 80, "https": 443}
SCHEMES = ("http://", "https://", "unix:", "lambda:", "asgi:", "wsgi:", "arn:")
"""How a target starts that is not an upstream's name."""


# What the Invoke API takes for a name, an alias or version, and an ARN of either.
_FUNCTION = re.compile(
    r"(?P<name>(?:arn:aws[a-z-]*:lambda:(?P<region>[a-z0-9-]+):[0-9]{12}:function:|[0-9]{12}:function:)?"
    r"[A-Za-z0-9_-]{1,140})(?::(?P<qualifier>\$LATEST|[A-Za-z0-9_-]{1,128}))?"
)
_USERINFO = re.compile(r"(?<=//)[^/?#]*@")
_REFERENCE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")


@dataclass(frozen=True, slots=True)
class LambdaFunction:
    """One function as the Invoke API names it.

    `name` is its name, or an ARN of it without qualifier; `qualifier` an alias or version, "" for $LATEST;
    `region` that of the ARN, else "".
    """

    name: str
    qualifier: str = ""
    region: str = ""


def is_target(text: str) -> bool:
    """Tell whether a `to` is an address rather than the name of an upstream."""
    return text.startswith(SCHEMES) or "://" in text


def shown(url: str) -> str:
    """Quote an address for a message, without what may be a password (promise P18)."""
    return repr(_USERINFO.sub("***@", url))


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


def parse_function(text: str) -> LambdaFunction:
    """Take a function's name or ARN apart, with alias or version; raise `PatternError` with the remedy."""
    match = _FUNCTION.fullmatch(text)
    if match is None:
        raise PatternError("must be a function's NAME, NAME:ALIAS, or ARN")
    return LambdaFunction(match["name"], match["qualifier"] or "", match["region"] or "")


def check_reference(text: str) -> None:
    """Check the name of an app in this process; raise `PatternError` with the remedy."""
    if not _REFERENCE.fullmatch(text):
        raise PatternError("must be `module:attr`, as in orders.app:app")


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
