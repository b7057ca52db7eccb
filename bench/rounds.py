"""Rounds over servers: every peer in turn, anew in each round, so that drift hits all alike."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from bench import wrk
from bench.processes import SERVER_CPUS, BenchError, Running, busy_seconds, cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.options import Options
    from bench.report import Progress

WARM_UP = 1
"""Seconds of load before anything counts."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One row: its name, `measurement/server/peer`, and how its server is started."""

    name: str
    start: Callable[[], AbstractContextManager[Running]]
    script: Path


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
    samples: list[Sample] = field(default_factory=list)
    error: str = ""

    def median(self, what: str) -> float:
        """Return the middle of one column of the samples."""
        return median(self.column(what))

    def column(self, what: str) -> list[float]:
        """Return one column of the samples."""
        return [getattr(sample, what) for sample in self.samples]

    def above(self, base: Series) -> list[float]:
        """Return, round by round, by how much this peer's CPU time exceeds that of `base`."""
        return [mine.cpu - its.cpu for mine, its in zip(self.samples, base.samples, strict=False)]


def run(peers: Iterable[Peer], options: Options, progress: Progress) -> dict[str, Series]:
    """Measure every peer once a round; a peer that failed is not asked again."""
    peers = list(peers)
    series = {peer.name: Series(peer.name) for peer in peers}
    for turn in range(1, options.rounds + 1):
        for peer in peers:
            mine = series[peer.name]
            if not mine.error:
                progress.say(f"round {turn} of {options.rounds}: {peer.name}")
                _add(mine, peer, options)
    return series


def _add(series: Series, peer: Peer, options: Options) -> None:
    try:
        with peer.start() as running:
            series.samples.append(_sample(running, peer, options))
    except BenchError as exc:
        series.error = str(exc)


def _sample(running: Running, peer: Peer, options: Options) -> Sample:
    wrk.run(running.port, peer.script, options, WARM_UP)
    cpu, others, start = cpu_seconds(running.pid), _others(running), time.monotonic()
    result = wrk.run(running.port, peer.script, options, options.seconds)
    cpu, others = cpu_seconds(running.pid) - cpu, _others(running) - others
    share = others / (time.monotonic() - start)
    return Sample(cpu / result.requests * 1e6, result.per_second, result.p50, result.p99, share)


def _others(running: Running) -> float:
    """Return the seconds that the server's CPU has worked for anyone but the app's process."""
    return busy_seconds(SERVER_CPUS) - cpu_seconds(running.app or running.pid)
