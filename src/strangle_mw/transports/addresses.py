"""Addresses of a host name: looked up within a time limit, one look-up at a time for each endpoint.

`getaddrinfo` cannot be interrupted, and a name server that hangs keeps it for half a minute. So it runs in
a thread; who asks meanwhile waits for the same one. Otherwise a name server that hangs would fill the event
loop's executor, which the wrapped app uses, too (promise P15). Connecting is the pools' business.
"""

from __future__ import annotations

import socket
import threading
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

Address = tuple[int, tuple[object, ...]]
"""The family, and what `connect` takes."""


def known(host: str, port: int) -> list[Address]:
    """Return the address of a host that is one already, else nothing."""
    try:
        number = ip_address(host)
    except ValueError:
        return []
    if number.version == 4:  # noqa: PLR2004 - IPv4
        return [(socket.AF_INET, (host, port))]
    return [(socket.AF_INET6, (host, port, 0, 0))]


def share(seconds: float, left: int) -> float:
    """Return the time that the next of so many addresses may take.

    One that swallows packets may not use up the time of those behind it: a name's first address is often
    an IPv6 one that leads nowhere.
    """
    return seconds / max(left, 1)


class AsyncAddresses:
    """The addresses of one endpoint, for one event loop."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._known = known(host, port)
        self._search: asyncio.Future[list[Address]] | None = None

    async def find(self) -> list[Address]:
        """Return the addresses; the caller limits the time. Raises `OSError` and `UnicodeError`."""
        if self._known:
            return self._known
        import asyncio

        search = self._search
        if search is None or search.done():
            loop = asyncio.get_running_loop()
            search = self._search = loop.run_in_executor(None, _look_up, self._host, self._port)
            search.add_done_callback(_noticed)
        return await asyncio.shield(search)


def _noticed(search: asyncio.Future[list[Address]]) -> None:
    """Take note of an error that nobody waits for any more; asyncio would log it."""
    if not search.cancelled():
        search.exception()


class BlockingAddresses:
    """The addresses of one endpoint, for all threads of a process."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._known = known(host, port)
        self._lock = threading.Lock()  # by its full name, for gevent that patches late
        self._search: _Search | None = None

    def find(self, seconds: float) -> list[Address]:
        """Return the addresses; raises `OSError`, `UnicodeError` and, after the time, `TimeoutError`."""
        if self._known:
            return self._known
        with self._lock:
            search = self._search
            if search is None or not search.is_alive():
                search = self._search = _Search(self._host, self._port)
                search.start()
        search.join(seconds)
        if search.is_alive():
            raise TimeoutError
        if search.error is not None:
            raise search.error
        return search.found


class _Search:
    """One look-up; a daemon, so that a name server that hangs does not keep the process from ending."""

    def __init__(self, host: str, port: int) -> None:
        # Not a base class: whoever was one before gevent has patched late is never seen to end.
        thread = threading.Thread(target=self._run, daemon=True, name=f"strangle-look-up-{host}")
        self.start, self.join, self.is_alive = thread.start, thread.join, thread.is_alive
        self._asked = (host, port)
        self.found: list[Address] = []
        self.error: OSError | UnicodeError | None = None

    def _run(self) -> None:
        try:
            self.found = _look_up(*self._asked)
        except (OSError, UnicodeError) as exc:
            self.error = exc


def _look_up(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))
