"""The lifespan half of the ASGI driver: the server's start and stop, for the wrapped app and those beside it.

The wrapped app is asked as if nobody stood between. Apps in this process start while it does, and the server
waits for them, but none of them can keep it from starting.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from strangle_mw.engine import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from strangle_mw.engine import Engine

    Event = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Event]]
    Send = Callable[[Event], Awaitable[None]]


async def serve_lifespan(
    app: Callable[..., Awaitable[None]], engine: Engine, scope: Event, receive: Receive, send: Send
) -> None:
    """Answer one lifespan scope.

    An app that refuses it before it has received anything does without (old Django: only HTTP scopes); then
    the events are answered here, so that what is ours ends with the server all the same.
    """
    loop = asyncio.get_running_loop()
    asked = False

    async def receiving() -> Event:
        nonlocal asked
        asked = True
        message = await receive()
        if message["type"] == "lifespan.startup":
            engine.begin_apps(loop)
        return message

    async def sending(message: Event) -> None:
        if message["type"] == "lifespan.startup.complete":
            await engine.apps_begun(loop)
        elif message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            # uvicorn ends the process as soon as the app has said that it has ended.
            await _end(engine, loop)
        await send(message)

    try:
        try:
            await app(scope, receiving, sending)
        except Exception as exc:
            if asked:
                raise
            log.debug("the wrapped app has no lifespan: %r", exc)
        if not asked:
            await _stand_in(receiving, sending)
    finally:
        await _end(engine, loop)


async def _stand_in(receive: Receive, send: Send) -> None:
    for kind in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{kind}.complete"})


async def _end(engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
    await engine.aclose(loop)
    engine.follower.flush()
