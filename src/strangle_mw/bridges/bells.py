"""How a thread, or a greenlet of gevent's, waits for the loop's thread, and what else gevent makes different.

The only module that knows of gevent; it is never imported here, only used where it has patched. Nothing here
may know what is waited for.
"""

from __future__ import annotations

import asyncio
import sys
from _thread import allocate_lock
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Bell: TypeAlias = "_Lock | _Green"


def make_bell() -> Bell:
    """Make what one caller waits with.

    `ring()` is for the loop's thread, `wait(seconds)` returns after a ring or the time; it may return early.
    """
    return _Green() if patched() else _Lock()


def patched() -> bool:
    """Whether gevent has replaced the threads or sockets of this process; it may do so late."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and (
        monkey.is_module_patched("threading") or monkey.is_module_patched("socket")
    )


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
    """A bell for a greenlet: others go on meanwhile. Its hub rings it: an `Event` is not for threads."""

    __slots__ = ("_event", "_hub")

    def __init__(self) -> None:
        from gevent import get_hub
        from gevent.event import Event

        self._event = Event()
        self._hub = get_hub()

    def ring(self) -> None:
        with suppress(ValueError):  # the hub has ended with its thread: nobody waits any more
            self._hub.loop.run_callback_threadsafe(self._event.set)

    def wait(self, seconds: float) -> None:
        self._event.wait(seconds)
        self._event.clear()


def start_thread(target: Callable[[], None], name: str) -> None:
    """Start a thread of the operating system's that keeps no process alive.

    Not a greenlet: a loop that runs in one runs, for asyncio, in all greenlets of the thread, and legacy's
    own `asyncio.run` (and Django's database layer) would fail.
    """
    if not patched():
        import threading

        threading.Thread(target=target, name=name, daemon=True).start()
        return
    from gevent import get_hub
    from gevent.monkey import get_original

    # Import locks are gevent's by now and need a hub: two threads that make their first at a time, which
    # imports, wait for each other for ever.
    get_hub()
    get_original("_thread", "start_new_thread")(target, ())


def make_loop() -> asyncio.AbstractEventLoop:
    """Make an event loop for the calling thread."""
    if not patched():
        return asyncio.new_event_loop()
    from gevent import get_hub

    get_hub()
    return asyncio.SelectorEventLoop(_green_selector())


def _green_selector() -> Any:
    """Make a selector that waits as a greenlet.

    The loop's thread has a hub of its own: what the app starts as threads (`asyncio.to_thread`, look-ups of
    names) are greenlets there, and must be able to run while the loop waits, or has no time to.
    """
    import gevent
    from gevent.monkey import get_original
    from gevent.socket import wait_read

    class Selector(get_original("selectors", "DefaultSelector")):  # type: ignore[misc]
        def select(self, timeout: float | None = None) -> Any:
            found = super().select(0)
            # To greenlets no loop runs here, as to the threads they stand for.
            loop = asyncio._get_running_loop()  # noqa: SLF001 - for those who make event loops
            asyncio._set_running_loop(None)  # noqa: SLF001
            try:
                if found or (timeout is not None and timeout <= 0):
                    gevent.sleep(0)
                    return found
                with suppress(TimeoutError):
                    wait_read(self.fileno(), timeout)
            finally:
                asyncio._set_running_loop(loop)  # noqa: SLF001
            return super().select(0)

    return Selector()
