"""Header hygiene: what of a request may cross, and how its body is framed; answers are in `answers`.

The order is fixed (design section 5; promises P5, P8-P10): drop hop-by-hop and nominated fields, drop
protected names in every spelling, drop ambiguous spellings, then the route's rules, then ours, last.

This is the part of forwarding that Python pays most for. What depends on names alone is therefore worked
out once: clients send the same names again and again, whatever the values. The caches are bounded, and a
client that fills them only loses their help.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from strangle_mw.core.identity import HEADER, withhold
from strangle_mw.core.messages import Header, Refused, is_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from strangle_mw.core.messages import RequestHead
    from strangle_mw.core.model import HeaderRules

CHUNKED = -1
"""A body whose length is not known before its end."""
UNDECLARED = -2
"""HTTP/2 and later: a body may follow although no field says so; its first event tells."""

_FOLDED = bytes(b if bytes([b]).isalnum() else 0x2D for b in range(256))
_is_length = re.compile(rb"[0-9]{1,18}").fullmatch
# No comma, which RFC 3986 section 3.2.2 allows: some WSGI servers join two `Host` with one.
is_host = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+=%-]*)(?::[0-9]*)?").fullmatch
_is_request_id = re.compile(rb"[A-Za-z0-9._~+/=:-]{1,128}").fullmatch
LEGAL_IN_VALUE = b"\t" + bytes(b for b in range(0x20, 256) if b != 0x7F)  # noqa: PLR2004 - DEL

# What is done with a field: those up to _VIA cross, those from _LENGTH on say something to us.
_PASS, _LENGTH, _VIA, _CODING, _HOST, _CONNECTION, _FORWARDING, _REQUEST_ID, _DROP = range(9)

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer "
    b"transfer-encoding upgrade expect http2-settings".split()
)
"""RFC 9110 section 7.6.1, and `Expect`, which the server in front has answered. Trailers do not cross, so
`TE: trailers` does not either."""

_SPECIAL: Mapping[bytes, int] = {
    **dict.fromkeys(HOP_BY_HOP, _DROP),
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"host": _HOST,
    b"connection": _CONNECTION,
    # Some servers add trailers to the headers; those announced can be told apart (RFC 9110 section 6.6.2).
    b"trailer": _CONNECTION,
    b"via": _VIA,
    b"x-request-id": _REQUEST_ID,
}
_APPENDABLE = tuple(
    b"x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-prefix forwarded".split()
)
_SPOOFABLE = frozenset(b"x-real-ip x-original-url x-rewrite-url proxy remote-user".split())
PLAIN_CONNECTION = ([b"keep-alive"], [b"close"])
"""What nearly every `Connection` says: nothing about other headers."""
_UNNOMINATABLE = frozenset({b"content-length", b"host", b"transfer-encoding"})


@dataclass(frozen=True, slots=True)
class HeaderPlan:
    """A route's `HeaderRules`, compiled: bytes, lower-case names."""

    drop: frozenset[bytes] = frozenset()
    add: tuple[Header, ...] = ()

    @classmethod
    def compile(cls, rules: HeaderRules) -> HeaderPlan:
        """Turn declared rules into what is dropped and what is appended, in that order."""
        if not (rules.set or rules.add or rules.remove):
            return NO_RULES
        replaced = tuple(_encode(rules.set.items()))
        removed = {name.lower().encode("latin-1") for name in rules.remove}
        return cls(frozenset(removed | {n for n, _ in replaced}), (*replaced, *_encode(rules.add.items())))

    def apply(self, headers: Iterable[Header]) -> list[Header]:
        """Return the headers after `remove`, `set` and `add`."""
        return [*(h for h in headers if h[0] not in self.drop), *self.add]


def _encode(pairs: Iterable[tuple[str, str]]) -> Iterable[Header]:
    return ((name.lower().encode("latin-1"), value.encode("utf-8")) for name, value in pairs)


NO_RULES = HeaderPlan()


@dataclass(frozen=True, slots=True)
class Hygiene:
    """What of an inbound message is trusted: the table-wide half of the header rules.

    `hop_marker` is our own keyed entry in `Via`, `allowed` holds names spelt with `_` or `.` that pass (lower
    case), `trusted` the peers whose forwarding headers are kept and appended to, `new_id` makes the id of a
    request that brings none.
    """

    hop_marker: bytes
    allowed: frozenset[bytes] = frozenset()
    trusted: frozenset[str] | TrustedPeers = frozenset()
    new_id: Callable[[], bytes] = lambda: b"0" * 32


@dataclass(frozen=True, slots=True)
class TrustedPeers:
    """Addresses and networks whose forwarding headers count; `peer in trusted`."""

    networks: tuple[object, ...]

    def __contains__(self, peer: object) -> bool:
        return isinstance(peer, str) and _in_networks(peer, self.networks)


@lru_cache(maxsize=1024)
def _in_networks(peer: str, networks: tuple[object, ...]) -> bool:
    from ipaddress import (
        IPv4Network,
        IPv6Address,
        IPv6Network,
        ip_address,
    )  # only tables with trusted proxies pay for it

    try:
        address = ip_address(peer)
    except ValueError:
        return peer in networks  # "": a peer on a Unix socket has no address
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped  # an IPv4 peer on a dual-stack socket
    return any(isinstance(n, IPv4Network | IPv6Network) and address in n for n in networks)


def forward_headers(
    head: RequestHead,
    hygiene: Hygiene,
    plan: HeaderPlan = NO_RULES,
    prefix: bytes = b"",
    *,
    withheld: frozenset[bytes] = frozenset(),
    identity: bytes = b"",
) -> tuple[bytes, int, bytes]:
    """Build the headers that are sent upstream, without `Host`: `(fields, length of the body, request id)`.

    The fields are written as they stand in HTTP/1.1, each with its line end, and the empty line;
    `read_fields` takes them apart. The length is that of `Content-Length`, `CHUNKED`, `UNDECLARED`, or 0 for
    no body; `Transfer-Encoding` is left to the sender. Cookies with a name that is `withheld` stay here;
    `identity` is the token for the upstream, b"" for none. Raises `Refused` on anything that two servers
    could frame differently (promise P5).
    """
    names, values = zip(*head.headers) if head.headers else ((), ())  # noqa: B905 - pairs, all of them
    recipe = _request_recipe(names, hygiene.allowed)
    cookies = recipe.cookies
    if cookies and (withheld or (len(cookies) > 1 and head.http_version >= "2")):
        names, values = _cookies_as_sent(head, cookies, withheld)
        recipe = _request_recipe(names, hygiene.allowed)
    if b"".join(values).translate(None, LEGAL_IN_VALUE):
        raise Refused(400, "bad-header")
    inbound: list[Header] = []
    length, host = 0, head.authority
    if recipe.usual and not host and head.http_version < "2":
        host = values[recipe.host] if recipe.host >= 0 else b""
    else:
        inbound, length, host = _weigh(recipe, values, head, hygiene)
    fields = recipe.fields % recipe.pick(values)
    nominated: frozenset[bytes] = frozenset()
    if recipe.connection:
        options = [values[at] for at in recipe.connection]
        if options not in PLAIN_CONNECTION:
            nominated = nominated_names(tuple(options))
    if nominated or plan is not NO_RULES:
        fields = _write(plan.apply(h for h in read_fields(fields) if h[0] not in nominated))
    ours = _ours(head.peer, host, head.scheme, prefix, hygiene.hop_marker)
    if inbound and head.peer in hygiene.trusted:
        ours = _write(_append([h for h in inbound if h[0] not in nominated], read_fields(ours)))
    asked = values[recipe.request_id] if recipe.request_id >= 0 else b""
    request_id = asked if asked and _is_request_id(asked) else hygiene.new_id()
    if identity:
        ours += HEADER + b": " + identity + b"\r\n"
    written = b"".join((fields, ours, b"x-request-id: ", request_id, b"\r\n\r\n"))
    return written, length, request_id


def is_https(head: RequestHead, hygiene: Hygiene) -> bool:
    """Tell whether the client speaks TLS, as far as we or a trusted proxy saw it."""
    if head.scheme != "http" or head.peer not in hygiene.trusted:
        return head.scheme == "https"
    return head.header("x-forwarded-proto") == "https"


def public_host(head: RequestHead, hygiene: Hygiene) -> bytes:
    """Return the host that the client has asked for, as far as we or a trusted proxy saw it."""
    told = head.header("x-forwarded-host") if head.peer in hygiene.trusted else None
    return head.raw_host if told is None else told.encode("latin-1")


def asked_id(head: RequestHead) -> bytes:
    """Return the id that a request brings, if it can be told again safely (P18, P23), else nothing."""
    return next((v for n, v in head.headers if n == b"x-request-id" and _is_request_id(v)), b"")


def _cookies_as_sent(
    head: RequestHead, places: Sequence[int], withheld: frozenset[bytes]
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return names and values of the headers with the cookies as they are sent: joined, without some."""
    headers = head.headers
    if len(places) > 1 and head.http_version >= "2":
        headers = _join_cookies(headers)
        places = [at for at, (n, _) in enumerate(headers) if n.lower() == b"cookie"]
    names, values = tuple([n for n, _ in headers]), [v for _, v in headers]
    emptied = []
    for at in places if withheld else ():
        before, values[at] = values[at], withhold(values[at], withheld)
        if before and not values[at]:
            emptied.append(at)  # an empty `Cookie` says that there was one
    if emptied:
        names = tuple(n for at, n in enumerate(names) if at not in emptied)
        values = [v for at, v in enumerate(values) if at not in emptied]
    return names, tuple(values)


def _join_cookies(headers: Sequence[Header]) -> list[Header]:
    """Join what HTTP/2 may split: HTTP/1.1 knows one `Cookie` (RFC 9113 section 8.2.3, proxy trap 18)."""
    whole = b"; ".join(v for n, v in headers if n.lower() == b"cookie")
    first = next(at for at, (n, _) in enumerate(headers) if n.lower() == b"cookie")
    return [
        (n, whole if at == first else v)
        for at, (n, v) in enumerate(headers)
        if n.lower() != b"cookie" or at == first
    ]


def read_fields(fields: bytes) -> list[Header]:
    """Take written header fields apart again."""
    return [(n, v) for n, _, v in [line.partition(b": ") for line in fields.split(b"\r\n")] if n]


def _write(headers: Iterable[Header]) -> bytes:
    return b"".join([b"%b: %b\r\n" % h for h in headers])


class _RequestRecipe(NamedTuple):
    """What is done with the headers of a request, by their place.

    `fields` is filled with what `pick` takes out of the values; `cookies` are the places of those headers,
    `usual` says that nothing but one `Host` needs a look; `marked` holds (what it is, name, place) of the
    others.
    """

    fields: bytes
    pick: Callable[[tuple[bytes, ...]], object]
    connection: tuple[int, ...]
    host: int
    request_id: int
    cookies: tuple[int, ...]
    usual: bool
    marked: tuple[tuple[int, bytes, int], ...]


@lru_cache(maxsize=512)
def _request_recipe(names: tuple[bytes, ...], allowed: frozenset[bytes]) -> _RequestRecipe:
    found = [(_classify(n.lower(), allowed), n.lower(), at) for at, n in enumerate(names)]
    kept = [(name, at) for action, name, at in found if action <= _VIA]
    marked = [m for m in found if m[0] != _PASS]
    actions = [m[0] for m in marked]
    return _RequestRecipe(
        b"".join(name.replace(b"%", b"%%") + b": %b\r\n" for name, _ in kept),
        itemgetter(*(at for _, at in kept)) if kept else lambda _: (),
        tuple(at for action, _, at in marked if action == _CONNECTION),
        next((at for action, _, at in marked if action == _HOST), -1),
        next((at for action, _, at in marked if action == _REQUEST_ID), -1),
        tuple(at for name, at in kept if name == b"cookie"),
        actions.count(_HOST) <= 1 and set(actions) <= {_HOST, _CONNECTION, _REQUEST_ID, _DROP},
        tuple(marked),
    )


def _classify(name: bytes, allowed: frozenset[bytes]) -> int:
    """Decide on a field by its name; `_` and `.` read as `-`, as WSGI folds them (PEP 3333).

    CGI servers may fold all that is no letter or digit (RFC 3875 section 4.1.18), as lighttpd does.
    """
    if name in _SPECIAL:
        return _SPECIAL[name]
    if not is_token(name):
        raise Refused(400, "bad-header")
    canonical = name.translate(_FOLDED)
    if canonical.startswith(b"x-forwarded-") or canonical == b"forwarded":
        return _FORWARDING if canonical == name else _DROP
    if canonical in _SPOOFABLE or canonical in _SPECIAL or canonical.startswith(b"strangle-"):
        return _DROP
    return _PASS if name in allowed or not (b"_" in name or b"." in name) else _DROP


def _weigh(
    recipe: _RequestRecipe, values: Sequence[bytes], head: RequestHead, hygiene: Hygiene
) -> tuple[list[Header], int, bytes]:
    """Act on the headers that say something to us: `(the client's forwarding headers, length, host)`."""
    hosts: list[bytes] = []
    framing: list[Header] = []
    inbound: list[Header] = []
    for action, name, at in recipe.marked:
        value = values[at]
        if action == _HOST:
            hosts.append(value)
        elif action in (_LENGTH, _CODING):
            framing.append((name, value))
        elif action == _FORWARDING:
            inbound.append((name, value))
        elif action == _VIA and hygiene.hop_marker in value:
            raise Refused(508, "loop")
    if len(hosts) > 1 or not all(is_host(h.strip()) for h in hosts):
        raise Refused(400, "bad-host")
    return inbound, _length(framing, head.http_version), head.authority or b"".join(hosts)


def _length(framing: Sequence[Header], http_version: str) -> int:
    """Read the one framing of the body, or refuse (RFC 9112 section 6.3)."""
    if not framing:
        return UNDECLARED if http_version >= "2" else 0
    if len(framing) == 1:
        name, value = framing[0]
        if name == b"content-length" and _is_length(value):
            return int(value)
        # A coding under HTTP/1.0 is faulty framing, however it is meant (RFC 9112 section 6.1).
        if name == b"transfer-encoding" and value.strip().lower() == b"chunked" and http_version != "1.0":
            return CHUNKED
    raise Refused(400, "bad-framing")


@lru_cache(maxsize=256)
def nominated_names(connection: tuple[bytes, ...]) -> frozenset[bytes]:
    """Return the field names that `Connection` headers list, in lower case, but those nobody may remove."""
    tokens = {t.strip().lower() for value in connection for t in value.split(b",")}
    return frozenset(tokens - {b"", b"close", b"keep-alive"} - _UNNOMINATABLE)


@lru_cache(maxsize=1024)
def _ours(peer: str, host: bytes, scheme: str, prefix: bytes, marker: bytes) -> bytes:
    """Say who asked for what, as this process saw it: `X-Forwarded-*`, RFC 7239's `Forwarded`, and `Via`."""
    host = host.strip()
    if not is_host(host):
        raise Refused(400, "bad-host")
    address = _address(peer)
    node = f'"[{address}]"'.encode() if ":" in address else address.encode() or b"unknown"
    asked = b';host="' + host + b'"' if host else b""
    found = [
        (b"x-forwarded-for", address.encode()),
        (b"x-forwarded-host", host),
        (b"x-forwarded-proto", scheme.encode("latin-1", "replace")),
        (b"x-forwarded-prefix", prefix),
        (b"forwarded", b"for=" + node + asked + b";proto=" + scheme.encode("latin-1", "replace")),
        (b"via", b"1.1 " + marker),
    ]
    return _write(h for h in found if h[1])


def _address(peer: str) -> str:
    """Return the peer's address, "" if it is none: some servers put there what a client has sent."""
    from ipaddress import ip_address

    try:
        return str(ip_address(peer.partition("%")[0]))
    except ValueError:
        return ""


def _append(inbound: Sequence[Header], ours: Iterable[Header]) -> list[Header]:
    """Keep a trusted peer's forwarding headers: append to the lists, leave host, scheme and prefix to it."""
    own = dict(ours)
    via = own.pop(b"via")
    merged: list[Header] = [h for h in inbound if h[0] not in _APPENDABLE]
    for name in _APPENDABLE:
        theirs = [v for n, v in inbound if n == name]
        mine = [own[name]] if name in own else []
        if theirs and name not in (b"x-forwarded-for", b"forwarded"):
            mine = []
        if theirs or mine:
            merged.append((name, b", ".join(theirs + mine)))
    return [*merged, (b"via", via)]
