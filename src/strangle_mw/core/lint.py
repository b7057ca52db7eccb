"""What is wrong with a table as a whole: names given twice, routes never reached, ties, slow regexes.

Problems keep a table from loading; warnings are told by `strangle check` and logged at start.
"""

from __future__ import annotations

import re
from re import _parser as regex_parser  # type: ignore[attr-defined]  # the standard library's own parse tree
from typing import TYPE_CHECKING

from strangle_mw.core.model import MAX_REGEX_PATH
from strangle_mw.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from strangle_mw.core.compiled import CompiledRoute


def duplicate_names(routes: Sequence[CompiledRoute]) -> Iterator[Problem]:
    """Report names that two routes have; overrides, logs and metrics address routes by them."""
    first: dict[str, int] = {}
    for route in routes:
        if route.name in first:
            other = f"routes[{first[route.name]}]"
            what = f"{route.name!r} is also the name of {other}; give each route its own `name`"
            yield Problem(f"routes[{route.index}].name", what, "name-twice")
        first.setdefault(route.name, route.index)


def unreachable(routes: Sequence[CompiledRoute]) -> Iterator[Problem]:
    """Report routes that can never match, because one better route takes all their requests."""
    for better, worse in (*_rivals(routes), *_over_regexes(routes)):
        if _takes_all(better, worse):
            yield Problem(
                f"routes[{worse.index}]",
                f"{worse.name!r} can never match: routes[{better.index}] {better.name!r} takes every such "
                "request; remove one or add a condition",
                "route-unreachable",
            )


def ties(routes: Sequence[CompiledRoute]) -> Iterator[Problem]:
    """Report pairs between which only their order in the list decides."""
    for better, worse in _rivals(routes):
        if better.weights == worse.weights and _overlap(better, worse) and not _takes_all(better, worse):
            yield Problem(
                f"routes[{worse.index}]",
                f"{worse.name!r} ties with routes[{better.index}] {better.name!r}; the first in the list "
                "wins where both match",
                "route-tie",
            )


def _rivals(routes: Sequence[CompiledRoute]) -> Iterator[tuple[CompiledRoute, CompiledRoute]]:
    """Yield pairs of routes with equally ranked, overlapping paths and shared hosts, the winner first."""
    groups: dict[object, list[CompiledRoute]] = {}
    for route in routes:
        for host in route.hosts or ("",):
            groups.setdefault((_place(route), host), []).append(route)
    told: set[tuple[int, int]] = set()
    for group in groups.values():
        ordered = sorted(group, key=lambda r: r.precedence(""))
        for at, worse in enumerate(ordered):
            for better in ordered[:at]:
                if (better.index, worse.index) not in told:
                    told.add((better.index, worse.index))
                    yield better, worse


def _over_regexes(routes: Sequence[CompiledRoute]) -> Iterator[tuple[CompiledRoute, CompiledRoute]]:
    """Yield routes for every path beside regular expressions, which come after every path."""
    everything = [r for r in routes if r.pattern is not None and r.pattern.subtree and not r.pattern.segments]
    for regex in (r for r in routes if r.pattern is None):
        yield from ((r, regex) for r in everything if r.hosts == regex.hosts)


def _place(route: CompiledRoute) -> object:
    """Return what routes must share to be rivals: rank and literals of the path, or the regex."""
    if route.pattern is None:
        return route.declared.regex
    literals = tuple(s.prefix if not s.name else None for s in route.pattern.segments)
    return (route.pattern.rank, literals)


def _methods_overlap(a: CompiledRoute, b: CompiledRoute) -> bool:
    return bool(a.methods) == bool(b.methods) and (a.methods == b.methods or bool(a.methods & b.methods))


def _paths_overlap(a: CompiledRoute, b: CompiledRoute) -> bool:
    return a.pattern is None or b.pattern is None or a.pattern.overlaps(b.pattern)


def _overlap(a: CompiledRoute, b: CompiledRoute) -> bool:
    """Tell whether one request may fit both, as far as the declarations show."""
    exact = {(t.kind, t.name): t.condition.equals for t in a.tests if t.condition.equals is not None}
    disjoint = any(
        t.condition.equals is not None
        and exact.get((t.kind, t.name), t.condition.equals) != t.condition.equals
        for t in b.tests
    )
    return not disjoint and _methods_overlap(a, b) and _paths_overlap(a, b)


def _takes_all(better: CompiledRoute, worse: CompiledRoute) -> bool:
    """Tell whether every request that fits `worse` fits `better`, too, and `better` wins it."""
    if better.when is not None or not set(better.tests) <= set(worse.tests):
        return False
    if better.methods and not (worse.methods and worse.methods <= better.methods):
        return False
    if worse.methods and not better.methods and (better.pattern is None) == (worse.pattern is None):
        return False  # a given method goes before any: `worse` wins its own requests
    if better.hosts and not (worse.hosts and set(worse.hosts) <= set(better.hosts)):
        return False
    if better.pattern is not None and worse.pattern is not None:
        return better.pattern.covers(worse.pattern)
    return True


def slow_regexes(routes: Iterable[CompiledRoute]) -> Iterator[Problem]:
    """Warn of nested quantifiers, on which Python's `re` may backtrack for ever (promise P16)."""
    for route in routes:
        found = [("regex", route.declared.regex or "")]
        found += [(f"{t.kind}.{t.name}", t.condition.regex or "") for t in route.tests]
        for field, text in found:
            if has_nested_quantifier(text):
                what = (
                    "has a repetition inside a repetition, which can take exponential time on a hostile "
                    f"path; write it without (paths over {MAX_REGEX_PATH} bytes are never tried)"
                )
                yield Problem(f"routes[{route.index}].{field}", what, "regex-nested")


def has_nested_quantifier(text: str) -> bool:
    """Tell whether a regular expression repeats something that holds an unbounded repetition."""
    try:
        return _nested(regex_parser.parse(text, re.ASCII), inside=False)
    except re.error:
        return False
    except RecursionError:
        return True  # nested so deeply that nobody can tell


def _nested(tree: object, *, inside: bool) -> bool:
    """Walk the parse tree: tuples of an operator and its argument, in lists, at any depth."""
    if isinstance(tree, tuple) and len(tree) == 2 and str(tree[0]) in ("MAX_REPEAT", "MIN_REPEAT"):  # noqa: PLR2004
        _, most, body = tree[1]
        unbounded = most == regex_parser.MAXREPEAT
        return (inside and unbounded) or _nested(body, inside=inside or most > 1)
    if isinstance(tree, tuple | list | regex_parser.SubPattern):
        return any(_nested(part, inside=inside) for part in tree)
    return False
