"""The ASGI driver's call of an app in this process: no task, no queue, the server's own callables underneath.

Only I/O lives here, as in `asgi`, and every decision is shared with it: what the app is shown is
`core.calls`, in which order things are tried `core.exchange`. The app's answer is held to the same rules as
one from another machine (promises P5, P6).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol

from strangle_mw.asgi_client import Client, gone
from strangle_mw.core.answers import public_headers
from strangle_mw.core.calls import asgi_scope
from strangle_mw.core.exchange import FallBack, Relay
from strangle_mw.core.fallback import NEVER, outcome_of
from strangle_mw.core.messages import status_class
from strangle_mw.engine import CLIENT_GONE, log
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Generator

    from strangle_mw.core.decision import Forward
    from strangle_mw.core.exchange import Effect
    from strangle_mw.engine import Engine
    from strangle_mw.transports.in_process import AsyncAppPool

    Conversation = Generator[Effect, int, None]

Event = MutableMapping[str, Any]
Send = Callable[[Event], Awaitable[None]]

_MOST_DROPPED = 1_048_576
"""Bytes of an answer that legacy has replaced, after which the app is told that nobody listens."""
_GONE: Event = {"type": "http.disconnect"}
_BODYLESS = (204, 304)


class Driver(Protocol):
    """The ASGI driver, as far as a call needs it."""

    engine: Engine

    async def respond(self, send: Send, status: int, headers: Any, body: bytes) -> None:
        """Send a whole answer of the library's own."""

    async def fall_back(
        self, forward: Forward, effect: FallBack, client: Client, scope: Event, send: Send
    ) -> None:
        """Let the wrapped app answer for the modern side."""


async def serve(
    driver: Driver,
    forward: Forward,
    scope: Event,
    receive: Callable[[], Awaitable[Event]],
    send: Send,
) -> None:
    """Answer one request by an app in this process, or by the wrapped app if that fails."""
    engine, client = driver.engine, Client(receive)
    exchange: _Exchange | None = None
    fallback: FallBack | None = None
    error: ForwardError | None = None
    try:
        exchange = await _Exchange.begin(engine, forward, client, send)
        fallback = await exchange.converse(scope)
    except ForwardError as exc:
        error = exc
        if exc.status == CLIENT_GONE:
            log.debug("%d client gone: route %r", CLIENT_GONE, forward.route.name)
        elif exchange is not None and exchange.status:
            raise  # the server then cuts the connection: an answer never ends cleanly before its end (P6)
        else:
            await driver.respond(send, exc.status, *engine.failed(forward, exc))
    finally:
        if fallback is None:
            engine.count(forward, "modern", _outcome(exchange, error))
        if client.busy:
            await client.aclose(None, stays=fallback is not None)
    if fallback is not None:
        await driver.fall_back(forward, fallback, client, scope, send)


def _outcome(exchange: _Exchange | None, error: ForwardError | None) -> str:
    if error is not None and error.status == CLIENT_GONE:
        return "gone"
    if exchange is not None and exchange.status:
        return status_class(exchange.status) if exchange.ended else "cut"
    return "gone" if error is None else outcome_of(error)


def check_status(status: object) -> None:
    """Raise `ForwardError` for what is no final status (RFC 9110 section 15)."""
    if not isinstance(status, int) or not 200 <= status <= 599:  # noqa: PLR2004 - as above
        raise ForwardError("head", f"{status!r} is no status of an answer", request_sent=True)


class _Exchange:
    """One call: what the app receives and sends, on its way from and to the client."""

    status = 0
    ended = False
    _fallback: FallBack | None = None
    _failure: ForwardError | None = None
    _left: int | None = None
    _dropped = 0
    _expired = False
    _timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        engine: Engine,
        forward: Forward,
        client: Client,
        send: Send,
        body: bytes | AsyncIterator[bytes],
        length: int,
    ) -> None:
        self._engine = engine
        self._forward = forward
        self._client = client
        self._send = send
        self._body: bytes | AsyncIterator[bytes] | None = body
        self._length = length
        self._loop = asyncio.get_running_loop()
        self._policy = engine.policy(forward)
        self._timeout = forward.action.timeout or forward.upstream.declared.timeout

    @classmethod
    async def begin(cls, engine: Engine, forward: Forward, client: Client, send: Send) -> _Exchange:
        """Read what has to be read of the body before anything is decided."""
        body: bytes | AsyncIterator[bytes] = b""
        length = forward.length
        if length:
            body, length = await client.body(length, forward.max_body, engine.settings.replay_limit)
        return cls(engine, forward, client, send, body, length)

    async def converse(self, scope: Event) -> FallBack | None:
        """Perform the effects of `core.exchange` by calling the app; tell if legacy shall answer."""
        forward = self._forward
        (pool,) = self._engine.app_pools(forward.upstream, self._loop)
        replayable = isinstance(self._body, bytes)
        self._conversation = self._engine.begin(forward, (pool,), self._policy, replayable=replayable)
        try:
            effect = next(self._conversation)
            if not isinstance(effect, FallBack):
                try:
                    await self._enter(pool, scope)
                except ForwardError as exc:
                    if self.status:
                        raise
                    effect = self._conversation.throw(exc)
                else:
                    effect = self._fallback or Relay()
        finally:
            self._conversation.close()
        return effect if isinstance(effect, FallBack) else None

    async def _enter(self, pool: AsyncAppPool, scope: Event) -> None:
        await pool.gate.enter(patient=self._policy is NEVER)
        pool.occupy()
        try:
            called = asgi_scope(self._forward, scope, self._length)
            state = await pool.ready()
            if state is not None:
                called["state"] = state.copy()
            await self._call(pool.app, called)
        finally:
            pool.vacate()
            pool.gate.leave()

    async def _call(self, app: Callable[..., Awaitable[None]], scope: Event) -> None:
        """Call the app, and hold it to its time until its head comes."""
        task = asyncio.current_task()
        before = task.cancelling() if task is not None else 0
        if not isinstance(self._body, AsyncIterator):
            self._wait()
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self._expired or task is None or task.uncancel() > before:
                raise
            raise ForwardError("head", "timed out", status=504, request_sent=True) from None
        except Exception as exc:
            if self._failure is not None:
                raise self._failure from exc
            self._raised(exc)
        finally:
            self._stop_waiting()
        if self._failure is not None and not self.ended:
            raise self._failure
        if self._fallback is None and not self.ended:
            raise self._failed("the app ended before its answer")

    def _raised(self, exc: Exception) -> None:
        """Log what the app raised; raise what that means, unless its answer is whole or not wanted."""
        if self._fallback is not None:
            log.debug("upstream %r raised after legacy took over", self._forward.upstream.name, exc_info=exc)
            return
        log.error("upstream %r raised", self._forward.upstream.name, exc_info=exc)
        if not self.ended:
            raise self._failed(f"the app raised {type(exc).__name__}") from exc

    def _failed(self, what: str) -> ForwardError:
        return ForwardError("body" if self.status else "head", what, request_sent=True)

    # --- the time until the head

    def _wait(self) -> None:
        task = asyncio.current_task()

        def expire() -> None:
            self._expired = True
            if task is not None:
                task.cancel()

        self._timer = self._loop.call_later(self._timeout, expire)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- what the app is given

    async def receive(self) -> Event:
        """Give the app the body of the request, then tell when the client has left."""
        body = self._body
        if isinstance(body, bytes):
            self._body = None
            return {"type": "http.request", "body": body, "more_body": False}
        if self._failure is not None or self._fallback is not None:
            return _GONE
        if body is not None:
            return await self._chunk(body)
        message = await self._client.leaves()
        if not self.ended:
            self._failure = gone()
        return message

    async def _chunk(self, body: AsyncIterator[bytes]) -> Event:
        self._stop_waiting()  # from here it waits for the client
        idle = self._forward.upstream.declared.idle_timeout
        try:
            async with asyncio.timeout(idle):
                chunk = await anext(body, b"")
        except TimeoutError:
            self._failure = ForwardError("send", "the body of the request stalled", status=408)
            return _GONE
        except ForwardError as exc:
            self._failure = exc
            return _GONE
        if not self.status:
            self._wait()
        if not chunk:
            self._body = None
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    async def send(self, message: Event) -> None:
        """Take a message of the app's answer."""
        kind = message["type"]
        if self._fallback is not None:
            self._drop(message)
        elif kind == "http.response.start":
            await self._start(message)
        elif kind == "http.response.body":
            await self._give(message)
        else:
            raise RuntimeError(f"the app sends {kind!r}, which the server has not offered")

    async def _start(self, message: Event) -> None:
        if self.status or self._failure is not None:
            raise RuntimeError("the app starts a second answer")
        self._stop_waiting()
        status = message["status"]
        forward = self._forward
        try:
            check_status(status)
            given = [(bytes(n), bytes(v)) for n, v in message.get("headers", ())]
            headers = public_headers(given, status, forward, 0)
        except ForwardError as exc:
            self._failure = exc
            raise
        effect = self._conversation.send(status)
        if isinstance(effect, FallBack):
            self._fallback = effect
            return
        self.status = status
        length = next((v for n, v in headers if n == b"content-length"), b"")
        if forward.head.method == "HEAD" or status in _BODYLESS:
            self._left = -1
        elif length.isdigit():
            self._left = int(length)
        await self._pass({"type": "http.response.start", "status": status, "headers": headers})

    async def _give(self, message: Event) -> None:
        if not self.status or self.ended:
            raise RuntimeError("the app sends a body before the head, or after the end")
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._left is not None:
            body = self._account(body, more=more)
        if not more:
            self.ended = True
        await self._pass({"type": "http.response.body", "body": body, "more_body": more})

    async def _pass(self, message: Event) -> None:
        try:
            await self._send(message)
        except OSError:  # the ASGI specification's word for a client that has left
            self.ended, self._failure = False, gone()
            raise

    def _account(self, body: bytes, *, more: bool) -> bytes:
        """Hold the app to the length it has declared (promise P6); no body where none may be."""
        if self._left == -1:
            return b""
        assert self._left is not None  # noqa: S101 - the caller has looked
        self._left -= len(body)
        if self._left < 0 or (self._left and not more):
            self._failure = ForwardError("body", "the answer has not its declared length", request_sent=True)
            raise self._failure
        return body

    def _drop(self, message: Event) -> None:
        self._dropped += len(message.get("body", b""))
        if self._dropped > _MOST_DROPPED:
            raise OSError("the answer is not wanted any more")
