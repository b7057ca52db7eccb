"""Rounds over servers: every peer in turn, anew in each round, so that drift hits all alike."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import wrk
from bench.processes import SERVER_CPUS, BenchError, Running, await_quiet, busy_seconds, cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from bench.options import Options
    from bench.report import Progress
    from bench.wrk import Script

WARM_UP = 1
"""Seconds of load before anything counts."""
FEWEST = 4
"""Answers for each connection; a slow peer is loaded longer until it has given about as many."""
LONGEST = 10
"""Seconds of load at most, unless more are asked for."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One row: its name, `measurement/server/peer`, how its server is started, and what is measured of it.

    What `start` gives is a `Running` wherever one process is measured, and what `sample` takes in any case.
    """

    name: str
    start: Callable[[], AbstractContextManager[Any]]
    sample: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one peer; times in microseconds, `others` the share of the server's CPU used by others."""

    cpu: float
    per_second: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    others: float = 0.0


@dataclass(slots=True)
class Series:
    """All rounds of one peer, or why there are none."""

    name: str
    samples: list[Any] = field(default_factory=list)
    error: str = ""

    def median(self, what: str) -> float:
        """Return the middle of one column of the samples."""
        return median(self.column(what))

    def column(self, what: str) -> list[float]:
        """Return one column of the samples."""
        return [getattr(sample, what) for sample in self.samples]

    def above(self, base: Series, what: str = "cpu") -> list[float]:
        """Return, round by round, by how much one column of this peer exceeds that of `base`."""
        pairs = zip(self.column(what), base.column(what), strict=False)
        return [mine - its for mine, its in pairs]


def run(peers: Iterable[Peer], options: Options, progress: Progress) -> dict[str, Series]:
    """Measure every peer once a round; a peer that failed is not asked again."""
    peers = list(peers)
    series = {peer.name: Series(peer.name) for peer in peers}
    for turn in range(1, options.rounds + 1):
        for peer in peers:
            mine = series[peer.name]
            if not mine.error:
                progress.say(f"round {turn} of {options.rounds}: {peer.name}")
                _add(mine, peer)
    return series


def _add(series: Series, peer: Peer) -> None:
    try:
        with peer.start() as running:
            series.samples.append(peer.sample(running))
    except BenchError as exc:
        series.error = str(exc)
        series.samples.clear()


def loaded(script: Script, options: Options, running: Running) -> Sample:
    """Load a server with wrk and account for its CPU time."""
    warm = wrk.run(running.port, script, options, WARM_UP, warm_up=True)
    await_quiet(running.pid)  # what the first load began is not the second one's
    cpu, others, start = cpu_seconds(running.pid), _others(running), time.monotonic()
    result = wrk.run(running.port, script, options, _seconds(options, warm.per_second))
    cpu, others = cpu_seconds(running.pid) - cpu, _others(running) - others
    share = others / (time.monotonic() - start)
    return Sample(cpu / result.requests * 1e6, result.per_second, result.p50, result.p99, share)


def _seconds(options: Options, per_second: float) -> int:
    """Return how long to load a peer that was seen to answer at this rate."""
    needed = options.connections * FEWEST / per_second if per_second else LONGEST
    return max(options.seconds, min(LONGEST, math.ceil(needed)))


def _others(running: Running) -> float:
    """Return the seconds that the server's CPU has worked for anyone but the app's process."""
    return busy_seconds(SERVER_CPUS) - cpu_seconds(running.app or running.pid)
