"""A WSGI monolith under uvicorn (`serve="asgi"`): memory of open streams, and whether its own requests wait.

The same app under gunicorn's threads stands beside it: there every stream and every slow answer holds one.
"""

from __future__ import annotations

import selectors
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import median, quantiles
from typing import TYPE_CHECKING, cast

from bench import idle, servers, wrk
from bench.idle import EVENT_STREAM, see_that_all_are_open
from bench.memory import resident
from bench.payload import LEGACY, SLOW, event
from bench.processes import BenchError, Running
from bench.report import Table, number, ratio, spread
from bench.rounds import Series, run
from bench.served import DIRECT, OURS, Group, Site, failures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.options import Options
    from bench.report import Progress

NAME = "serveasgi"
STREAMS = SLOWS = 200
"""Open event streams, and slow requests at any time."""
THREADS = 40
AMPLE = STREAMS + SLOWS + THREADS
"""Threads that are enough for everything at once."""
ORDINARY = "strangle-mw, ASGI"
"""Ours around an ASGI app: nothing of the threads."""
APPS = {"asgi": "served-as-asgi", "wsgi": OURS}
QUIET, BUSY = "quiet", "busy"
"""Requests of the monolith's own alone, and beside the streams and the slow ones."""
MEMORY = Group(f"{NAME}/asgi/sse", "uvicorn, SSE", (DIRECT, OURS, ORDINARY))
LOADS = (
    Group(f"{NAME}/asgi/load-{THREADS}", f"uvicorn, {THREADS} threads", (QUIET, BUSY)),
    Group(f"{NAME}/wsgi/load-{THREADS}", f"gthread, {THREADS} threads", (QUIET, BUSY)),
    Group(f"{NAME}/wsgi/load-{AMPLE}", f"gthread, {AMPLE} threads", (QUIET, BUSY)),
)
GROUPS = (MEMORY, *LOADS)
COLUMNS = [
    *("server", "own requests", "p50 us", "p99 us", "max us", "p99 / quiet", "answered"),
    *("streams", "slow/s", "MiB", "target"),
]
PROOF = "/modern"
OWN = b"GET /accounts/7 HTTP/1.1\r\nHost: bench\r\n\r\n"
INTERVAL = 0.005
"""Seconds between two requests of the monolith's own, whatever became of those before."""
PATIENCE = 2.0
"""Seconds until all streams shall have begun, and that the last requests have for their answers."""
SETTLE = 2
"""Seconds of slow requests before anything counts: until they do not come in step any more."""


@dataclass(frozen=True, slots=True)
class Waits:
    """One round: how long own requests took (us), how many had an answer, and what else there was."""

    p50: float
    p99: float
    most: float
    asked: int
    answered: int
    streams: int
    slow: float
    """Slow answers per second."""
    mebibytes: float


def measure(options: Options, progress: Progress, folder: Path) -> Iterator[Table]:
    """Measure memory in one table, and waiting in another one."""
    wanted = [group for group in GROUPS if group.wanted(options)]
    if not wanted:
        return
    with servers.origin(folder) as modern:
        site = Site(
            folder=folder,
            path=PROOF,
            upstream=modern.port,
            threads=THREADS,
            direct="direct-bodies",
            apps={OURS: APPS["asgi"], ORDINARY: OURS},
        )
        if MEMORY in wanted:
            yield _memory(site, options, progress)
        loads = [group for group in wanted if group in LOADS]
        if loads:
            yield _waiting(site, loads, options, progress)


def _memory(site: Site, options: Options, progress: Progress) -> Table:
    table = Table(f"{NAME}: memory of {STREAMS} open event streams that are forwarded", idle.COLUMNS)
    table.notes.append(
        f"{options.rounds} rounds; median (least..greatest). As in `idle`; {OURS!r} is a WSGI app with"
        f' serve="asgi", {ORDINARY!r} an ASGI app.'
    )
    peers = idle.holders(site, MEMORY, MEMORY.wanted(options), EVENT_STREAM, STREAMS)
    idle.fill(table, MEMORY, run(peers, options, progress))
    return table


def _waiting(site: Site, groups: list[Group], options: Options, progress: Progress) -> Table:
    title = (
        f"{NAME}: how long the monolith's own requests take beside {STREAMS} streams and {SLOWS} slow ones"
    )
    table = Table(title, COLUMNS)
    table.notes.append(
        f"{1 / INTERVAL:.0f} requests a second for {options.seconds} s a round, {options.rounds} rounds; median"
        " (least..greatest). One without an answer counts with the time until it was given up; its real one"
        f" would be longer. Streams: how many of {STREAMS} have begun."
    )
    for group in groups:
        threads = int(group.name.rpartition("-")[2])
        here = replace(site, threads=threads, apps=dict.fromkeys((QUIET, BUSY), APPS[group.interface]))
        samples = {QUIET: partial(_quiet, options), BUSY: partial(_busy, site.folder, options)}
        peers = [peer for name in group.wanted(options) for peer in here.peers(group, [name], samples[name])]
        _fill(table, group, run(peers, options, progress))
    return table


def _quiet(options: Options, running: Running) -> Waits:
    _Prober(running.port, 1).run()  # warms up
    prober = _Prober(running.port, options.seconds)
    prober.run()
    return prober.waits(0, 0.0, resident(running.pid))


def _busy(folder: Path, options: Options, running: Running) -> Waits:
    with ExitStack() as stack:
        streams = _open_streams(stack, running.port)
        prober = _Prober(running.port, options.seconds)
        slow = stack.enter_context(ThreadPoolExecutor(1)).submit(_slow, folder, options, running)
        time.sleep(SETTLE)
        prober.run()
        memory = resident(running.pid)
        see_that_all_are_open(streams)
        return prober.waits(len(streams), slow.result().per_second, memory)


def _slow(folder: Path, options: Options, running: Running) -> wrk.Result:
    """Keep slow requests under way as long as `_Prober.run` may take; no answer is an answer here, too."""
    script = wrk.write_script(folder, f"{NAME}-slow", [SLOW])
    seconds = SETTLE + options.seconds + int(PATIENCE)
    return wrk.run(running.port, script, replace(options, connections=SLOWS), seconds, warm_up=True)


def _open_streams(stack: ExitStack, port: int) -> list[socket.socket]:
    """Ask for every stream; return those that have begun in time."""
    selector = stack.enter_context(selectors.DefaultSelector())
    for _ in range(STREAMS):
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
        client.sendall(EVENT_STREAM)
        selector.register(client, selectors.EVENT_READ)
    begun: list[socket.socket] = []
    deadline = time.monotonic() + PATIENCE
    while len(begun) < STREAMS and (left := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            client = cast("socket.socket", key.fileobj)
            data = b""
            while event("modern") not in data:
                data += (more := client.recv(65_536))
                if not more:
                    raise BenchError(f"a stream was closed after {data[:80]!r}")
            selector.unregister(client)
            begun.append(client)
    return begun


@dataclass(slots=True)
class _Prober:
    """Sends own requests at their times, each on a connection that waits for nothing, and takes the answers.

    An answer late by the server's fault makes no later request late: the load is open.
    """

    port: int
    seconds: float
    times: list[float] = field(default_factory=list)
    asked: int = 0
    _idle: list[socket.socket] = field(default_factory=list)
    _asked_at: dict[socket.socket, tuple[float, bytes]] = field(default_factory=dict)

    def run(self) -> None:
        """Ask for `seconds`, and wait a little longer for answers."""
        start = time.perf_counter()
        due, last = start, start + self.seconds
        with selectors.DefaultSelector() as selector, ExitStack() as stack:
            while (now := time.perf_counter()) < last + PATIENCE and (due < last or self._asked_at):
                if due < last and now >= due:
                    self._ask(selector, stack, due)
                    due += INTERVAL
                    continue
                wait = due - now if due < last else last + PATIENCE - now
                for key, _ in selector.select(wait):
                    self._take(cast("socket.socket", key.fileobj))
            now = time.perf_counter()
            self.times.extend(now - asked for asked, _ in self._asked_at.values())

    def waits(self, streams: int, slow: float, memory: int) -> Waits:
        """Sum up."""
        parts = quantiles(self.times, n=100, method="inclusive")
        answered = len(self.times) - len(self._asked_at)
        p50, p99, most = (value * 1e6 for value in (parts[49], parts[98], max(self.times)))
        return Waits(p50, p99, most, self.asked, answered, streams, slow, memory / 2**20)

    def _ask(self, selector: selectors.BaseSelector, stack: ExitStack, due: float) -> None:
        if self._idle:
            client = self._idle.pop()
        else:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE))
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            selector.register(client, selectors.EVENT_READ)
        self.asked += 1
        self._asked_at[client] = (due, b"")
        client.sendall(OWN)

    def _take(self, client: socket.socket) -> None:
        asked, got = self._asked_at.pop(client)
        more = b""
        with suppress(ConnectionError):
            more = client.recv(65_536)
        if not more:
            raise BenchError(f"an own request was cut after {got[:80]!r}")
        got += more
        if not got.endswith(LEGACY):
            self._asked_at[client] = (asked, got)
            return
        if b" 200 " not in got[:16]:
            raise BenchError(f"an own request was answered {got[:80]!r}")
        self.times.append(time.perf_counter() - asked)
        self._idle.append(client)


def _fill(table: Table, group: Group, series: dict[str, Series]) -> None:
    quiet = series.get(f"{group.name}/{QUIET}")
    for one in series.values():
        table.rows.append(_row(group, one, quiet))
        table.data.append(asdict(one))
        table.failed |= bool(one.error)
    table.notes.extend(failures(series))


def _row(group: Group, one: Series, quiet: Series | None) -> list[str]:
    kind = one.name.rpartition("/")[2]
    if one.error:
        return [group.label, kind, *"--------", "FAILED"]
    base = quiet.median("p99") if quiet and quiet.samples and kind == BUSY else 0.0
    answered, asked = sum(one.column("answered")), sum(one.column("asked"))
    return [
        group.label,
        kind,
        *(spread(one.column(what)) for what in ("p50", "p99")),
        number(max(one.column("most"))),
        ratio(one.median("p99") / base) if base else "-",
        f"{answered:,} of {asked:,}",
        f"{median(one.column('streams')):.0f}" if kind == BUSY else "-",
        number(one.median("slow")) if kind == BUSY else "-",
        number(one.median("mebibytes")),
        _target(group, answered == asked) if kind == BUSY else "",
    ]


def _target(group: Group, met: bool) -> str:
    return f"all are answered: {'met' if met else 'missed'}" if group.interface == "asgi" else ""
