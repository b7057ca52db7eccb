"""The ASGI apps that answer themselves: the wrapped app, and the baseline of every row.

One answers at once and does nothing else; the other does by itself what the upstream does for forwarders:
bodies of any size both ways, a stream of events, a WebSocket.
"""

from __future__ import annotations

import os
from typing import Any

from bench.payload import BLOCK, CONTENT_TYPE, DOWN, EVENTS, LEGACY, MODERN, WORKER, event, size_of

HEADERS = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(LEGACY)).encode())]


async def at_once(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer at once, the same always."""
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": LEGACY})


async def modern(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Do as `at_once` does, as the other side: an app that others call."""
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": MODERN})


async def named(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer as `at_once` does, and name this process."""
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    headers = [*HEADERS, (WORKER.encode(), str(os.getpid()).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": LEGACY})


async def bodies(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer `DOWN` with so many bytes, `EVENTS` with one event and silence, a POST once it is read."""
    if scope["type"] == "websocket":
        await _websocket(receive, send)
    elif scope["type"] != "http":
        raise RuntimeError("only HTTP and WebSockets")
    elif scope["path"].startswith(DOWN):
        await _down(send, size_of(scope["path"]))
    elif scope["path"] == EVENTS:
        await _events(receive, send)
    else:
        while (await receive()).get("more_body"):
            pass
        await at_once(scope, receive, send)


async def _down(send: Any, size: int) -> None:
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while size > len(BLOCK):
        await send({"type": "http.response.body", "body": BLOCK, "more_body": True})
        size -= len(BLOCK)
    await send({"type": "http.response.body", "body": BLOCK[:size]})


async def _events(receive: Any, send: Any) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": event("legacy"), "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


async def _websocket(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "legacy"})
    while (await receive())["type"] != "websocket.disconnect":
        pass
