"""The ASGI driver's call of an app in this process for a WebSocket; see `in_process` for HTTP.

The app's answer to the handshake decides, as that of another machine would; messages after it are passed
on as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from strangle_mw.core.answers import public_headers
from strangle_mw.core.calls import websocket_scope
from strangle_mw.core.exchange import FallBack
from strangle_mw.core.fallback import NEVER
from strangle_mw.core.messages import status_class
from strangle_mw.engine import log
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from strangle_mw.core.decision import Forward
    from strangle_mw.engine import Engine

Event = MutableMapping[str, Any]

_SWITCHING, _FORBIDDEN = 101, 403
_ANSWERS = ("websocket.accept", "websocket.close", "websocket.http.response.start")


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
    status = 0
    effect: Any = None

    async def sending(message: Event) -> None:
        nonlocal status, effect
        if not status and message["type"] in _ANSWERS:
            made, message = _answer(forward, message)
            effect = conversation.send(made)
            status = made
        if not isinstance(effect, FallBack):
            await send(message)

    try:
        effect = next(conversation)
        if isinstance(effect, FallBack):
            return effect
        try:
            await pool.gate.enter(patient=policy is NEVER)
            pool.occupy()
            try:
                called = websocket_scope(forward, scope)
                state = await pool.ready()
                if state is not None:
                    called["state"] = state.copy()
                await _run(pool.app, called, receive, sending, forward)
                _check_answered(status)
            finally:
                pool.vacate()
                pool.gate.leave()
        except ForwardError as exc:
            if status:
                raise
            effect = conversation.throw(exc)
    finally:
        conversation.close()
        if not isinstance(effect, FallBack):
            engine.count(forward, "modern", status_class(status) if status else "failed")
    return effect if isinstance(effect, FallBack) else None


def _answer(forward: Forward, message: Event) -> tuple[int, Event]:
    """Read the app's answer to the handshake; return its status, and the message as the client gets it."""
    if message["type"] == "websocket.close":
        return _FORBIDDEN, message
    status = message["status"] if message["type"] == "websocket.http.response.start" else _SWITCHING
    headers = public_headers(
        [(bytes(n), bytes(v)) for n, v in message.get("headers") or ()], status, forward, 0
    )
    return status, {**message, "headers": headers}


def _check_answered(status: int) -> None:
    if not status:
        raise ForwardError("head", "the app ended without an answer", request_sent=True)


async def _run(app: Any, scope: Event, receive: Any, send: Any, forward: Forward) -> None:
    try:
        await app(scope, receive, send)
    except ForwardError:
        raise
    except OSError:
        raise  # of `send`: the client has left
    except Exception as exc:
        log.exception("upstream %r raised", forward.upstream.name)
        raise ForwardError("head", f"the app raised {type(exc).__name__}", request_sent=True) from exc
