"""The ASGI driver's call of an app in this process for a WebSocket; see `in_process` for HTTP.

The app's answer to the handshake decides, as that of another machine would; messages after it are passed
on as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from strangle_mw.bridges.deadline import Deadline
from strangle_mw.core.answers import public_headers
from strangle_mw.core.calls import final_status, websocket_scope
from strangle_mw.core.exchange import FallBack
from strangle_mw.core.fallback import NEVER
from strangle_mw.core.messages import status_class
from strangle_mw.engine import CLIENT_GONE, log
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from strangle_mw.core.decision import Forward
    from strangle_mw.core.exchange import Effect
    from strangle_mw.core.messages import Header
    from strangle_mw.engine import Engine
    from strangle_mw.transports.in_process import AsyncAppPool

Event = MutableMapping[str, Any]

_SWITCHING, _FORBIDDEN = 101, 403
_ANSWERS = ("websocket.accept", "websocket.close", "websocket.http.response.start")
_LEFT: Event = {"type": "websocket.disconnect", "code": 1006}
_INTERNAL_ERROR = 1011
"""Close code of a server that has failed (RFC 6455 section 7.4.1)."""


async def call(
    engine: Engine,
    forward: Forward,
    scope: Event,
    receive: Callable[[], Awaitable[Event]],
    send: Callable[[Event], Awaitable[None]],
) -> FallBack | None:
    """Let the app answer, and count that; tell if legacy shall instead.

    `receive` gives `websocket.connect` first. Raises `ForwardError` if nobody has answered.
    """
    policy = engine.policy(forward)
    (pool,) = engine.app_pools(forward.upstream, asyncio.get_running_loop())
    conversation = engine.begin(forward, (pool,), policy, replayable=True)
    exchange = _Exchange(forward, conversation, receive, send)
    effect: Effect | None = None
    try:
        effect = next(conversation)
        if not isinstance(effect, FallBack):
            try:
                await exchange.enter(pool, scope, patient=policy is NEVER)
            except ForwardError as exc:
                effect = conversation.throw(exc)
            else:
                effect = exchange.fallback
    except ForwardError as exc:
        if exc.status != CLIENT_GONE:
            raise
        log.debug("%d client gone: route %r", CLIENT_GONE, forward.route.name)
    finally:
        conversation.close()
        if not isinstance(effect, FallBack):
            engine.count(forward, "modern", exchange.outcome)
    return effect if isinstance(effect, FallBack) else None


class _Exchange:
    """One call: what the app receives and sends, on its way from and to the client."""

    status = 0
    outcome = "failed"
    fallback: FallBack | None = None
    _gone = False
    _failure: ForwardError | None = None

    def __init__(
        self, forward: Forward, conversation: Generator[Effect, int, None], receive: Any, send: Any
    ) -> None:
        self._forward = forward
        self._conversation = conversation
        self._receive = receive
        self._send = send
        timeout = forward.action.timeout or forward.upstream.declared.timeout
        self._deadline = Deadline(asyncio.get_running_loop(), timeout)

    async def enter(self, pool: AsyncAppPool, scope: Event, *, patient: bool) -> None:
        """Call the app when there is a place for it and it has started."""
        try:
            await pool.gate.enter(patient=patient)
            pool.occupy()
            try:
                called = websocket_scope(self._forward, scope)
                state = await pool.ready()
                if state is not None:
                    called["state"] = state.copy()
                await self._call(pool.app, called)
            finally:
                pool.vacate()
                pool.gate.leave()
        except asyncio.CancelledError:  # some servers cancel when the client has left
            if not self.status:
                self.outcome = "gone"
            raise

    async def _call(self, app: Callable[..., Awaitable[None]], scope: Event) -> None:
        """Call the app, hold it to its time until its answer comes, and judge how it has ended."""
        raised = await self._deadline.keep(app, scope, self.receive, self.send)
        if self.fallback is not None:
            log.debug("upstream %r has ended, legacy answers", self._forward.upstream.name, exc_info=raised)
        elif not self.status:
            self._failure = self._verdict(raised)  # what the app has left behind receives nothing of legacy's
            raise self._failure from raised
        elif raised is not None and not self._gone:
            self._tell(raised)
            await self._end()

    def _verdict(self, raised: BaseException | None) -> ForwardError:
        """Say why the handshake has no answer."""
        if self._failure is not None:
            return self._failure
        if self._gone:
            self.outcome = "gone"
            return ForwardError("head", "the client left", status=CLIENT_GONE, request_sent=True)
        if self._deadline.expired:
            return ForwardError("head", "timed out", status=504, request_sent=True)
        what = "the app ended without an answer"
        if raised is not None:
            self._tell(raised)
            what = f"the app raised {type(raised).__name__}"
        return ForwardError("head", what, request_sent=True)

    def _tell(self, raised: BaseException) -> None:
        log.error("upstream %r raised", self._forward.upstream.name, exc_info=raised)

    async def _end(self) -> None:
        """Close an open WebSocket for an app that has failed: not with the code of a good end."""
        if self.status == _SWITCHING:
            try:
                await self._send({"type": "websocket.close", "code": _INTERNAL_ERROR})
            except (OSError, RuntimeError):  # it was closed before
                log.debug("route %r: its WebSocket is closed already", self._forward.route.name)

    async def receive(self) -> Event:
        """Give the app what the client sends."""
        if self.fallback is not None or self._failure is not None:
            return _LEFT
        message: Event = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._gone = True
        return message

    async def send(self, message: Event) -> None:
        """Take a message of the app's; the first one answers the handshake."""
        if self.fallback is not None:
            return
        passed = message if self.status else self._answer(message)
        if passed is None:
            return
        try:
            await self._send(passed)
        except OSError:  # the ASGI specification's word for a client that has left
            self._gone = True
            raise

    def _answer(self, message: Event) -> Event | None:
        """Judge the app's answer to the handshake; return it for the client, None if legacy answers."""
        if self._failure is not None or self._deadline.expired:
            raise OSError("nobody waits for this answer any more")
        if message["type"] not in _ANSWERS:
            raise RuntimeError(f"the app sends {message['type']!r} before it has accepted")
        try:
            status, message = _read_answer(self._forward, message)
        except ForwardError as exc:
            self._failure = exc
            raise
        effect = self._conversation.send(status)
        if isinstance(effect, FallBack):
            self.fallback = effect  # it ends soon, or by the deadline
            return None
        self._deadline.stop()
        self.status, self.outcome = status, status_class(status)
        return message


def _read_answer(forward: Forward, message: Event) -> tuple[int, Event]:
    """Return the status of an answer to the handshake, and the message as the client gets it."""
    if message["type"] == "websocket.close":
        return _FORBIDDEN, message
    accepted = message["type"] == "websocket.accept"
    status = _SWITCHING if accepted else final_status(message["status"])
    given = [(bytes(n), bytes(v)) for n, v in message.get("headers") or ()]
    headers = public_headers(given, status, forward, 0)
    if accepted:
        headers = [h for h in headers if _crosses(h)]
    return status, {**message, "headers": headers}


def _crosses(header: Header) -> bool:
    """Tell whether an accepted handshake may say this: its own fields are the server's."""
    return not header[0].startswith(b"sec-websocket-") and header[0] != b"content-length"
