"""Live changes: the time from a change of the store or the file until the last process answers accordingly.

Nobody is asked what it has read: each process has a connection, and is asked over it, again and again, which
side answers.
"""

from __future__ import annotations

import http.client
import math
import random
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from bench import library, servers, stores
from bench.paths import patterns
from bench.payload import LEGACY, MODERN, WORKER
from bench.processes import BenchError, free_port
from bench.report import Table, at_most, number
from bench.rounds import Peer, run
from bench.served import Group, failures, is_left_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.options import Options
    from bench.report import Progress
    from bench.rounds import Series

NAME = "live"
ROUTES = 1_000
EDITS = 4
"""Changes in one round."""
WORKERS, PROCESSES = 4, 3
SQLITE, REDIS, FILE = "sqlite", "redis", "file"
WSGI, ASGI = f"{NAME}/wsgi", f"{NAME}/asgi"
GROUPS = (
    Group(WSGI, f"gunicorn, {WORKERS} workers", (SQLITE, REDIS, FILE)),
    Group(ASGI, f"uvicorn, {PROCESSES} processes", (REDIS,)),
)
COLUMNS = ["server", "changed", "edits", "median ms", "p95 ms", "max ms", "target"]
PATH = "/modern"
PAUSE = 0.005
"""Seconds between two questions to one process: as exact as the times can be."""
REST = 1.0
"""Seconds until the next change, at most: by chance, so that none falls into step with those who look."""
BURST = 16
"""Connections opened at a time, so that not one worker takes them all."""
BURSTS = 100
LONGEST = 30.0
"""Seconds until a change that nobody follows fails the row."""
MOST = {SQLITE: 1.0, REDIS: 2.0, FILE: 1.0}
TYPICAL = 0.2
"""Seconds, of Redis (design section 6)."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Running processes with a connection to each of them, and how their route is moved to a stage."""

    connections: tuple[http.client.HTTPConnection, ...]
    move: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Changes:
    """One round of one row: seconds until the last process followed, for each change."""

    times: list[float]


def measure(options: Options, progress: Progress, folder: Path) -> Iterator[Table]:
    """Measure every wanted way to change a route's stage, in one table."""
    wanted = [group for group in GROUPS if group.wanted(options)]
    if not wanted:
        return
    table = Table(f"live: milliseconds until the last process follows, {ROUTES:,} routes", COLUMNS)
    table.notes.append(
        f"{options.rounds} rounds of {EDITS} changes between 'legacy' and 'modern'. From before the change until"
        f" the last process has answered accordingly; each is asked every {PAUSE * 1000:.0f} ms, on one CPU."
    )
    with servers.origin(folder) as modern:
        file = folder / "live.toml"
        library.write_table(file, modern.port, "legacy", patterns(ROUTES))
        compiled = 0.0 if library.problem() else min(library.compile_seconds(file) for _ in range(3))
        for group in wanted:
            start = partial(_start, folder, file, modern.port, options.threads)
            names = group.wanted(options)
            peers = [Peer(f"{group.name}/{name}", partial(start, group, name), _sample) for name in names]
            _fill(table, group, run(peers, options, progress), compiled)
    table.notes.append(
        f"{FILE!r} is looked at once a second, by each process; reading and compiling {ROUTES:,} routes took"
        f" {number(compiled)} s here, and the {WORKERS} workers share one CPU."
    )
    yield table


# --- the processes


@contextmanager
def _start(folder: Path, file: Path, upstream: int, threads: int, group: Group, name: str) -> Iterator[Fleet]:
    if problem := library.problem():
        raise BenchError(problem)
    library.write_table(file, upstream, "legacy", patterns(ROUTES))
    with ExitStack() as stack:
        store = _store(stack, folder, name)
        env = {"BENCH_UPSTREAM": str(upstream), "BENCH_TABLE": str(file), "BENCH_STORE": store}
        if group.name == WSGI:
            one = servers.gunicorn(folder, NAME, PATH, LEGACY, env, threads=threads, workers=WORKERS)
            ports, count = [stack.enter_context(one).port], WORKERS
        else:
            several = [servers.uvicorn(folder, NAME, PATH, LEGACY, env) for _ in range(PROCESSES)]
            ports, count = [stack.enter_context(server).port for server in several], PROCESSES
        move = stack.enter_context(library.dialer(store)) if store else partial(_rewrite, file, upstream)
        yield Fleet(_connected(stack, ports, count), move)


def _store(stack: ExitStack, folder: Path, name: str) -> str:
    if name == REDIS:
        return stack.enter_context(stores.redis(folder))
    return stores.sqlite(folder, f"live-{free_port()}") if name == SQLITE else ""


def _rewrite(file: Path, upstream: int, stage: str) -> None:
    library.write_table(file, upstream, stage, patterns(ROUTES))


def _connected(stack: ExitStack, ports: list[int], count: int) -> tuple[http.client.HTTPConnection, ...]:
    """Open connections until there is one to each process: their names tell."""
    found: dict[str, http.client.HTTPConnection] = {}
    for _ in range(BURSTS):
        burst = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for port in ports * BURST]
        for connection in burst:
            connection.connect()
        for connection in burst:
            _body, worker = _ask(connection)
            if worker in found:
                connection.close()
            else:
                found[worker] = connection
                stack.callback(connection.close)
        if len(found) == count:
            return tuple(found.values())
    raise BenchError(f"{len(found)} of {count} processes were found")


def _ask(connection: http.client.HTTPConnection) -> tuple[bytes, str]:
    try:
        connection.request("GET", PATH)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as exc:
        raise BenchError(f"{PATH}: {exc!r}") from exc
    if answer.status != 200 or body not in (LEGACY, MODERN):
        raise BenchError(f"{PATH} was answered {answer.status} {body[:80]!r}")
    return body, answer.getheader(WORKER, "")


# --- the changes


def _sample(fleet: Fleet) -> Changes:
    times, before = [], LEGACY
    for turn in range(EDITS):
        _rest(fleet, before)
        stage, after = ("legacy", LEGACY) if turn % 2 else ("modern", MODERN)
        start = time.perf_counter()
        fleet.move(stage)
        _await(fleet, after, start)
        times.append(time.perf_counter() - start)
        before = after
    return Changes(times)


def _rest(fleet: Fleet, expect: bytes) -> None:
    """Go on asking for a while, since processes look at a file on the way of a request; all must stay."""
    end = time.perf_counter() + random.uniform(0, REST)
    while time.perf_counter() < end:
        for connection in fleet.connections:
            if _ask(connection)[0] != expect:
                raise BenchError("a process has gone back to where it was")
        time.sleep(PAUSE)


def _await(fleet: Fleet, expect: bytes, start: float) -> None:
    behind = list(fleet.connections)
    while behind:
        if time.perf_counter() - start > LONGEST:
            raise BenchError(f"{len(behind)} processes do not follow within {LONGEST:.0f} s")
        # All are asked: who has followed looks no less often for it.
        behind = [one for one in fleet.connections if _ask(one)[0] != expect and one in behind]
        if behind:
            time.sleep(PAUSE)


# --- the table


def _fill(table: Table, group: Group, series: dict[str, Series], compiled: float) -> None:
    for name, one in series.items():
        table.rows.append(_row(group, name.rpartition("/")[2], one, compiled))
        table.data.append({**asdict(one), "compile_s": compiled})
        table.failed |= bool(one.error) and not is_left_out(one)
    table.notes.extend(failures(series))


def _row(group: Group, name: str, one: Series, compiled: float) -> list[str]:
    if one.error:
        verdict = stores.NOT_MEASURED if is_left_out(one) else "FAILED"
        return [group.label, name, *"----", verdict]
    times = sorted(seconds for sample in one.samples for seconds in sample.times)
    shown = [median(times), times[math.ceil(0.95 * len(times)) - 1], times[-1]]
    return [
        group.label,
        name,
        str(len(times)),
        *(f"{1000 * seconds:,.0f}" for seconds in shown),
        _target(name, shown, compiled),
    ]


def _target(name: str, shown: list[float], compiled: float) -> str:
    middle, _, worst = shown
    extra = WORKERS * compiled if name == FILE else 0.0
    text = f"max <= {MOST[name]:g} s" + (f" + {WORKERS} compiled tables, {number(extra)} s" if extra else "")
    verdict = at_most(worst, MOST[name] + extra, text)
    return verdict if name != REDIS else f"{at_most(middle, TYPICAL, f'median <= {TYPICAL} s')}; {verdict}"
