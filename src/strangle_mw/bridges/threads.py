"""A WSGI app as an ASGI app: each call runs in a thread of a pool, while its I/O stays on the event loop.

Written here because `a2wsgi` gives such threads away: see docs/decisions.md. Environs are made in `environ`,
answers read in `answers`, and the two threads meet in `handover`.
"""

from __future__ import annotations

import asyncio
import os
from contextvars import copy_context
from functools import partial
from io import BufferedReader, BytesIO
from typing import TYPE_CHECKING, Any

from strangle_mw.bridges.answers import Answer
from strangle_mw.bridges.environ import declared_length, make_environ, may_have_body
from strangle_mw.bridges.handover import ClientLeftError, Handover, Input
from strangle_mw.bridges.pool import PATIENCE, Threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_BUFFER = 65_536


class ThreadedWSGI:
    """An ASGI app around a WSGI app, with at most `threads` calls at a time; further ones wait their turn.

    The threads are started as they are needed, anew after a fork, and are kept. A call that raises before its
    head is sent raises here, for the server to answer 500; one that raises later, or sends less than it has
    declared, raises so that the server cuts the connection (promise P6). WebSockets are denied. `cleaned`
    says that the headers have been through hygiene: names with `_` that are still there are meant to be.
    """

    def __init__(
        self, app: Callable[..., Iterable[bytes]], threads: int = 40, *, cleaned: bool = False
    ) -> None:
        if threads < 1:
            raise ValueError("threads must be 1 or more")
        self.app = app
        self.threads = threads
        self._cleaned = cleaned
        self._pools: dict[int, Threads] = {}

    @property
    def running(self) -> int:
        """Calls that hold a thread of this process, those included whose client has left."""
        return self._pool().running

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread of this process."""
        return self._pool().waiting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            handover = Handover(asyncio.get_running_loop(), receive, send)
            self._pool().submit(partial(copy_context().run, self._call, scope, handover))
            await handover.serve()
        elif kind == "lifespan":
            await self._live(receive, send)
        elif kind == "websocket":
            if (await receive())["type"] == "websocket.connect":
                await send({"type": "websocket.close", "code": 1000})  # the server denies it with 403
        else:
            raise ValueError(f"a WSGI app cannot answer {kind!r}")

    async def aclose(self, patience: float = PATIENCE) -> None:
        """Wait for running calls, so many seconds at most, and end the threads; a later call starts anew."""
        pool = self._pools.pop(os.getpid(), None)
        if pool is not None:
            await asyncio.to_thread(pool.stop, patience)

    def _pool(self) -> Threads:
        pid = os.getpid()
        return self._pools.get(pid) or self._pools.setdefault(pid, Threads(self.threads))

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            ends = message["type"] == "lifespan.shutdown"
            if ends:
                await self.aclose()
            await send({"type": message["type"] + ".complete"})
            if ends:
                return

    def _call(self, scope: Scope, handover: Handover) -> None:
        """Run the app; in the thread."""
        if handover.ended:  # given up before its turn: nothing has happened, and nothing will
            return
        error: Exception | None = None
        try:
            environ = make_environ(scope, _input(scope, handover), cleaned=self._cleaned)
            Answer(handover, scope["method"]).respond(self.app, environ)
        except ClientLeftError:
            pass
        except Exception as exc:  # noqa: BLE001 - raised on the loop
            error = exc
        except BaseException as exc:  # noqa: BLE001 - it ends this call, not the server
            error = RuntimeError(f"the app has raised {type(exc).__name__}")
            error.__cause__ = exc
        handover.finish(error)


def _input(scope: Scope, handover: Handover) -> BufferedReader | BytesIO:
    if not may_have_body(scope):
        return BytesIO()
    return BufferedReader(Input(handover, declared_length(scope["headers"])), _BUFFER)
