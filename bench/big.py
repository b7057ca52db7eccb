"""One body as large as a film, each way: how fast it passes, and what memory it takes on the way."""

from __future__ import annotations

import socket
import time
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from bench import servers
from bench.memory import forget_peak, peak, resident
from bench.payload import DOWN, LEGACY, UP
from bench.processes import BenchError, Running, cpu_seconds
from bench.proxies import HOPS
from bench.report import Table, at_least, at_most, number, ratio, spread
from bench.rounds import run
from bench.served import DIRECT, OURS, SERVERS, Group, Site, failures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.options import Options
    from bench.report import Progress
    from bench.rounds import Series

NAME = "big"
FLOOR = "minimal"
MEBIBYTE = 1 << 20
WARM_UP = 8
"""MiB that pass before anything counts."""
PATIENCE = 60.0
"""Seconds without a byte."""
MOST_MEMORY = 16.0
LEAST_SHARE = 0.7
WAYS = ("down", "up")
GROUPS = tuple(
    Group(f"{NAME}/{interface}/{way}", label, (DIRECT, OURS, FLOOR, *HOPS))
    for way in WAYS
    for interface, label in SERVERS.items()
)
COLUMNS = ["server", "peer", "MiB/s", f"of {FLOOR}", "memory MiB", "CPU ms/GiB", "target"]


@dataclass(frozen=True, slots=True)
class Transfer:
    """One round of one peer: MiB a second, MiB by which the peak of memory grew, CPU milliseconds a GiB."""

    rate: float
    memory: float
    cpu: float


def measure(options: Options, progress: Progress, folder: Path) -> Iterator[Table]:
    """Measure both ways through everyone wanted; one table for each way."""
    wanted = [group for group in GROUPS if group.wanted(options)]
    if not wanted:
        return
    with servers.origin(folder) as modern:
        site = Site(
            folder=folder,
            path="/modern",
            upstream=modern.port,
            threads=options.threads,
            direct="direct-bodies",
        )
        for way in WAYS:
            groups = [group for group in wanted if group.name.endswith(f"/{way}")]
            table = _table(way, options)
            for group in groups:
                sample = partial(_sample, way, options.mebibytes)
                _fill(table, group, run(site.peers(group, group.wanted(options), sample), options, progress))
            if groups:
                yield table


def _table(way: str, options: Options) -> Table:
    title = f"big: one body of {options.mebibytes:,} MiB {way}"
    note = (
        f"{options.rounds} rounds; median (least..greatest). Memory: growth of the server process's peak over"
        f" what was resident after {WARM_UP} MiB. 'of {FLOOR}': share of the minimal forwarder's rate."
        f" '{DIRECT}' sends or swallows the body itself."
    )
    return Table(title, COLUMNS, notes=[note])


def _sample(way: str, mebibytes: int, running: Running) -> Transfer:
    exchange = _down if way == "down" else _up
    with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE) as client:
        try:
            exchange(client, WARM_UP)
            forget_peak(running.pid)
            memory, cpu, start = resident(running.pid), cpu_seconds(running.pid), time.perf_counter()
            exchange(client, mebibytes)
        except OSError as exc:
            raise BenchError(f"the body did not pass: {exc}") from exc
        seconds = time.perf_counter() - start
    cpu = (cpu_seconds(running.pid) - cpu) * 1000 * 1024 / mebibytes
    grown = max(0, peak(running.pid) - memory)
    return Transfer(mebibytes / seconds, grown / MEBIBYTE, cpu)


def _down(client: socket.socket, mebibytes: int) -> None:
    size = mebibytes * MEBIBYTE
    client.sendall(f"GET {DOWN}{size} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    head, come = _answer(client)
    if f"content-length: {size}" not in head:
        raise BenchError(f"the answer has another length: {head[:200]!r}")
    buffer = bytearray(MEBIBYTE)
    while come < size:
        more = client.recv_into(buffer)
        if not more:
            raise BenchError(f"the answer was cut after {come:,} bytes")
        come += more
    if come > size:
        raise BenchError("the answer was too long")


def _up(client: socket.socket, mebibytes: int) -> None:
    client.sendall(
        f"POST {UP} HTTP/1.1\r\nHost: bench\r\nContent-Length: {mebibytes * MEBIBYTE}\r\n\r\n".encode()
    )
    block = bytes(MEBIBYTE)
    for _ in range(mebibytes):
        client.sendall(block)
    _, come = _answer(client)
    while come < len(LEGACY):  # the modern answer is as long
        more = len(client.recv(65_536))
        if not more:
            raise BenchError("the answer to the upload was cut")
        come += more


def _answer(client: socket.socket) -> tuple[str, int]:
    """Read a head that says 200; return it, in lower case, and how many bytes of the body came along."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65_536)
        if not more:
            raise BenchError("the connection was closed before the answer")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"answered {head[:80]!r}")
    return head.decode("latin-1").lower(), len(rest)


def _fill(table: Table, group: Group, series: dict[str, Series]) -> None:
    floor = series.get(f"{group.name}/{FLOOR}")
    for one in series.values():
        shares = _shares(one, floor) if floor else []
        table.rows.append(_row(group, one, shares))
        table.data.append({**asdict(one), "of_minimal": shares})
        table.failed |= bool(one.error)
    table.notes.extend(failures(series))


def _shares(one: Series, floor: Series) -> list[float]:
    pairs = zip(one.column("rate"), floor.column("rate"), strict=False)
    return [mine / its for mine, its in pairs]


def _row(group: Group, one: Series, shares: list[float]) -> list[str]:
    peer = one.name.rpartition("/")[2]
    if one.error:
        return [group.label, peer, *"----", "FAILED"]
    return [
        group.label,
        peer,
        spread(one.column("rate")),
        ratio(median(shares)) if shares and peer != FLOOR else "-",
        spread(one.column("memory")),
        number(one.median("cpu")),
        _target(peer, one, shares),
    ]


def _target(peer: str, one: Series, shares: list[float]) -> str:
    if peer != OURS:
        return ""
    texts = [at_most(one.median("memory"), MOST_MEMORY, f"<= {MOST_MEMORY:g} MiB")]
    if shares:
        texts.append(at_least(median(shares), LEAST_SHARE, f">= {LEAST_SHARE} of {FLOOR}"))
    return "; ".join(texts)
