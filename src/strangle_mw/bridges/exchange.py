"""One call of an ASGI app on the loop's thread: the two ends of it that the app sees, and how it can fail.

Everything here runs on the loop's thread, but for the few attributes of `Exchange` that say otherwise; the
caller's side is in `loop`. Nothing here may wait for a thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal

from strangle_mw.bridges.app_messages import BrokenError, Measure, read_body, read_start
from strangle_mw.bridges.lifespan import Lifespan
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from strangle_mw.bridges.bells import Bell
    from strangle_mw.bridges.loop_thread import LoopThread

    App = Callable[..., Awaitable[None]]
    Header = tuple[bytes, bytes]

log = logging.getLogger("strangle_mw")

HIGH_WATER = 65_536
"""Bytes of an answer held for a slow reader; beyond them the app's `send` waits."""

GRACE = 0.5
"""Seconds between telling an app that its client has gone and cancelling it."""

WANT: Final = "want"
"""Among the items: the app asks for more of the request's body."""

END: Final = "end"
"""Among the items: the answer is complete."""

Item = bytes | tuple[int, "list[Header]"] | ForwardError | Literal["want", "end"]


class Home:
    """One app on one loop: its lifespan, and the calls of it that run."""

    def __init__(self, app: App, thread: LoopThread) -> None:
        self.app = app
        self.thread = thread
        self.lifespan = Lifespan(app)
        self.running: set[Exchange] = set()
        self.closed = False

    def retire(self, patience: float) -> None:
        """Take no more calls, let those that run end, then end the lifespan; does not wait."""
        self.closed = True
        self.retiring = asyncio.get_running_loop().create_task(self._retire(patience))

    async def _retire(self, patience: float) -> None:
        await self.end(patience)
        self.thread.homes.discard(self)

    def abandon(self) -> None:
        """Tell all calls whose answers are not complete that their clients have gone."""
        for exchange in [*self.running]:
            exchange.abandon("the app ends")

    async def end(self, patience: float) -> None:
        """Wait for the calls that run, then end the lifespan, for `patience` seconds each."""
        tasks = [e.task for e in self.running if e.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=patience)
            self.abandon()
        await self.lifespan.aclose(patience)


class Exchange:
    """One call of an app. The caller takes from `items` whenever `bell` has rung.

    The caller's own are `left` and `consumed`, and it reads `begun`, `produced` and `blocked`: each of these
    has one writer, and whoever writes one looks at the other's afterwards, so that nothing is missed.
    """

    __slots__ = (
        "_abandoned", "_body", "_chunks", "_complete", "_failed", "_gone", "_head", "_headed", "_home",
        "_killer", "_measure", "_method", "_news", "_patience", "_room", "_scope", "_streamed", "_wanted",
        "begun", "bell", "blocked", "consumed", "items", "left", "produced", "task",
    )  # fmt: skip

    def __init__(
        self, home: Home, scope: dict[str, Any], body: bytes | None, method: str, bell: Bell, patience: float
    ) -> None:
        self.bell = bell
        self.items: deque[Item] = deque()
        self.begun = 0.0
        """When the app was called, by the monotonic clock; 0 while it has not been."""
        self.produced = self.consumed = 0
        self.blocked = self.left = False
        self.task: asyncio.Task[None] | None = None
        self._home = home
        self._scope = scope
        self._body = body
        self._method = method
        self._patience = patience
        self._chunks: deque[bytes] = deque()
        self._streamed = body is None
        self._wanted = self._gone = self._abandoned = self._failed = self._headed = self._complete = False
        self._head: tuple[int, list[Header]] | None = None
        self._measure: Measure | None = None
        self._news: asyncio.Event | None = None
        self._room: asyncio.Event | None = None
        self._killer: asyncio.TimerHandle | None = None

    # --- asked for by the caller

    def begin(self, context: Context) -> None:
        """Call the app in a task; it sees the context variables of the caller."""
        home = self._home
        if home.closed or home.thread.closed:
            self._put(ForwardError("pool", "closed", status=503))
            return
        home.running.add(self)
        home.thread.homes.add(home)
        self.task = asyncio.get_running_loop().create_task(self._run(), context=context)
        self.task.add_done_callback(self._ended)  # not a `finally`: a task may be cancelled before it begins

    def feed(self, data: bytes) -> None:
        """Hand over more of the request's body; b"" is its end."""
        self._chunks.append(data)
        self._streamed = bool(data)
        self._wanted = False
        self._wake()

    def resume(self) -> None:
        """Look again whether there is room for more of the answer."""
        if self._room is not None:
            self._room.set()

    def abandon(self, reason: str = "") -> None:
        """Tell the app that its client has gone, and cancel it unless it ends soon.

        An app whose answer is complete is left alone: it may have work to do that nobody waits for. `reason`
        is for a caller that does not know of this.
        """
        if self._complete or self._abandoned or self.task is None or self.task.done():
            return
        if reason:
            self._fail(reason)
        self._abandoned = self._gone = True
        self._wake()
        if self.begun:
            self._killer = asyncio.get_running_loop().call_later(GRACE, self.task.cancel)
        else:
            self.task.cancel()

    # --- the app's task

    async def _run(self) -> None:
        home = self._home
        try:
            if not home.lifespan.started:
                await home.lifespan.ready(self._patience)
            self._scope["state"] = home.lifespan.state.copy()
            self.begun = monotonic()
            if self.left:
                return
            await home.app(self._scope, self._receive, self._send)
        except BaseException as exc:  # noqa: BLE001 - SystemExit of an app would end the loop
            self._raised(exc)
        else:
            if not (self._complete or self._gone):
                self._fail(
                    "returned without an answer" if self._measure is None else "returned within its answer"
                )

    def _ended(self, _: object) -> None:
        self._gone = True
        if self._killer is not None:
            self._killer.cancel()
        self._home.running.discard(self)

    def _raised(self, exc: BaseException) -> None:
        if not self.begun:
            if not isinstance(exc, ForwardError):
                exc = ForwardError("connect", f"its startup failed: {_name(exc)}")
            self._put(exc)
        elif self._abandoned:
            # The usual way out for an app that is told so; a fault in this moment is not told from it.
            log.debug("an ASGI app ended after its client had gone", exc_info=exc)
        else:
            log.error("an ASGI app failed %s", self._progress(), exc_info=exc)
            self._fail(_name(exc))

    def _progress(self) -> str:
        if self._complete:
            return "after its answer"
        return "within its answer" if self._headed else "before its answer"

    def _fail(self, reason: str) -> None:
        """Tell the caller that there will be no answer, or no more of it; the app can send no more."""
        self._head = None
        if not (self._failed or self._complete):
            self._failed = self._gone = True
            self._put(ForwardError("body" if self._headed else "head", reason, request_sent=True))
            self._wake()

    async def _receive(self) -> dict[str, Any]:
        while not (self._gone or self._complete):
            if self._body is not None:
                body, self._body = self._body, None
                return {"type": "http.request", "body": body, "more_body": False}
            if self._chunks:
                data = self._chunks.popleft()
                return {"type": "http.request", "body": data, "more_body": bool(data)}
            await self._more()
        return {"type": "http.disconnect"}

    async def _more(self) -> None:
        """Wait for news, and ask for more of the body if that is what is waited for."""
        if self._news is None:
            self._news = asyncio.Event()
        self._news.clear()
        if self._streamed and not self._wanted:
            self._wanted = True
            self._put(WANT)
        await self._news.wait()

    async def _send(self, message: dict[str, Any]) -> None:
        if self._gone:
            raise OSError("the client has gone")
        try:
            self._take(message)
        except (BrokenError, KeyError, TypeError, ValueError) as exc:
            text = str(exc) if isinstance(exc, BrokenError) else f"malformed message: {_name(exc)}"
            if not self._complete:
                self._fail(text)
            raise RuntimeError(text) from exc
        if self.produced - self.consumed > HIGH_WATER and not self._complete:
            await self._wait_for_room()

    def _take(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self._start(message)
        elif kind == "http.response.body":
            self._continue(message)
        else:
            raise BrokenError(f"unexpected message {kind!r}")

    def _start(self, message: dict[str, Any]) -> None:
        if self._measure is not None:
            raise BrokenError("a second start of the answer")
        status, headers = self._head = read_start(message)
        self._measure = Measure(self._method, status, headers)
        # Most apps send the first of the body at once: one wake-up for both.
        asyncio.get_running_loop().call_soon(self._flush)

    def _continue(self, message: dict[str, Any]) -> None:
        if self._measure is None:
            raise BrokenError("a body before the start of the answer")
        if self._complete:
            raise BrokenError("a body after the end of the answer")
        data, more = read_body(message)
        data = self._measure.count(data, more=more)
        items: list[Item] = [] if self._head is None else [self._head]
        self._head, self._headed = None, True
        if data:
            self.produced += len(data)
            items.append(data)
        if not more:
            self._complete = True
            items.append(END)
            self._wake()
        if items:
            self._put(*items)

    def _flush(self) -> None:
        if self._head is not None:
            head, self._head, self._headed = self._head, None, True
            self._put(head)

    async def _wait_for_room(self) -> None:
        if self._room is None:
            self._room = asyncio.Event()
        while True:
            self._room.clear()
            self.blocked = True
            if self.produced - self.consumed <= HIGH_WATER:
                self.blocked = False
                return
            await self._room.wait()
            if self._gone:
                raise OSError("the client has gone")

    def _put(self, *items: Item) -> None:
        self.items.extend(items)
        self.bell.ring()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
        if self._room is not None:
            self._room.set()


def _name(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}"[:200]
