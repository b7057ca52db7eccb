"""Which routes cover which endpoints of the wrapped app: wholly, partly or not.

The compiled table is asked with sample requests, so that precedence and carve-outs count as they do for
real ones: general ones of the endpoint, and one for each route whose path may be one of its. No condition is
evaluated, and no code of the user's runs: a route with conditions covers partly.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import quote

from strangle_mw.core.compiled import CompiledRoute
from strangle_mw.core.explain import candidates
from strangle_mw.core.inventory import ANY_SEGMENT, WEBSOCKET
from strangle_mw.core.messages import RequestHead
from strangle_mw.core.paths import split
from strangle_mw.core.patterns import TYPES
from strangle_mw.core.routing import RouteTable
from strangle_mw.core.samples import samples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from strangle_mw.core.decision import Snapshot
    from strangle_mw.core.inventory import AppEndpoint
    from strangle_mw.core.patterns import Segment

Extent = Literal["wholly", "partly", "not", "unknown"]

ANY_METHOD: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""What is asked with for an endpoint that takes any method, beside those that routes name."""

SOME_HOST: Final = "zq.invalid"
"""A host that no table names (RFC 6761 section 6.4)."""

_SAFE = "/~!$&'()*+,;=:@"


@dataclass(frozen=True, slots=True)
class Cover:
    """How far an endpoint's requests with one method have a route: names, the most frequent first."""

    method: str
    extent: Extent
    routes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Asked:
    """What came of the samples of one endpoint and method."""

    routes: Counter[str] = field(default_factory=Counter)
    legacy: int = 0

    def cover(self, method: str) -> Cover:
        extent: Extent = "partly" if self.routes else "not"
        if self.routes and not self.legacy:
            extent = "wholly"
        return Cover(method, extent, tuple(name for name, _ in self.routes.most_common()))


class Coverage:
    """Joins endpoints with one table; `touched` names the routes that some endpoint's requests meet."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._table = snapshot.table
        self._loose = snapshot.options.trailing_slash == "ignore"
        self._views: dict[tuple[int, ...], Snapshot] = {}
        # Routes by the literal segments that they start with: by all of them, and by the first few.
        self._exactly: dict[tuple[str, ...], list[CompiledRoute]] = defaultdict(list)
        self._starting: dict[tuple[str, ...], list[CompiledRoute]] = defaultdict(list)
        self.touched: set[str] = set()
        for route in snapshot.table.routes:
            literals = _literals(route)
            self._exactly[literals].append(route)
            for length in range(len(literals) + 1):
                self._starting[literals[:length]].append(route)

    def of(self, endpoint: AppEndpoint) -> tuple[Cover, ...]:
        """Say for each of an endpoint's methods how far it is covered."""
        near = self._near(_fixed_segments(endpoint))
        paths = self._paths(endpoint, near)
        named = {m for r in near for m in r.methods}
        methods = sorted(endpoint.methods or {*ANY_METHOD, *named})
        if not paths:
            return tuple(Cover(m, "unknown") for m in methods)
        hosts = _hosts(endpoint, near)
        return tuple(self._ask(paths, hosts, m).cover(m) for m in methods)

    def beside(self, endpoint: AppEndpoint) -> tuple[str, ...]:
        """Name the routes that an endpoint would have, were there one slash more or less at its end."""
        if self._loose or endpoint.regex is None:
            return ()
        near, found = self._near(_fixed_segments(endpoint)), Counter[str]()
        paths = {p[:-1] if p.endswith("/") else p + "/" for p in _general(endpoint) if p != "/"}
        touched = set(self.touched)
        for method in endpoint.methods or ANY_METHOD:
            outside = [_raw(p) for p in paths if not endpoint.regex.fullmatch(p)]
            found += self._ask(outside, _hosts(endpoint, near), method).routes
        self.touched = touched
        return tuple(found)

    def _near(self, fixed: tuple[str, ...]) -> list[CompiledRoute]:
        """Return the routes whose literal beginning does not exclude paths that start with these segments."""
        before = [r for length in range(len(fixed)) for r in self._exactly.get(fixed[:length], ())]
        return [*before, *self._starting.get(fixed, ())]

    def _paths(self, endpoint: AppEndpoint, near: Sequence[CompiledRoute]) -> list[bytes]:
        general, regex = _general(endpoint), endpoint.regex
        if not general or regex is None:
            return []
        found = dict.fromkeys(general)
        for route in near:
            made = _made_of(route, general)
            found.update((p, None) for p in made if regex.fullmatch(p))
        return [_raw(p) for p in found]

    def _ask(self, paths: Sequence[bytes], hosts: Sequence[str], method: str) -> _Asked:
        asked = _Asked()
        for path in paths:
            for host in hosts:
                self._tell(asked, path, "GET" if method == WEBSOCKET else method, host)
        return asked

    def _tell(self, asked: _Asked, path: bytes, method: str, host: str) -> None:
        """Note which routes may take one request: conditional ones, and the first without a condition."""
        for route in self._takers(path, method, host):
            self.touched.add(route.name)
            if route.action is None:
                asked.legacy += 1
            else:
                asked.routes[route.name] += 1
            if not route.conditional:
                return
        asked.legacy += 1

    def _takers(self, path: bytes, method: str, host: str) -> Iterator[CompiledRoute]:
        found = self._table.match(path, method)
        if found is None or isinstance(found, CompiledRoute):
            yield from () if found is None else (found,)
            return
        head = RequestHead(method, path, b"", [(b"host", host.encode())])
        for candidate in candidates(self._view(path), head):
            if candidate.refused is None:
                yield self._table.by_name[candidate.route.name]

    def _view(self, path: bytes) -> Snapshot:
        """Return the routes that may fit a path, without conditions, as `explain` takes them."""
        near = self._near(tuple(split(path)))
        key = tuple(r.index for r in near)
        if key not in self._views:
            table = RouteTable([replace(r, tests=(), when=None) for r in near])
            self._views[key] = replace(self._snapshot, table=table)
        return self._views[key]


def _literals(route: CompiledRoute) -> tuple[str, ...]:
    """Return the literal segments that every path of a route starts with."""
    found: list[str] = []
    for segment in route.pattern.segments if route.pattern is not None else ():
        if segment.name:
            break
        found.append(segment.prefix)
    return tuple(found)


def _fixed_segments(endpoint: AppEndpoint) -> tuple[str, ...]:
    """Return the segments that every path of an endpoint starts with."""
    first = endpoint.path[0] if endpoint.path else ""
    if not isinstance(first, str):
        return ()
    segments = tuple(_segments(first))
    return segments if len(endpoint.path) == 1 and not endpoint.loose_slash else segments[:-1]


def _segments(path: str) -> list[str]:
    return path.split("/")[1:] or [""]


def _raw(path: str) -> bytes:
    return quote(path, safe=_SAFE).encode()


def _general(endpoint: AppEndpoint) -> list[str]:
    """Return paths of an endpoint: the n-th has the n-th sample of each parameter."""
    values = [[p] if isinstance(p, str) else list(samples(p.regex)) for p in endpoint.path]
    if not all(values) or endpoint.regex is None:
        return []
    found = ["".join(v[n % len(v)] for v in values) for n in range(max(map(len, values), default=0))]
    if endpoint.loose_slash:
        found += [p[:-1] if p.endswith("/") else p + "/" for p in found]
    return [p for p in dict.fromkeys(found) if p.startswith("/") and endpoint.regex.fullmatch(p)]


def _made_of(route: CompiledRoute, general: Sequence[str]) -> Iterator[str]:
    """Yield paths of a route, as near to an endpoint's as can be."""
    if route.pattern is None:
        yield from samples(route.declared.regex or "")
        return
    declared = route.pattern.segments
    for path in general:
        segments = _segments(path)
        own = [*segments, *[""] * len(declared)]
        made = [_fitting(segment, text) for segment, text in zip(declared, own, strict=False)]
        yield "/" + "/".join(made + (segments[len(made) :] if route.pattern.subtree else []))


def _fitting(segment: Segment, text: str) -> str:
    """Return a text if it fits a route's segment, else one that does, as like it as can be."""
    own = samples(TYPES[segment.type].pattern if segment.type else ANY_SEGMENT)[0] if segment.name else ""
    tried = (text, segment.prefix + text + segment.suffix)
    return next((t for t in tried if segment.matches(t)), segment.prefix + own + segment.suffix)


def _hosts(endpoint: AppEndpoint, near: Sequence[CompiledRoute]) -> list[str]:
    """Return hosts to ask for: of the endpoint's, a general one and those that routes name."""
    named = dict.fromkeys(h.replace("*", "zq") for r in near for h in r.hosts)
    if not endpoint.hosts:
        return [SOME_HOST, *named]
    general = [h.replace("*", "zq") for h in endpoint.hosts]
    suffixes = tuple(h[1:] for h in endpoint.hosts if h.startswith("*."))
    return list(dict.fromkeys([*general, *(n for n in named if suffixes and n.endswith(suffixes))]))
