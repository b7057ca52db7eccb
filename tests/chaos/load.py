"""A load of constant rate from one thread of asyncio, and a record of every request of it.

    with Load(port, requests, rate=120) as load:
        load.phase("killed")
        load.wait(lambda seen: any(s.side == "legacy" for s in seen))

Requests are begun when their time has come, however long others take (an open loop), on connections that are
kept alive and take turns. A phase holds the requests that were begun in it and have ended.
"""

import asyncio
import json
import random
import threading
from contextlib import suppress
from dataclasses import dataclass, field

CONNECTIONS = 64
"""More than are ever in use at a time, at the rates of these tests."""
STUCK = 30.0
"""Seconds after which a wait has failed; nothing that goes well comes near."""


@dataclass(slots=True)
class Request:
    """One request to be sent; `kind` is for those who judge."""

    kind: str
    method: str
    path: str
    user: str
    body: bytes = b""

    def wire(self):
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: shop.example\r\nX-User: {self.user}\r\n"
        length = f"Content-Length: {len(self.body)}\r\n" if self.method != "GET" else ""
        return f"{head}{length}\r\n".encode() + self.body


@dataclass(slots=True)
class Seen:
    """One request and what came of it; `trouble` says why there is no answer, `seconds` how long it took."""

    request: Request
    status: int = 0
    answer: dict = field(default_factory=dict)
    seconds: float = 0.0
    trouble: str = ""

    @property
    def side(self):
        return self.answer.get("side", "")

    @property
    def fallback(self):
        return self.answer.get("fallback", "")


class Load:
    """Sends `requests` (an endless iterator), `rate` of them a second, until the `with` block ends."""

    def __init__(self, port, requests, rate):
        self._port = port
        self._requests = requests
        self._rate = rate
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")
        self._broken = None
        self.phases = []
        self.lateness = []
        """By how many seconds each request was begun too late: what a busy machine does to everybody."""

    def __enter__(self):
        self.phase("start")
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._ended.set()
        self._thread.join(STUCK)
        if kind is None:
            assert not self._thread.is_alive(), "requests have no end"
            assert self._broken is None, self._broken

    @property
    def seen(self):
        """Every request that has ended."""
        return [s for _, seen in self.phases for s in seen]

    def phase(self, name):
        """Begin a phase: requests that are begun from now on belong to it."""
        self.phases.append((name, []))

    def wait(self, condition):
        """Wait until `condition` holds for the requests of this phase that have ended."""
        name, seen = self.phases[-1]
        with self._changed:
            done = self._changed.wait_for(lambda: self._broken is not None or condition(seen), STUCK)
        assert self._broken is None, self._broken
        assert done, f"{name}: not reached in {len(seen)} requests; the last: {seen[-5:]}"

    async def _run(self):
        try:
            await self._send_all()
        except BaseException as exc:  # shown by whoever waits
            with self._changed:
                self._broken = exc
                self._changed.notify_all()

    async def _send_all(self):
        loop = asyncio.get_running_loop()
        idle, tasks = asyncio.Queue(), set()
        connections = [_Connection(self._port) for _ in range(CONNECTIONS)]
        for connection in connections:
            await connection.open()
        # Gunicorn keeps a thread waiting for the first request of each connection.
        await asyncio.gather(
            *(connection.ask(Request("", "GET", "/ready", "")) for connection in connections)
        )
        for connection in random.sample(connections, CONNECTIONS):  # neighbours are with the same worker
            idle.put_nowait(connection)
        due = loop.time()
        while not self._ended.is_set():
            task = loop.create_task(self._send(next(self._requests), idle, self.phases[-1][1]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += 1 / self._rate
            await asyncio.sleep(due - loop.time())
            self.lateness.append(loop.time() - due)
        await asyncio.gather(*tasks)
        for connection in connections:
            await connection.aclose()

    async def _send(self, request, idle, phase):
        loop = asyncio.get_running_loop()
        seen, began = Seen(request), loop.time()
        connection = await idle.get()
        try:
            seen.status, seen.answer = await connection.ask(request)
        except (OSError, EOFError, ValueError) as exc:
            seen.trouble = repr(exc)
            connection.close()
        idle.put_nowait(connection)
        seen.seconds = loop.time() - began
        with self._changed:
            phase.append(seen)
            self._changed.notify_all()


class _Connection:
    def __init__(self, port):
        self._port = port
        self._streams = None

    async def open(self):
        self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self._streams

    async def ask(self, request):
        """Send one request; return the status and the JSON of its answer."""
        reader, writer = self._streams or await self.open()
        writer.write(request.wire())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.rstrip("\r\n").split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (f.partition(":") for f in fields)}
        body = await reader.readexactly(int(headers.get("content-length", "not given")))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(line.split(" ")[1]), json.loads(body)

    def close(self):
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def aclose(self):
        if self._streams is not None:
            writer = self._streams[1]
            self.close()
            with suppress(OSError):
                await writer.wait_closed()
