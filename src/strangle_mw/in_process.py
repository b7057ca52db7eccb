"""The ASGI driver's call of an app in this process: no task, no queue, the server's own callables underneath.

Only I/O lives here, as in `asgi`, and every decision is shared with it: what the app is shown is
`core.calls`, in which order things are tried `core.exchange`. The app's answer is held to the same rules as
one from another machine (promises P5, P6).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from strangle_mw.asgi_client import Client, gone
from strangle_mw.bridges.app_messages import BrokenError, Measure, read_body
from strangle_mw.bridges.deadline import Deadline
from strangle_mw.core.answers import public_headers
from strangle_mw.core.calls import asgi_scope, final_status
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
    outcome = "failed"
    try:
        body: bytes | AsyncIterator[bytes] = b""
        length = forward.length
        if length:  # what has to be read of the body is read before anything is decided
            body, length = await client.body(length, forward.max_body, engine.settings.replay_limit)
        exchange = _Exchange(engine, forward, client, send, body, length)
        fallback = await exchange.converse(scope)
        outcome = status_class(exchange.status)
    except ForwardError as exc:
        if exc.status == CLIENT_GONE:
            outcome = "gone"
            log.debug("%d client gone: route %r", CLIENT_GONE, forward.route.name)
        elif exchange is not None and exchange.status:
            outcome = "cut"
            raise  # the server then cuts the connection: an answer never ends cleanly before its end (P6)
        else:
            outcome = outcome_of(exc)
            await driver.respond(send, exc.status, *engine.failed(forward, exc))
    except asyncio.CancelledError:  # some servers cancel when the client has left
        outcome = "gone"
        raise
    finally:
        if fallback is None:
            engine.count(forward, "modern", outcome)
        if client.busy:
            await client.aclose(None, stays=fallback is not None)
    if fallback is not None:
        await driver.fall_back(forward, fallback, client, scope, send)


class _Exchange:
    """One call: what the app receives and sends, on its way from and to the client."""

    status = 0
    _ended = False
    _fallback: FallBack | None = None
    _failure: ForwardError | None = None
    _measure: Measure | None = None
    _dropped = 0

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
        self._policy = engine.policy(forward)
        self._loop = asyncio.get_running_loop()
        self._deadline = Deadline(self._loop, forward.action.timeout or forward.upstream.declared.timeout)
        self._idle = forward.upstream.declared.idle_timeout

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
        if not pool.gate.places.enter():
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
        """Call the app, hold it to its times, and judge how it has ended."""
        try:
            raised = await self._deadline.keep(app, scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._failure = gone()
            raise
        if self._fallback is not None:
            log.debug("upstream %r has ended, legacy answers", self._forward.upstream.name, exc_info=raised)
        elif self._ended:
            if raised is not None:
                self._tell(raised)  # it has gone on after its answer
        else:
            # Kept, since an app may keep `send`: what it sends later must not come into legacy's answer.
            self._failure = self._verdict(raised)
            raise self._failure from raised

    def _verdict(self, raised: BaseException | None) -> ForwardError:
        """Say why there is no answer, or no more of it."""
        if self._failure is not None:
            return self._failure
        stage: Literal["body", "head"] = "body" if self.status else "head"
        if self._deadline.expired:
            return ForwardError(stage, "timed out", status=504, request_sent=True)
        what = "the app ended before its answer"
        if raised is not None:
            self._tell(raised)
            what = f"the app raised {type(raised).__name__}"
        return ForwardError(stage, what, request_sent=True)

    def _tell(self, raised: BaseException) -> None:
        log.error("upstream %r raised", self._forward.upstream.name, exc_info=raised)

    # --- what the app is given

    async def receive(self) -> Event:
        """Give the app the body of the request, then tell when the client has left."""
        if self._ended or self._failure is not None or self._fallback is not None:
            return _GONE
        body = self._body
        if isinstance(body, bytes):
            self._body = None
            return {"type": "http.request", "body": body, "more_body": False}
        if body is not None:
            return await self._chunk()
        message = await self._client.leaves()
        if not self._ended:
            self._failure = gone()
        return message

    async def _chunk(self) -> Event:
        self._deadline.stop()  # from here the client is waited for
        try:
            chunk = await self._client.chunk(self._idle)
        except TimeoutError:
            self._failure = ForwardError("send", "the body of the request stalled", status=408)
            return _GONE
        except ForwardError as exc:
            self._failure = exc
            return _GONE
        finally:
            self._deadline.start(self._idle if self.status else None)
        if not chunk:
            self._body = None
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    async def send(self, message: Event) -> None:
        """Take a message of the app's answer; raises `OSError` once nobody waits for it."""
        kind = message["type"]
        if self._fallback is not None:
            self._drop(message)
        elif self._failure is not None or self._deadline.expired:
            raise OSError("nobody waits for this answer any more")
        elif kind == "http.response.start":
            await self._start(message)
        elif kind == "http.response.body":
            await self._give(message)
        else:
            raise RuntimeError(f"the app sends {kind!r}, which the server has not offered")

    async def _start(self, message: Event) -> None:
        if self.status:
            raise RuntimeError("the app starts a second answer")
        forward = self._forward
        try:
            status = final_status(message["status"])
            given = [(bytes(n), bytes(v)) for n, v in message.get("headers", ())]
            headers = public_headers(given, status, forward, 0)
            self._measure = Measure(forward.head.method, status, headers)
        except ForwardError as exc:
            self._failure = exc
            raise
        except BrokenError as exc:
            self._failure = ForwardError("head", str(exc), request_sent=True)
            raise
        effect = self._conversation.send(status)
        if isinstance(effect, FallBack):
            self._fallback = effect  # it ends soon, or by the deadline
            return
        self.status = status
        await self._pass({"type": "http.response.start", "status": status, "headers": headers})

    async def _give(self, message: Event) -> None:
        measure = self._measure
        if measure is None or self._ended:
            raise RuntimeError("the app sends a body before the head, or after the end")
        try:
            body, more = read_body(message)
            body = measure.count(body, more=more)
        except BrokenError as exc:
            self._failure = ForwardError("body", str(exc), request_sent=True)
            raise
        self._ended = not more
        await self._pass({"type": "http.response.body", "body": body, "more_body": more})

    async def _pass(self, message: Event) -> None:
        self._deadline.stop()  # from here the client is waited for
        try:
            await self._send(message)
        except OSError:  # the ASGI specification's word for a client that has left
            self._ended, self._failure = False, gone()
            raise
        except BaseException:  # what the server has not taken has not ended the answer (promise P6)
            self._ended = False
            raise
        if not self._ended:  # an app that hangs in the middle of its answer would keep its place for ever
            self._deadline.start(self._idle)

    def _drop(self, message: Event) -> None:
        self._dropped += len(message.get("body", b""))
        if self._dropped > _MOST_DROPPED:
            raise OSError("the answer is not wanted any more")
