"""The time that an app has until its answer, and until more of it, in the very task that waits for it.

What the app sends and receives is elsewhere. A call in a task of its own needs none of this.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Deadline:
    """Cancels the task that makes it, unless it is stopped in time; `expired` tells that it has done so.

    It may be started and stopped from other tasks: an app may receive and send in one of its own. A server
    that runs apps in no task of asyncio cannot have them ended.
    """

    __slots__ = ("_before", "_loop", "_seconds", "_settled", "_task", "_timer", "_until", "expired")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.expired = False
        self._settled = False
        self._loop = loop
        self._seconds = seconds
        self._task = asyncio.current_task()
        self._before = 0 if self._task is None else self._task.cancelling()
        self._timer: asyncio.TimerHandle | None = None
        self._until = inf

    def start(self, seconds: float | None = None) -> None:
        """Let the time run, from its beginning, or this many seconds instead.

        Not again once it is over, nor behind the call: an app may receive on, or do so in a task of its own.
        """
        if self.expired or self._settled:
            return
        self._until = self._loop.time() + (self._seconds if seconds is None else seconds)
        timer = self._timer
        if timer is not None and timer.when() > self._until:
            timer.cancel()
            timer = None
        if timer is None:  # else it looks again: to set a timer for each chunk would cost more
            self._timer = self._loop.call_at(self._until, self._look)

    def stop(self) -> None:
        """Stand still until the next `start`."""
        self._until = inf

    async def keep(self, app: Callable[..., Awaitable[None]], *given: Any) -> BaseException | None:
        """Call the app and wait for its end, from now on; return what it has raised, if anything.

        A cancellation by this deadline counts as that; one by somebody else is raised. What an app raises
        must not end the server, `SystemExit` included.
        """
        self.start()
        try:
            await app(*given)
        except asyncio.CancelledError as exc:
            if self.settle():
                raise
            return exc  # by the deadline, or by the app itself
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - for the caller to judge
            return exc
        finally:
            self.settle()
        return None

    def settle(self) -> bool:
        """Stop for good and take back the cancellation; tell whether somebody else has cancelled the task."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task, settled, self._settled = self._task, self._settled, True
        if task is None:
            return True
        if self.expired and not settled and task.cancelling() > self._before:
            return task.uncancel() > self._before
        return task.cancelling() > self._before

    def _look(self) -> None:
        self._timer = None
        if self._loop.time() < self._until:
            if self._until < inf:
                self._timer = self._loop.call_at(self._until, self._look)
            return
        self.expired = True
        if self._task is not None:
            self._task.cancel()
