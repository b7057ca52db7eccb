"""An ASGI app for threads: called on the process's own event loop, its answer read like an upstream's.

Only the side of the calling thread lives here; it never runs anything of the app's. What happens on the loop
is in `exchange`, the loop itself in `loop_thread`.
"""

from __future__ import annotations

from contextvars import copy_context
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from strangle_mw.bridges.bells import make_bell
from strangle_mw.bridges.exchange import WANT, Exchange, Home
from strangle_mw.bridges.loop_thread import is_ours, loop_thread
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from strangle_mw.bridges.loop_thread import LoopThread

    Header = tuple[bytes, bytes]

DRAIN = 30.0
"""Seconds that the calls of a closed app have to end before its lifespan does."""

_SLACK = 1.0
"""Seconds beyond `connect_timeout` in which the loop itself may say that an app has not started."""


class LoopApp:
    """An ASGI app, called from any thread of any process; making one starts nothing.

    The first call starts the loop's thread and the app's lifespan, and a fork's child does so anew. Times are
    in seconds.
    """

    def __init__(
        self, app: Callable[..., Awaitable[None]], *, connect_timeout: float, idle_timeout: float
    ) -> None:
        self._app = app
        self._connect_timeout = connect_timeout
        self._idle_timeout = idle_timeout
        self._homes: dict[LoopThread, Home] = {}
        self._closed = False

    def send(
        self, scope: dict[str, Any], body: bytes | Iterator[bytes], *, method: str, timeout: float
    ) -> LoopAnswer:
        """Call the app and wait for the head of its answer.

        `scope` is the app's from now on, and gets its `state`. A streamed `body` is read by this thread,
        piece by piece as the app asks for it, here and in `LoopAnswer.read`. `timeout` is in seconds from
        the last piece to the head. Raises `ForwardError`, and whatever `body` raises.
        """
        if self._closed:
            raise ForwardError("pool", "closed", status=503)
        thread = loop_thread()
        home = self._homes.get(thread)
        if home is None:
            home = self._homes.setdefault(thread, Home(self._app, thread))
        whole = body if isinstance(body, bytes) else None
        exchange = Exchange(home, scope, whole, method, make_bell(), self._connect_timeout)
        answer = LoopAnswer(thread, exchange, None if isinstance(body, bytes) else body, self._idle_timeout)
        if not thread.call(exchange.begin, copy_context()):
            raise ForwardError("pool", "closed", status=503)
        try:
            answer.open(self._connect_timeout + _SLACK, timeout)
        except BaseException:  # a signal, or gevent's timeout
            answer.close()
            raise
        return answer

    def close(self) -> None:
        """Take no more calls, and end the app's lifespan once those that run have ended; does not wait."""
        self._closed = True
        for thread, home in [*self._homes.items()]:
            if is_ours(thread):
                thread.call(home.retire, DRAIN)


class LoopAnswer:
    """One answer: its head, and its body as it comes, for one thread at a time. Close it when done."""

    __slots__ = (
        "_body", "_buffer", "_closed", "_ended", "_error", "_exchange", "_idle_timeout", "_thread", "_wanted",
        "headers", "reason", "status",
    )  # fmt: skip

    def __init__(
        self, thread: LoopThread, exchange: Exchange, body: Iterator[bytes] | None, idle_timeout: float
    ) -> None:
        self.status = 0
        self.reason = b""
        self.headers: list[Header] = []
        self._thread = thread
        self._exchange = exchange
        self._body = body
        self._idle_timeout = idle_timeout
        self._buffer: list[bytes] = []
        self._wanted = self._ended = self._closed = False
        self._error: BaseException | None = None

    @property
    def complete(self) -> bool:
        """Whether the whole body has been received (not: taken)."""
        self._drain()
        return self._ended

    def open(self, patience: float, timeout: float) -> None:
        """Wait for the head: `patience` seconds until the app is called, and `timeout` from then."""
        asked, given = monotonic(), 0.0
        self._drain()
        while not self.status:
            if self._error is not None:
                raise self._error
            if self._wanted:
                self._serve()
                given = monotonic()
            begun = self._exchange.begun
            left = (max(begun, given) + timeout if begun else asked + patience) - monotonic()
            if left <= 0:
                self._late()
            self._exchange.bell.wait(min(left, timeout))
            self._drain()

    def take(self) -> bytes:
        """Hand over everything buffered; never waits."""
        self._drain()
        if not self._buffer:
            return b""
        data = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        exchange = self._exchange
        exchange.consumed += len(data)
        if exchange.blocked:
            exchange.blocked = False
            self._thread.call(exchange.resume)
        return data

    def read(self) -> bytes:
        """Wait for the next bytes; empty at the clean end. Serves the app's wish for more of the request.

        Raises `ForwardError` with stage `body` if the app fails, or sends nothing for `idle_timeout` seconds;
        what the request's body raises; and `RuntimeError` once closed.
        """
        if self._closed:
            raise RuntimeError("the answer is closed")
        deadline = monotonic() + self._idle_timeout
        while not (data := self.take()):
            if self._ended:
                return b""
            if self._error is not None:
                raise self._error
            if self._wanted:
                self._serve()
                deadline = monotonic() + self._idle_timeout
            left = deadline - monotonic()
            if left <= 0:
                self._give_up(ForwardError("body", "timed out", status=504, request_sent=True))
            self._exchange.bell.wait(left)
        return data

    def close(self) -> None:
        """Let go of the app; one that has not completed its answer is told, and cancelled a little later."""
        if self._closed:
            return
        if not self.complete:
            self._leave()
        self._closed = True
        self._body = None
        self._buffer.clear()

    def _drain(self) -> None:
        """Sort what has come from the loop."""
        if self._closed:
            return
        items = self._exchange.items
        while items:
            item = items.popleft()
            if isinstance(item, bytes):
                self._buffer.append(item)
            elif isinstance(item, tuple):
                self.status, self.headers = item
            elif isinstance(item, ForwardError):
                self._error = self._error or item
            elif item == WANT:
                self._wanted = True
            else:
                self._ended = True

    def _serve(self) -> None:
        """Give the app the next piece of the request's body."""
        self._wanted = False
        assert self._body is not None  # noqa: S101 - it is asked for only where there is one
        try:
            data = next((piece for piece in self._body if piece), b"")
        except BaseException as exc:  # noqa: BLE001 - raised again, now and later
            self._give_up(exc)
        self._thread.call(self._exchange.feed, data)

    def _late(self) -> NoReturn:
        """Give up waiting for the head; what has not been called by now never will be."""
        self._exchange.left = True
        if self._exchange.begun:
            self._give_up(ForwardError("head", "timed out", status=504, request_sent=True))
        self._give_up(ForwardError("connect", "the event loop is blocked", status=504))

    def _give_up(self, error: BaseException) -> NoReturn:
        """Let go of the app, and fail with `error`, now and later."""
        self._error = error
        self._leave()
        raise error

    def _leave(self) -> None:
        self._exchange.left = True
        self._thread.call(self._exchange.abandon)
