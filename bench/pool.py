"""The HTTP clients alone, without a server around: one pool, many threads or tasks, one small GET after another."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING

from bench import library, proxies
from bench.callers import WARM_UP, on_the_servers_cpu
from bench.payload import MODERN
from bench.report import Table, ratio, spread
from bench.rounds import Series
from bench.served import OURS, Group, failures

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from pathlib import Path

    from bench.options import Options
    from bench.report import Progress

    Ask = Callable[[], bytes]
    AskAsync = Callable[[], Awaitable[bytes]]

NAME = "pool"
THREADS = 32
TASKS = 256
PATH = "/modern/leads/1"
GROUPS = (
    Group(f"{NAME}/threads", f"{THREADS} threads", (OURS, "urllib3", "httpx2")),
    Group(f"{NAME}/tasks", f"{TASKS} tasks", (OURS, "aiohttp", "httpx2")),
)
COLUMNS = ["on one pool", "peer", "CPU us", "wall us", "ours / this", "exchanges", "target"]


@dataclass(frozen=True, slots=True)
class Exchanges:
    """One round of one peer: microseconds of CPU and of time for an exchange, and how many there were."""

    cpu: float
    wall: float
    count: int


def measure(options: Options, progress: Progress, folder: Path) -> Iterator[Table]:
    """Measure every wanted client in this process, in turn, against nginx on the other CPU."""
    wanted = [group for group in GROUPS if group.wanted(options)]
    if not wanted:
        return
    table = Table("pool: microseconds per exchange of the client alone, in this process", COLUMNS)
    table.notes.append(
        f"{options.seconds} s a round, {options.rounds} rounds; median (least..greatest). Each thread or task"
        " sends its next GET when it has its answer; no headers but Host. 'ours / this' is that of the CPU."
    )
    with proxies.upstream(folder) as modern, on_the_servers_cpu():
        for group in wanted:
            _fill(table, group, _rounds(group, modern.port, options, progress))
    yield table


def _rounds(group: Group, port: int, options: Options, progress: Progress) -> dict[str, Series]:
    names = [f"{group.name}/{peer}" for peer in group.wanted(options)]
    series = {name: Series(name) for name in names}
    for turn in range(1, options.rounds + 1):
        for name, one in series.items():
            progress.say(f"round {turn} of {options.rounds}: {name}")
            if not one.error:
                _add(one, name, port, options)
    return series


def _add(series: Series, name: str, port: int, options: Options) -> None:
    """Measure one round; a client is a library, and any error it has is that of its row."""
    peer = name.rpartition("/")[2]
    try:
        if peer == OURS and (problem := library.problem()):
            raise RuntimeError(problem)
        if name.startswith(GROUPS[0].name):
            with BLOCKING[peer](port) as ask:
                sample = _with_threads(ask, options.seconds)
        else:
            sample = asyncio.run(_with_tasks(ASYNC[peer], port, options.seconds))
    except Exception as exc:
        series.error = f"{type(exc).__name__}: {exc}"
        series.samples.clear()
    else:
        series.samples.append(sample)


def _with_threads(ask: Ask, seconds: float) -> Exchanges:
    def work(deadline: float, counts: list[int], errors: list[Exception]) -> None:
        count = 0
        try:
            while time.monotonic() < deadline:
                _check(ask())
                count += 1
        except Exception as exc:
            errors.append(exc)
        counts.append(count)

    def load(seconds: float) -> int:
        counts: list[int] = []
        errors: list[Exception] = []
        arguments = (time.monotonic() + seconds, counts, errors)
        threads = [threading.Thread(target=work, args=arguments) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return sum(counts)

    load(WARM_UP)
    cpu, wall = time.process_time(), time.perf_counter()
    return _exchanges(load(seconds), cpu, wall)


async def _with_tasks(
    made: Callable[[int], AbstractAsyncContextManager[AskAsync]], port: int, seconds: float
) -> Exchanges:
    async with made(port) as ask:
        return await _load_with_tasks(ask, seconds)


async def _load_with_tasks(ask: AskAsync, seconds: float) -> Exchanges:
    async def work(deadline: float) -> int:
        count = 0
        while time.monotonic() < deadline:
            _check(await ask())
            count += 1
        return count

    async def load(seconds: float) -> int:
        deadline = time.monotonic() + seconds
        return sum(await asyncio.gather(*(work(deadline) for _ in range(TASKS))))

    await load(WARM_UP)
    cpu, wall = time.process_time(), time.perf_counter()
    return _exchanges(await load(seconds), cpu, wall)


def _exchanges(count: int, cpu: float, wall: float) -> Exchanges:
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Exchanges(cpu / count * 1e6, wall / count * 1e6, count)


def _check(body: bytes) -> None:
    if body != MODERN:
        raise ValueError(f"another answer: {body[:80]!r}")


@contextmanager
def _urllib3(port: int) -> Iterator[Ask]:
    import urllib3

    with urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=THREADS) as pool:
        yield lambda: pool.urlopen("GET", PATH, retries=False, redirect=False).data


@contextmanager
def _httpx2(port: int) -> Iterator[Ask]:
    import httpx2

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    with httpx2.HTTPTransport(limits=limits, trust_env=False) as transport:
        url = httpx2.URL(f"http://127.0.0.1:{port}{PATH}")
        yield lambda: transport.handle_request(httpx2.Request("GET", url)).read()


@asynccontextmanager
async def _aiohttp(port: int) -> AsyncIterator[AskAsync]:
    import aiohttp
    from yarl import URL

    url = URL(f"http://127.0.0.1:{port}{PATH}", encoded=True)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
    ) as session:

        async def ask() -> bytes:
            async with session.get(url) as got:
                return await got.read()

        yield ask


@asynccontextmanager
async def _httpx2_async(port: int) -> AsyncIterator[AskAsync]:
    import httpx2

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    url = httpx2.URL(f"http://127.0.0.1:{port}{PATH}")
    async with httpx2.AsyncHTTPTransport(limits=limits, trust_env=False) as transport:

        async def ask() -> bytes:
            got = await transport.handle_async_request(httpx2.Request("GET", url))
            return await got.aread()

        yield ask


BLOCKING: dict[str, Callable[[int], AbstractContextManager[Ask]]] = {
    OURS: lambda port: library.blocking_exchange(port, PATH),
    "urllib3": _urllib3,
    "httpx2": _httpx2,
}
ASYNC: dict[str, Callable[[int], AbstractAsyncContextManager[AskAsync]]] = {
    OURS: lambda port: library.async_exchange(port, PATH),
    "aiohttp": _aiohttp,
    "httpx2": _httpx2_async,
}


def _fill(table: Table, group: Group, series: dict[str, Series]) -> None:
    ours = series.get(f"{group.name}/{OURS}")
    mine = ours.median("cpu") if ours and ours.samples else None
    for one in series.values():
        table.rows.append(_row(group, one, mine))
        table.data.append(asdict(one))
        table.failed |= bool(one.error)
    table.notes.extend(failures(series))


def _row(group: Group, one: Series, ours: float | None) -> list[str]:
    peer = one.name.rpartition("/")[2]
    if one.error:
        return [group.label, peer, *"----", "FAILED"]
    return [
        group.label,
        peer,
        spread(one.column("cpu")),
        spread(one.column("wall")),
        ratio(ours / one.median("cpu")) if ours and peer != OURS else "-",
        f"{median(one.column('count')):,.0f}",
        "",
    ]
