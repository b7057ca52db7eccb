"""The sticky split: which key a request has, which bucket that is, what marks a canaried answer, pins.

Nothing here decides on a request: `staging` does, with the stage and weight in force. Pure: users, time and
chance come in as values (design section 4.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from strangle_mw.core.dials import BASIS_POINTS
from strangle_mw.core.messages import Header, RequestHead

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

User = Callable[[RequestHead], str | None]
"""Names the user of a request, None for nobody; what it raises is the caller's to catch."""
PinnedSide = Literal["modern", "legacy"]


def bucket(group: str, key: str) -> int:
    """Map a sticky key to 0..9999, evenly and for ever (design section 4.1; docs/sticky.md).

    What is hashed is UTF-8; bytes that were no UTF-8 (`surrogateescape`) are hashed as they came. Any other
    half of a surrogate pair, which is no text, gets a bucket like all else.
    """
    text = f"{len(group)}:{group}{key}"
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big") * BASIS_POINTS >> 64


def bucket_of(group: str) -> Callable[[str], int]:
    """Return `bucket` for one group, whose name is hashed once."""
    try:
        start = blake2b(f"{len(group)}:{group}".encode("utf-8", "surrogateescape"), digest_size=8)
    except UnicodeEncodeError:
        return lambda key: bucket(group, key)

    def place(key: str) -> int:
        try:
            data = key.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return bucket(group, key)
        hashed = start.copy()
        hashed.update(data)
        return int.from_bytes(hashed.digest(), "big") * BASIS_POINTS >> 64

    return place


# --- keys

_is_source = re.compile(r"user|cookie|(?:header|cookie):[!#$%&'*+\-.^_`|~0-9A-Za-z]+|query:[^\s]+").fullmatch


def is_source(text: str) -> bool:
    """Tell whether this may stand in a route's `sticky`."""
    return text.isascii() and _is_source(text) is not None


class KeySource(NamedTuple):
    """One place where a request may have its key, compiled.

    `read` returns the key, None or "" for none; `vary` are the headers that it depends on; `is_own` marks the
    library's own cookie.
    """

    read: Callable[[RequestHead, User | None], str | None]
    vary: tuple[str, ...]
    is_own: bool = False


class Key(NamedTuple):
    """The key of one request, and whether the answer must bring the library's own cookie."""

    text: str | None
    wants_cookie: bool = False


_NO_KEY, _NEW_CLIENT = Key(None), Key(None, wants_cookie=True)
_made = tuple.__new__  # half the time of `Key(...)`


def compile_sources(sticky: Sequence[str]) -> tuple[KeySource, ...]:
    """Compile a route's `sticky`, each source once; what is none is left out (`compile` has told it)."""
    return tuple(source for text in dict.fromkeys(sticky) if (source := _source(text)) is not None)


def find_key(sources: Sequence[KeySource], head: RequestHead, user: User | None = None) -> Key:
    """Return the first key that a request has.

    Without any, its answer brings the library's own cookie if that is among the sources, so that the next
    request has a key. The cookie is not set beside another key: the next request would change sides.
    """
    own = False
    for source in sources:
        if text := source.read(head, user):
            return _made(Key, (text, False))
        own = own or source.is_own
    return _NEW_CLIENT if own else _NO_KEY


def vary_names(sources: Sequence[KeySource]) -> tuple[str, ...]:
    """Return the headers that choose the side; a query is part of what caches keep an answer for."""
    return tuple({name.lower(): name for source in sources for name in source.vary}.values())


# Headers that proxies put the client's address into.
_ADDRESSES: Final = frozenset((
    "cf-connecting-ip", "fastly-client-ip", "forwarded", "true-client-ip", "x-client-ip",
    "x-cluster-client-ip", "x-forwarded-for", "x-original-forwarded-for", "x-real-ip",
))  # fmt: skip


def is_address(source: str) -> bool:
    """Tell whether a source of `sticky` is the client's address: many share one, and one user has several."""
    kind, _, name = source.partition(":")
    return kind == "header" and name.lower().replace("_", "-") in _ADDRESSES


def _source(text: str) -> KeySource | None:
    kind, _, name = text.partition(":")
    if text == "user":
        return KeySource(_read_user, ("Cookie", "Authorization"))
    if text == "cookie":
        return KeySource(_read_own_cookie, ("Cookie",), is_own=True)
    if kind == "header" and name:
        return KeySource(lambda head, _: _text(head.header(name)), (name,))
    if kind == "cookie" and name:
        return KeySource(lambda head, _: _text(head.cookies.get(name)), ("Cookie",))
    if kind == "query" and name:
        return KeySource(lambda head, _: head.query_params.get(name), ())
    return None


def _text(value: str | None) -> str | None:
    """Read a header's bytes, which `RequestHead` gives as Latin-1, as the UTF-8 that they mostly are.

    So one user has one key wherever it stands, and what is hashed are the bytes that came.
    """
    if value is None or value.isascii():
        return value
    return value.encode("latin-1").decode("utf-8", "surrogateescape")


def _read_user(head: RequestHead, user: User | None) -> str | None:
    return None if user is None else user(head)


# Anything but 32 digits is not ours. The first that is counts: another site of the domain may have set one
# of the same name that goes before ours (RFC 6265 section 5.4), and would else keep the user without a key.
# The name stands first, and what is before it is looked at afterwards: `re` finds plain text much faster.
_own_cookie = re.compile(
    rb"strangle_id=(?<![^; \t]strangle_id=)(?<![^;][ \t]strangle_id=)([0-9a-f]{32})[ \t]*(?:;|\Z)"
).search


def _read_own_cookie(head: RequestHead, _: User | None) -> str | None:
    for name, value in head.headers:
        if name == b"cookie" and (match := _own_cookie(value)):
            return match[1].decode()
    return None


# --- what marks an answer


class Mark(NamedTuple):
    """What a canaried answer gets, whichever side gives it.

    `vary` are the headers that chose the side (`vary_names`, and that of the pin), `cookie` is the new id, 32
    hexadecimal digits, for a client that has none (b"" for no cookie), `secure` says that it speaks TLS.
    """

    vary: tuple[str, ...] = ()
    cookie: bytes = b""
    secure: bool = False


def mark_headers(headers: Iterable[Header], mark: Mark, method: str) -> list[Header]:
    """Return an answer's headers with those of the mark after them; names may be in any case."""
    kept = list(headers)
    telling = [(low, value) for name, value in kept if (low := name.lower()) in _TELLING]
    return kept + _marks(telling, mark, method)


def mark_wsgi_headers(headers: Iterable[tuple[str, str]], mark: Mark, method: str) -> list[tuple[str, str]]:
    """Return the headers of a WSGI app's answer with those of the mark after them."""
    kept = list(headers)
    telling = [
        (low, value.encode("latin-1", "replace"))
        for name, value in kept
        if (low := name.lower().encode("latin-1", "replace")) in _TELLING
    ]
    return kept + [(n.decode("latin-1"), v.decode("latin-1")) for n, v in _marks(telling, mark, method)]


_CDN: Final = b"cdn-cache-control"
_TELLING: Final = frozenset((b"vary", b"cache-control", _CDN, b"expires", b"last-modified"))
_FRESHNESS: Final = frozenset((b"public", b"max-age=", b"s-maxage="))


def _marks(telling: Sequence[Header], mark: Mark, method: str) -> list[Header]:
    names = {name for name, _ in telling}
    control = _directives(_joined(telling, b"cache-control"))
    found: list[Header] = []
    if method in ("GET", "HEAD") and (_CDN in names or _may_be_stored(control)):
        vary = _missing(mark.vary, _joined(telling, b"vary"))
        if vary:
            found.append((b"vary", vary))
    if mark.cookie:
        secure = b"; Secure" if mark.secure else b""
        attributes = b"; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax" + secure
        found.append((b"set-cookie", b"strangle_id=" + mark.cookie + attributes))
        if _CDN in names or _may_be_shared(control, names):
            # Else a cache might hand one client's id to all (RFC 9111 sections 5.2.2.4 and 7.3).
            found.append((b"cache-control", b'no-cache="set-cookie"'))
    return found


def _joined(fields: Sequence[Header], wanted: bytes) -> bytes:
    return b",".join([value for name, value in fields if name == wanted])


@lru_cache(maxsize=256)
def _missing(wanted: tuple[str, ...], present: bytes) -> bytes:
    """Write the names that a `Vary` lacks; `*` stands for all (RFC 9110 section 12.5.5)."""
    known = {name.strip().lower() for name in present.decode("latin-1").split(",")}
    lacking = {name.lower(): name for name in wanted if name.lower() not in known}
    return b"" if "*" in known else ", ".join(lacking.values()).encode("latin-1", "replace")


_quoted = re.compile(rb'"(?:[^"\\]|\\.)*("?)', re.DOTALL)


@lru_cache(maxsize=256)
def _directives(value: bytes) -> frozenset[bytes]:
    """Return the names in a `Cache-Control`, with `=` behind those that have an argument.

    What caches may read in more than one way (a quote without end) counts as cacheable: then nothing is
    missing, whatever they do.
    """
    plain = _quoted.sub(lambda m: b"" if m[1] else b'"', value)
    if b'"' in plain:
        return frozenset((b"public",))
    pairs = (part.partition(b"=") for part in plain.split(b","))
    return frozenset(name.strip().lower() + equals for name, equals, _ in pairs)


def _may_be_stored(control: frozenset[bytes]) -> bool:
    """Tell whether any cache may keep the answer (RFC 9111 sections 3 and 5.2.2.3)."""
    return b"no-store" not in control or b"must-understand" in control


def _may_be_shared(control: frozenset[bytes], names: set[bytes]) -> bool:
    """Tell whether a shared cache may give the answer to others without asking (RFC 9111 sections 3, 4.2)."""
    if not _may_be_stored(control) or b"private" in control or b"no-cache" in control:
        return False
    return not control.isdisjoint(_FRESHNESS) or b"expires" in names or b"last-modified" in names


# --- pins


# This bounds the length as well.
_pin = re.compile(r"((?:modern|legacy)\.([0-9]{1,15}))\.([0-9a-f]{64})").fullmatch


def make_pin(secret: bytes, side: PinnedSide, expires: int) -> str:
    """Make the token with which a tester chooses a side until `expires` (unix seconds)."""
    text = f"{side}.{expires}"
    return f"{text}.{_pin_mac(secret, text)}"


def read_pin(value: str, secret: bytes, now: float) -> PinnedSide | None:
    """Return the side that a token chooses; None if it is over, forged or no token. Raises nothing."""
    match = _pin(value)
    if match is None or not secret or not now < int(match[2]):
        return None
    if not compare_digest(match[3], _pin_mac(secret, match[1])):
        return None
    return "modern" if value.startswith("modern") else "legacy"


def _pin_mac(secret: bytes, text: str) -> str:
    return hmac_digest(secret, b"strangle-pin " + text.encode(), "sha256").hex()
