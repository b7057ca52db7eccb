"""Stores' URLs: taken apart, checked, and masked for everybody who is shown one.

Passwords stand in these URLs, at times where nobody expects them. No message made here quotes more of one
than a host, a path or a known option's name (promise P18). Nothing is opened.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from strangle_mw.core.events import safe_text
from strangle_mw.stores.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TIMEOUT: Final = 60.0
"""Seconds beyond which no option may make a call wait."""

PREFIX: Final = "strangle"
"""What the names of all keys in Redis start with, unless the URL says otherwise."""

_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")
_ANY = re.compile(r"[^\x00-\x1f\x7f]+")
_COUNT = re.compile(r"[0-9]{1,5}")

# What redis-py may be told by a URL, and how. Its other options are objects, or turn off what is promised:
# certificates are verified, with the host's name (promise P19).
_REDIS: Mapping[str, re.Pattern[str] | None] = {
    "prefix": re.compile(r"[!-~]{1,100}"),
    "db": _COUNT,
    "username": _ANY,
    "password": _ANY,
    "client_name": _ANY,
    "protocol": re.compile("[23]"),
    "socket_timeout": None,
    "socket_connect_timeout": None,
    "socket_keepalive": re.compile("(?i:true|yes|1|false|no|0)"),
    "health_check_interval": _COUNT,
}
_TLS: Mapping[str, re.Pattern[str]] = {
    "ssl_ca_certs": _ANY,
    "ssl_ca_path": _ANY,
    "ssl_ca_data": re.compile(r"(?s).+"),
    "ssl_certfile": _ANY,
    "ssl_keyfile": _ANY,
    "ssl_password": _ANY,
    "ssl_ciphers": _ANY,
    "ssl_cert_reqs": re.compile("required"),
    "ssl_check_hostname": re.compile("(?i:true|yes|1)"),
}
_SECRETS = ("username", "password", "ssl_password")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis is: the URL for redis-py, the one to show, our prefix, and what is never shown."""

    url: str = field(repr=False)
    shown: str
    prefix: str
    secure: bool
    secrets: tuple[str, ...] = field(repr=False)


def sqlite_path(url: str) -> tuple[str, float]:
    """Return a store's absolute path and the seconds to wait for a lock; raises `StoreError`."""
    parts = _split(url)
    path = unquote(parts.path[1:])
    if parts.netloc or parts.fragment or not path or "\0" in path or path.endswith("/") or path == ":memory:":
        raise StoreError(
            "a store on SQLite needs a file: 'sqlite:///path.db', or 'sqlite:////absolute/path.db'"
        )
    given = _options(parts, {"timeout": None}, "a store on SQLite")
    # Made absolute now, since servers change their folder; links stay, since they may be pointed elsewhere.
    return os.path.abspath(path), float(given.get("timeout", "1"))  # noqa: PTH100


def redis_address(url: str) -> RedisAddress:
    """Take apart and check the URL of a Redis; raises `StoreError`."""
    parts = _split(url)
    user, at, host = parts.netloc.rpartition("@")
    secure, socket = parts.scheme == "rediss", parts.scheme == "unix"
    if parts.fragment or bool(host) is socket or (host and not _HOST.fullmatch(host)):
        raise StoreError(
            "a store on Redis must be 'redis://host:6379/0', 'rediss://...' or 'unix:///path/to.sock'; "
            "what is special in a password is percent-encoded"
        )
    if not (len(parts.path) > 1 if socket else re.fullmatch("/?[0-9]{0,5}", parts.path)):
        raise StoreError("a store on Redis is followed by the number of a database, or the path of a socket")
    given = _options(parts, {**_REDIS, **(_TLS if secure else {})}, "a store on Redis")
    prefix = given.pop("prefix", PREFIX)
    secrets = {given[name] for name in _SECRETS if name in given}
    for part in user.split(":", 1):
        secrets |= {part, unquote(part)}
    shown = f"{parts.scheme}://{'***@' if at else ''}{host}{parts.path}"
    address = f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode(given)}"  # redis-py wants both slashes
    # The longest first: a password may start with the name.
    hidden = sorted(secrets - {""}, key=len, reverse=True)
    return RedisAddress(address, safe_text(shown, 200), prefix, secure, tuple(hidden))


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # a bracket without its twin, or a port that is none: perhaps part of a password
        raise StoreError("the store's URL has no readable host; percent-encode a password") from None
    return parts


def _options(parts: SplitResult, known: Mapping[str, re.Pattern[str] | None], what: str) -> dict[str, str]:
    """Read a URL's options; None in `known` stands for seconds."""
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    given = dict(pairs)
    if len(given) != len(pairs) or not given.keys() <= known.keys():
        # What was given is not quoted: an unencoded `?` in a password would bring the rest of it here.
        raise StoreError(
            f"the URL of {what} has an unknown option, or one twice; it takes {', '.join(known)}"
        )
    for name, value in given.items():
        pattern = known[name]
        if not (_is_seconds(value) if pattern is None else pattern.fullmatch(value)):
            raise StoreError(f"the option {name!r} of {what} has a value that it cannot have")
    return given


def _is_seconds(value: str) -> bool:
    try:
        return 0 < float(value) <= MAX_TIMEOUT
    except ValueError:
        return False
