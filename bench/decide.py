"""Microseconds per decision: one path at a time, in this process, over tables of growing size."""

from __future__ import annotations

import gc
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench import library, paths
from bench.report import Table, at_most, number, ratio
from bench.routers import OURS, PREPARE, ROUTERS, Router

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.options import Options
    from bench.report import Progress

NAME = "decide"
SIZES = (10, 1_000, 100_000)
BUILD_LIMIT = 150.0
"""Seconds a peer may take to build a table."""
SLICE = 0.2
"""CPU seconds of one timing of one peer."""
FEWEST = 10
"""Decisions of one timing, however slow they are."""
TARGET = 1.5


class TooLongError(Exception):
    """A table that cannot be built in the time given."""


@dataclass(slots=True)
class Cell:
    """One peer with one table: best microseconds for known and unknown paths, and what was tried."""

    router: str
    routes: int
    build: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    decisions: dict[str, int] = field(default_factory=dict)
    error: str = ""
    timings: list[tuple[str, Callable[[Any], bool], list[Any]]] = field(default_factory=list)


def measure(options: Options, progress: Progress) -> Table | None:
    """Measure every wanted router at every size; None if none is wanted."""
    wanted = [router for router in ROUTERS if options.wants(f"{NAME}/{router.name}")]
    cells = [cell for size in SIZES for cell in _size(wanted, size, options, progress)]
    return _table(cells, options) if cells else None


def _size(routers: list[Router], size: int, options: Options, progress: Progress) -> list[Cell]:
    cells = []
    for router in routers:
        progress.say(f"{NAME}: building {size:,} routes for {router.name}")
        cells.append(_build(router, size))
    gc.collect()
    gc.freeze()
    for turn in range(1, options.rounds + 1):
        for cell in cells:
            progress.say(f"{NAME}: {size:,} routes, round {turn} of {options.rounds}: {cell.router}")
            _round(cell)
    for cell in cells:
        cell.timings.clear()  # the tables are large
    gc.unfreeze()
    return cells


def _build(router: Router, size: int) -> Cell:
    cell = Cell(router.name, size)
    start = time.process_time()
    try:
        if router.name in {OURS, PREPARE} and (problem := library.problem()):
            raise RuntimeError(problem)
        with _limited(BUILD_LIMIT):
            decide = router.build(paths.patterns(size))
            _prove(cell, decide, router)
    except Exception as exc:
        cell.error = str(exc) or type(exc).__name__
    cell.build = time.process_time() - start
    return cell


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(_signal: int, _frame: Any) -> None:
        raise TooLongError(f"not measured: no table within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _prove(cell: Cell, decide: Callable[[Any], bool], router: Router) -> None:
    """See that the answers are right and how long one takes; keep as many paths as the time allows."""
    for kind, all_paths in (("hit", paths.hits(cell.routes)), ("miss", paths.misses(cell.routes))):
        some = _thinned(all_paths, FEWEST)
        seconds, right = _timed(decide, [router.question(path) for path in some], expect=kind == "hit")
        if not right:
            raise RuntimeError(f"gave a wrong answer to a {kind}")
        count = max(FEWEST, int(SLICE / (seconds / len(some))))
        questions = [router.question(path) for path in _thinned(all_paths, count)]
        repeats = max(1, count // len(questions))
        cell.timings.append((kind, decide, questions * repeats))
        cell.decisions[kind] = len(questions) * repeats


def _thinned(items: list[str], count: int) -> list[str]:
    """Return about `count` of the items, evenly spread and of every kind (an odd step leaves none out)."""
    return items[:: max(1, len(items) // count) | 1]


def _timed(decide: Callable[[Any], bool], questions: list[Any], *, expect: bool) -> tuple[float, bool]:
    start = time.process_time()
    right = all(decide(question) is expect for question in questions)
    return time.process_time() - start, right


def _round(cell: Cell) -> None:
    for kind, decide, questions in cell.timings:
        gc.disable()
        start = time.process_time()
        for question in questions:
            decide(question)
        micros = (time.process_time() - start) / len(questions) * 1e6
        gc.enable()
        cell.best[kind] = min(micros, cell.best.get(kind, micros))


def _table(cells: list[Cell], options: Options) -> Table:
    table = Table(
        f"decide: microseconds per decision, best of {options.rounds}",
        ["routes", "router", "hit us", "miss us", "build s", "ours / this", "decisions", "target"],
    )
    ours = {cell.routes: cell for cell in cells if cell.router == OURS}
    for cell in cells:
        table.rows.append(_row(cell, ours))
        table.data.append(_data(cell))
    table.failed = any(cell.error and not cell.error.startswith("not measured") for cell in cells)
    table.notes.extend(
        f"{cell.router}, {cell.routes:,} routes FAILED: {cell.error}" for cell in cells if cell.error
    )
    table.notes.append(
        "Literal and parameter routes half and half, GET; CPU time of this process, collector off."
        f" 'decisions' are those of one timing: about {SLICE} s, at least {FEWEST}."
    )
    return table


def _row(cell: Cell, ours: dict[int, Cell]) -> list[str]:
    if cell.error:
        return [f"{cell.routes:,}", cell.router, "-", "-", number(cell.build), "-", "-", "FAILED"]
    mine = ours.get(cell.routes)
    share = (
        ratio(mine.best["hit"] / cell.best["hit"])
        if mine and mine.best and cell.router not in {OURS, PREPARE}
        else "-"
    )
    times = [number(cell.best["hit"]), number(cell.best["miss"]), number(cell.build)]
    count = f"{min(cell.decisions.values()):,}"
    return [f"{cell.routes:,}", cell.router, *times, share, count, _target(cell, ours)]


def _target(cell: Cell, ours: dict[int, Cell]) -> str:
    if cell.router == PREPARE:
        return at_most(cell.best["miss"], TARGET, f"miss <= {TARGET} us")
    if cell.router != OURS:
        return ""
    worst = max(cell.best.values())
    texts = [at_most(worst, TARGET, f"<= {TARGET} us")]
    least = ours.get(SIZES[0])
    if cell.routes == SIZES[-1] and least and least.best:
        growth = max(cell.best[kind] / least.best[kind] for kind in cell.best)
        texts.append(at_most(growth, TARGET, f"<= {TARGET} x {SIZES[0]} routes ({number(growth)})"))
    return "; ".join(texts)


def _data(cell: Cell) -> dict[str, Any]:
    return {
        "name": f"{NAME}/{cell.router}",
        "routes": cell.routes,
        "build_s": cell.build,
        "best_us": cell.best,
        "decisions": cell.decisions,
        "error": cell.error,
    }
