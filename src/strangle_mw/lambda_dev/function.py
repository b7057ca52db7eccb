"""One function: its processes, the invocations that wait for one, and new processes for new code.

The first process of a new state of the code is a trial: the others are started when it is ready, so that code
which cannot be loaded says so once. Its error is the answer to every invocation until the code changes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from strangle_mw.lambda_dev.invocations import Outcome
from strangle_mw.lambda_dev.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from strangle_mw.lambda_dev.invocations import Invocation
    from strangle_mw.lambda_dev.terminal import Output
    from strangle_mw.lambda_dev.worker import Program

MAX_EVENTS: Final = 1000
"""Asynchronous invocations that may wait."""

_PAUSE: Final = 0.5
"""Seconds before a process that ended without having served is replaced."""


class Function:
    """Runs up to `size` invocations at once, each in a process of its own.

    One more waits for `patience` seconds (None: as long as an invocation may take), then it is throttled.
    """

    def __init__(self, program: Program, size: int, output: Output, *, patience: float | None = None) -> None:
        self._program = program
        self._patience = program.timeout if patience is None else patience
        self._size = size
        self._output = output
        self._loop = asyncio.get_running_loop()
        self._workers: set[Worker] = set()
        self._idle: deque[Worker] = deque()
        self._waiting: dict[Invocation, asyncio.TimerHandle | None] = {}
        self._runs: set[asyncio.Task[None]] = set()
        self._failure: Callable[[str], bytes] | None = None
        self._generation = 0
        self._ready: set[Worker] = set()
        self._announced = self._closed = False
        self._fill()

    # --- invocations

    def invoke(self, invocation: Invocation) -> None:
        """Run it in an idle process; else it waits for one."""
        if self._failure is not None:
            invocation.done(Outcome(self._failure(invocation.id), failed=True))
        elif self._idle:
            self._idle.popleft().give(invocation)
        elif invocation.patient and len(self._waiting) >= MAX_EVENTS:
            invocation.done(Outcome(b"", throttled=True))
        else:
            self._waiting[invocation] = None
            if not invocation.patient:
                self._watch(invocation)

    def forget(self, invocation: Invocation) -> None:
        """Drop an invocation that still waits: its client has left. One that runs is run to its end."""
        timer = self._waiting.pop(invocation, None)
        if timer is not None:
            timer.cancel()

    def _watch(self, invocation: Invocation) -> None:
        self._waiting[invocation] = self._loop.call_later(self._patience, self._tire, invocation)

    def _tire(self, invocation: Invocation) -> None:
        """Give up waiting, but not for code that is being loaded: that has a limit of its own."""
        if not self._ready:
            self._watch(invocation)
        else:
            self.forget(invocation)
            invocation.done(Outcome(b"", throttled=True))

    # --- processes

    def _fill(self) -> None:
        if self._closed or self._failure is not None:
            return
        wanted = self._size if self._ready else 1
        mine = sum(w.generation == self._generation for w in self._workers)
        for _ in range(min(wanted - mine, self._size - len(self._workers))):
            worker = Worker(self._program, self, self._output, self._generation)
            self._workers.add(worker)
            run = self._loop.create_task(worker.run())
            self._runs.add(run)
            run.add_done_callback(self._runs.discard)

    def _dismiss(self, worker: Worker) -> None:
        self._workers.discard(worker)
        self.on_leaving(worker)
        worker.kill()

    def on_ready(self, worker: Worker) -> None:
        """Give a process that asks the next invocation; one with old code is replaced."""
        if worker not in self._workers:
            return
        if worker.generation != self._generation:
            self._dismiss(worker)
            self._fill()
            return
        self._ready.add(worker)
        self._announce()
        self._fill()
        if self._waiting:
            invocation = next(iter(self._waiting))
            self.forget(invocation)
            worker.give(invocation)
        else:
            self._idle.append(worker)

    def _announce(self) -> None:
        if len(self._ready) == self._size and not self._announced:
            self._announced = True
            self._output.line(f"ready, {self._size} process{'es' if self._size > 1 else ''}", "good")

    def on_init_failed(self, worker: Worker, failure: Callable[[str], bytes]) -> None:
        """Answer all that wait, and whatever comes, with the reason."""
        if worker not in self._workers or worker.generation != self._generation:
            return
        self._failure = failure
        for other in [w for w in self._workers if w.state in ("starting", "idle") and w is not worker]:
            self._dismiss(other)
        for invocation in list(self._waiting):
            self.forget(invocation)
            invocation.done(Outcome(failure(invocation.id), failed=True))

    def on_leaving(self, worker: Worker) -> None:
        """Give nothing more to a process that is about to end."""
        self._ready.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)

    def on_ended(self, worker: Worker) -> None:
        """Replace a process that has ended."""
        self._dismiss(worker)
        if worker.served:
            self._fill()
        else:
            self._loop.call_later(_PAUSE, self._fill)

    # --- changes and the end

    def reload(self) -> None:
        """Load the code anew: idle processes are replaced at once, the others after their invocation."""
        self._generation += 1
        self._failure = None
        self._announced = False
        self._ready.clear()
        for worker in [w for w in self._workers if w.state != "busy"]:
            self._dismiss(worker)
        self._fill()

    async def aclose(self) -> None:
        """End every process, and wait until it has."""
        self._closed = True
        for worker in list(self._workers):
            self._dismiss(worker)
        if self._runs:
            await asyncio.wait(self._runs)
