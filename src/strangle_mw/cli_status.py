"""How things stand, laid out as lines of text: pure functions of a `status.Status` and of events.

Colours are put in here and taken out by click where the output is no terminal. Nothing is read or printed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from strangle_mw.core.dials import dial_words
from strangle_mw.core.events import safe_text
from strangle_mw.core.model import Stage
from strangle_mw.core.staging import MODERN_STAGES

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence
    from datetime import tzinfo

    from strangle_mw.core.dials import Dial
    from strangle_mw.core.events import Event
    from strangle_mw.reach import Worker
    from strangle_mw.rollout import Step
    from strangle_mw.status import Numbers, RouteStatus, Status

MANY: Final = 50
"""Routes beyond which those are left out that there is nothing to say of."""

_HEADING = ("ROUTE", "STAGE", "ACTUAL", "MODERN", "LEGACY", "5XX", "FAILED", "NOT COMPARED", "FALLBACKS")

_WHO_ANSWERS = {
    Stage.LEGACY: "legacy for everybody",
    Stage.SHADOW: "legacy for everybody; copies go to modern",
    Stage.MODERN: "modern for everybody",
    Stage.RETIRED: "modern for everybody",
}


def moment(at: float, tz: tzinfo | None = None) -> str:
    """Write a time (Unix seconds) as local time, or in `tz`, with its zone."""
    try:
        return datetime.fromtimestamp(at, UTC).astimezone(tz).strftime("%Y-%m-%d %H:%M:%S %z")
    except (ValueError, OverflowError, OSError):
        return f"at {at:.0f}"


def status_lines(status: Status, *, everything: bool = False, tz: tzinfo | None = None) -> list[str]:
    """Lay out how things stand; routes that there is nothing to say of are left out if there are many."""
    return [
        *_switches(status, tz),
        f"store {status.store}, overrides {status.held.overrides.revision or 'none'}",
        f"table {status.known.revision} ({status.known.origin})",
        "",
        *_routes(status, everything, tz),
        "",
        *_upstreams(status),
        *_workers(status),
        *_events(status, tz),
    ]


def event_lines(events: Sequence[Event], tz: tzinfo | None = None) -> list[str]:
    """Lay out events, one a line: when, kind, route, what, who."""
    kinds = max((len(e.kind) for e in events), default=0)
    return [
        f"{moment(e.at, tz)}  {e.kind:{kinds}}  {e.route + ': ' if e.route else ''}{e.what}"
        + (f" (by {e.by})" if e.by else f" (worker {e.worker})" if e.worker else "")
        for e in events
    ]


def step_lines(step: Step, now: float) -> list[str]:
    """Say what a step changes; `now` is Unix seconds."""
    dials = (step.before, step.after)
    lines = [
        f"{step.route.name}: {_turn(*map(dial_words, dials))}",
        f"  who answers: {_turn(*map(_who, dials))}",
    ]
    before, after = (_fallback(step, dial, now) for dial in dials)
    if before != after:
        lines.append(f"  fallback: {_turn(before, after)}")
    if step.after.stage is Stage.RETIRED:
        lines.append("  the old code will not run any more")
    return lines


def _turn(before: str, after: str) -> str:
    return f"{before} -> {after}" if before != after else f"{after}, as before"


def _who(dial: Dial) -> str:
    if dial.stage is not Stage.CANARY:
        return _WHO_ANSWERS[dial.stage]
    return f"modern for {dial.points / 100:g} % of the users, legacy for the others"


def _fallback(step: Step, dial: Dial, now: float) -> str:
    if dial.stage not in MODERN_STAGES:
        return "none"
    staging = step.route.staging
    policy = staging.policies.get(dial.stage)
    return "never" if policy is None or now >= staging.until else policy.mode


def _warn(text: str) -> str:
    return click.style(text, fg="yellow")


def _alarm(text: str) -> str:
    return click.style(text, fg="red", bold=True)


def _switches(status: Status, tz: tzinfo | None) -> Iterator[str]:
    """Say first what overrides everything else."""
    kill = status.held.overrides.kill
    if kill is not None:
        why = f": {kill.why}" if kill.why else ""
        yield _alarm(
            f"THE KILL SWITCH IS ON: every route is legacy (by {kill.by}, {moment(kill.at, tz)}{why})"
        )
    off = sum(w.off for w in status.workers)
    if off:
        yield _alarm(f"STRANGLE_ALL=legacy in {_of(off, status.workers)}: every route is legacy there")
    if status.held.refused:
        yield _alarm(f"THE STORED OVERRIDES ARE REFUSED: {status.held.refused}")
        yield _alarm("workers keep the last good ones; `strangle rollback --all` replaces those in the store")
    if status.known.note:
        yield _warn(status.known.note)
    tables = {w.table for w in status.workers}
    if tables and status.known.revision not in tables:
        yield _warn(f"no worker has the table {status.known.revision}")


def _routes(status: Status, everything: bool, tz: tzinfo | None) -> Iterator[str]:
    killed = status.held.overrides.kill is not None
    shown = [r for r in status.routes if everything or len(status.routes) <= MANY or r.is_notable]
    rows = [_row(r, killed=killed) for r in shown]
    heading, *lines = columns([_HEADING, *rows])
    yield click.style(heading, bold=True)
    for route, line in zip(shown, lines, strict=True):
        yield line
        yield from (f"  {remark}" for remark in _remarks(route, status.workers, tz))
    if len(shown) < len(status.routes):
        yield f"{len(status.routes) - len(shown)} more routes are legacy and idle; --all shows them"
    for stray in status.strays:
        yield _warn(f"override of {stray.name}: {stray.problem}")


def _row(route: RouteStatus, *, killed: bool) -> tuple[str, ...]:
    now: Numbers = route.now
    stage = dial_words(route.dial)
    fallbacks = ", ".join(f"{reason} {number}" for reason, number in now.fallbacks.items())
    return (
        safe_text(route.name, 500),
        f"legacy (killed; {stage})" if killed and route.dial.stage is not Stage.LEGACY else stage,
        "" if now.share is None or route.dial.stage is not Stage.CANARY or killed else f"{now.share:.1f} %",
        *(str(n) if now.requests else "" for n in (now.modern, now.legacy)),
        *(str(n) if n else "" for n in (now.errors, now.failed, now.not_compared)),
        fallbacks,
    )


def _remarks(route: RouteStatus, workers: Sequence[Worker], tz: tzinfo | None) -> Iterator[str]:
    override = route.override
    if override is None:
        return
    why = f": {override.why}" if override.why else ""
    yield f"set by {override.by}, {moment(override.at, tz)}{why}"
    if route.problem:
        yield _warn(f"does not act: {route.problem}")
    if route.contradicted and override.declared is not None:
        said, says = dial_words(override.declared), dial_words(route.declared)
        if route.declared == route.dial:
            yield _warn(f"the table says {says} itself now; the override can go (rollback --to-file)")
        else:
            yield _warn(f"the table says {says} now; it said {said} when the override was made")
    if route.waiting:
        yield _warn(f"{_of(route.waiting, workers)} wait for a good health answer; set --force does not")


def _upstreams(status: Status) -> Iterator[str]:
    endpoints = status.endpoints
    if not endpoints:
        return
    told = [(name, found) for name, seen in endpoints.items() if (found := _endpoints(seen, status.workers))]
    yield "upstreams" if told else f"upstreams: no breaker is open ({len(endpoints)} in use)"
    for name, found in told:
        yield _warn(f"  {name}: {found}")
    for name, calls in status.versions.items():
        total = calls.total() or 1
        shares = ", ".join(f"{version} {number / total:.1%}" for version, number in calls.most_common())
        yield f"  {name}: {count(calls.total(), 'call')} by version {shares}"


def _endpoints(seen: Sequence[Counter[str]], workers: Sequence[Worker]) -> str:
    """Name the worst state of each endpoint that any worker sees in trouble."""
    found = []
    for number, counter in enumerate(seen, start=1):
        worst = next((s for s in ("open", "half-open", "unhealthy") if counter[s]), None)
        if worst is not None:
            found.append(f"{_of(counter[worst], workers)}: endpoint {number} {worst}")
    return "; ".join(found)


def _workers(status: Status) -> Iterator[str]:
    workers = status.workers
    if not workers:
        yield _warn("workers: none is known to this store (each is from its first request on)")
        return
    yield f"workers: {len(workers)}"
    if len(status.tables) > 1:
        listed = ", ".join(f"{table or '?'} in {n}" for table, n in status.tables.most_common())
        yield _warn(f"  they have {len(status.tables)} tables: {listed}")
    rows = [
        ("  " + w.id, f"table {w.table or '?'}", f"overrides {w.overrides or 'none'}", _ago(w, status.at))
        for w in workers
    ]
    for worker, line in zip(workers, columns(rows), strict=True):
        behind = worker.overrides < status.held.overrides.revision
        yield _warn(line + "  behind") if behind else line
        yield from (_warn(f"    {problem}") for problem in worker.problems)


def _events(status: Status, tz: tzinfo | None) -> Iterator[str]:
    if status.events:
        yield "last events"
        yield from (f"  {line}" for line in event_lines(status.events, tz))


def _of(number: int, workers: Sequence[Worker]) -> str:
    return f"{number} of {count(len(workers), 'worker')}"


def _ago(worker: Worker, at: float) -> str:
    """Say how long ago a worker was seen; the clocks of two hosts never agree quite."""
    seconds = at - worker.seen
    if not worker.seen:
        return ""
    return f"seen {seconds:.0f} s ago" if seconds >= 1 else "seen just now"


def count(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out rows in columns; one that is empty but for its first row, the heading, is left out."""
    cells = list(zip(*rows, strict=True))
    keep = [at for at, column in enumerate(cells) if any(column[1:] or column)]
    widths = {at: max(map(len, cells[at])) for at in keep}
    return ["  ".join(row[at].ljust(widths[at]) for at in keep).rstrip() for row in rows]
