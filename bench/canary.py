"""Microseconds of a decision when users are split between two sides: one request at a time, in this process."""

from __future__ import annotations

import random
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import library
from bench.calls import in_rounds
from bench.heads import scope
from bench.paths import hits, misses, patterns
from bench.report import Table, at_most, spread
from bench.rounds import Series
from bench.served import Group, failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.options import Options
    from bench.report import Progress

    Timing = tuple[Callable[[Any], object], list[Any]]

NAME = "canary"
ROUTES = 1_000
USERS = 100
"""As many requests stay in the processor's caches, as one does that a server has just read."""
REPEATS = 200
"""Times over all users in one timing."""
WEIGHT = 50.0
"""Percent, so that as many users are on either side."""
NO_ROUTE, LEGACY, MODERN = "no-route", "legacy", "modern"
TO_LEGACY, TO_MODERN = "to-legacy", "to-modern"
OWN_COOKIE, HEADER, BUCKET = "own-cookie", "header", "bucket"
GROUPS = (
    Group(f"{NAME}/prepare", "decision.prepare", (NO_ROUTE, LEGACY, MODERN, TO_LEGACY, TO_MODERN)),
    Group(f"{NAME}/split", "staging.choose_side", (OWN_COOKIE, HEADER, BUCKET)),
)
BASES = {TO_LEGACY: LEGACY, TO_MODERN: MODERN}
"""The same side without a split."""
TARGET = 4.0
HELD = (TO_LEGACY, OWN_COOKIE)
"""Rows that the target is for: the whole decision, and the split alone."""
COLUMNS = ["measured", "row", "us", "added us", "target"]


def measure(options: Options, progress: Progress, _folder: object) -> Iterator[Table]:
    """Measure every wanted row in turn, in one table."""
    wanted = [(group, peer) for group in GROUPS for peer in _wanted(group, options)]
    if not wanted:
        return
    table = Table(f"canary: CPU microseconds per decision, {ROUTES:,} routes in one stage", COLUMNS)
    table.notes.append(
        f"{options.rounds} rounds, all rows in turn; median (least..greatest). A GET with one cookie, the"
        f" library's own, and three other headers; {USERS:,} users on as many paths. 'added' is above the"
        f" same side without a split, paired by round: {TO_LEGACY!r} above {LEGACY!r}, {TO_MODERN!r} above"
        f" {MODERN!r}. {LEGACY!r} reads no headers, {TO_LEGACY!r} has to."
    )
    table.notes.append(
        f"The target is held against all of `prepare` for {TO_LEGACY!r}, hash included, and against the split"
        f" alone with the key in that cookie; {HEADER!r}: with the key in a header; {BUCKET!r}: the hash alone."
    )
    series = _rounds([f"{group.name}/{peer}" for group, peer in wanted], options, progress)
    for group, peer in wanted:
        _fill(table, group, peer, series)
    table.notes.extend(failures(series))
    yield table


def _wanted(group: Group, options: Options) -> list[str]:
    left = group.wanted(options)
    bases = {BASES.get(peer) for peer in left}
    return [peer for peer in group.peers if peer in left or peer in bases]


def _rounds(names: list[str], options: Options, progress: Progress) -> dict[str, Series]:
    series = {name: Series(name) for name in names}
    in_rounds(series, lambda name: ROWS[name.rpartition("/")[2]](), options, progress, NAME, REPEATS)
    return series


def _fill(table: Table, group: Group, peer: str, series: dict[str, Series]) -> None:
    one = series[f"{group.name}/{peer}"]
    base = series.get(f"{group.name}/{BASES.get(peer)}")
    added = one.above(base) if base is not None and not (base.error or one.error) else []
    measured = "sticky.bucket" if peer == BUCKET else group.label
    if one.error:
        table.rows.append([measured, peer, "-", "-", "FAILED"])
    else:
        cpu = one.column("cpu")
        verdict = at_most(median(cpu), TARGET, f"<= {TARGET:g} us") if peer in HELD else ""
        table.rows.append([measured, peer, spread(cpu), spread(added) if added else "-", verdict])
    table.data.append({**asdict(one), "added": added})
    table.failed |= bool(one.error)


def _decisions(stage: str, weight: float | None, expect: str) -> Timing:
    """Return `prepare` over one stage, and users that it sends where it should."""
    decide = library.decider(patterns(ROUTES), stage, weight)
    questions: list[Any] = []
    users, paths = random.Random(1), (misses if expect == NO_ROUTE else hits)(ROUTES)
    step = len(paths) // USERS + 1  # odd, so that every kind of path is among them
    while len(questions) < USERS:
        question = _request(paths[len(questions) * step % len(paths)], _new_user(users))
        side = library.side(decide(question))
        if side == expect:
            questions.append(question)
        elif stage != "canary":
            raise RuntimeError(f"{question['path']} went to {side}")
    return decide, questions


def _new_user(source: random.Random) -> str:
    return f"{source.getrandbits(128):032x}"


def _request(path: str, user: str, accept: tuple[str, str] = ("Accept", "text/html,*/*;q=0.8")) -> Any:
    """Return a scope with a cookie and three other headers: `Host`, and two."""
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    return scope(path, {"User-Agent": agent, accept[0]: accept[1], "Cookie": f"strangle_id={user}"})


def _choices(*sticky: str) -> Timing:
    """Return the split alone, and requests whose keys it finds."""
    choose = library.chooser(WEIGHT, *sticky)
    users = random.Random(2)
    keys = [_new_user(users) for _ in range(USERS)]
    requests = [_request("/v1/res0", key, ("X-User", key)) for key in keys]
    heads = [library.request_head(request) for request in requests]
    share = sum(map(choose, heads)) / USERS
    if not 0.4 < share < 0.6:
        raise RuntimeError(f"{share:.0%} of the users are modern, not about a half")
    return choose, heads


def _hashes() -> Timing:
    users = random.Random(3)
    return library.hasher(), [_new_user(users) for _ in range(USERS)]


ROWS: dict[str, Callable[[], Timing]] = {
    NO_ROUTE: partial(_decisions, "canary", WEIGHT, NO_ROUTE),
    LEGACY: partial(_decisions, "legacy", None, LEGACY),
    MODERN: partial(_decisions, "modern", None, MODERN),
    TO_LEGACY: partial(_decisions, "canary", WEIGHT, LEGACY),
    TO_MODERN: partial(_decisions, "canary", WEIGHT, MODERN),
    OWN_COOKIE: _choices,
    HEADER: partial(_choices, "header:X-User"),
    BUCKET: _hashes,
}
