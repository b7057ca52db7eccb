"""The time that an app has until its answer, when it runs in the very task that waits for it.

What the app sends and receives is elsewhere. A call in a task of its own needs none of this.
"""

from __future__ import annotations

import asyncio


class Deadline:
    """Cancels the task that makes it, unless it is stopped in time; `expired` tells that it has done so.

    It may be started and stopped from other tasks: an app may receive and send in one of its own. A server
    that runs apps in no task of asyncio cannot have them ended.
    """

    __slots__ = ("_before", "_loop", "_seconds", "_settled", "_task", "_timer", "expired")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.expired = False
        self._settled = False
        self._loop = loop
        self._seconds = seconds
        self._task = asyncio.current_task()
        self._before = 0 if self._task is None else self._task.cancelling()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Let the time run, from its beginning; not again once it is over, nor behind the call."""
        if self.expired or self._settled:  # an app may receive on, in a task of its own or after all
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._seconds, self._expire)

    def stop(self) -> None:
        """Stand still until the next `start`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def settle(self) -> bool:
        """Stop for good and take back the cancellation; tell whether somebody else has cancelled the task."""
        self.stop()
        task, settled, self._settled = self._task, self._settled, True
        if task is None:
            return True
        if self.expired and not settled and task.cancelling() > self._before:
            return task.uncancel() > self._before
        return task.cancelling() > self._before

    def _expire(self) -> None:
        self.expired = True
        if self._task is not None:
            self._task.cancel()
