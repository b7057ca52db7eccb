"""The one thread of a process that runs an event loop for in-process ASGI apps: its start, forks, its end.

Started by the first call, once per process: after a fork the child starts its own, and touches nothing of its
parent's. Under gevent it is a greenlet (see `bells`). What runs on the loop is in `exchange`.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from strangle_mw.bridges.bells import make_bell, make_loop, place, start
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from strangle_mw.bridges.bells import Bell
    from strangle_mw.bridges.exchange import Home

log = logging.getLogger("strangle_mw")

PATIENCE = 5.0
"""Seconds that work behind finished answers has at exit, and after that each lifespan."""

_GRACE = 1.0
"""Seconds that cancelled tasks have for their `finally` blocks."""

_threads: dict[Hashable, LoopThread] = {}
_inherited: list[LoopThread] = []


def loop_thread() -> LoopThread:
    """Return the thread of this process, started if need be; raises `ForwardError` if it cannot be."""
    here = place()
    found = _threads.get(here)
    if found is None:
        mine = LoopThread(here)
        found = _threads.setdefault(here, mine)  # not under a lock: one held at a fork is held for ever
        if found is mine:
            found.start()
    if found.loop is None:
        found.wait()
    return found


def is_ours(thread: LoopThread) -> bool:
    """Whether a thread is this process's, not its parent's."""
    return _threads.get(thread.place) is thread


class LoopThread:
    """A thread with an event loop. `loop` is None until it can be used."""

    def __init__(self, place: Hashable) -> None:
        self.place = place
        self.loop: asyncio.AbstractEventLoop | None = None
        self.closed = False
        """Whether the process ends, and nothing new may begin."""
        self.homes: set[Home] = set()
        """The apps that have been called; for the loop's thread only."""
        self.forget: Callable[[], None] = lambda: None
        """What is done about it in a fork's child."""
        self._error = ""
        self._finished = self._ended = False
        self._waiting: deque[Bell] = deque()

    def start(self) -> None:
        """Start the thread; does not wait for it."""
        try:
            self.forget = start(self._run, "strangle-loop")
        except RuntimeError as exc:
            self._fail(exc)

    def wait(self) -> None:
        """Wait until the loop can be used; raises `ForwardError` if it never can."""
        bell = make_bell()
        self._waiting.append(bell)
        while self.loop is None:
            if self._error:
                raise ForwardError("connect", f"no event loop: {self._error}")
            bell.wait(1.0)

    def call(self, act: Callable[..., Any], *args: Any) -> bool:
        """Have something done on the loop; tells whether there is one: not any more when the process ends."""
        try:
            assert self.loop is not None  # noqa: S101 - whoever has this has waited for it
            self.loop.call_soon_threadsafe(act, *args)
        except RuntimeError:
            return False
        return True

    def stop(self) -> None:
        """End what runs, in good order and in bounded time, and then the thread."""
        if self.loop is None:
            return
        self.closed = True
        bell = make_bell()
        self._waiting.append(bell)
        deadline = monotonic() + 2 * PATIENCE + 2 * _GRACE
        if self.call(self._begin_end):
            while not self._ended and (left := deadline - monotonic()) > 0:
                bell.wait(left)

    # --- on the loop's thread

    def _run(self) -> None:
        try:
            loop = make_loop()
        except Exception as exc:  # noqa: BLE001 - no descriptors left, say
            self._fail(exc)
            return
        self.loop = loop
        self._tell()
        while not self._finished:
            try:
                loop.run_forever()
            except BaseException:  # SystemExit in a task that an app has made
                if not is_ours(self):
                    return
                log.exception("a task of an ASGI app has tried to end the process")
        with suppress(Exception):
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        self._ended = True
        self._tell()

    def _fail(self, exc: Exception) -> None:
        """Give up; the next call tries again with a new thread."""
        if is_ours(self):
            del _threads[self.place]
        self._error = f"{type(exc).__name__}: {exc}"[:200]
        self._tell()

    def _tell(self) -> None:
        while self._waiting:
            self._waiting.popleft().ring()

    def _begin_end(self) -> None:
        assert self.loop is not None  # noqa: S101 - this runs on it
        self._ending = self.loop.create_task(self._end())

    async def _end(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            homes = [*self.homes]
            for home in homes:
                home.abandon()
            await asyncio.gather(*(home.end(PATIENCE) for home in homes), return_exceptions=True)
            rest = asyncio.all_tasks() - {self._ending}
            for task in rest:
                task.cancel()
            if rest:
                await asyncio.wait(rest, timeout=_GRACE)
            for task in rest:
                if not task.done():  # nothing more can be done about it, and nobody is there to read of it
                    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001
        finally:
            self._finished = True
            loop.stop()


def _forget() -> None:
    """In a child: leave the parent's loop alone, for ever; one that is collected closes what both share."""
    for thread in _threads.values():
        thread.forget()
    _inherited.extend(_threads.values())
    _threads.clear()


def _stop() -> None:
    found = _threads.get(place()) if _threads else None
    if found is not None:
        found.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(_stop)
