"""One call of a WSGI app between two threads: what it wishes is done on the event loop, what came is its.

The thread posts wishes and waits; the loop does them in their order. Either side can leave: a thread never
waits for a loop that has given up, and a loop only for as long as it wants to. What WSGI asks of an answer is
in `answers`, what of an environ in `environ`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from io import RawIOBase
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    Wish = Callable[[], Awaitable[None]] | None

log = logging.getLogger("strangle_mw")

# Most answers are over by then; a receive that is begun must be cancelled again, which no server likes.
_WATCH_AFTER = 0.1


class ClientLeftError(ConnectionResetError):
    """The client has left, or whoever has asked for the answer has given up."""

    def __init__(self) -> None:
        super().__init__("the client has left")


class Handover:
    """The two ends of one call; made on its loop.

    `read`, `write`, `put` and `finish` are for its thread, which may be one at a time only; `serve` is the
    loop's.
    """

    _kept: Message | None = None
    """A message that came while the client was watched, before the app has asked for it."""
    _wanted = False
    _message: Message | None = None
    _watcher: asyncio.Task[None] | None = None
    _timer: asyncio.TimerHandle | None = None
    _waiter: asyncio.Future[None] | None = None
    _complete = False  # the request is
    _failure: Exception | None = None
    _error: Exception | None = None
    _ended = False

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Receive, send: Send) -> None:
        self.left = False
        self._loop = loop
        self._receive = receive
        self._send = send
        self._begun = loop.time()
        self._posted: deque[Wish] = deque()
        self._mutex = Lock()
        self._reply = Lock()
        self._reply.acquire()

    # --- in the thread

    @property
    def ended(self) -> bool:
        """Whether nobody waits for this call any more."""
        return self._ended

    def read(self) -> Message:
        """Return the next message of the request; raise `ClientLeftError`."""
        self._ask(self._fetch)
        message, self._message = self._message, None
        if message is None:
            raise ClientLeftError
        return message

    def write(self, messages: list[Message]) -> None:
        """Send a part of the answer; return when the server has taken it, or raise `ClientLeftError`."""

        async def wish() -> None:
            await self._look()
            await self._deliver(messages)
            self._free()

        self._ask(wish)

    def put(self, messages: list[Message], *, at_once: bool) -> None:
        """Send the end of the answer without waiting; unless `at_once`, `finish` comes right behind."""
        self._post(lambda: self._deliver(messages), wake=at_once)

    def finish(self, error: Exception | None) -> None:
        """Say that the app is done; `error` is raised where the answer is waited for."""
        self._error = error
        if not self._post(None) and error is not None:
            _tell(error)

    def _ask(self, wish: Wish) -> None:
        if self.left or not self._post(wish):
            raise ClientLeftError
        self._reply.acquire()
        if self.left:
            raise ClientLeftError

    def _post(self, wish: Wish, *, wake: bool = True) -> bool:
        """Post a wish; return whether somebody is there to do it."""
        with self._mutex:
            if self._ended:
                return False
            self._posted.append(wish)
            if not wake or self._waiter is None:
                return True
            waiter, self._waiter = self._waiter, None
        try:
            self._loop.call_soon_threadsafe(_wake, waiter)
        except RuntimeError:  # the loop is closed
            self.left = self._ended = True
            return False
        return True

    # --- on the loop

    async def serve(self) -> None:
        """Do what the thread wishes until it is done; raise what the app or the server's `send` has raised.

        Returns also if the client has left. Whoever cancels this leaves the thread to itself: it goes on to
        its next read or write.
        """
        try:
            while (wish := await self._next()) is not None:
                await wish()
        finally:
            self._end()
        error, self._failure, self._error = self._failure or self._error, None, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # no cycle with its traceback

    async def _next(self) -> Wish:
        while True:
            with self._mutex:
                if self._posted:
                    return self._posted.popleft()
                self._waiter = waiter = self._loop.create_future()
            await waiter

    async def _fetch(self) -> None:
        if self._kept is not None:
            message, self._kept = self._kept, None
            self._hand(message)
            self._watch()
        elif self._watcher is None and self._timer is None:
            self._hand(await self._receive())
        elif self.left:
            self._free()
        else:
            self._wanted = True
            self._watch()

    def _hand(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self._leave()
        else:
            self._complete = not message.get("more_body", False)
            self._message = message
        self._free()

    async def _deliver(self, messages: list[Message]) -> None:
        try:
            for message in messages:
                if self.left:
                    return
                await self._send(message)
        except OSError:  # the client has left (ASGI specification, "Disconnected Client")
            self._leave()
        except Exception as exc:  # noqa: BLE001 - raised by `serve` when the thread is done
            self._failure = exc
            self._leave()

    async def _look(self) -> None:
        """See that a client's leaving is noticed while the answer is sent; `send` often says nothing."""
        if self._watcher is not None or self._timer is not None:
            return
        left = self._begun + _WATCH_AFTER - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._watch)
        else:
            self._watch()
            await asyncio.sleep(0)  # it may have left while the app was at work

    def _watch(self) -> None:
        if self._watcher is None or (self._watcher.done() and not self.left):
            self._watcher = self._loop.create_task(self._wait_for_disconnect())

    async def _wait_for_disconnect(self) -> None:
        """Receive until the client leaves, but at most one message that the app has not asked for."""
        try:
            while self._kept is None or self._complete:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    break
                if self._complete:  # nothing should come but the end
                    await asyncio.sleep(0)  # a server that never waits here must not stop the loop
                    continue
                self._complete = not message.get("more_body", False)
                if self._wanted:
                    self._wanted = False
                    self._hand(message)
                else:
                    self._kept = message
            else:
                return
        except Exception:  # who cannot be asked is gone
            log.debug("receive failed", exc_info=True)
        self._leave()

    def _leave(self) -> None:
        self.left = True
        if self._wanted:
            self._wanted = False
            self._free()

    def _free(self) -> None:
        """Let the thread go on; once more than it waits is not too often."""
        if self._reply.locked():
            self._reply.release()

    def _end(self) -> None:
        """Leave the thread to itself: whatever it still asks for is answered by an error."""
        with self._mutex:
            self._ended = self.left = True
            untold = self._error if None in self._posted else None
        self._free()
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if untold is not None:
            _tell(untold)


class Input(RawIOBase):
    """The body of the request as `wsgi.input` reads it, one message at a time, none before it is asked for.

    `length` is the declared one. A body that ends early, or runs over, ends in `OSError`, never as if it were
    whole (promise P6). Wrap it in a `BufferedReader`.
    """

    def __init__(self, handover: Handover, length: int | None) -> None:
        self._handover = handover
        self._length = length
        self._count = 0
        self._rest = memoryview(b"")
        self._more = True
        self._broken: OSError | None = None

    def readable(self) -> bool:
        """Say yes (`RawIOBase`)."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what there is, waiting for the client if there is nothing (`RawIOBase`)."""
        if not self._rest:
            self._fill()
        data = self._rest[: len(buffer)]
        buffer[: len(data)] = data
        self._rest = self._rest[len(data) :]
        return len(data)

    def _fill(self) -> None:
        if self._broken is not None:
            raise OSError(*self._broken.args) from self._broken
        try:
            while self._more and not self._rest:
                message = self._handover.read()
                self._more = message.get("more_body", False)
                self._take(message.get("body", b""))
        except OSError as exc:
            self._broken = exc
            raise

    def _take(self, data: bytes) -> None:
        self._count += len(data)
        if self._length is not None and (
            self._count > self._length or (self._count < self._length and not self._more)
        ):
            raise OSError("the body has not its declared length")
        self._rest = memoryview(data)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _tell(error: Exception) -> None:
    log.error("a WSGI app failed when nobody waited for its answer any more", exc_info=error)
