"""Memory of connections on which nothing happens: event streams and WebSockets, held open by the thousand."""

from __future__ import annotations

import base64
import select
import socket
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from bench import servers
from bench.memory import resident
from bench.payload import EVENTS
from bench.processes import BenchError, Running, await_quiet
from bench.report import Table, at_most, ratio, spread
from bench.rounds import run
from bench.served import BRIDGES, DIRECT, OURS, Group, Site, failures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.options import Options
    from bench.report import Progress
    from bench.rounds import Peer, Series

NAME = "idle"
WARM_UP = 20
"""Connections opened and closed before anything counts."""
PATIENCE = 60.0
"""Seconds until a connection is established."""
MOST = 40.0
"""KiB of one connection (design section 11)."""
SSE, WEBSOCKET = f"{NAME}/asgi/sse", f"{NAME}/asgi/websocket"
GROUPS = (
    Group(SSE, "uvicorn, SSE", (DIRECT, OURS, "minimal", "aiohttp", "fastapi-proxy-lib")),
    Group(WEBSOCKET, "uvicorn, WebSocket", (DIRECT, OURS, *BRIDGES, "fastapi-proxy-lib")),
)
COLUMNS = ["server", "peer", "MiB before", "MiB open", "KiB each", "added KiB", "ours / this", "target"]
EVENT_STREAM = f"GET {EVENTS} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n".encode()
HANDSHAKE = (
    f"GET {EVENTS} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()


@dataclass(frozen=True, slots=True)
class Held:
    """One round of one peer: resident MiB without and with the connections, and KiB for each of them."""

    before: float
    after: float
    each: float


def measure(options: Options, progress: Progress, folder: Path) -> Iterator[Table]:
    """Measure both kinds of connection through every wanted peer, in one table."""
    wanted = [group for group in GROUPS if group.wanted(options)]
    if not wanted:
        return
    table = Table(f"idle: memory of {options.idle:,} connections on which nothing happens", COLUMNS)
    table.notes.append(
        f"{options.rounds} rounds; median (least..greatest). Resident memory of the server process; 'added' is"
        f" above '{DIRECT}', an app that holds its clients' connections itself, paired by round. What the"
        " kernel keeps for sockets is not in it."
    )
    with servers.origin(folder) as modern:
        site = Site(
            folder=folder,
            path="/modern",
            upstream=modern.port,
            threads=options.threads,
            direct="direct-bodies",
        )
        for group in wanted:
            request = EVENT_STREAM if group.name == SSE else HANDSHAKE
            peers = holders(site, group, group.wanted(options), request, options.idle)
            fill(table, group, run(peers, options, progress))
    yield table


def holders(site: Site, group: Group, names: list[str], request: bytes, count: int) -> Iterator[Peer]:
    """Give rows of a group that hold so many connections, each opened by `request`."""
    for name in names:
        side = b"legacy" if name == DIRECT else b"modern"
        yield from site.peers(group, [name], partial(_sample, _Opener(request, side), count))


def _sample(opener: _Opener, count: int, running: Running) -> Held:
    with ExitStack() as stack:
        opener.open(stack, WARM_UP, running.port)
    await_quiet(running.pid)
    before = resident(running.pid)
    with ExitStack() as stack:
        clients = opener.open(stack, count, running.port)
        await_quiet(running.pid)
        after = resident(running.pid)
        see_that_all_are_open(clients)
    return Held(before / 2**20, after / 2**20, (after - before) / count / 1024)


@dataclass(frozen=True, slots=True)
class _Opener:
    """What is asked for, and which side must name itself in the first message."""

    request: bytes
    side: bytes

    def open(self, stack: ExitStack, count: int, port: int) -> list[socket.socket]:
        clients = []
        for number in range(count):
            try:
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
                client.sendall(self.request)
                self._await_message(client)
            except OSError as exc:
                raise BenchError(f"connection {number + 1} of {count}: {exc}") from exc
            clients.append(client)
        return clients

    def _await_message(self, client: socket.socket) -> None:
        data = b""
        while self.side not in data:
            more = client.recv(65_536)
            if not more:
                raise BenchError(f"closed before {self.side!r} came: {data[:120]!r}")
            data += more


def see_that_all_are_open(clients: list[socket.socket]) -> None:
    """Raise `BenchError` if anything has happened on one of these connections."""
    poll = select.poll()
    for client in clients:
        poll.register(client, select.POLLIN)
    if woken := len(poll.poll(0)):
        raise BenchError(f"{woken} of {len(clients)} connections were not idle")


def fill(table: Table, group: Group, series: dict[str, Series]) -> None:
    """Add the rows of a group that `holders` made."""
    direct = series[f"{group.name}/{DIRECT}"]
    added = {name: one.above(direct, "each") for name, one in series.items() if one is not direct}
    ours = median(added.get(f"{group.name}/{OURS}") or [0.0]) or None
    for name, one in series.items():
        table.rows.append(_row(group, one, added.get(name, []), ours))
        table.data.append({**asdict(one), "added": added.get(name, [])})
        table.failed |= bool(one.error)
    table.notes.extend(failures(series))


def _row(group: Group, one: Series, added: list[float], ours: float | None) -> list[str]:
    peer = one.name.rpartition("/")[2]
    if one.error:
        return [group.label, peer, *"-----", "FAILED"]
    middle = median(added) if added else None
    return [
        group.label,
        peer,
        *(spread(one.column(what)) for what in ("before", "after", "each")),
        spread(added) if added else "-",
        ratio(ours / middle) if ours and middle and peer != OURS else "-",
        at_most(middle, MOST, f"<= {MOST:g} KiB") if peer == OURS and middle is not None else "",
    ]
