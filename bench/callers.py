"""Callers in this process: threads or tasks that each make their next call when they have the answer."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING

from bench.processes import LOAD_CPUS, SERVER_CPUS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Ask = Callable[[], bytes]
    AskAsync = Callable[[], Awaitable[bytes]]

WARM_UP = 0.3
"""Seconds before anything counts."""


@dataclass(frozen=True, slots=True)
class Calls:
    """One round: microseconds of CPU and of time for a call, how many there were, and how long one took."""

    cpu: float
    wall: float
    count: int
    p50: float
    p99: float


@contextmanager
def on_the_servers_cpu() -> Iterator[None]:
    """Be where the servers are otherwise; threads that are started meanwhile stay there."""
    os.sched_setaffinity(0, SERVER_CPUS)
    try:
        yield
    finally:
        os.sched_setaffinity(0, LOAD_CPUS)


def with_threads(ask: Ask, callers: int, seconds: float) -> Calls:
    """Call from so many threads for so many seconds; every answer must be the first one."""
    expect = ask()

    def work(deadline: float, times: list[float], errors: list[Exception]) -> None:
        try:
            while (start := time.perf_counter()) < deadline:
                _check(ask(), expect)
                times.append(time.perf_counter() - start)
        except Exception as exc:
            errors.append(exc)

    def load(seconds: float) -> list[float]:
        times: list[float] = []
        errors: list[Exception] = []
        arguments = (time.perf_counter() + seconds, times, errors)
        threads = [threading.Thread(target=work, args=arguments) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return times

    load(WARM_UP)
    cpu, wall = time.process_time(), time.perf_counter()
    return _calls(load(seconds), cpu, wall)


async def with_tasks(ask: AskAsync, callers: int, seconds: float) -> Calls:
    """Do the same with tasks of this loop."""
    expect = await ask()

    async def work(deadline: float, times: list[float]) -> None:
        while (start := time.perf_counter()) < deadline:
            _check(await ask(), expect)
            times.append(time.perf_counter() - start)

    async def load(seconds: float) -> list[float]:
        times: list[float] = []
        deadline = time.perf_counter() + seconds
        await asyncio.gather(*(work(deadline, times) for _ in range(callers)))
        return times

    await load(WARM_UP)
    cpu, wall = time.process_time(), time.perf_counter()
    return _calls(await load(seconds), cpu, wall)


def _check(answer: bytes, expect: bytes) -> None:
    if answer != expect:
        raise ValueError(f"another answer: {answer[:80]!r}")


def _calls(times: list[float], cpu: float, wall: float) -> Calls:
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    parts = quantiles(times, n=100, method="inclusive")
    count = len(times)
    return Calls(cpu / count * 1e6, wall / count * 1e6, count, parts[49] * 1e6, parts[98] * 1e6)
