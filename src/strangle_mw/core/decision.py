"""What happens to one request: `prepare` is the one door that every request goes through.

Pure: the request comes in as plain values, a `Decision` goes out, and nobody else decides. Drivers read
the request and act on the answer; they add no rule of their own (promises P1-P3, P24).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from strangle_mw.core.compiled import CompiledRoute, ForwardTo, RedirectTo
from strangle_mw.core.hygiene import Hygiene, asked_id, forward_headers, is_https, public_host, read_fields
from strangle_mw.core.identity import check_origin, is_unsafe
from strangle_mw.core.messages import (
    STANDARD_METHODS,
    Header,
    Refused,
    RequestHead,
    check_method,
    check_target,
)
from strangle_mw.core.paths import is_plain, neutralize_slashes, readings, request_path, requote
from strangle_mw.core.settings import Settings, TableOptions
from strangle_mw.core.staging import MODERN_STAGES, Crowd, choose_side, share_point

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.core.dials import Dial
    from strangle_mw.core.routing import RouteTable
    from strangle_mw.core.sticky import Mark
    from strangle_mw.errors import Problem


class Legacy(NamedTuple):
    """The wrapped app answers; the request is not touched.

    `LEGACY` is the default route. With a `route`, its stage has decided so: the hit is counted, and a
    canaried answer gets its `mark`.
    """

    route: CompiledRoute | None = None
    dial: Dial | None = None
    mark: Mark | None = None

    def __repr__(self) -> str:
        return "LEGACY" if self.route is None else f"<legacy, by {self.route.name!r}>"


LEGACY: Final = Legacy()


@dataclass(frozen=True, slots=True)
class Reject:
    """The library answers with an error: `status`, a reason from a closed set, the request's id if any."""

    status: int
    reason: str
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """The library answers as a route says: a redirect or a fixed response."""

    route: CompiledRoute
    status: int
    headers: Sequence[Header]
    body: bytes
    dial: Dial
    mark: Mark | None = None


class Forward(NamedTuple):
    """The request goes upstream.

    `target` is path and query below the upstream's base path; `fields` are the headers as they are written,
    all but `Host` and `Transfer-Encoding`; `length` is that of the body (see `hygiene.forward_headers`);
    `request_id` the client's, or one made for it. `dial` is the stage and weight that decided, `mark` what a
    canaried answer gets.
    """

    route: CompiledRoute
    action: ForwardTo
    upstream: CompiledUpstream
    target: bytes
    fields: bytes
    length: int
    max_body: int | None
    head: RequestHead
    request_id: bytes
    dial: Dial
    mark: Mark | None = None

    def host(self, endpoint: int) -> bytes:
        """Return the `Host` that is sent to one of the upstream's endpoints.

        Functions and apps in this process have none of their own: they see what the client asked for.
        """
        own = self.upstream.endpoints[endpoint].authority
        return own if own and self.upstream.declared.host == "upstream" else self.head.raw_host or own

    @property
    def headers(self) -> list[Header]:
        """The headers as a list, for upstreams that are not reached by HTTP/1.1."""
        return read_fields(self.fields)


Decision = Legacy | Reject | Answer | Forward


class HeadReader(Protocol):
    """How a driver's request is read; `source` is an ASGI scope or a WSGI environ.

    `encoding` is that of the decoded path: "utf-8" under ASGI, "latin-1" under WSGI (PEP 3333).
    """

    encoding: str

    def head(self, source: Any, path: bytes, authority: bytes) -> RequestHead:
        """Build the request's head, before anything of its body is read (promise P8)."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All that decides, of one revision; replaced whole, by one reference.

    `dials` holds the stage and weight of the routes that were changed live, on top of the table.
    """

    table: RouteTable
    upstreams: Mapping[str, CompiledUpstream]
    options: TableOptions = field(default_factory=TableOptions)
    hygiene: Hygiene = field(default_factory=lambda: Hygiene(b"strangle-none"))
    settings: Settings = field(default_factory=Settings)
    revision: str = ""
    warnings: Sequence[Problem] = ()
    crowd: Crowd = field(default_factory=Crowd)
    dials: Mapping[str, Dial] = field(default_factory=dict)

    def dial(self, route: CompiledRoute) -> Dial:
        """Return the stage and weight that are in force for a route."""
        return self.dials.get(route.name, route.staging.dial) if self.dials else route.staging.dial

    def active(self, route: object) -> CompiledRoute | None:
        """Return what was matched if it may take a request away from the wrapped app, else None."""
        if isinstance(route, CompiledRoute) and route.action is not None:
            return route if self.dial(route).stage in MODERN_STAGES else None
        return None


def prepare(
    snapshot: Snapshot, method: str, raw: bytes | None, decoded: str, source: Any, reader: HeadReader
) -> Decision:
    """Decide on one request.

    `raw` is the request target's path as the client sent it (a query may follow), None if the server does
    not tell; `decoded` the path that the wrapped app sees. Nothing else of the request is read unless it is
    needed: a plain path without a route costs one regular expression and one or two dictionary look-ups.
    """
    target = _encode(decoded, reader.encoding) if raw is None else raw
    if is_plain(target) and (text := target.decode("ascii")) == decoded:
        found = snapshot.table.match_plain(text, method)
        if found is None:
            return LEGACY
        if isinstance(found, CompiledRoute):
            if found.action is None:
                return LEGACY
            dial = snapshot.dial(found)
            if dial.stage not in MODERN_STAGES:
                return Legacy(found, dial)
            return _act(snapshot, found, dial, _head(snapshot, reader, source, target), plain=True)
        head = _head(snapshot, reader, source, target)
        found = snapshot.table.match_plain(text, method, head)
        if isinstance(found, CompiledRoute):
            return _act(snapshot, found, snapshot.dial(found), head, plain=True)
        return LEGACY
    path, authority = request_path(raw, _encode(decoded, reader.encoding))
    if _no_reading_has_a_route(snapshot.table, path, method):
        return LEGACY
    return _prepare_carefully(snapshot, path, _head(snapshot, reader, source, path, authority))


def _head(
    snapshot: Snapshot, reader: HeadReader, source: Any, path: bytes, authority: bytes = b""
) -> RequestHead:
    head = reader.head(source, path, authority)
    head.identify = snapshot.crowd.identify
    return head


def _encode(decoded: str, encoding: str) -> bytes:
    """Return a decoded path's bytes; one that no HTTP request can have (a test's, say) matches no route."""
    try:
        return decoded.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return b""


def _no_reading_has_a_route(table: RouteTable, path: bytes, method: str) -> bool:
    return all(table.match(r if r == path else requote(r), method) is None for r in readings(path))


def _prepare_carefully(snapshot: Snapshot, path: bytes, head: RequestHead) -> Decision:
    """Decide on a request whose path could be read in more than one way."""
    found = snapshot.table.match(path, head.method, head)
    route = snapshot.active(found)
    plain = is_plain(path) is not None
    if not plain and not _one_reading(snapshot, path, head, route):
        return _ambiguous(snapshot, head, route)
    if isinstance(found, CompiledRoute):
        return _act(snapshot, found, snapshot.dial(found), head, plain=plain)
    return LEGACY


def _ambiguous(snapshot: Snapshot, head: RequestHead, route: CompiledRoute | None) -> Decision:
    if snapshot.options.ambiguous == "legacy":
        return LEGACY if route is None else Legacy(route, snapshot.dial(route))
    return Reject(400, "ambiguous-path", asked_id(head))


def _one_reading(snapshot: Snapshot, path: bytes, head: RequestHead, route: CompiledRoute | None) -> bool:
    """Tell whether every reading of the path selects the same route (promise P1)."""
    for reading in readings(_as_data(route, path)):
        found = snapshot.table.match(path if reading == path else requote(reading), head.method, head)
        if snapshot.active(found) is not route:
            return False
    return True


def _as_data(route: CompiledRoute | None, path: bytes) -> bytes:
    """Take encoded slashes inside the parameters of an `encoded_slash` route for data."""
    if route is None or not route.encoded_slash or route.pattern is None:
        return path
    segments = path.split(b"/")
    for at, segment in enumerate(route.pattern.segments, start=1):
        if segment.name:
            segments[at] = neutralize_slashes(segments[at])
    return b"/".join(segments)


def _act(snapshot: Snapshot, route: CompiledRoute, dial: Dial, head: RequestHead, *, plain: bool) -> Decision:
    action = route.action
    if action is None:
        return LEGACY
    modern, mark = choose_side(route.staging, dial, head, snapshot.crowd)
    if not modern:
        return Legacy(route, dial, mark)
    try:
        if head.method not in STANDARD_METHODS:
            check_method(head.method)
        if isinstance(action, ForwardTo):
            return _forward(snapshot, route, action, head, dial, mark, plain=plain)
        if isinstance(action, RedirectTo):
            headers = _redirect(route, action, head)
            return Answer(route, action.status, headers, b"", dial, mark)
        body = b"" if head.method == "HEAD" else action.body
        return Answer(route, action.status, action.headers, body, dial, mark)
    except Refused as refused:
        return Reject(refused.status, refused.reason, asked_id(head))


def _forward(
    snapshot: Snapshot,
    route: CompiledRoute,
    action: ForwardTo,
    head: RequestHead,
    dial: Dial,
    mark: Mark | None,
    *,
    plain: bool,
) -> Decision:
    rewrite = action.rewrite
    target = path = rewrite.apply(route, head.path)
    if path is not head.path:
        plain = is_plain(path) is not None
    if not plain and not rewrite.stays_inside(rewrite.apply(route, _as_data(route, head.path))):
        return _ambiguous(snapshot, head, route)
    if head.query:
        target = path + b"?" + head.query
    if not plain or head.query:
        check_target(target)
    upstream = action.upstreams[0]
    if len(action.upstreams) > 1:
        point = share_point(route.staging, head, snapshot.crowd)
        upstream = next(u for u, bound in zip(action.upstreams, action.shares, strict=True) if point < bound)
    fields, length, request_id = forward_headers(
        head,
        snapshot.hygiene,
        action.request_headers,
        rewrite.prefix,
        withheld=action.withheld,
        identity=_token(snapshot, upstream, head, path) if action.identity else b"",
    )
    max_body = snapshot.settings.max_body
    if max_body is not None and length > max_body:
        return Reject(413, "body-too-large", asked_id(head))
    return Forward(route, action, upstream, target, fields, length, max_body, head, request_id, dial, mark)


def _token(snapshot: Snapshot, upstream: CompiledUpstream, head: RequestHead, path: bytes) -> bytes:
    """Mint the token that says who the user is; b"" for nobody. Refuses what another site's page may ask."""
    identity, crowd = head.identity, snapshot.crowd
    if identity is None or head.method == "TRACE":  # whose answer would show it (RFC 9110 section 9.3.8)
        return b""
    if identity.from_cookie and is_unsafe(head):
        hygiene = snapshot.hygiene
        host, https = public_host(head, hygiene), is_https(head, hygiene)
        check_origin(head, host, https=https, origins=crowd.origins)
    if crowd.minter is None:
        raise Refused(502, "identity")
    try:
        return crowd.minter.mint(
            upstream.name, identity, head.method, upstream.endpoints[0].base + path, head.query
        )
    except ValueError as exc:
        raise Refused(502, "identity") from exc


def _redirect(route: CompiledRoute, action: RedirectTo, head: RequestHead) -> list[Header]:
    # Only one slash in front: `//host` and `/\host` in a Location are other sites (promise P23).
    location = b"/" + action.template.fill(route.capture(head.path)).lstrip(b"/\\")
    if head.query:
        location += b"?" + head.query
    check_target(location)
    return [(b"location", action.origin + location), (b"content-length", b"0")]


__all__ = [
    "LEGACY",
    "Answer",
    "Decision",
    "Forward",
    "HeadReader",
    "Legacy",
    "Reject",
    "Snapshot",
    "prepare",
]
