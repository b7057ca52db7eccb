"""Exchanges over a transport of httpx2 or httpx, with the face of `asyncio_pool`.

Only what needs asyncio lives here; requests, heads and failures are in `httpx_common`, and whether to send
once more is decided by the caller. One coarse clock per exchange ends what takes too long or is ended from
outside; httpx's own time limits for reading and writing are off.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from strangle_mw.errors import ForwardError
from strangle_mw.transports.asyncio_dial import AsyncDialer
from strangle_mw.transports.base import connect_failed, exchange_failed, pool_closed
from strangle_mw.transports.bulkhead import AsyncBulkhead
from strangle_mw.transports.httpx_common import (
    Count,
    Head,
    Line,
    Lines,
    Progress,
    closed_again,
    make_request,
    streamed,
    timeouts,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from typing import Self

    from strangle_mw.core.model import Endpoint, Upstream
    from strangle_mw.transports.asyncio_connection import OnSlow


class AsyncHttpxPool:
    """Exchanges with one endpoint, from one running event loop; making a pool does no I/O.

    For an `HttpxUpstream` its transport is asked for everything, and never closed; else (HTTP/2) each
    connection is a transport of our own. `gate` is that of all endpoints of the upstream.
    """

    def __init__(self, endpoint: Endpoint, upstream: Upstream, gate: AsyncBulkhead | None = None) -> None:
        self.gate = gate or AsyncBulkhead(upstream)
        self.dialer = AsyncDialer(endpoint, upstream)
        """For WebSockets, which start over HTTP/1.1; never used for an `HttpxUpstream`."""
        self.endpoint = endpoint
        self.upstream = upstream
        self._lines = Lines(endpoint, upstream, "AsyncHTTPTransport")
        self._busy: set[_Exchange] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._in_flight = 0
        self._closed = False

    @property
    def idle(self) -> int:
        """Own connections that wait for the next request; what a given transport keeps is not known."""
        return len(self._lines.idle)

    @property
    def in_flight(self) -> int:
        """Exchanges between `send` and the end of what `close` of their answer starts."""
        return self._in_flight

    def occupy(self) -> None:
        """Count something beside the exchanges: an open WebSocket."""
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
        chunked: bool,  # noqa: ARG002 - the head says it, and the transport frames
        timeout: float,  # noqa: ASYNC109 - kept by the exchange's clock
        fresh: bool = False,
        patient: bool = True,
        on_slow: OnSlow | None = None,
    ) -> AsyncHttpxAnswer:
        """Send one request and wait for the head of its answer, as `AsyncPool.send` does.

        `timeout` counts from the start of the request on, if the transport tells that by the `trace`
        extension; else together with `connect_timeout` from the start of connecting. `fresh` is for own
        connections. `on_slow` is called at once.
        """
        if self._closed:
            raise pool_closed()
        await self.gate.enter(patient=patient)
        self._in_flight += 1
        self._loop = asyncio.get_running_loop()
        exchange = _Exchange(self, timeout)
        self._busy.add(exchange)
        try:
            if on_slow is not None:
                on_slow(exchange.fail)
            found = await exchange.start(self._line(fresh=fresh), head, body, method)
        except BaseException:
            await _finished(self.end(exchange))
            raise
        return AsyncHttpxAnswer(self, exchange, found)

    def _line(self, *, fresh: bool) -> Line:
        if self._closed:
            raise pool_closed()
        spent: list[Line] = []
        line = self._lines.take(fresh=fresh, spent=spent)
        self._close_lines(spent)
        try:
            return line or self._lines.make()
        except (OSError, ValueError) as exc:
            raise connect_failed(exc) from exc

    def end(self, exchange: _Exchange) -> asyncio.Task[None] | None:
        """End an exchange; its connection is kept if nothing unexpected happened (promise P7)."""
        self._busy.discard(exchange)
        if exchange.complete and exchange.line is not None and not self._closed:
            spent: list[Line] = []
            self._lines.keep(exchange.line, spent)
            self._close_lines(spent)
            self._leave()
            return None
        return self._start(self._give_up(exchange))

    async def aclose(self) -> None:
        """Abort everything, and wait until every own connection is closed."""
        self.abort()
        while self._closing:
            await asyncio.wait(self._closing)

    def abort(self) -> None:
        """Abort everything without waiting; exchanges that go on fail."""
        self._closed = True
        idle, self._lines.idle = self._lines.idle, []
        self._close_lines([*idle, *(e.line for e in self._busy if e.line is not None)])
        for exchange in tuple(self._busy):
            exchange.fail(exchange.progress.failure("pool closed", status=503))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        loop = self._loop or asyncio.get_running_loop()
        task = loop.create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    def _close_lines(self, lines: list[Line]) -> None:
        for line in lines:
            if line.own:
                self._start(_closed(line.transport.aclose))

    async def _give_up(self, exchange: _Exchange) -> None:
        """Close what an exchange leaves behind; its place comes free with it."""
        try:
            await _closed(exchange.close_answer)
            if exchange.line is not None and exchange.line.own:
                await _closed(exchange.line.transport.aclose)
        finally:
            self._leave()

    def _leave(self) -> None:
        self._in_flight -= 1
        self.gate.leave()


async def _closed(close: Callable[[], Awaitable[None]]) -> None:
    """Close; what a transport raises there changes nothing any more."""
    with suppress(Exception):
        await close()


async def _finished(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        await asyncio.wait([task])


class _Exchange:
    """One request on one line, until its answer has ended; `complete` if that end was the right one."""

    def __init__(self, pool: AsyncHttpxPool, timeout: float) -> None:
        self.progress = Progress()
        self.line: Line | None = None
        self.complete = False
        self._pool = pool
        self._timeout = timeout
        self._idle = pool.upstream.idle_timeout
        self._clock: asyncio.Timeout | None = None
        self._stalled = False
        self._error: Exception | None = None
        self._body: _Body | None = None
        self._response: Any = None
        self._chunks: Any = None
        self._count = Count(-1)

    async def start(self, line: Line, head: bytes, body: bytes | AsyncIterator[bytes], method: str) -> Head:
        """Send the request, and return the head of the answer."""
        self.line = line
        upstream, package = self._pool.upstream, line.package
        if isinstance(body, bytes):
            stream = package.ByteStream(body)
        else:
            stream = self._body = streamed(package, _Body, "AsyncByteStream")(self, body)
        extensions = {"timeout": timeouts(upstream, None), "trace": self._note}
        request = make_request(line, self._pool.endpoint, head, stream, extensions)
        seconds = upstream.connect_timeout + self._timeout
        self._response = await self._within(seconds, line.transport.handle_async_request, request)
        found = Head(self._response, method)
        self._chunks = aiter(self._response.stream)
        if found.empty:
            with suppress(ForwardError):  # whatever it is: no body is expected
                await self._within(self._idle, anext, self._chunks, b"")
            await self._finish()
        self._count = Count(found.length)
        self.progress.answered = True
        return found

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the clean end."""
        while not self.complete:
            data: bytes | None = await self._within(self._idle, anext, self._chunks, None)
            try:
                if data is None:
                    self._count.end()
                    await self._finish()
                elif data:
                    self._count.add(data)
                    return data
            except ForwardError as exc:
                self.fail(exc)
                raise
        return b""

    def fail(self, error: ForwardError) -> None:
        """End the exchange with this error, and whatever waits for it; the first one counts."""
        self._error = self._error or error
        self.expect(0.0)

    def expect(self, seconds: float, *, stalled: bool = False) -> None:
        """Set the clock; `stalled` if it is the body of the request that is waited for."""
        self._stalled = stalled
        if self._clock is not None and not self._clock.expired():
            self._clock.reschedule(asyncio.get_running_loop().time() + seconds)

    def streaming(self, *, waits: bool) -> None:
        """Note that the transport waits for the next piece of the body, or has got it."""
        self.progress.sent = False
        self.expect(self._idle if waits else self._timeout, stalled=waits)

    def streamed(self) -> None:
        """Note the end of the body."""
        self.progress.sent = True
        self.expect(self._timeout)

    async def close_answer(self) -> None:
        """Close what has been opened of the answer."""
        if hasattr(self._chunks, "aclose"):
            await self._chunks.aclose()
        if self._response is not None:
            await self._response.stream.aclose()

    async def _finish(self) -> None:
        await self.close_answer()
        if self.line is not None:
            self.line.rest(self._response.extensions)
        self.complete = True

    async def _note(self, event: str, _: object) -> None:
        begun = self.progress.begun
        self.progress.note(event)
        if self.progress.begun and not begun:
            self.expect(self._timeout)

    async def _within(self, seconds: float, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Call the transport; turn what it raises into what is ours."""
        if self._error is not None:
            raise self._error
        try:
            async with asyncio.timeout(seconds) as self._clock:
                return await call(*arguments)
        except Exception as exc:
            self._error = self._translate(exc)
            if self._error is exc:
                raise
            raise self._error from exc
        finally:
            self._clock = None

    def _translate(self, exc: Exception) -> Exception:
        if self._error is not None:
            return self._error
        if self._body is not None and self._body.error is not None:
            return self._body.error
        if self._clock is not None and self._clock.expired():
            if self._stalled:
                return exchange_failed(
                    "the body of the request stalled", answered=False, sent=False, status=408
                )
            return self.progress.late()
        if isinstance(exc, ForwardError):
            return exc
        package: Any = self.line and self.line.package
        return self.progress.failed(exc, package)


class _Body:
    """The body of a request as a stream of the transport's package; read once."""

    def __init__(self, exchange: _Exchange, items: AsyncIterator[bytes]) -> None:
        self.error: Exception | None = None
        self._exchange = exchange
        self._items = items

    def __aiter__(self) -> Self:
        if self._exchange.progress.taken:
            raise closed_again()
        return self

    async def __anext__(self) -> bytes:
        self._exchange.progress.taken = True
        self._exchange.streaming(waits=True)
        try:
            item = await anext(self._items)
        except StopAsyncIteration:
            self._exchange.streamed()
            raise
        except Exception as exc:
            self.error = exc
            raise
        self._exchange.streaming(waits=False)
        return item


class AsyncHttpxAnswer:
    """One answer: its head, and its body as it comes. Close it exactly when done with it."""

    __slots__ = ("_complete", "_end", "_exchange", "_pool", "headers", "reason", "status")

    def __init__(self, pool: AsyncHttpxPool, exchange: _Exchange, head: Head) -> None:
        self.status = head.status
        self.reason = head.reason
        self.headers = head.headers
        self._pool = pool
        self._exchange: _Exchange | None = exchange
        self._complete = False
        self._end: asyncio.Task[None] | None = None

    @property
    def complete(self) -> bool:
        """Whether the whole body has been received."""
        return self._complete if self._exchange is None else self._exchange.complete

    def take(self) -> bytes:
        """Hand over everything buffered: nothing, it is the transport that buffers."""
        return b""

    async def read(self) -> bytes:
        """Wait for the next bytes; empty at the clean end. Raises what `AsyncAnswer.read` raises."""
        if self._exchange is None:
            raise RuntimeError("the answer is closed")
        return await self._exchange.read()

    async def settle(self) -> None:
        """Wait, after `close`, until what it started has ended."""
        await _finished(self._end)

    def close(self) -> None:
        """Give the connection back, or close it unless the answer is complete; may be repeated."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._complete = exchange.complete
            self._end = self._pool.end(exchange)
