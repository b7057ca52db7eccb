"""How routes of Refactor Spaces stand to each other: what AWS refuses, and who takes whose requests.

Pure functions over paths and methods. The rules are those of "Routes with path parameters" in the user guide,
step 5; which route wins here is design section 3.3.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from strangle_mw.core.patterns import PathPattern, PatternError, parse_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from strangle_mw.imports.refactor_objects import Entry

MAX_ROUTES: Final = 1000
"""Routes of one application, each compared with each; API Gateway has 300 resources unless raised."""

_PARAMETER = re.compile(r"\{([^{}/]*)\}")


def refused_by_aws(entries: Sequence[Entry]) -> Iterator[tuple[Entry, str]]:
    """Yield routes that AWS says it refuses to create, with what happens to them here."""
    first: dict[str, tuple[str, Entry]] = {}
    parents = {_shape(e.path): e for e in entries if e.children}
    for entry in entries:
        names = _PARAMETER.findall(entry.path)
        for name in dict.fromkeys(n for n in names if names.count(n) > 1):
            yield entry, f"AWS refuses a path that names {{{name}}} twice; here the second has another name"
        for found in _PARAMETER.finditer(entry.path):
            before = _shape(entry.path[: found.start()].rstrip("/"))
            name, other = first.setdefault(before, (found[1], entry))
            if name != found[1]:
                what = (
                    f"AWS refuses {{{found[1]}}} at the place of {{{name}}} of {other.id}; here names do not "
                    "matter: the longer path, then the method decides, and two alike are a problem"
                )
                yield entry, what
        parent, slash, last = _shape(entry.path).rpartition("/")
        if slash and last == "{}" and parent in parents and parents[parent] is not entry:
            what = (
                f"AWS refuses a parameter beside the child paths of {parents[parent].id}; "
                "here this route goes first"
            )
            yield entry, what


def _shape(path: str) -> str:
    return _PARAMETER.sub("{}", path)


def covered_by(entry: Entry, others: Sequence[Entry]) -> Entry | None:
    """Return a route that gets requests which `entry`, were it active, would take from it."""
    mine = _pattern(entry)
    if mine is None:
        return None
    return next((o for o in others if o is not entry and _goes_before(entry, mine, o)), None)


def _pattern(entry: Entry) -> PathPattern | None:
    return _parsed(entry.path + ("/*" if entry.children else ""))


@lru_cache(MAX_ROUTES)
def _parsed(path: str) -> PathPattern | None:
    # Names do not matter for this, so each parameter gets its own.
    numbers = iter(range(len(path)))
    try:
        return parse_path(_PARAMETER.sub(lambda _: f"{{p{next(numbers)}}}", path))
    except PatternError:
        return None  # told elsewhere


def _goes_before(entry: Entry, mine: PathPattern, other: Entry) -> bool:
    theirs = _pattern(other)
    if theirs is None or not _meet(mine, theirs):
        return False
    if entry.methods and other.methods and not _methods(entry) & _methods(other):
        return False
    if mine.rank != theirs.rank:
        return mine.rank < theirs.rank
    return bool(entry.methods) or not other.methods


def _methods(entry: Entry) -> set[str]:
    return {*entry.methods, *(["HEAD"] if "GET" in entry.methods else [])}


def _meet(a: PathPattern, b: PathPattern) -> bool:
    """Tell whether some path fits both."""
    depth = len(a.segments), len(b.segments)
    if not ((a.subtree or depth[0] >= depth[1]) and (b.subtree or depth[1] >= depth[0])):
        return False
    pairs = zip(a.segments, b.segments, strict=False)
    return all(p.name or q.name or p.prefix == q.prefix for p, q in pairs)
