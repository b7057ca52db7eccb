"""Threads that run calls, first come first served; nothing of what a call does is known here.

Not `ThreadPoolExecutor`: at the interpreter's exit that waits for running calls without any limit.
"""

from __future__ import annotations

import atexit
import os
import weakref
from queue import SimpleQueue
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 5.0
"""Seconds that the end of a process waits for running calls."""


class Threads:
    """At most `limit` daemon threads of this process, started as they are needed.

    What is submitted beyond that waits in a queue without a limit: the server bounds how much there can be.
    """

    def __init__(self, limit: int, name: str = "strangle-wsgi") -> None:
        self.limit = limit
        self.pid = os.getpid()
        self._name = name
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._pending = 0
        self._stopped = False
        self._changed = Condition()
        _all.add(self)

    @property
    def running(self) -> int:
        """Calls that hold a thread."""
        return min(self._pending, self.limit)

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread."""
        return max(0, self._pending - self.limit)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped

    def submit(self, call: Callable[[], object]) -> None:
        """Run `call`, which may not raise, in a thread; later than all that was submitted before."""
        with self._changed:
            self._pending += 1
            if len(self._threads) < min(self._pending, self.limit):
                self._start()
            self._calls.put(call)

    def stop(self, patience: float = PATIENCE) -> bool:
        """End the threads once what was submitted is done; wait that long, in seconds; tell if all is done.

        Blocks. What still runs afterwards goes on in its thread, which ends with it or with the process.
        """
        end = monotonic() + patience
        with self._changed:
            self._stopped = True
            done = self._changed.wait_for(lambda: not self._pending, patience)
            threads, self._threads = self._threads, []
            for _ in threads:
                self._calls.put(None)
        for thread in threads:
            thread.join(max(0.0, end - monotonic()))
        return done

    def _start(self) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = Thread(target=self._run, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads; those there are will do
            if not self._threads:
                self._pending -= 1
                raise
        else:
            self._threads.append(thread)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            finally:
                del call  # a thread that waits keeps no request alive
                with self._changed:
                    self._pending -= 1
                    if not self._pending:
                        self._changed.notify_all()


_all: weakref.WeakSet[Threads] = weakref.WeakSet()


def _at_exit() -> None:
    """Let running calls come to their end where the server has not told us that it stops."""
    end = monotonic() + PATIENCE
    for threads in [*_all]:
        if threads.pid == os.getpid() and not threads.stopped:
            threads.stop(max(0.0, end - monotonic()))


atexit.register(_at_exit)
