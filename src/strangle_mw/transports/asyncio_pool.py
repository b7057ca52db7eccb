"""Exchanges with one endpoint over asyncio, and which connection is used again.

What one connection does is in `asyncio_connection`, what bytes mean in `h1`; whether to send once more is
decided by the caller. One exchange costs one future: no task, no timer and no lock, unless the body of the
request is streamed (one task).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from strangle_mw.transports.asyncio_connection import Connection
from strangle_mw.transports.asyncio_dial import AsyncDialer
from strangle_mw.transports.base import pool_closed
from strangle_mw.transports.bulkhead import AsyncBulkhead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from strangle_mw.core.model import Endpoint, Upstream
    from strangle_mw.transports.asyncio_connection import OnSlow
    from strangle_mw.transports.h1 import Header


class AsyncPool:
    """Connections to one endpoint, used from one running event loop; making a pool does no I/O.

    `gate` bounds the exchanges of all endpoints of the upstream together; without one the pool has its own.
    """

    def __init__(self, endpoint: Endpoint, upstream: Upstream, gate: AsyncBulkhead | None = None) -> None:
        self.gate = gate or AsyncBulkhead(upstream)
        self._places = self.gate.places
        self.dialer = AsyncDialer(endpoint, upstream)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._in_flight = 0
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None
        self.keepalive = upstream.keepalive
        self.idle_timeout = upstream.idle_timeout

    @property
    def idle(self) -> int:
        """Connections that wait for the next request."""
        return len(self._idle)

    @property
    def in_flight(self) -> int:
        """Exchanges between `send` and `close` of their answer, and what else occupies the endpoint."""
        return self._in_flight

    def occupy(self) -> None:
        """Count something that is not sent here, a WebSocket, among what the endpoint has in flight."""
        self._in_flight += 1

    def vacate(self) -> None:
        """Undo `occupy`."""
        self._in_flight -= 1

    async def send(
        self,
        head: bytes,
        body: bytes | AsyncIterator[bytes],
        *,
        method: str,
        chunked: bool,
        timeout: float,  # noqa: ASYNC109 - kept by one coarse timer per connection
        fresh: bool = False,
        patient: bool = True,
        on_slow: OnSlow | None = None,
    ) -> AsyncAnswer:
        """Send one request and wait for the head of its answer.

        A streamed `body` is framed if `chunked`; it stays the caller's to close. `timeout` is in seconds
        from the end of the request to the head; while a body is sent it limits each wait for the upstream,
        and `idle_timeout` each wait for the body. `fresh` asks for a new connection. Unless `patient`, a
        full bulkhead is an error at once. `on_slow` is called once, about 0.25 s after the start, if the
        exchange still goes on, with a function that ends it with an error. Raises `ForwardError`, and
        whatever `body` raises; then `body` is no longer being read.
        """
        if self._closed:
            raise pool_closed()
        places = self._places
        if places.taken < places.limit:  # `places.enter()`, for the price of no call
            places.taken += 1
        else:
            await self._enter(patient=patient)
        self._in_flight += 1
        connection: Connection | None = None
        try:
            connection = (None if fresh else self._reuse()) or await self._connect()
            await connection.start(
                head, body, method=method, chunked=chunked, timeout=timeout, on_slow=on_slow
            )
            connection.deliver()
        except BaseException:
            self._in_flight -= 1
            self.gate.leave()
            if connection is not None:
                await connection.discard()
            raise
        return AsyncAnswer(self, connection)

    async def aclose(self) -> None:
        """Abort everything and wait until every socket is closed."""
        self.abort()
        while self._open:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied

    def abort(self) -> None:
        """Abort everything without waiting; exchanges that go on fail."""
        self._closed = True
        self._idle.clear()
        for connection in list(self._open):
            connection.abort()

    def opened(self, connection: Connection) -> None:
        """Note a connection that was made."""
        self._open.add(connection)

    def retire(self, connection: Connection) -> None:
        """Take a connection out of use, if it is idle."""
        if connection in self._idle:
            self._idle.remove(connection)

    def gone(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._open.discard(connection)
        if self._emptied is not None and not self._open and not self._emptied.done():
            self._emptied.set_result(None)

    def release(self, connection: Connection) -> None:
        """End an exchange, and keep its connection if nothing unexpected happened (promise P7)."""
        self._in_flight -= 1
        self.gate.leave()
        if connection.rest():
            self._idle.append(connection)
        else:
            connection.drop()

    async def _enter(self, *, patient: bool) -> None:
        await self.gate.enter(patient=patient)
        if self._closed:
            self.gate.leave()
            raise pool_closed()

    def _reuse(self) -> Connection | None:
        """Take the connection used last that is still good: the others grow old and leave."""
        while self._idle:
            connection = self._idle.pop()
            if connection.quiet():
                return connection
            connection.drop()
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        connection = await self.dialer.dial(lambda: Connection(self, loop))
        if self._closed:
            connection.drop()
            raise pool_closed()
        return connection


class AsyncAnswer:
    """One answer: its head, and its body as it comes. Close it exactly when done with it."""

    __slots__ = ("_complete", "_connection", "_pool", "_pump", "headers", "reason", "status")

    def __init__(self, pool: AsyncPool, connection: Connection) -> None:
        parser = connection.parser
        self.status: int = parser.status
        self.reason: bytes = parser.reason
        self.headers: list[Header] = parser.headers
        self._pool = pool
        self._connection: Connection | None = connection
        self._complete = False
        self._pump: asyncio.Task[None] | None = None

    @property
    def complete(self) -> bool:
        """Whether the whole body has been received (not: taken)."""
        connection = self._connection
        return self._complete if connection is None else connection.parser.complete

    def take(self) -> bytes:
        """Hand over everything buffered; never waits."""
        return b"" if self._connection is None else self._connection.take()

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the clean end.

        Raises `ForwardError` with stage `body` if the body is cut, malformed or idle for longer than
        `idle_timeout` seconds, whatever the body of the request raises, and `RuntimeError` once closed.
        """
        if self._connection is None:
            raise RuntimeError("the answer is closed")
        return await self._connection.read()

    async def settle(self) -> None:
        """Wait, after `close`, until the body of the request is no longer being read."""
        if self._pump is not None:
            await asyncio.wait([self._pump])

    def close(self) -> None:
        """Give the connection back, or abort it unless the answer is complete; may be repeated."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._complete = connection.parser.complete
            self._pump = connection.pump
            self._pool.release(connection)
