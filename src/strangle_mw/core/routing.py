"""Which route a request takes: all routes in one immutable table that is walked segment by segment.

The rule (design section 3.3) is a comparison of any two routes; the table gives the same answer without
comparing. A trie node's children are visited in the order of precedence, and a leaf's routes are kept
sorted, so the first route whose every condition holds is the best one. Children of *equal* rank (two typed
parameters, two partial segments with as many literal characters) are walked together, because the next
segment may still decide between them. `tests/laws/naive.py` holds the naive form of the rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from strangle_mw.core.model import MAX_REGEX_PATH
from strangle_mw.core.paths import is_plain, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from strangle_mw.core.compiled import CompiledRoute
    from strangle_mw.core.messages import RequestHead
    from strangle_mw.core.patterns import PathPattern, Segment

    Found: TypeAlias = "CompiledRoute | _NeedsHead | None"


class _NeedsHead:
    """The type of `NEEDS_HEAD`."""

    __slots__ = ()


NEEDS_HEAD: Final = _NeedsHead()
"""The answer of `match` when headers decide and none were given: call again with the request's head.

The default route never builds a head, and most routes do not need one."""


class _Leaf:
    """The routes that end at one place of the trie, sorted for each method."""

    __slots__ = ("by_method", "others", "routes")

    def __init__(self) -> None:
        self.routes: list[CompiledRoute] = []
        self.by_method: dict[str, tuple[CompiledRoute, ...]] = {}
        self.others: tuple[CompiledRoute, ...] = ()

    def freeze(self) -> None:
        methods = {m for r in self.routes for m in r.methods}
        for method in methods | ({"HEAD"} if "GET" in methods else set()):
            self.by_method[method] = self._accepting(method)
        self.others = self._accepting("")

    def _accepting(self, method: str) -> tuple[CompiledRoute, ...]:
        fitting = (r for r in self.routes if r.method_rank(method) is not None)
        return tuple(sorted(fitting, key=lambda r: r.precedence(method)))

    def get(self, method: str) -> tuple[CompiledRoute, ...]:
        return self.by_method.get(method, self.others)


class _Node:
    """One place in the trie; `ranked` holds children with parameters, grouped by rank, best first."""

    __slots__ = ("below", "children", "leaf", "literals", "ranked")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.children: dict[Segment, _Node] = {}
        self.ranked: tuple[tuple[tuple[int, int], tuple[tuple[Segment, _Node], ...]], ...] = ()
        self.leaf: _Leaf | None = None
        self.below: _Leaf | None = None

    def child(self, segment: Segment, shape: Segment) -> _Node:
        if not segment.name:
            return self.literals.setdefault(segment.prefix, _Node())
        return self.children.setdefault(shape, _Node())

    def freeze(self) -> None:
        for leaf in (self.leaf, self.below):
            if leaf is not None:
                leaf.freeze()
        groups: dict[tuple[int, int], list[tuple[Segment, _Node]]] = {}
        for segment, node in self.children.items():
            groups.setdefault(segment.rank, []).append((segment, node))
        self.ranked = tuple((rank, tuple(groups[rank])) for rank in sorted(groups))
        for node in (*self.literals.values(), *self.children.values()):
            node.freeze()


class _Group:
    """The routes of one host name: exact paths by text, all paths as a trie, regular expressions."""

    __slots__ = ("exact", "regexes", "root")

    def __init__(self, routes: Iterable[CompiledRoute]) -> None:
        self.root = _Node()
        self.exact: dict[str, _Leaf] = {}
        self.regexes = _Leaf()
        for route in routes:
            if route.pattern is None:
                self.regexes.routes.append(route)
            else:
                self._insert(route, route.pattern)
        self.root.freeze()
        self.regexes.freeze()

    def _insert(self, route: CompiledRoute, pattern: PathPattern) -> None:
        node = self.root
        for segment in pattern.segments:
            node = node.child(segment, segment.shape)
        if pattern.subtree:
            node.below = node.below or _Leaf()
            node.below.routes.append(route)
            return
        node.leaf = node.leaf or _Leaf()
        node.leaf.routes.append(route)
        text = "/" + "/".join(s.prefix for s in pattern.segments)
        if not pattern.names and is_plain(text.encode("utf-8", "replace")):
            self.exact[text] = node.leaf

    def first_segments(self) -> Mapping[str, object] | None:
        """Return what every path with a route here starts with; None if that cannot be told.

        With it most requests of the default route end at their first segment.
        """
        root = self.root
        return None if root.ranked or root.below is not None or self.regexes.routes else root.literals

    def find(self, text: str, segments: Sequence[str], method: str, head: RequestHead | None) -> Found:
        found = _search(self.root, segments, 1, method, head)
        if found is None and self.regexes.routes:
            found = self._find_regex(text, method, head)
        return found

    def _find_regex(self, text: str, method: str, head: RequestHead | None) -> Found:
        if len(text) > MAX_REGEX_PATH:
            return None
        fitting = (r for r in self.regexes.get(method) if r.regex is not None and r.regex.fullmatch(text))
        return _choose(fitting, head)


def _choose(routes: Iterable[CompiledRoute], head: RequestHead | None) -> Found:
    """Return the first route whose conditions hold."""
    for route in routes:
        if not route.conditional:
            return route
        if head is None:
            return NEEDS_HEAD
        if route.refusal(head) is None:
            return route
    return None


def _search(node: _Node, segments: Sequence[str], at: int, method: str, head: RequestHead | None) -> Found:
    """Walk down from one node, best child first; `segments[0]` is what stands before the first slash."""
    if at == len(segments):
        leaf = node.leaf
        if leaf is not None and (found := _choose(leaf.get(method), head)) is not None:
            return found
    else:
        text = segments[at]
        child = node.literals.get(text)
        if child is not None and (found := _search(child, segments, at + 1, method, head)) is not None:
            return found
        for _, group in node.ranked:
            if len(group) == 1:  # nearly always: no list, no walk of several
                [(segment, child)] = group
                found = _search(child, segments, at + 1, method, head) if segment.matches(text) else None
                if found is not None:
                    return found
                continue
            fitting = [c for s, c in group if s.matches(text)]
            if fitting and (found := _search_any(fitting, segments, at + 1, method, head)) is not None:
                return found
    return _choose(node.below.get(method), head) if node.below is not None else None


def _search_any(
    nodes: Sequence[_Node], segments: Sequence[str], at: int, method: str, head: RequestHead | None
) -> Found:
    """Walk down from several nodes of equal rank at once: the next segments may decide between them."""
    if len(nodes) == 1:
        return _search(nodes[0], segments, at, method, head)
    found: Found = None
    if at == len(segments):
        found = _choose_any((n.leaf for n in nodes), method, head)
    else:
        found = next((f for f in _descend(nodes, segments, at, method, head) if f is not None), None)
    return found if found is not None else _choose_any((n.below for n in nodes), method, head)


def _descend(
    nodes: Sequence[_Node], segments: Sequence[str], at: int, method: str, head: RequestHead | None
) -> Iterator[Found]:
    text = segments[at]
    literals = [n.literals[text] for n in nodes if text in n.literals]
    if literals:
        yield _search_any(literals, segments, at + 1, method, head)
    groups: dict[tuple[int, int], list[_Node]] = {}
    for rank, group in (g for n in nodes for g in n.ranked):
        groups.setdefault(rank, []).extend(c for s, c in group if s.matches(text))
    for rank in sorted(groups):
        if groups[rank]:
            yield _search_any(groups[rank], segments, at + 1, method, head)


def _choose_any(leaves: Iterable[_Leaf | None], method: str, head: RequestHead | None) -> Found:
    routes = [r for leaf in leaves if leaf is not None for r in leaf.get(method)]
    return _choose(sorted(routes, key=lambda r: r.precedence(method)), head)


class RouteTable:
    """All routes, compiled; immutable and shared by threads.

    `match` answers in time that depends on the number of segments, not of routes. Routes for certain hosts
    are kept in a group a host name; `everything` is the union of all groups and answers "no route at all"
    before the request's host is looked for.
    """

    __slots__ = (
        "_any",
        "_depth",
        "_everything",
        "_exact",
        "_first",
        "_hosts",
        "_loose_slash",
        "_wildcards",
        "by_name",
        "routes",
    )

    def __init__(self, routes: Sequence[CompiledRoute], *, loose_slash: bool = False) -> None:
        self.routes = tuple(routes)
        self.by_name: Mapping[str, CompiledRoute] = {r.name: r for r in routes}
        self._loose_slash = loose_slash
        # Segments beyond the deepest pattern cannot change the answer, so paths are not split further.
        self._depth = 2 + max((len(r.pattern.segments) for r in routes if r.pattern is not None), default=0)
        self._any = _Group(r for r in routes if not r.hosts)
        self._hosts, self._wildcards = self._grouped()
        hosted = bool(self._hosts or self._wildcards)
        self._everything = _Group(routes) if hosted else None
        self._exact = {} if hosted else self._any.exact
        self._first = (self._everything or self._any).first_segments()

    def _grouped(self) -> tuple[Mapping[str, _Group], Mapping[str, _Group]]:
        members: dict[str, list[CompiledRoute]] = {}
        for route in self.routes:
            for host in route.hosts:
                members.setdefault(host, []).append(route)
        groups = {h: _Group(rs) for h, rs in members.items()}
        wildcards = {h[2:]: g for h, g in groups.items() if h.startswith("*.")}
        return {h: g for h, g in groups.items() if not h.startswith("*.")}, wildcards

    def match_plain(self, text: str, method: str, head: RequestHead | None = None) -> Found:
        """Find the route for a plain path (`paths.is_plain`); `NEEDS_HEAD` if its headers decide."""
        if self._loose_slash:
            text = text.removesuffix("/") or "/"
        leaf = self._exact.get(text)
        if leaf is not None and (found := _choose(leaf.get(method), head)) is not None:
            return found
        segments = text.split("/", self._depth)
        if self._first is not None and segments[1] not in self._first:
            return None
        return self._find(text, segments, method, head)

    def match(self, path: bytes, method: str, head: RequestHead | None = None) -> Found:
        """Find the route for any raw path, decoding each segment once; `NEEDS_HEAD` as `match_plain`."""
        if not path.startswith(b"/"):
            return None
        if self._loose_slash:
            path = path.removesuffix(b"/") or b"/"
        return self._find(path.decode("latin-1"), ["", *split(path, self._depth)], method, head)

    def _find(self, text: str, segments: Sequence[str], method: str, head: RequestHead | None) -> Found:
        if self._everything is None:
            return self._any.find(text, segments, method, head)
        if head is None:
            return None if self._everything.find(text, segments, method, None) is None else NEEDS_HEAD
        for group in self._groups_for(head.host):
            if (found := group.find(text, segments, method, head)) is not None:
                return found
        return None

    def _groups_for(self, host: str) -> Iterator[_Group]:
        """Yield the groups that a host belongs to: exact, then the longest wildcard first, then any."""
        if host in self._hosts:
            yield self._hosts[host]
        rest = host
        while "." in rest:
            rest = rest.partition(".")[2]
            if rest in self._wildcards:
                yield self._wildcards[rest]
        yield self._any
