"""One HTTP/1.1 connection over a blocking socket, used by one thread at a time.

What bytes mean is in `h1`, how a socket is had in `sockets`; which connection is used next belongs to
`thread_pool`. `socket` and `select` are used by their plain names, so that gevent's monkey patching works;
asyncio may not be imported here.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from strangle_mw.transports.base import HIGH_WATER, exchange_failed, lost
from strangle_mw.transports.h1 import LAST_CHUNK, MalformedError, ResponseParser, frame_body, frame_chunk
from strangle_mw.transports.sockets import keeps_time, peek, set_kernel_timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strangle_mw.errors import ForwardError


class Connection:
    """One connection: `exchange`, then `read`; `rest` if that went well, else `close`."""

    __slots__ = (
        "_answered",
        "_broken",
        "_error",
        "_idle_timeout",
        "_kernel",
        "_peek",
        "_sent",
        "_sock",
        "_timeout",
        "_used",
        "parser",
        "rested",
    )

    def __init__(self, sock: socket.socket, idle_timeout: float) -> None:
        self.parser = ResponseParser()
        self.rested = 0.0
        """When the last exchange ended, by the monotonic clock in seconds."""
        self._sock = sock
        self._idle_timeout = idle_timeout
        self._timeout = 0.0
        self._kernel = keeps_time(sock)
        self._peek = peek(sock.fileno()) if self._kernel else None
        if self._kernel:
            sock.settimeout(None)
        self._used = self._answered = False
        self._sent = True
        self._broken: str | None = None
        self._error: ForwardError | None = None

    # --- one exchange

    def exchange(
        self, head: bytes, body: bytes | Iterator[bytes], *, method: str, chunked: bool, timeout: float
    ) -> None:
        """Send a request and wait for the head of its answer; raises what `BlockingPool.send` raises."""
        self.parser.start(method)
        self._limit(timeout)
        self._sent = False
        if isinstance(body, bytes):
            # One write: a second small one would wait for a delayed ACK (40 ms) where Nagle is on.
            data = head + (frame_body(body) if chunked else body)
            self._sent = self._write(data) if len(data) <= HIGH_WATER else self._push(data)
        else:
            self._sent = self._stream(head, body, chunked=chunked)
        if not self.parser.head_done:
            self._await_head(timeout)
        self._answered = True

    def read(self) -> bytes:
        """Wait for bytes of the body; empty at the clean end."""
        parser = self.parser
        while not parser.buffered:
            if parser.complete:
                return b""
            if self._error is not None:
                raise self._error
            self._limit(self._idle_timeout)
            self._receive()
        return parser.take()

    def rest(self) -> bool:
        """Go idle, if the connection is fit for another request."""
        if not (self._sent and self.parser.reusable):
            return False
        self._used = True
        self._answered = False
        self.rested = monotonic()
        return True

    def alive(self) -> bool:
        """Whether an idle connection has seen neither an end nor bytes that nobody asked for."""
        try:
            if self._peek is not None:
                return not self._peek(0)
            return not self._ready(0.0, write=False)[0] or self._receive_now() is None
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket; its descriptor is gone even if that reports an error (close(2))."""
        with suppress(OSError):
            self._sock.close()

    # --- sending

    def _write(self, data: bytes) -> bool:
        """Send all; tells whether that worked: if not, an answer may have come before."""
        try:
            self._sock.sendall(data)
        except (TimeoutError, BlockingIOError) as exc:
            raise self._failure("timed out", status=504) from exc
        except OSError as exc:
            self._broken = lost(exc)
            return False
        return True

    def _stream(self, head: bytes, body: Iterator[bytes], *, chunked: bool) -> bool:
        """Send until an answer comes; tells whether the whole request was sent."""
        if not self._push(head):
            return False
        for data in body:
            if data and not self._push(frame_chunk(data) if chunked else data):
                return False
        return not chunked or self._push(LAST_CHUNK)

    def _push(self, data: bytes) -> bool:
        """Send while the upstream takes it and does not answer; tells whether all was sent."""
        view = memoryview(data)
        while view:
            readable, writable = self._ready(self._timeout, write=True)
            if readable and self._hear():
                return False
            if writable:
                try:
                    view = view[self._send_some(view) :]
                except OSError as exc:
                    self._broken = lost(exc)
                    return False
            elif not readable:
                raise self._failure("timed out", status=504)
        return True

    def _send_some(self, view: memoryview) -> int:
        """Send what fits now."""
        if not self._kernel:
            return self._sock.send(view)
        try:
            return self._sock.send(view, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def _hear(self) -> bool:
        """Look at what came while sending; tells whether to stop: for an answer, not for a 1xx."""
        try:
            data = self._receive_now()
        except OSError as exc:
            self._broken = lost(exc)
            return True
        if data:
            self._feed(data)
        elif data is not None:
            self._broken = lost(None)
        return self.parser.head_done or self._broken is not None

    # --- receiving

    def _await_head(self, timeout: float) -> None:
        deadline = monotonic() + timeout
        self._receive()
        while not self.parser.head_done:
            self._limit(deadline - monotonic())
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(HIGH_WATER)
        except (TimeoutError, BlockingIOError) as exc:
            raise self._failure("timed out", status=504) from exc
        except OSError as exc:
            raise self._failure(self._broken or lost(exc), ended=True) from exc
        if data:
            self._feed(data)
        elif not self.parser.feed_eof():
            raise self._failure(self._broken or lost(None), ended=True)

    def _receive_now(self) -> bytes | None:
        """Take what is readable, empty at the end; None if it was only a matter of TLS (a ticket, say)."""
        if not hasattr(self._sock, "pending"):
            return self._sock.recv(HIGH_WATER)
        import ssl

        self._sock.settimeout(0.0)
        try:
            return self._sock.recv(HIGH_WATER)
        except ssl.SSLWantReadError:
            return None
        finally:
            self._sock.settimeout(self._timeout)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed(data)
        except MalformedError as exc:
            raise self._failure(f"malformed answer: {exc}") from exc

    # --- helpers

    def _limit(self, seconds: float) -> None:
        if seconds <= 0.0:
            raise self._failure("timed out", status=504)
        if seconds != self._timeout:
            self._timeout = seconds
            try:
                if self._kernel:
                    set_kernel_timeout(self._sock, seconds)
                else:
                    self._sock.settimeout(seconds)
            except OSError as exc:  # EINVAL on BSDs and macOS, once the other side has gone
                raise self._failure(lost(exc), ended=True) from exc

    def _ready(self, seconds: float, *, write: bool) -> tuple[bool, bool]:
        """Wait until the socket is readable, or writable if asked for.

        TLS hides nothing from this: OpenSSL takes one record at a time, and `recv` asks for more than that.
        """
        if not hasattr(select, "poll"):  # Windows
            readable, writable, _ = select.select([self._sock], [self._sock] if write else [], [], seconds)
            return bool(readable), bool(writable)
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | select.POLLOUT if write else select.POLLIN)
        events = sum(event for _, event in poll.poll(seconds * 1000))
        return bool(events & ~select.POLLOUT), bool(events & select.POLLOUT)

    def _failure(self, reason: str, *, status: int = 502, ended: bool = False) -> ForwardError:
        self._error = exchange_failed(
            reason,
            answered=self._answered,
            sent=self._sent,
            status=status,
            stale=ended and self._used and not self.parser.started,
        )
        return self._error
