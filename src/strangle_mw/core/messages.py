"""Message heads and header hygiene: what of a message may cross, and how its body is framed.

Both directions of design section 5 live here, as pure functions over lists of `(name, value)` bytes. The
order is fixed (promises P5, P8-P10): drop hop-by-hop and nominated fields, drop protected names in every
spelling, drop ambiguous spellings, then the route's rules, then ours, last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from strangle_mw.core.model import HeaderRules

Header = tuple[bytes, bytes]

CHUNKED = -1
"""A body whose length is not known before its end (`RequestHead` has `Transfer-Encoding: chunked`)."""
UNDECLARED = -2
"""HTTP/2 and later: a body may follow although no field says so; its first event tells."""

STANDARD_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY"))

is_token = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
"""RFC 9110 section 5.6.2; methods and field names."""
_is_length = re.compile(rb"[0-9]{1,18}").fullmatch
_is_host = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,=%-]*)(?::[0-9]*)?").fullmatch
_LEGAL_IN_VALUE = b"\t" + bytes(b for b in range(0x20, 256) if b != 0x7F)  # noqa: PLR2004 - DEL
# What may stand in a target that is sent on: no blanks, controls, fragment (RFC 9112 section 3.2).
_LEGAL_IN_TARGET = bytes(b for b in range(0x21, 256) if b not in (0x7F, 0x23))

# What is done with a field: those up to _VIA cross, those from _LENGTH on say something to us.
_PASS, _LENGTH, _VIA, _CODING, _HOST, _CONNECTION, _FORWARDING, _DROP = range(8)

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer "
    b"transfer-encoding upgrade expect http2-settings".split()
)
"""RFC 9110 section 7.6.1, and `Expect`, which the server in front has answered. Trailers do not cross, so
`TE: trailers` does not either."""
_APPENDABLE = (
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-forwarded-prefix",
    b"forwarded",
)
_SPOOFABLE = frozenset(b"x-real-ip x-original-url x-rewrite-url proxy remote-user".split())
_UNNOMINATABLE = frozenset({b"content-length", b"host", b"transfer-encoding"})
_COMMON = (
    b"accept accept-charset accept-encoding accept-language authorization cache-control content-encoding "
    b"content-language content-type cookie date dnt etag if-match if-modified-since if-none-match if-range "
    b"if-unmodified-since last-event-id origin pragma priority range referer sec-fetch-dest sec-fetch-mode "
    b"sec-fetch-site sec-fetch-user traceparent tracestate user-agent upgrade-insecure-requests x-request-id "
    b"x-requested-with"
).split()

TITLES: Mapping[int, str] = {
    400: "Bad Request",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
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


@dataclass(eq=False)
class RequestHead:
    """A request as conditions, `when` and the forwarding code see it; treat it as read-only.

    `path` and `query` are raw bytes, `headers` a list of `(lower-case name, value)` bytes in their order,
    `peer` the address of the other end as the server reports it ("" if it has none), `authority` that of an
    absolute-form target, which goes before `Host` (RFC 9112 section 3.2.2).
    """

    method: str
    path: bytes
    query: bytes
    headers: Sequence[Header]
    scheme: str = "http"
    peer: str = ""
    authority: bytes = b""
    http_version: str = "1.1"

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
    def cookies(self) -> Mapping[str, str]:
        """The request's cookies; of two with one name the first counts (RFC 6265 section 5.4 order)."""
        found: dict[str, str] = {}
        for pair in ";".join(v.decode("latin-1") for n, v in self.headers if n == b"cookie").split(";"):
            name, equals, value = pair.strip().partition("=")
            if equals:
                found.setdefault(name.strip(), value.strip().strip('"'))
        return found

    @cached_property
    def query_params(self) -> Mapping[str, str]:
        """The decoded query; of a repeated parameter the first counts (Gateway API)."""
        pairs = parse_qsl(self.query.decode("latin-1"), keep_blank_values=True, max_num_fields=1000)
        return dict(reversed(pairs))


def normalize_host(host: str) -> str:
    """Lower-case a host and drop its port and one final dot (RFC 9110 section 4.2.3)."""
    host = host.lower()
    name, colon, port = host.rpartition(":")
    if colon and (not port or port.isdigit()) and (":" not in name or name.endswith("]")):
        host = name
    return host.removesuffix(".")


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

    def apply(self, headers: list[Header]) -> list[Header]:
        """Return the headers after `remove`, `set` and `add`."""
        if self.drop:
            headers = [h for h in headers if h[0] not in self.drop]
        headers.extend(self.add)
        return headers


def _encode(pairs: Iterable[tuple[str, str]]) -> Iterable[Header]:
    return ((name.lower().encode("latin-1"), value.encode("utf-8")) for name, value in pairs)


NO_RULES = HeaderPlan()


@dataclass(frozen=True, slots=True)
class Hygiene:
    """What of an inbound message is trusted: the table-wide half of the header rules.

    `trusted` tells whether a peer's forwarding headers are kept and appended to, `allowed` names spelt with
    `_` or `.` that pass (lower case), `hop_marker` our own keyed entry in `Via`.
    """

    hop_marker: bytes
    allowed: frozenset[bytes] = frozenset()
    trusted: frozenset[str] | TrustedPeers = frozenset()
    via: Header = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "via", (b"via", b"1.1 " + self.hop_marker))


@dataclass(frozen=True, slots=True)
class TrustedPeers:
    """Addresses and networks whose forwarding headers count; `peer in trusted`."""

    networks: tuple[object, ...]

    def __contains__(self, peer: object) -> bool:
        return isinstance(peer, str) and _in_networks(peer, self.networks)


@lru_cache(maxsize=1024)
def _in_networks(peer: str, networks: tuple[object, ...]) -> bool:
    from ipaddress import IPv4Network, IPv6Network, ip_address  # only tables with trusted proxies pay for it

    try:
        address = ip_address(peer)
    except ValueError:
        return peer in networks  # "unix": a peer on a Unix socket has no address
    return any(isinstance(n, IPv4Network | IPv6Network) and address in n for n in networks)


def forward_headers(
    head: RequestHead, hygiene: Hygiene, plan: HeaderPlan = NO_RULES, prefix: bytes = b""
) -> tuple[list[Header], int]:
    """Build the headers that are sent upstream, without `Host`: `(headers, length of the body)`.

    The length is that of `Content-Length`, `CHUNKED`, `UNDECLARED`, or 0 for no body; `Transfer-Encoding` is
    left to the sender. Raises `Refused` on anything that two servers could frame differently (promise P5).
    """
    kept: list[Header] = []
    values: list[bytes] = []
    marked: list[tuple[int, Header]] = []
    for header in head.headers:
        name, value = header
        values.append(value)
        action = _ACTIONS.get(name)
        if action == _PASS:
            kept.append(header)
            continue
        if action is None:
            lower = name.lower()
            action = _classify(lower, lower in hygiene.allowed)
            header = (lower, value)  # noqa: PLW2901 - servers give lower-case names, nearly all of them
        if action <= _VIA:
            kept.append(header)
        if action:
            marked.append((action, header))
    if b"".join(values).translate(None, _LEGAL_IN_VALUE):
        raise Refused(400, "bad-header")
    kept, inbound, length, host = _weigh(marked, kept, head, hygiene)
    if plan is not NO_RULES:
        kept = plan.apply(kept)
    ours = _forwarding(head.peer, host, head.scheme, prefix)
    kept.extend(_append(inbound, ours) if inbound and head.peer in hygiene.trusted else ours)
    kept.append(hygiene.via)
    return kept, length


def _weigh(
    marked: Iterable[tuple[int, Header]], kept: list[Header], head: RequestHead, hygiene: Hygiene
) -> tuple[list[Header], list[Header], int, bytes]:
    """Act on the headers that say something to us: `(kept, the client's forwarding headers, length, host)`."""
    hosts: list[bytes] = []
    connection: tuple[bytes, ...] = ()
    framing: list[Header] = []
    inbound: list[Header] = []
    for action, header in marked:
        if action == _HOST:
            hosts.append(header[1])
        elif action == _CONNECTION:
            connection += (header[1],)
        elif action in (_LENGTH, _CODING):
            framing.append(header)
        elif action == _FORWARDING:
            inbound.append(header)
        elif action == _VIA and hygiene.hop_marker in header[1]:
            raise Refused(508, "loop")
    host = _one_host(hosts, head.authority)
    if connection and (nominated := nominated_names(connection)):
        kept = [h for h in kept if h[0] not in nominated]
        inbound = [h for h in inbound if h[0] not in nominated]
    return kept, inbound, _length(framing, head.http_version), host


@lru_cache(maxsize=2048)
def _classify(name: bytes, allowed: bool) -> int:
    """Decide on a name outside `_ACTIONS`; `_` and `.` read as `-`, as WSGI folds them (PEP 3333)."""
    if not is_token(name):
        raise Refused(400, "bad-header")
    canonical = name.replace(b"_", b"-").replace(b".", b"-")
    if canonical.startswith(b"x-forwarded-") or canonical == b"forwarded":
        return _FORWARDING if canonical == name else _DROP
    if canonical in HOP_BY_HOP or canonical in _SPOOFABLE or canonical.startswith(b"strangle-"):
        return _DROP
    if canonical == name or (allowed and canonical not in _ACTIONS):
        return _PASS
    return _DROP


_ACTIONS: Mapping[bytes, int] = {
    **dict.fromkeys(_COMMON, _PASS),
    **dict.fromkeys(HOP_BY_HOP, _DROP),
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"host": _HOST,
    b"connection": _CONNECTION,
    # Some servers add the trailers to the headers; those announced can be told apart (RFC 9110 section 6.6.2).
    b"trailer": _CONNECTION,
    b"via": _VIA,
}


@lru_cache(maxsize=256)
def nominated_names(connection: tuple[bytes, ...]) -> frozenset[bytes]:
    """Return the field names that `Connection` headers list, in lower case, but those nobody may remove."""
    tokens = {t.strip().lower() for value in connection for t in value.split(b",")}
    return frozenset(tokens - {b"", b"close", b"keep-alive"} - _UNNOMINATABLE)


def _length(framing: Sequence[Header], http_version: str) -> int:
    """Read the one framing of the body, or refuse (RFC 9112 section 6.3)."""
    if not framing:
        return UNDECLARED if http_version >= "2" else 0
    if len(framing) == 1:
        name, value = framing[0]
        if name == b"content-length" and _is_length(value):
            return int(value)
        if name == b"transfer-encoding" and value.strip().lower() == b"chunked":
            return CHUNKED
    raise Refused(400, "bad-framing")


def _one_host(hosts: Sequence[bytes], authority: bytes) -> bytes:
    """Return the authority that was asked for, or refuse (RFC 9112 section 3.2)."""
    if len(hosts) > 1 or not all(map(_usable_host, (*hosts, authority))):
        raise Refused(400, "bad-host")
    return authority or (hosts[0].strip() if hosts else b"")


@lru_cache(maxsize=1024)
def _usable_host(host: bytes) -> bool:
    return _is_host(host.strip()) is not None


@lru_cache(maxsize=1024)
def _forwarding(peer: str, host: bytes, scheme: str, prefix: bytes) -> tuple[Header, ...]:
    """Say who asked for what, as this process saw it: `X-Forwarded-*` and RFC 7239's `Forwarded`."""
    node = (f'"[{peer}]"' if ":" in peer else peer or "unknown").encode("latin-1", "replace")
    found = [
        (b"x-forwarded-for", peer.encode("latin-1", "replace")),
        (b"x-forwarded-host", host),
        (b"x-forwarded-proto", scheme.encode("latin-1", "replace")),
        (b"x-forwarded-prefix", prefix),
        (
            b"forwarded",
            b"for=" + node + (b';host="' + host + b'"' if host else b"") + b";proto=" + scheme.encode(),
        ),
    ]
    return tuple(h for h in found if h[1])


def _append(inbound: Sequence[Header], ours: Iterable[Header]) -> list[Header]:
    """Keep a trusted peer's forwarding headers: append to the lists, leave host, scheme and prefix to it."""
    own = dict(ours)
    merged: list[Header] = [h for h in inbound if h[0] not in _APPENDABLE]
    for name in _APPENDABLE:
        theirs = [v for n, v in inbound if n == name]
        mine = [own[name]] if name in own else []
        if theirs and name not in (b"x-forwarded-for", b"forwarded"):
            mine = []
        if theirs or mine:
            merged.append((name, b", ".join(theirs + mine)))
    return merged


def check_target(target: bytes) -> None:
    """Refuse a request target that has no place on a request line (RFC 9112 section 3.2)."""
    if target.translate(None, _LEGAL_IN_TARGET):
        raise Refused(400, "bad-target")


def answer_headers(headers: Iterable[Header], status: int, plan: HeaderPlan = NO_RULES) -> list[Header]:
    """Build the headers of an upstream's answer as the client gets them, names in lower case.

    `Date` and `Server` are left to the server in front, which speaks for the origin and would double them
    (proxy trap 19). 204 and 304 carry no length (RFC 9110 sections 8.6, 15.4.5). Raises `ForwardError` for
    names or values that could end a header early (promise P5).
    """
    kept: list[Header] = []
    values: list[bytes] = []
    connection: tuple[bytes, ...] = ()
    for name, value in headers:
        values.append(value)
        known = _answer_name(name)
        if known is not None:
            kept.append((known, value))
        elif name.lower() == b"connection":
            connection += (value,)
    if b"".join(values).translate(None, _LEGAL_IN_VALUE):
        raise ForwardError("head", "control bytes in a header of the answer", request_sent=True)
    if connection and (nominated := nominated_names(connection)):
        kept = [h for h in kept if h[0] not in nominated]
    if status in (204, 304):
        kept = [h for h in kept if h[0] != b"content-length"]
    return plan.apply(kept) if plan is not NO_RULES else kept


@lru_cache(maxsize=2048)
def _answer_name(name: bytes) -> bytes | None:
    """Return a field's name in lower case, or None if it does not cross."""
    if not is_token(name):
        raise ForwardError("head", "a header of the answer has no valid name", request_sent=True)
    name = name.lower()
    dropped = name in HOP_BY_HOP or name in (b"date", b"server") or name.startswith(b"strangle-")
    return None if dropped else name


def problem(status: int, reason: str, request_id: str) -> tuple[list[Header], bytes]:
    """Build the library's own error answer: RFC 9457, no addresses, nothing of the request in it (P23)."""
    title = TITLES.get(status, "Error")
    body = (
        f'{{"type":"urn:strangle-mw:{reason}","title":"{title}","status":{status},"request_id":"{request_id}"}}'
    ).encode()
    headers: list[Header] = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 503:  # noqa: PLR2004 - RFC 9110 section 10.2.3
        headers.append((b"retry-after", b"1"))
    if status == 405:  # noqa: PLR2004
        headers.append((b"allow", b"GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"))
    return headers, body
