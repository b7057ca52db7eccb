"""How many exchanges one upstream may have at a time, and who goes next: the one that waits longest.

Shared by all endpoints of an upstream (design section 4.2 rule 1). asyncio is imported by the waiting of its
own kind alone. No sockets here.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    import asyncio

    from strangle_mw.core.model import Upstream


def _full(limit: int) -> ForwardError:
    return ForwardError("pool", f"{limit} exchanges in flight", status=503)


class AsyncBulkhead:
    """The places of one upstream in one event loop.

    `taken` counts those in use. As many requests as there are places may wait, `pool_timeout` seconds at
    most: more would only fill the memory while an upstream hangs (promise P15).
    """

    __slots__ = ("_patience", "_waiting", "limit", "taken")

    def __init__(self, upstream: Upstream) -> None:
        self.limit = upstream.max_in_flight
        self.taken = 0
        self._patience = upstream.pool_timeout
        self._waiting: deque[asyncio.Future[bool]] = deque()

    async def enter(self) -> None:
        """Take a place, first come first served; raise `ForwardError` (503) if none comes free in time."""
        if self.taken < self.limit:
            self.taken += 1
        else:
            await self._wait()

    def leave(self) -> None:
        """Give a place back, or hand it to the one that waits longest."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(True)
                return
        self.taken -= 1

    async def _wait(self) -> None:
        if self._patience <= 0.0 or len(self._waiting) >= self.limit:
            raise _full(self.limit)
        import asyncio

        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiting.append(waiter)
        timer = loop.call_later(self._patience, self._give_up, waiter)
        try:
            granted = await waiter
        except BaseException:  # cancelled, or closed by whoever drives this by hand
            if waiter in self._waiting:  # if not, `leave` has passed it over already
                self._waiting.remove(waiter)
            elif waiter.done() and not waiter.cancelled() and waiter.result():
                self.leave()  # it was handed over in the moment of the cancellation
            raise
        finally:
            timer.cancel()
        if not granted:
            raise _full(self.limit)

    def _give_up(self, waiter: asyncio.Future[bool]) -> None:
        if not waiter.done():
            self._waiting.remove(waiter)
            waiter.set_result(False)


class BlockingBulkhead:
    """The places of one upstream for the threads (or greenlets) of one process; see `AsyncBulkhead`.

    `lock` guards `taken` and whatever a pool wants to change together with it.
    """

    __slots__ = ("_patience", "_waiting", "limit", "lock", "taken")

    def __init__(self, upstream: Upstream) -> None:
        self.limit = upstream.max_in_flight
        self.taken = 0
        self.lock = threading.Lock()  # by its full name, for gevent that patches late
        self._patience = upstream.pool_timeout
        self._waiting: deque[threading.Lock] = deque()

    def enter(self) -> None:
        """Take a place, first come first served; raise `ForwardError` (503) if none comes free in time."""
        with self.lock:
            if self.taken < self.limit:
                self.taken += 1
                return
            if self._patience <= 0.0 or len(self._waiting) >= self.limit:
                raise _full(self.limit)
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        self._wait(turn)

    def leave(self) -> None:
        """Give a place back, or hand it to the one that waits longest."""
        with self.lock:
            self.leave_locked()

    def leave_locked(self) -> None:
        """Do what `leave` does, for a caller that holds `lock`."""
        if self._waiting:
            self._waiting.popleft().release()
        else:
            self.taken -= 1

    def _wait(self, turn: threading.Lock) -> None:
        mine = False
        try:
            mine = turn.acquire(timeout=self._patience)
        except BaseException:  # a signal, or gevent's timeout
            if not self._withdraw(turn):
                self.leave()
            raise
        if not mine and self._withdraw(turn):
            raise _full(self.limit)

    def _withdraw(self, turn: threading.Lock) -> bool:
        """Stop waiting; tells whether no place had been handed over meanwhile."""
        with self.lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return True
            return False
