"""One HTTP/1.1 connection under asyncio: an exchange at a time, its clock, its back-pressure.

What bytes mean is in `h1`. Connecting, and which connection is used next, belong to `asyncio_pool`.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Protocol, cast

from strangle_mw.errors import ForwardError
from strangle_mw.transports.base import HIGH_WATER, SLOW, exchange_failed, lost
from strangle_mw.transports.h1 import LAST_CHUNK, MalformedError, ResponseParser, frame_body, frame_chunk
from strangle_mw.transports.sockets import peek

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    OnSlow = Callable[[Callable[[ForwardError], None]], None]
    """Is told that an exchange takes its time, and how to end it with an error."""


class Owner(Protocol):
    """What a connection needs of its pool; times are seconds."""

    keepalive: float
    idle_timeout: float

    def opened(self, connection: Connection) -> None: ...
    def retire(self, connection: Connection) -> None: ...
    def gone(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """One connection: busy with an exchange, or idle in the pool, or no longer up.

    Order of an exchange: await `start`, `deliver`, then `take` and `read`; `rest` if that went well, else
    `drop`.
    """

    __slots__ = (
        "_answered",
        "_began",
        "_bulky",
        "_busy",
        "_deadline",
        "_error",
        "_on_slow",
        "_owner",
        "_peek",
        "_reading",
        "_room",
        "_sent",
        "_slow_at",
        "_timeout",
        "_timer",
        "_timer_at",
        "_transport",
        "_turn",
        "_up",
        "_used",
        "_waiter",
        "loop",
        "parser",
        "pump",
    )

    _transport: asyncio.Transport
    _bulky: bool
    _timeout: float
    _peek: Callable[[float], object]

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.parser = ResponseParser()
        self._owner = owner
        self._up = self._busy = self._used = False
        self._sent = self._reading = True
        self._began = 0.0
        self._turn = 0
        self._answered = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self.pump: asyncio.Task[None] | None = None
        self._on_slow: OnSlow | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._deadline = self._slow_at = inf

    # --- one exchange

    def start(
        self,
        head: bytes,
        body: bytes | AsyncIterator[bytes],
        *,
        method: str,
        chunked: bool,
        timeout: float,
        on_slow: OnSlow | None,
    ) -> asyncio.Future[None]:
        """Send a request; the future is done when the head of the answer is there, or an error.

        Raises `ForwardError` if a new connection was closed before it was used.
        """
        if not self._up:
            raise ForwardError("connect", "closed by the upstream")
        self.parser.start(method)
        self._busy = True
        self._turn += 1
        self._on_slow = on_slow
        self._began = now = self.loop.time()
        self._slow_at = now + SLOW
        self._deadline = now + timeout
        self._bulky = bool(body)
        waiter = self._waiter = self.loop.create_future()
        if isinstance(body, bytes):
            # One write: a second small one would wait for a delayed ACK (40 ms) where Nagle is on.
            self._transport.write(head + (frame_body(body) if chunked else body))
        else:
            self._transport.write(head)
            self._stream(body, chunked=chunked, timeout=timeout)
        if self._timer_at > self._slow_at or self._timer_at > self._deadline:
            self._arm()
        return waiter

    def deliver(self) -> None:
        """Let the head be handed over, unless the exchange has failed: raises why."""
        if self._error is not None:
            raise self._error
        self._answered = True

    async def read(self) -> bytes:
        """Wait for bytes of the body; empty at the clean end."""
        parser = self.parser
        while not parser.buffered:
            if self._error is not None:
                await self._settle()
                raise self._error
            if parser.complete:
                return b""
            self._waiter = self.loop.create_future()
            self._expect(self._owner.idle_timeout)
            try:
                await self._waiter
            except BaseException:
                self.fail(self._failure("given up"))
                raise
        return self.take()

    def take(self) -> bytes:
        """Hand over what is buffered, and let the upstream go on."""
        if not self._reading:
            self._reading = True
            if self._up:
                self._transport.resume_reading()
        return self.parser.take()

    def rest(self) -> bool:
        """Go idle, if the connection is fit for another request."""
        if not (self._up and self._sent and self.parser.reusable):
            return False
        if self._bulky and self._transport.get_write_buffer_size():
            return False  # the answer came before the request had left
        self._busy = self._answered = False
        self._used = True
        self.pump = self._on_slow = None
        # Up to SLOW early: cheaper than the clock, and the safe side. A longer exchange has seen a tick.
        self._deadline = (self._began or self.loop.time()) + self._owner.keepalive
        if self._timer_at > self._deadline:
            self._arm()
        return True

    def quiet(self) -> bool:
        """Tell whether nothing has come while idle, seen by the event loop or not: bytes, or an end.

        What still waits in the kernel would be taken for the answer to the next request (promise P7).
        """
        return self._up and not self._peek(0)

    def drop(self) -> None:
        """Abort: nothing on this connection can be trusted any more."""
        self._busy = self._up = False
        self._on_slow = None
        self._transport.abort()
        self._stop_sending()

    async def discard(self) -> None:
        """Abort, and wait until the body of the request is no longer read."""
        self.drop()
        await self._settle()

    def abort(self) -> None:
        """Abort because the pool is closed."""
        self.fail(self._failure("pool closed", status=503))

    def fail(self, error: BaseException) -> None:
        """End the exchange with this error; the first one counts."""
        if self._error is None:
            self._error = error
        self.drop()
        self._wake()

    def _failure(self, reason: str, *, status: int = 502, stale: bool = False) -> ForwardError:
        return exchange_failed(reason, answered=self._answered, sent=self._sent, status=status, stale=stale)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            self._deadline = inf
            if not waiter.done():
                waiter.set_result(None)

    # --- the body of the request

    def _stream(self, body: AsyncIterator[bytes], *, chunked: bool, timeout: float) -> None:
        self._sent = False
        self._timeout = timeout
        self._deadline = self._began + self._owner.idle_timeout
        self.pump = self.loop.create_task(self._send_body(body, chunked=chunked))

    async def _send_body(self, body: AsyncIterator[bytes], *, chunked: bool) -> None:
        try:
            async for data in body:
                if data:
                    self._transport.write(frame_chunk(data) if chunked else data)
                    if self._room is not None:
                        self._progress(self._timeout)
                        await self._room
                self._progress(self._owner.idle_timeout)
            if chunked:
                self._transport.write(LAST_CHUNK)
            self._sent = True
            self._progress(self._timeout)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - send() or read() raises it
            if not self.parser.complete:
                self.fail(exc)

    def _stop_sending(self) -> None:
        if not self._sent and self.pump is not None:
            self.pump.cancel()

    async def _settle(self) -> None:
        if self.pump is not None:
            await asyncio.wait([self.pump])

    def _progress(self, allowance: float) -> None:
        """Move the deadline of whoever waits for the answer: the exchange is alive."""
        if self._waiter is not None:
            self._expect(self._owner.idle_timeout if self._answered else allowance)

    # --- one coarse timer

    def _expect(self, seconds: float) -> None:
        """Set the deadline. A timer that fires earlier stays: it will look, and wait for the rest."""
        self._deadline = self.loop.time() + seconds
        if self._timer_at > self._deadline:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = min(self._deadline, self._slow_at)
        self._timer = self.loop.call_at(self._timer_at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = inf
        now = self.loop.time()
        if now >= self._slow_at:
            self._slow_at = inf
            self._note_slow()
        if now < self._deadline:
            if self._up and min(self._deadline, self._slow_at) < inf:
                self._arm()
        elif self._busy:
            self._time_out()
        else:
            self._owner.retire(self)
            self.drop()

    def _note_slow(self) -> None:
        if self._busy:
            self._began = 0.0
            call, self._on_slow = self._on_slow, None
            if call is not None:
                call(partial(self._fail_turn, self._turn))

    def _fail_turn(self, turn: int, error: ForwardError) -> None:
        """End that exchange; whoever kept this for too long may not hit the next one."""
        if self._busy and turn == self._turn:
            self.fail(error)

    def _time_out(self) -> None:
        if self._answered:
            self.fail(self._failure("body idle for too long", status=504))
        elif self._sent or self._room is not None:
            self.fail(self._failure("timed out", status=504))
        else:
            self.fail(self._failure("the body of the request stalled", status=408))

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._peek = peek(transport.get_extra_info("socket").fileno())
        self._up = True
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        if not self._busy:
            self._owner.retire(self)
            self.drop()
            return
        parser = self.parser
        try:
            parser.feed(data)
        except MalformedError as exc:
            self.fail(self._failure(f"malformed answer: {exc}"))
            return
        waiter = self._waiter
        if waiter is not None and parser.head_done:
            self._waiter = None
            self._deadline = inf
            if not waiter.done():
                waiter.set_result(None)
        if parser.complete:
            if not self._sent:
                self._stop_sending()
        elif parser.buffered > HIGH_WATER and self._reading:
            self._reading = False
            self._transport.pause_reading()

    def eof_received(self) -> None:
        if self._busy and self._ended_cleanly():
            self.parser.feed_eof()
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError):
            self._rescue()
        self._end(exc)
        if self._timer is not None:
            self._timer.cancel()
        self._owner.gone(self)

    def pause_writing(self) -> None:
        self._room = self.loop.create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def _end(self, exc: Exception | None) -> None:
        self._up = False
        if not self._busy:
            self._owner.retire(self)
        elif self.parser.complete:
            self._stop_sending()
            self._wake()
        else:
            self.fail(self._failure(lost(exc), stale=self._used and not self.parser.started))

    def _ended_cleanly(self) -> bool:
        """Whether the end is the sender's: asyncio reports one without a TLS closure alert alike.

        Without the alert a body that ends with the stream is cut (RFC 9112 section 9.8).
        """
        tls = self._transport.get_extra_info("ssl_object")
        try:
            return tls is None or not tls.read(1)
        except OSError:
            return False

    def _rescue(self) -> None:
        """Read what came before the pipe broke: it may be the answer (413 and a reset, say)."""
        if os.name != "posix" or self._transport.get_extra_info("sslcontext") is not None:
            return
        descriptor = self._transport.get_extra_info("socket").fileno()
        try:
            while self._busy and (data := os.read(descriptor, HIGH_WATER)):
                self.data_received(data)
        except OSError:
            return
