"""Exchanges with one endpoint over blocking sockets, and which connection is used again.

What one connection does is in `thread_connection`, what bytes mean in `h1`; whether to send once more is
decided by the caller. For many threads at once, or gevent's; asyncio may not be imported here.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from strangle_mw.transports.addresses import BlockingAddresses
from strangle_mw.transports.base import connect_failed, pool_closed, tls_context
from strangle_mw.transports.bulkhead import BlockingBulkhead
from strangle_mw.transports.sockets import dial
from strangle_mw.transports.thread_connection import Connection

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from strangle_mw.core.model import Endpoint, Upstream
    from strangle_mw.transports.h1 import Header


class BlockingPool:
    """Connections to one endpoint, used from any thread of one process; making a pool does no I/O.

    `gate` bounds the exchanges of all endpoints of the upstream together; without one the pool has its own.
    """

    def __init__(self, endpoint: Endpoint, upstream: Upstream, gate: BlockingBulkhead | None = None) -> None:
        self.gate = gate or BlockingBulkhead(upstream)
        self._endpoint = endpoint
        self._upstream = upstream
        self._addresses = BlockingAddresses(endpoint.host, endpoint.port)
        self._idle: deque[Connection] = deque()  # the one used last is at the right
        self._in_flight = 0
        self._closed = False
        self._lock = self.gate.lock
        self._context: ssl.SSLContext | None = None

    @property
    def idle(self) -> int:
        """Connections that wait for the next request."""
        return len(self._idle)

    @property
    def in_flight(self) -> int:
        """Exchanges between `send` and `close` of their answer."""
        return self._in_flight

    def send(
        self,
        head: bytes,
        body: bytes | Iterator[bytes],
        *,
        method: str,
        chunked: bool,
        timeout: float,
        fresh: bool = False,
        patient: bool = True,
    ) -> BlockingAnswer:
        """Send one request and wait for the head of its answer.

        A streamed `body` is framed if `chunked`; it is read no further once an answer comes. `timeout` is in
        seconds from the end of the request to the head, and limits each wait for the upstream while a body
        is sent. `fresh` asks for a new connection. Unless `patient`, a full bulkhead is an error at once.
        Raises `ForwardError`, and whatever `body` raises.
        """
        self._enter(patient=patient)
        connection: Connection | None = None
        try:
            connection = None if fresh else self._reuse()
            if connection is None:
                connection = self._connect()
            connection.exchange(head, body, method=method, chunked=chunked, timeout=timeout)
        except BaseException:
            self._leave(connection, fit=False)
            raise
        return BlockingAnswer(self, connection)

    def close(self) -> None:
        """Close what is idle, and from now on whatever an exchange gives back."""
        with self._lock:
            self._closed = True
            idle = [*self._idle]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def release(self, connection: Connection) -> None:
        """End an exchange, and keep its connection if nothing unexpected happened (promise P7)."""
        self._leave(connection, fit=connection.rest())

    def _enter(self, *, patient: bool) -> None:
        self.gate.enter(patient=patient)
        with self._lock:
            self._in_flight += 1
            if not self._closed:
                return
        self._leave(None, fit=False)
        raise pool_closed()

    def _reuse(self) -> Connection | None:
        """Take the connection used last that is still good; the others have grown old before it."""
        oldest = monotonic() - self._upstream.keepalive
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            good = False
            try:
                good = connection.rested >= oldest and connection.alive()
            finally:
                if not good:
                    connection.close()
            if good:
                return connection

    def _leave(self, connection: Connection | None, *, fit: bool) -> None:
        spent: list[Connection] = []
        with self._lock:
            self._in_flight -= 1
            self.gate.leave_locked()
            if connection is not None and fit and not self._closed:
                self._idle.append(connection)
                oldest = connection.rested - self._upstream.keepalive
                while self._idle[0].rested < oldest:
                    spent.append(self._idle.popleft())
            elif connection is not None:
                spent.append(connection)
        for other in spent:
            other.close()

    def _connect(self) -> Connection:
        try:
            if self._endpoint.scheme == "https" and self._context is None:
                self._context = tls_context(self._upstream)  # perhaps by two threads; either will do
            sock = dial(self._endpoint, self._addresses, self._upstream.connect_timeout, self._context)
        except (OSError, ValueError) as exc:  # ValueError: a name that IDNA cannot encode
            raise connect_failed(exc) from exc
        return Connection(sock, self._upstream.idle_timeout)


class BlockingAnswer:
    """One answer: its head, and its body as it comes. Close it exactly when done with it."""

    __slots__ = ("_complete", "_connection", "_pool", "headers", "reason", "status")

    def __init__(self, pool: BlockingPool, connection: Connection) -> None:
        parser = connection.parser
        self.status: int = parser.status
        self.reason: bytes = parser.reason
        self.headers: list[Header] = parser.headers
        self._pool = pool
        self._connection: Connection | None = connection
        self._complete = False

    @property
    def complete(self) -> bool:
        """Whether the whole body has been received (not: taken)."""
        connection = self._connection
        return self._complete if connection is None else connection.parser.complete

    def take(self) -> bytes:
        """Hand over everything buffered; never waits."""
        return b"" if self._connection is None else self._connection.parser.take()

    def read(self) -> bytes:
        """Wait for the next bytes; empty at the clean end.

        Raises `ForwardError` with stage `body` if the body is cut, malformed or idle for longer than
        `idle_timeout` seconds, and `RuntimeError` once closed.
        """
        if self._connection is None:
            raise RuntimeError("the answer is closed")
        return self._connection.read()

    def close(self) -> None:
        """Give the connection back, or close it unless the answer is complete; may be repeated."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._complete = connection.parser.complete
            self._pool.release(connection)
