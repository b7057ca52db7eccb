"""Why a request takes its route: every candidate in the order of precedence, with what refused it.

Written as a plain comparison of routes, apart from `routing`'s trie; the tests hold the two together.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from strangle_mw.core.dials import BASIS_POINTS, dial_words
from strangle_mw.core.model import MAX_REGEX_PATH, Stage
from strangle_mw.core.paths import split
from strangle_mw.core.patterns import REGEX
from strangle_mw.core.sticky import bucket, find_key, read_pin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strangle_mw.core.compiled import CompiledRoute
    from strangle_mw.core.decision import Snapshot
    from strangle_mw.core.messages import RequestHead


@dataclass(frozen=True, slots=True)
class Candidate:
    """One route whose path fits; `refused` says why it was passed over, None if it is taken."""

    route: CompiledRoute
    refused: str | None


def candidates(snapshot: Snapshot, head: RequestHead) -> list[Candidate]:
    """Return the routes whose path fits, best first; the first one not refused is the answer."""
    path = head.path
    if snapshot.options.trailing_slash == "ignore":
        path = path.removesuffix(b"/") or b"/"
    segments = split(path)
    fitting = [r for r in snapshot.table.routes if _path_fits(r, path, segments)]
    fitting.sort(key=lambda r: (_host_rank(r, head.host), _path_rank(r), r.precedence(head.method)))
    return [Candidate(r, _refused(r, head)) for r in fitting]


def why_this_side(snapshot: Snapshot, route: CompiledRoute, head: RequestHead) -> str:
    """Say in words why a route's stage sends a request to its side."""
    dial, staging, crowd = snapshot.dial(route), route.staging, snapshot.crowd
    if dial.stage is not Stage.CANARY:
        return f"stage {dial_words(dial)}"
    percent = dial_words(dial)
    value = head.header(crowd.pin.header) if crowd.pin is not None else None
    if crowd.pin is not None and value and read_pin(value, crowd.pin.secret.encode(), crowd.now()):
        return f"{percent}, but pinned"
    key = find_key(staging.sources, head, crowd.user).text
    if dial.points == BASIS_POINTS:
        return percent
    if key is None:
        return f"{percent}; the request has no key ({_listed(route.declared.sticky)})"
    return f"{percent}; its key has bucket {bucket(staging.salt, key)} of 10000 in group {staging.salt!r}"


def nearest_paths(snapshot: Snapshot, path: bytes) -> list[str]:
    """Return the table's paths most like a path that has no route: it may be misspelt."""
    texts = [
        r.pattern.text for r in snapshot.table.routes if r.pattern is not None and r.pattern.text != "/*"
    ]
    return difflib.get_close_matches(path.decode("utf-8", "replace"), dict.fromkeys(texts), 3, 0.6)


def _path_fits(route: CompiledRoute, path: bytes, segments: list[str]) -> bool:
    if not path.startswith(b"/"):
        return False
    if route.pattern is not None:
        return route.pattern.matches(segments)
    regex = route.regex
    return regex is not None and len(path) <= MAX_REGEX_PATH and bool(regex.fullmatch(path.decode("latin-1")))


def _path_rank(route: CompiledRoute) -> tuple[tuple[int, int], ...]:
    return ((REGEX, 0),) if route.pattern is None else route.pattern.rank


def _host_rank(route: CompiledRoute, host: str) -> tuple[int, int]:
    """Order by host: exact name, longest wildcard, any, none that fits."""
    if host in route.hosts:
        return (0, 0)
    wild = [len(h) for h in route.hosts if h.startswith("*.") and host.endswith(h[1:])]
    if wild:
        return (1, -max(wild))
    return (3, 0) if route.hosts else (2, 0)


def _refused(route: CompiledRoute, head: RequestHead) -> str | None:
    if _host_rank(route, head.host)[0] == 3:  # noqa: PLR2004 - no host of the route fits
        asked = repr(head.host) if head.host else "none"
        return f"hosts are {_listed(route.hosts)}; the request asks for {asked}"
    if route.method_rank(head.method) is None:
        return f"methods are {_listed(sorted(route.methods))}; the request's is {head.method}"
    return route.refusal(head)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
