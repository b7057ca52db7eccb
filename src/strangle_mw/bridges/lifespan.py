"""The lifespan of one in-process ASGI app on one event loop (ASGI lifespan specification 2.0).

Only starting and ending an app lives here; calls of it are made by whoever has a `Lifespan`. No threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Any

from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger("strangle_mw")

_GRACE = 1.0
"""Seconds that a cancelled lifespan has for its `finally` blocks."""


class Lifespan:
    """Starts and ends one ASGI app; used on one event loop only, and bound to it at first use.

    `started` says whether requests may be sent to the app; each of them gets a shallow copy of `state`.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.started = False
        self.state: dict[str, Any] = {}
        self._app = app
        self._attempt: _Attempt | None = None

    def begin(self) -> None:
        """Start the app in a task of its own; does nothing while that is under way or has succeeded."""
        attempt = self._attempt
        if attempt is not None:
            if not attempt.failed:
                return
            attempt.task.cancel()  # it has said that it failed, and may linger
        self.state = {}
        self._attempt = _Attempt(self._app, self.state, self._succeeded)

    async def begun(self, patience: float) -> None:
        """Wait until a start that is under way has ended, well or not, for `patience` seconds at most."""
        if self._attempt is not None:
            await asyncio.wait((self._attempt.answer,), timeout=patience)

    async def ready(self, patience: float) -> None:
        """Wait until the app has started, for `patience` seconds at most; begin that if need be.

        Raises `ForwardError` with stage `connect`: 502 if the start failed (the next call tries again), 504
        if it takes longer; then it goes on, for a later call.
        """
        if self.started:
            return
        self.begin()
        attempt = self._attempt
        assert attempt is not None  # noqa: S101 - `begin` makes one
        await asyncio.wait((attempt.answer,), timeout=patience)
        if not attempt.answer.done():
            raise ForwardError("connect", "its startup is not complete", status=504)
        if attempt.failed:
            raise ForwardError("connect", f"its startup failed: {attempt.answer.result()}")

    async def aclose(self, patience: float) -> None:
        """End the app: ask it to, wait for `patience` seconds, then cancel it.

        One that has not started is cancelled at once.
        """
        attempt, self._attempt = self._attempt, None
        asked, self.started = self.started, False
        if attempt is None or attempt.task.done():
            return
        try:
            if asked:
                attempt.ending.set()
                await asyncio.wait((attempt.task,), timeout=patience)
        finally:
            attempt.task.cancel()
        await asyncio.wait((attempt.task,), timeout=_GRACE)

    def _succeeded(self, attempt: _Attempt) -> None:
        if attempt is self._attempt:
            self.started = True


class _Attempt:
    """One start of the app, and if it succeeds the whole of its lifespan.

    `answer` is set to "" by a success, else to what went wrong.
    """

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        state: dict[str, Any],
        succeeded: Callable[[_Attempt], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[str] = loop.create_future()
        self.ending = asyncio.Event()
        self._app = app
        self._state = state
        self._succeeded = succeeded
        self._received = 0
        self._logged = False
        # A context of its own: the start outlives the request that happens to come first.
        self.task = loop.create_task(self._run(), context=contextvars.Context())

    @property
    def failed(self) -> bool:
        """Whether the app has not started and will not do so."""
        return self.answer.done() and bool(self.answer.result())

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        try:
            await self._app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            self._settle("it was cancelled")
            if not self.ending.is_set():
                raise
        except BaseException as exc:  # noqa: BLE001 - SystemExit of an app would end the loop
            self._ended(exc)
        else:
            self._ended(None)

    def _ended(self, exc: BaseException | None) -> None:
        if not self.answer.done():
            # "If an exception is raised ... the server must continue but not send any lifespan events".
            if exc is not None:
                log.info("an ASGI app has no lifespan, or raised in it; it counts as started", exc_info=exc)
            self._settle("")
        elif self.failed:
            self._log("an ASGI app failed to start: %s", self.answer.result(), exc)
        elif exc is not None:
            self._log("the lifespan of an ASGI app failed: %s", type(exc).__name__, exc)

    def _settle(self, answer: str) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)
            if not answer:
                self._succeeded(self)

    async def _receive(self) -> dict[str, str]:
        self._received += 1
        if self._received == 1:
            return {"type": "lifespan.startup"}
        await self.ending.wait()
        if self._received > 2:  # noqa: PLR2004 - startup and shutdown are all there is
            await asyncio.get_running_loop().create_future()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._settle("")
        elif kind == "lifespan.startup.failed":
            self._settle(_last_line(message.get("message", "")) or "it gave no reason")
        elif kind == "lifespan.shutdown.failed":
            self._log("an ASGI app failed to shut down: %s", _last_line(message.get("message", "")), None)
        elif kind != "lifespan.shutdown.complete":
            raise RuntimeError(f"unexpected lifespan message {kind!r}")

    def _log(self, text: str, what: str, exc: BaseException | None) -> None:
        """Tell what went wrong, once: apps say that they failed, and then raise, too."""
        if not self._logged:
            self._logged = True
            log.error(text, what, exc_info=exc)


def _last_line(message: object) -> str:
    """Take of a whole traceback, which Starlette sends, the line that says it."""
    lines = str(message).strip().splitlines()
    return lines[-1].strip()[:200] if lines else ""
