"""Exchanges over a transport of httpx2 or httpx, with the face of `thread_pool`.

Only what blocks lives here; requests, heads and failures are in `httpx_common`, and whether to send once
more is decided by the caller. For many threads at once; asyncio may not be imported here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from strangle_mw.errors import ForwardError
from strangle_mw.transports.base import connect_failed, pool_closed
from strangle_mw.transports.bulkhead import BlockingBulkhead
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
    from collections.abc import Callable, Iterator
    from typing import Self

    from strangle_mw.core.model import Endpoint, Upstream


class BlockingHttpxPool:
    """Exchanges with one endpoint, from any thread of one process; making a pool does no I/O.

    For an `HttpxUpstream` its transport is asked for everything, and never closed; else (HTTP/2) each
    connection is a transport of our own. `gate` is that of all endpoints of the upstream.
    """

    def __init__(self, endpoint: Endpoint, upstream: Upstream, gate: BlockingBulkhead | None = None) -> None:
        self.gate = gate or BlockingBulkhead(upstream)
        self.endpoint = endpoint
        self.upstream = upstream
        self._lines = Lines(endpoint, upstream, "HTTPTransport")
        self._in_flight = 0
        self._closed = False
        self._lock = self.gate.lock

    @property
    def idle(self) -> int:
        """Own connections that wait for the next request; what a given transport keeps is not known."""
        return len(self._lines.idle)

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
        chunked: bool,  # noqa: ARG002 - the head says it, and the transport frames
        timeout: float,
        fresh: bool = False,
        patient: bool = True,
    ) -> BlockingHttpxAnswer:
        """Send one request and wait for the head of its answer, as `BlockingPool.send` does.

        `timeout` limits each wait for the upstream, not all of them together; a streamed body is read to its
        end before an answer is looked for. `fresh` is for own connections.
        """
        self._enter(patient=patient)
        exchange = _Exchange(self)
        try:
            found = exchange.start(self._line(fresh=fresh), head, body, method, timeout)
        except BaseException:
            self.end(exchange)
            raise
        return BlockingHttpxAnswer(self, exchange, found)

    def close(self) -> None:
        """Close what is idle, and from now on whatever an exchange gives back."""
        with self._lock:
            self._closed = True
            idle, self._lines.idle = self._lines.idle, []
        _close_lines(idle)

    def end(self, exchange: _Exchange) -> None:
        """End an exchange; its connection is kept if nothing unexpected happened (promise P7)."""
        spent: list[Line] = []
        line = exchange.line
        try:
            if not exchange.complete:
                _close(exchange.close_answer)
        finally:
            with self._lock:
                self._in_flight -= 1
                self.gate.leave_locked()
                if line is not None and exchange.complete and not self._closed:
                    self._lines.keep(line, spent)
                elif line is not None:
                    spent.append(line)
            _close_lines(spent)

    def _enter(self, *, patient: bool) -> None:
        self.gate.enter(patient=patient)
        with self._lock:
            self._in_flight += 1
            if not self._closed:
                return
            self._in_flight -= 1
            self.gate.leave_locked()
        raise pool_closed()

    def _line(self, *, fresh: bool) -> Line:
        spent: list[Line] = []
        with self._lock:
            line = self._lines.take(fresh=fresh, spent=spent)
        _close_lines(spent)
        try:
            return line or self._lines.make()
        except (OSError, ValueError) as exc:
            raise connect_failed(exc) from exc


def _close_lines(lines: list[Line]) -> None:
    for line in lines:
        if line.own:
            _close(line.transport.close)


def _close(close: Callable[[], None]) -> None:
    """Close; what a transport raises there changes nothing any more."""
    with suppress(Exception):
        close()


class _Exchange:
    """One request on one line, until its answer has ended; `complete` if that end was the right one."""

    def __init__(self, pool: BlockingHttpxPool) -> None:
        self.progress = Progress()
        self.line: Line | None = None
        self.complete = False
        self._pool = pool
        self._error: Exception | None = None
        self._body: _Body | None = None
        self._response: Any = None
        self._chunks: Any = None
        self._count = Count(-1)

    def start(
        self, line: Line, head: bytes, body: bytes | Iterator[bytes], method: str, timeout: float
    ) -> Head:
        """Send the request, and return the head of the answer."""
        self.line = line
        package, limits = line.package, timeouts(self._pool.upstream, timeout)
        if isinstance(body, bytes):
            stream = package.ByteStream(body)
        else:
            stream = self._body = streamed(package, _Body, "SyncByteStream")(self.progress, body)
        extensions = {"timeout": limits, "trace": self._note}
        request = make_request(line, self._pool.endpoint, head, stream, extensions)
        self._response = self._call(line.transport.handle_request, request)
        limits["read"] = self._pool.upstream.idle_timeout
        found = Head(self._response, method)
        self._chunks = iter(self._response.stream)
        if found.empty:
            with suppress(ForwardError):  # whatever it is: no body is expected
                self._call(next, self._chunks, b"")
            self._finish()
        self._count = Count(found.length)
        self.progress.answered = True
        return found

    def read(self) -> bytes:
        """Wait for the next bytes; empty at the clean end."""
        while not self.complete:
            data: bytes | None = self._call(next, self._chunks, None)
            try:
                if data is None:
                    self._count.end()
                    self._finish()
                elif data:
                    self._count.add(data)
                    return data
            except ForwardError as exc:
                self._error = exc
                raise
        return b""

    def close_answer(self) -> None:
        """Close what has been opened of the answer."""
        if hasattr(self._chunks, "close"):
            self._chunks.close()
        if self._response is not None:
            self._response.stream.close()

    def _finish(self) -> None:
        self.close_answer()
        if self.line is not None:
            self.line.rest(self._response.extensions)
        self.complete = True

    def _note(self, event: str, _: object) -> None:
        self.progress.note(event)

    def _call(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call the transport; turn what it raises into what is ours."""
        if self._error is not None:
            raise self._error
        try:
            return call(*arguments)
        except Exception as exc:
            self._error = self._translate(exc)
            if self._error is exc:
                raise
            raise self._error from exc

    def _translate(self, exc: Exception) -> Exception:
        if self._body is not None and self._body.error is not None:
            return self._body.error
        if isinstance(exc, ForwardError):
            return exc
        package: Any = self.line and self.line.package
        return self.progress.failed(exc, package)


class _Body:
    """The body of a request as a stream of the transport's package; read once."""

    def __init__(self, progress: Progress, items: Iterator[bytes]) -> None:
        self.error: Exception | None = None
        self._progress = progress
        self._items = items

    def __iter__(self) -> Self:
        if self._progress.taken:
            raise closed_again()
        return self

    def __next__(self) -> bytes:
        if not self._progress.taken:
            self._progress.taken = True
            self._progress.sent = False
        try:
            return next(self._items)
        except StopIteration:
            self._progress.sent = True
            raise
        except Exception as exc:
            self.error = exc
            raise


class BlockingHttpxAnswer:
    """One answer: its head, and its body as it comes. Close it exactly when done with it."""

    __slots__ = ("_complete", "_exchange", "_pool", "headers", "reason", "status")

    def __init__(self, pool: BlockingHttpxPool, exchange: _Exchange, head: Head) -> None:
        self.status = head.status
        self.reason = head.reason
        self.headers = head.headers
        self._pool = pool
        self._exchange: _Exchange | None = exchange
        self._complete = False

    @property
    def complete(self) -> bool:
        """Whether the whole body has been received."""
        return self._complete if self._exchange is None else self._exchange.complete

    def take(self) -> bytes:
        """Hand over everything buffered: nothing, it is the transport that buffers."""
        return b""

    def read(self) -> bytes:
        """Wait for the next bytes; empty at the clean end. Raises what `BlockingAnswer.read` raises."""
        if self._exchange is None:
            raise RuntimeError("the answer is closed")
        return self._exchange.read()

    def close(self) -> None:
        """Give the connection back, or close it unless the answer is complete; may be repeated."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            self._complete = exchange.complete
            self._pool.end(exchange)
