"""How many exchanges one upstream may have at a time, and how the next one waits for its turn.

Shared by all endpoints of an upstream (design section 4.2 rule 1). `Places` decides who is next; here is the
waiting, by a future or a lock, and asyncio is imported by the waiting of its own kind alone. No sockets here.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from strangle_mw.core.resilience import Places
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    import asyncio

    from strangle_mw.core.model import Upstream


def _full(limit: int) -> ForwardError:
    return ForwardError("pool", f"{limit} exchanges in flight", status=503)


class AsyncBulkhead:
    """The places of one upstream in one event loop; who waits does so for `pool_timeout` seconds at most.

    `places` is public for those who take a free place in passing.
    """

    __slots__ = ("_patience", "places")

    def __init__(self, upstream: Upstream) -> None:
        self.places: Places[asyncio.Future[bool]] = Places(upstream.max_in_flight)
        self._patience = upstream.pool_timeout

    @property
    def limit(self) -> int:
        """How many places there are."""
        return self.places.limit

    @property
    def taken(self) -> int:
        """How many of them are in use."""
        return self.places.taken

    async def enter(self, *, patient: bool = True) -> None:
        """Take a place, first come first served; raise `ForwardError` (503) if none comes free in time.

        Unless `patient`, that is at once: for a request that legacy can answer.
        """
        if not self.places.enter():
            await self._wait(self._patience if patient else 0.0)

    def leave(self) -> None:
        """Give a place back, or hand it to the one that waits longest."""
        while (waiter := self.places.leave()) is not None:
            if not waiter.done():  # else it was cancelled, and has had no time to withdraw
                waiter.set_result(True)
                return

    async def _wait(self, patience: float) -> None:
        if patience <= 0.0:
            raise _full(self.limit)
        import asyncio

        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        if not self.places.wait(waiter):
            raise _full(self.limit)
        timer = loop.call_later(patience, self._give_up, waiter)
        try:
            granted = await waiter
        except BaseException:  # cancelled, or closed by whoever drives this by hand
            handed_over = not self.places.withdraw(waiter) and waiter.done() and not waiter.cancelled()
            if handed_over and waiter.result():
                self.leave()  # it was handed over in the moment of the cancellation
            raise
        finally:
            timer.cancel()
        if not granted:
            raise _full(self.limit)

    def _give_up(self, waiter: asyncio.Future[bool]) -> None:
        if not waiter.done():
            self.places.withdraw(waiter)
            waiter.set_result(False)


class BlockingBulkhead:
    """The places of one upstream for the threads (or greenlets) of one process; see `AsyncBulkhead`.

    `lock` guards `places` and whatever a pool wants to change together with them.
    """

    __slots__ = ("_patience", "lock", "places")

    def __init__(self, upstream: Upstream) -> None:
        self.places: Places[threading.Lock] = Places(upstream.max_in_flight)
        self.lock = threading.Lock()  # by its full name, for gevent that patches late
        self._patience = upstream.pool_timeout

    @property
    def limit(self) -> int:
        """How many places there are."""
        return self.places.limit

    @property
    def taken(self) -> int:
        """How many of them are in use."""
        return self.places.taken

    def enter(self, *, patient: bool = True) -> None:
        """Take a place, first come first served; raise `ForwardError` (503) if none comes free in time.

        Unless `patient`, that is at once: for a request that legacy can answer.
        """
        with self.lock:
            if self.places.enter():
                return
            turn = threading.Lock()
            turn.acquire()  # `leave` releases it
            if not patient or self._patience <= 0.0 or not self.places.wait(turn):
                raise _full(self.limit)
        self._wait(turn)

    def leave(self) -> None:
        """Give a place back, or hand it to the one that waits longest."""
        with self.lock:
            self.leave_locked()

    def leave_locked(self) -> None:
        """Do what `leave` does, for a caller that holds `lock`."""
        turn = self.places.leave()
        if turn is not None:
            turn.release()

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
            return self.places.withdraw(turn)
