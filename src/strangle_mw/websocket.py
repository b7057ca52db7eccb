"""The WebSocket half of the ASGI driver: handshakes that a route forwards, and the messages after them.

The upstream is asked first; its answer decides whether the client's handshake is accepted, and with which
subprotocol (proxy trap 23). Only I/O lives here: what happens to a handshake is `core.decision.prepare`,
what goes over the upstream's wire is in the transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, cast

from strangle_mw.asgi_head import WEBSOCKET, identified
from strangle_mw.core.answers import public_headers
from strangle_mw.core.decision import LEGACY, Answer, Forward, Legacy, Reject, prepare
from strangle_mw.core.exchange import FallBack
from strangle_mw.core.exchange import Send as SendTo
from strangle_mw.core.fallback import NEVER, reason_of
from strangle_mw.core.hygiene import UNDECLARED
from strangle_mw.core.identity import NeedsIdentity
from strangle_mw.core.messages import is_token, status_class
from strangle_mw.core.sticky import mark_headers
from strangle_mw.engine import CLIENT_GONE, FALLBACK_KEY, log
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strangle_mw.core.decision import Decision
    from strangle_mw.core.messages import Header
    from strangle_mw.core.sticky import Mark
    from strangle_mw.engine import Engine
    from strangle_mw.transports.make import AsyncHttpPool
    from strangle_mw.transports.websocket import UpstreamWebSocket

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
App = Callable[[Event, Receive, Send], Awaitable[None]]

REMEDY = "pip install 'strangle-mw[websocket]'"

_SLOW = 0.25
"""Seconds after which a handshake is slow enough to watch for a client that leaves."""
_SWITCHING = 101
_NO_STATUS, _LOST = 1005, 1006
_SENDABLE = frozenset((*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)))
"""Close codes that may stand in a close frame (RFC 6455 section 7.4, IANA registry)."""
_MAX_REASON = 123
"""Bytes of a close frame's reason (RFC 6455 section 5.5)."""


async def serve(
    app: App, engine: Engine, scope: Event, target: tuple[bytes | None, str], receive: Receive, send: Send
) -> None:
    """Answer one WebSocket scope; `target` is its raw target and its path, with the root path.

    The default route calls the wrapped app with the very objects that the server gave.
    """
    snapshot = engine.snapshot
    try:
        decision = prepare(snapshot, "GET", *target, scope, WEBSOCKET)
    except NeedsIdentity as needs:
        decision = prepare(snapshot, "GET", *target, scope, await identified(engine, needs))
    if isinstance(decision, Legacy):
        if decision is not LEGACY:
            engine.count(decision, "legacy", "passed")
        await app(scope, receive, _marking(send, decision.mark))
        return
    client = _Client(scope, receive, send)
    first = await receive()
    if first["type"] != "websocket.connect":
        return
    fallback: FallBack | None = None
    try:
        if isinstance(decision, Forward) and decision.upstream.kind == "asgi":
            fallback = await _call(engine, decision, client, scope, _again(first, receive))
        elif isinstance(decision, Forward):
            fallback = await _forward(engine, decision, client)
        else:
            await _answer(engine, decision, client)
    except OSError:  # of `send`: the ASGI specification's word for a client that has left
        log.debug("%d client gone", CLIENT_GONE)
    if fallback is not None and isinstance(decision, Forward):
        engine.count(decision, "legacy", f"fallback:{fallback.reason}")
        scope = {**scope, FALLBACK_KEY: fallback.reason}
        await app(scope, _again(first, receive), _marking(send, decision.mark))


def _again(first: Event, receive: Receive) -> Receive:
    """Give an app the event that was received before it was asked, and then what comes."""
    seen = [first]

    async def replay() -> Event:
        return seen.pop() if seen else await receive()

    return replay


async def _call(
    engine: Engine, forward: Forward, client: _Client, scope: Event, receive: Receive
) -> FallBack | None:
    """Let an app in this process answer; tell if legacy shall."""
    from strangle_mw.in_process_websocket import call

    try:
        return await call(engine, forward, scope, receive, client.send)
    except ForwardError as exc:
        if exc.stage == "body":
            raise
        await client.deny(exc.status, *engine.failed(forward, exc))
        return None


def _marking(send: Send, mark: Mark | None) -> Send:
    """Mark the wrapped app's answer to a canaried handshake, as that of the other arm is."""
    if mark is None:
        return send

    async def marked(message: Event) -> None:
        if message["type"] in ("websocket.accept", "websocket.http.response.start"):
            headers = [(name, value) for name, value in message.get("headers", ())]
            message = {**message, "headers": mark_headers(headers, mark, "GET")}
        await send(message)

    return marked


async def _answer(engine: Engine, decision: Decision, client: _Client) -> None:
    if isinstance(decision, Answer):
        await client.deny(decision.status, decision.headers, decision.body)
    elif isinstance(decision, Reject):
        headers, body = engine.failure("GET", decision.status, decision.reason, decision.request_id)
        await client.deny(decision.status, headers, body)


class _FallsBack(Exception):  # noqa: N818 - no error: the wrapped app answers
    def __init__(self, effect: FallBack) -> None:
        self.effect = effect


async def _forward(engine: Engine, forward: Forward, client: _Client) -> FallBack | None:
    """Hold a place of the upstream's bulkhead while the WebSocket is open; tell if legacy shall answer."""
    if forward.length not in (0, UNDECLARED) or not all(map(_is_subprotocol, client.subprotocols)):
        # The upstream could take frames for a body, or a subprotocol for a header of ours.
        await _refuse(engine, forward, client, 400, "bad-handshake")
        return None
    policy = engine.policy(forward)
    loop = asyncio.get_running_loop()
    pools = cast("Sequence[AsyncHttpPool]", engine.async_pools(forward.upstream, loop))
    gate = pools[0].gate
    outcome = "failed"
    try:
        await gate.enter(patient=policy is NEVER)
        try:
            outcome = await _converse(engine, forward, client, pools)
        finally:
            gate.leave()
    except _FallsBack as exc:
        return exc.effect
    except ForwardError as exc:
        if exc.status == CLIENT_GONE:
            outcome = "gone"
            log.debug("%d client gone: route %r", CLIENT_GONE, forward.route.name)
        elif exc.stage == "pool" and policy.replaces("GET", sent=False):
            return FallBack(reason_of(exc))
        else:
            await client.deny(exc.status, *engine.failed(forward, exc))
    except ImportError as exc:
        if (exc.name or "").partition(".")[0] != "websockets":
            raise
        log.error("route %r forwards a WebSocket; first: %s", forward.route.name, REMEDY)
        await _refuse(engine, forward, client, 501, "websocket-extra")
    engine.count(forward, "modern", outcome)
    return None


async def _refuse(engine: Engine, forward: Forward, client: _Client, status: int, reason: str) -> None:
    headers, body = engine.failure("GET", status, reason, forward.request_id, forward.route.name, "WebSocket")
    await client.deny(status, headers, body)


def _is_subprotocol(name: str) -> bool:
    return name.isascii() and is_token(name.encode()) is not None


async def _converse(engine: Engine, forward: Forward, client: _Client, pools: Sequence[AsyncHttpPool]) -> str:
    upstream, endpoint = await _open(engine, forward, client, pools)
    pools[endpoint].occupy()
    try:
        headers = public_headers(upstream.headers, upstream.status, forward, endpoint)
        if upstream.status != _SWITCHING:
            # The length is that of the body which is there, whatever the upstream has said.
            headers = [h for h in headers if h[0] != b"content-length"]
            if upstream.status not in (204, 304):
                headers.append((b"content-length", b"%d" % len(upstream.body)))
            await client.deny(upstream.status, headers, upstream.body)
        else:
            await client.accept(upstream.subprotocol, [h for h in headers if _crosses(h[0])])
            await _relay(forward, client, upstream)
        return status_class(upstream.status)
    finally:
        pools[endpoint].vacate()
        upstream.leave()
        await client.aclose()


def _crosses(name: bytes) -> bool:
    return not name.startswith(b"sec-websocket-") and name != b"content-length"


async def _open(
    engine: Engine, forward: Forward, client: _Client, pools: Sequence[AsyncHttpPool]
) -> tuple[UpstreamWebSocket, int]:
    """Shake hands with the upstream, unless the client leaves before that is done."""
    shaking = _shake_hands(engine, forward, client.subprotocols, pools)
    opening = asyncio.get_running_loop().create_task(shaking)
    opened: tuple[UpstreamWebSocket, int] | None = None
    try:
        await asyncio.wait((opening,), timeout=_SLOW)
        if not opening.done():
            waiting: list[asyncio.Future[Any]] = [opening, *client.look_ahead()]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opened = opening.result()
    finally:
        if opened is None:
            opening.cancel()
            await asyncio.wait((opening,))
            if not opening.cancelled() and opening.exception() is None:
                opening.result()[0].abort()
            await client.aclose()
    if opened is None:
        raise ForwardError("head", "the client left", status=CLIENT_GONE)
    return opened


async def _shake_hands(
    engine: Engine, forward: Forward, subprotocols: Sequence[str], pools: Sequence[AsyncHttpPool]
) -> tuple[UpstreamWebSocket, int]:
    """Perform the effects of `core.exchange`; return the answer, and whose it is."""
    headers = [h for h in forward.headers if _crosses(h[0])]
    conversation = engine.begin(forward, pools, engine.policy(forward), replayable=True)
    upstream: UpstreamWebSocket | None = None
    at = 0
    try:
        effect = next(conversation)
        while isinstance(effect, SendTo):
            at = effect.endpoint
            try:
                upstream = await engine.websocket(forward, at, pools[at], headers, subprotocols)
            except ForwardError as exc:
                effect = conversation.throw(exc)
            else:
                effect = conversation.send(upstream.status)
    finally:
        conversation.close()
    if isinstance(effect, FallBack):
        if upstream is not None:
            upstream.abort()
        raise _FallsBack(effect)
    assert upstream is not None  # noqa: S101 - `Relay` follows an answer
    return upstream, at


async def _relay(forward: Forward, client: _Client, upstream: UpstreamWebSocket) -> None:
    """Carry messages both ways until one side ends it, and tell the other how."""
    upward = asyncio.get_running_loop().create_task(_carry_up(client, upstream))
    try:
        while (message := await upstream.receive()) is not None:
            if not client.gone:
                await client.give(message)
    finally:
        upstream.leave()
        # granian cannot send a close frame while somebody waits for the client's next message.
        if not client.gone:
            upward.cancel()
        await asyncio.wait((upward,))
    if not upward.cancelled():
        upward.result()
    if client.gone:
        log.debug("WebSocket on route %r: the client left, code %d", forward.route.name, client.code)
        return
    code, reason, fault = upstream.ending
    if fault:
        log.warning(
            "WebSocket on route %r, upstream %r: %s", forward.route.name, forward.upstream.name, fault
        )
    await client.close(code, reason)


async def _carry_up(client: _Client, upstream: UpstreamWebSocket) -> None:
    try:
        while not client.gone:
            message = await client.take()
            if message is not None and not await upstream.send(message):
                return
        if client.code == _LOST:
            upstream.abort()
        else:
            await upstream.close(client.code if client.code != _NO_STATUS else None, client.reason)
    except BaseException:
        upstream.leave()
        raise


class _Client:
    """The other end: the ASGI server's two callables for one WebSocket."""

    gone = False
    code = _LOST
    reason = ""
    _next: asyncio.Future[Event] | None = None

    def __init__(self, scope: Event, receive: Receive, send: Send) -> None:
        self._receive = receive
        self.send = send
        self.subprotocols: Sequence[str] = [s for s in scope.get("subprotocols") or () if s]
        extensions = scope.get("extensions") or {}
        self._may_answer = "websocket.http.response" in extensions
        # No other server names this extension for a WebSocket.
        self._granian = "http.response.pathsend" in extensions
        version = (scope.get("asgi") or {}).get("spec_version", "2.0")
        self._uvicorn = self._may_answer and version >= "2.4"

    async def deny(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """Refuse the handshake, with this answer if the server can; else it says 403."""
        await self.aclose()
        if self._granian:
            headers = list(dict(reversed(headers)).items())  # its worker dies of a name that comes twice
        if self._may_answer:
            start = {"type": "websocket.http.response.start", "status": status, "headers": list(headers)}
            await self.send(start)
            await self.send({"type": "websocket.http.response.body", "body": body, "more_body": False})
        else:
            await self.send({"type": "websocket.close", "code": 1000})

    async def accept(self, subprotocol: str | None, headers: Sequence[Header]) -> None:
        await self.send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})

    def look_ahead(self) -> Sequence[asyncio.Future[Event]]:
        """Start waiting for the next event, which before the handshake's end is the client's leaving.

        Not under granian, which never tells of it and then cannot send a close frame.
        """
        if self._granian:
            return ()
        self._next = asyncio.ensure_future(self._receive())
        return (self._next,)

    async def take(self) -> str | bytes | None:
        """Wait for a message; None for anything else. A client that leaves is `gone`."""
        waiting, self._next = self._next, None
        event = await (waiting or self._receive())
        if event["type"] == "websocket.receive":
            text: str | None = event.get("text")
            data: bytes = event.get("bytes") or b""
            return data if text is None else text
        if event["type"] == "websocket.disconnect":
            self._left(event)
        return None

    def _left(self, event: Event) -> None:
        code = event.get("code", _NO_STATUS)
        # Both say 1005 of a lost connection; uvicorn alone gives a close frame without a code a reason, "".
        cut = (self._uvicorn or self._granian) and "reason" not in event
        if code in _SENDABLE:
            self.code, reason = code, event.get("reason") or ""
            self.reason = reason.encode()[:_MAX_REASON].decode("utf-8", "ignore")
        elif code == _NO_STATUS and not cut:
            self.code = _NO_STATUS
        self.gone = True

    async def give(self, message: str | bytes) -> None:
        kind = "text" if isinstance(message, str) else "bytes"
        await self.send({"type": "websocket.send", kind: message})

    async def close(self, code: int, reason: str) -> None:
        await self.send({"type": "websocket.close", "code": code, "reason": reason})

    async def aclose(self) -> None:
        """Stop waiting for an event that nobody takes."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait((self._next,))
