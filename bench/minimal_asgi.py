"""The smallest honest asynchronous forwarder: what forwarding costs when nothing is checked.

An `asyncio.Protocol` with httptools and a pool of kept connections. It copies method, target, headers and
both bodies as they come, and pauses whoever sends too fast: without that a large body would measure the
memory of this process. No hygiene, no timeouts, no errors: the floor, not a proxy.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httptools

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


HIGH_WATER = 65_536
"""Bytes of an answer that are held before the upstream is paused."""


class Connection(asyncio.Protocol):
    """One connection to the upstream, carrying one exchange at a time."""

    def __init__(self) -> None:
        self.held = 0
        self.paused = False
        self.writable: asyncio.Future[None] | None = None
        self.parser = httptools.HttpResponseParser(self)
        self.closed = False
        self.waiter: asyncio.Future[None] | None = None
        self.begin()

    def begin(self) -> None:
        """Forget the exchange before."""
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks: list[bytes] = []
        self.headed = self.done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self.writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        writable, self.writable = self.writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    def take(self) -> bytes:
        """Return what has come of the body, and let more come."""
        body = b"".join(self.chunks)
        self.chunks.clear()
        self.held = 0
        if self.paused:
            self.paused = False
            self.transport.resume_reading()
        return body

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)
        self.wake()

    def wake(self) -> None:
        """Tell the exchange that something has changed."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def changed(self) -> None:
        """Wait until something has changed."""
        if self.closed:
            raise ConnectionError("the upstream closed the connection")
        self.waiter = asyncio.get_running_loop().create_future()
        await self.waiter

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.headed = True

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)
        self.held += len(body)
        if self.held > HIGH_WATER and not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        self.done = True
        self.kept = self.parser.should_keep_alive()  # the parser forgets it with the message


def forwarder(port: int) -> Callable[..., Awaitable[None]]:
    """Return the ASGI app that sends everything to a local port."""
    pool: list[Connection] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError("only HTTP")
        connection = await _take(pool, port)
        connection.transport.write(_head(scope))
        if any(name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"]):
            await _upload(connection, receive)
        while not connection.headed:
            await connection.changed()
        await _answer(connection, send)
        if connection.kept:
            pool.append(connection)
        else:
            connection.transport.close()

    return app


async def _take(pool: list[Connection], port: int) -> Connection:
    while pool:
        connection = pool.pop()
        if not connection.closed:
            connection.begin()
            return connection
    return (await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port))[1]


def _head(scope: dict[str, Any]) -> bytes:
    query = scope["query_string"]
    target = scope["raw_path"] + b"?" + query if query else scope["raw_path"]
    fields = b"".join([b"%s: %s\r\n" % pair for pair in scope["headers"]])
    return b"%s %s HTTP/1.1\r\n%s\r\n" % (scope["method"].encode(), target, fields)


async def _upload(connection: Connection, receive: Any) -> None:
    """Copy the request's body; one of unknown length is not part of any measurement and not supported."""
    more = True
    while more:
        message = await receive()
        connection.transport.write(message.get("body", b""))
        if connection.writable is not None:
            await connection.writable
        more = message.get("more_body", False)


async def _answer(connection: Connection, send: Any) -> None:
    status = connection.parser.get_status_code()
    await send({"type": "http.response.start", "status": status, "headers": connection.headers})
    more = True
    while more:
        more = not connection.done
        body = connection.take()
        await send({"type": "http.response.body", "body": body, "more_body": more})
        if more and not connection.chunks and not connection.done:  # nothing came while we sent
            await connection.changed()
