"""What an event loop beside the callers is made of: a thread, or a greenlet of gevent's, and waiting for it.

The only module that knows of gevent, which is used where it has patched and imported nowhere else. Nothing
here may know what is waited for.
"""

from __future__ import annotations

import asyncio
import os
import sys
from _thread import allocate_lock
from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import TypeAlias

    Bell: TypeAlias = "_Lock | _Green"


def patched() -> bool:
    """Whether gevent has replaced the threads or sockets of this process; it may do so late."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and (
        monkey.is_module_patched("threading") or monkey.is_module_patched("socket")
    )


def place() -> Hashable:
    """Tell for whom there is one loop: for a process, and under gevent for one hub of it."""
    if not patched():
        return os.getpid()
    from gevent import get_hub

    return os.getpid(), get_hub()


def make_bell() -> Bell:
    """Make what one caller waits with.

    `ring()` is for the loop's side, `wait(seconds)` returns after a ring or the time, or early.
    """
    return _Green() if patched() else _Lock()


class _Lock:
    """A bell for a thread: a lock that whoever waits takes, and whoever rings gives back."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()

    def ring(self) -> None:
        # Only one thread rings: nobody else gives the lock back between these two.
        if self._lock.locked():
            self._lock.release()

    def wait(self, seconds: float) -> None:
        self._lock.acquire(timeout=seconds)


class _Green:
    """A bell for a greenlet: others go on meanwhile."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        from gevent.event import Event

        self._event = Event()

    def ring(self) -> None:
        self._event.set()

    def wait(self, seconds: float) -> None:
        self._event.wait(seconds)
        self._event.clear()


def start(target: Callable[[], None], name: str) -> Callable[[], None]:
    """Run `target` beside the caller, in a daemon thread; returns what a fork's child must do about it.

    Under gevent in a greenlet. A thread of the operating system's would have a hub of its own, and gevent's
    locks (those of logging, imports and apps are) lose wake-ups when the greenlets of two hubs want one.
    """
    if patched():
        return _start_greenlet(target)
    import threading

    threading.Thread(target=target, name=name, daemon=True).start()
    return lambda: None  # threads are not inherited


def make_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop for the calling thread or greenlet."""
    return _Loop(_green_selector()) if patched() else asyncio.new_event_loop()


class _Loop(asyncio.SelectorEventLoop):
    """A loop for a greenlet, which a fork's child inherits: the parent would notice if it closed there."""

    def __init__(self, selector: Any) -> None:
        super().__init__(selector)
        self._owner = os.getpid()

    def close(self) -> None:
        if os.getpid() == self._owner:
            super().close()


def _start_greenlet(target: Callable[[], None]) -> Callable[[], None]:
    from gevent import Greenlet

    class Aside(Greenlet):  # type: ignore[misc]
        """A greenlet with asyncio's memory of what runs in a thread to itself.

        Else all others would seem to be called by the loop: legacy's own `asyncio.run` would fail, and so
        would Django's database layer.
        """

        _mine: Any = (None, (None, None))

        def switch(self, *args: Any) -> Any:
            others = _exchange(self._mine)
            try:
                return super().switch(*args)
            finally:
                self._mine = _exchange(others)

        def throw(self, *args: Any) -> Any:
            others = _exchange(self._mine)
            try:
                return super().throw(*args)
            finally:
                self._mine = _exchange(others)

    aside = Aside(Context().run, target)
    aside.start()
    return lambda: aside.kill(block=False)


def _exchange(state: Any) -> Any:
    """Set what asyncio keeps for a thread; returns what that was."""
    before = (asyncio._get_running_loop(), sys.get_asyncgen_hooks())  # noqa: SLF001 - for makers of loops
    loop, hooks = state
    asyncio._set_running_loop(loop)  # noqa: SLF001
    sys.set_asyncgen_hooks(*hooks)
    return before


def _green_selector() -> Any:
    """Make a selector that lets other greenlets run while the loop waits, and when it has no time to.

    The selector of the platform, itself waited for by the hub: gevent's own does not poll where it may not
    wait, and is slower.
    """
    import gevent
    from gevent.monkey import get_original
    from gevent.socket import wait_read

    class Selector(get_original("selectors", "DefaultSelector")):  # type: ignore[misc]
        def select(self, timeout: float | None = None) -> Any:
            found = super().select(0)
            if found or (timeout is not None and timeout <= 0):
                gevent.sleep(0)
                return found
            try:
                wait_read(self.fileno(), timeout)
            except TimeoutError:
                return found
            return super().select(0)

    return Selector()
