"""The ASGI driver: hands requests to the wrapped app untouched, or forwards them without a thread.

Only I/O lives here: reading the body, watching the client, relaying the answer. What happens to a request
is `core.decision.prepare`, in which order things are tried is `core.exchange`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, Any

from strangle_mw.core.answers import public_headers
from strangle_mw.core.decision import LEGACY, Answer, Forward, Legacy, Reject, prepare
from strangle_mw.core.exchange import FallBack
from strangle_mw.core.exchange import Send as SendTo
from strangle_mw.core.fallback import NEVER, outcome_of
from strangle_mw.core.hygiene import CHUNKED, UNDECLARED
from strangle_mw.core.messages import RequestHead, status_class
from strangle_mw.core.sticky import mark_headers
from strangle_mw.core.upstreams import check_transports
from strangle_mw.engine import CLIENT_GONE, FALLBACK_KEY, Engine, log
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from strangle_mw.core.decision import Decision
    from strangle_mw.core.messages import Header
    from strangle_mw.transports.make import AsyncAnswer

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class _Reader:
    encoding = "utf-8"

    @staticmethod
    def head(source: Scope, path: bytes, authority: bytes) -> RequestHead:
        client = source.get("client")
        return RequestHead(
            source["method"],
            path,
            source["query_string"],
            source["headers"],
            source.get("scheme", "http"),
            client[0] if client else "",
            authority,
            source.get("http_version", "1.1"),
        )


_READER = _Reader()


class ASGIStrangler:
    """An ASGI app around an ASGI app; made by `strangle`.

    The default route calls the wrapped app with the very objects that the server gave. Lifespan scopes go
    to the wrapped app; WebSocket scopes are decided on like a GET (`websocket`).
    """

    def __init__(self, app: Callable[..., Awaitable[None]], engine: Engine) -> None:
        check_transports(engine.snapshot.upstreams.values(), "asgi")
        self.app = app
        self.engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        engine = self.engine
        if monotonic() >= engine.due:
            engine.look()
        if scope["type"] != "http":
            await self._pass(scope, receive, send)
            return
        path = scope["path"]
        raw = scope.get("raw_path") or None
        if root := scope.get("root_path"):
            path = _whole_path(root, path)
        decision = prepare(engine.snapshot, scope["method"], raw, path, scope, _READER)
        if decision is LEGACY:
            await self.app(scope, receive, send)
        elif isinstance(decision, Forward):
            await self._forward(decision, scope, receive, send)
        elif isinstance(decision, Legacy):
            await self._legacy(decision, scope, receive, send)
        else:
            await self._answer(decision, scope["method"], send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            from strangle_mw.websocket import serve

            path = _whole_path(scope.get("root_path", ""), scope["path"])
            await serve(self.app, self.engine, scope, path, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        finally:
            if scope["type"] == "lifespan":
                # Without a pause: uvicorn ends the process as soon as the app has said that it has ended.
                self.engine.follower.flush()
                await self.engine.aclose(asyncio.get_running_loop())

    async def _legacy(self, decision: Legacy, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the wrapped app answer for a route whose stage says so."""
        if decision.mark is None:
            self.engine.passed(decision, scope["method"])
            await self.app(scope, receive, send)
        else:
            await self._marked(decision, "", scope, receive, send)

    async def _marked(
        self, of: Legacy | Forward, outcome: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Let the wrapped app answer, count that, and mark a canaried answer; `outcome` if it is known."""
        mark, method = of.mark, scope["method"]

        async def marked(message: MutableMapping[str, Any]) -> None:
            nonlocal outcome
            if message["type"] == "http.response.start":
                outcome = outcome or status_class(message["status"])
                if mark is not None:
                    headers = mark_headers([(n, v) for n, v in message.get("headers", ())], mark, method)
                    message = {**message, "headers": headers}
            await send(message)

        try:
            await self.app(scope, receive, marked)
        finally:
            self.engine.count(of, "legacy", outcome or "failed")

    async def _answer(self, decision: Decision, method: str, send: Send) -> None:
        if isinstance(decision, Answer):
            headers = decision.headers
            if decision.mark is not None:
                headers = mark_headers(headers, decision.mark, method)
            self.engine.count(decision, "modern", status_class(decision.status))
            await _respond(send, decision.status, headers, decision.body)
        elif isinstance(decision, Reject):
            headers, body = self.engine.failure(method, decision.status, decision.reason, decision.request_id)
            await _respond(send, decision.status, headers, body)

    async def _forward(self, forward: Forward, scope: Scope, receive: Receive, send: Send) -> None:
        client = _Client(receive)
        answer: AsyncAnswer | None = None
        fallback: FallBack | None = None
        outcome = ""
        try:
            answer, headers, fallback = await self._converse(forward, client)
            if answer is not None:
                body, complete = answer.take(), answer.complete
                outcome = "cut"
                await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                await send({"type": "http.response.body", "body": body, "more_body": not complete})
                if not complete:
                    await _relay(answer, send)
                outcome = status_class(answer.status)
        except ForwardError as exc:
            if exc.status == CLIENT_GONE:
                outcome = "gone"
                log.debug("%d client gone: route %r", CLIENT_GONE, forward.route.name)
            elif outcome:
                raise  # the server then cuts the connection: an answer never ends cleanly before its end (P6)
            else:
                outcome = outcome_of(exc)
                await _respond(send, exc.status, *self.engine.failed(forward, exc))
        except (OSError, asyncio.CancelledError):  # of `send`: the client has left; some servers cancel then
            outcome = "gone"
            raise
        finally:
            if fallback is None:
                self.engine.count(forward, "modern", outcome or "gone")
            if answer is not None:
                answer.close()
            if client.busy:
                await client.aclose(answer, stays=fallback is not None)
        if fallback is not None:
            scope = {**scope, FALLBACK_KEY: fallback.reason}
            try:
                await self._marked(forward, f"fallback:{fallback.reason}", scope, client.replay, send)
            finally:
                client.leave()

    async def _converse(
        self, forward: Forward, client: _Client
    ) -> tuple[AsyncAnswer | None, list[Header], FallBack | None]:
        """Perform the effects of `core.exchange` with asyncio; return answer and headers, or a fallback."""
        engine, method = self.engine, forward.head.method
        policy = engine.policy(forward)
        body: bytes | AsyncIterator[bytes] = b""
        length = forward.length
        if length:
            body, length = await client.body(length, forward.max_body, engine.settings.replay_limit)
        pools = engine.async_pools(forward.upstream, asyncio.get_running_loop())
        conversation = engine.begin(forward, pools, policy, replayable=isinstance(body, bytes))
        answer: AsyncAnswer | None = None
        headers: list[Header] = []
        try:
            effect = next(conversation)
            while isinstance(effect, SendTo):
                try:
                    answer = await pools[effect.endpoint].send(
                        engine.serialize(forward, length, effect.endpoint),
                        body,
                        method=method,
                        chunked=length == CHUNKED,
                        timeout=forward.action.timeout or forward.upstream.declared.timeout,
                        fresh=effect.fresh,
                        patient=policy is NEVER,
                        on_slow=client.watch,
                    )
                    headers = public_headers(answer.headers, answer.status, forward, effect.endpoint)
                except ForwardError as exc:
                    if answer is not None:  # its headers are no headers
                        answer.close()
                    effect = conversation.throw(exc)
                else:
                    effect = conversation.send(answer.status)
        finally:
            conversation.close()
        if not isinstance(effect, FallBack):
            return answer, headers, None
        if answer is not None:
            answer.close()
        return None, headers, effect


def _whole_path(root: str, path: str) -> str:
    """Return the path with the root path, which is part of it (design section 3.4); servers differ."""
    return path if path == root or path.startswith(root.rstrip("/") + "/") else root + path


async def _respond(send: Send, status: int, headers: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _relay(answer: AsyncAnswer, send: Send) -> None:
    """Give the rest of the answer to the client as it comes."""
    complete = False
    while not complete:
        body = await answer.read()
        complete = not body or answer.complete
        await send({"type": "http.response.body", "body": body, "more_body": not complete})


class _Client:
    """The other end of one forwarded request: its body, and whether it is still there."""

    # Most requests need none of these; what is not set costs nothing.
    busy = False
    _reading = False
    _limit: int | None = None
    _watcher: asyncio.Task[None] | None = None
    _receiving: asyncio.Future[MutableMapping[str, Any]] | None = None
    _stream: AsyncGenerator[bytes, None] | None = None
    _fail: Callable[[ForwardError], None] | None = None
    _streaming = False

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._seen: list[MutableMapping[str, Any]] = []

    async def body(
        self, length: int, max_body: int | None, replay_limit: int
    ) -> tuple[bytes | AsyncIterator[bytes], int]:
        """Return the body, whole if it is small, and its length as it will be framed."""
        self._limit = max_body
        if 0 < length <= replay_limit:
            return b"".join([chunk async for chunk in self._chunks(length)]), length
        if length == UNDECLARED:
            return await self._undeclared()
        return self._streamed(self._chunks(length)), length

    async def replay(self) -> MutableMapping[str, Any]:
        """Give the wrapped app what was received before it was asked, and then what comes."""
        if not self._seen and self._watcher is not None:
            await asyncio.wait((self._watcher,))  # granian forgets one of two that wait for a call of its own
        if self._seen:
            return self._seen.pop(0)
        return await (self._receive() if self._receiving is None else self._next())

    async def _next(self) -> MutableMapping[str, Any]:
        """Receive by a call that goes on if whoever waits for it is cancelled; the next one takes it over.

        No server says that a second `receive` works after a cancelled one: gunicorn takes the client for gone
        from then on.
        """
        if self._receiving is None:
            self._receiving = asyncio.ensure_future(self._receive())
        await asyncio.wait((self._receiving,))
        done, self._receiving = self._receiving, None
        return done.result()

    def _note(self, message: MutableMapping[str, Any]) -> None:
        """Keep what was received for `replay`, as long as that may be asked for."""
        if not (self._streaming or (self._seen and not self._seen[-1].get("more_body", False))):
            self._seen.append(message)

    def _streamed(self, chunks: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
        self._reading = self.busy = self._streaming = True
        self._stream = chunks
        return chunks

    async def _undeclared(self) -> tuple[bytes | AsyncIterator[bytes], int]:
        """Look at the first event: HTTP/2 says only there whether a body follows."""
        chunks = self._chunks(CHUNKED)
        first = await anext(chunks, b"")
        if not first:
            return b"", 0
        return self._streamed(_chain(first, chunks)), CHUNKED

    async def _chunks(self, length: int) -> AsyncGenerator[bytes, None]:
        """Yield the body; raise `ForwardError` if it ends early, runs over, or its client leaves (P6)."""
        count, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _gone()
            self._note(message)
            chunk, more = message.get("body", b""), message.get("more_body", False)
            count += len(chunk)
            if self._limit is not None and count > self._limit:
                raise ForwardError("send", "the body passes max_body", status=413)
            if length >= 0 and (count > length or (count < length and not more)):
                raise ForwardError("send", "the body has not its declared length", status=400)
            if chunk:
                yield chunk
        self._reading = False
        if self._fail is not None:
            self.watch(self._fail)

    def watch(self, fail: Callable[[ForwardError], None]) -> None:
        """Start looking out for the client's leaving; called when an exchange takes its time.

        `fail` ends the exchange: whoever waits for the upstream then gets the error. A second exchange (on a
        fresh connection) brings another one; there is one watcher all the same, as for one `receive`.
        """
        self._fail = fail
        if self._watcher is None and not self._reading:
            self.busy = True
            self._watcher = asyncio.get_running_loop().create_task(self._wait_for_disconnect())

    async def _wait_for_disconnect(self) -> None:
        message = await self._next()
        while message["type"] != "http.disconnect":
            self._note(message)
            await asyncio.sleep(0)  # a server that never waits here must not stop the loop
            message = await self._next()
        self._seen.append(message)
        if self._fail is not None:
            self._fail(_gone())

    async def aclose(self, answer: AsyncAnswer | None, *, stays: bool = False) -> None:
        """End what was started: the watcher, and the body once nobody reads it any more.

        With `stays`, the wrapped app will ask for what comes.
        """
        if self._watcher is not None:
            self._watcher.cancel()
        if not stays:
            self.leave()
        if answer is not None:
            await answer.settle()
        if self._stream is not None:
            await self._stream.aclose()

    def leave(self) -> None:
        """Stop waiting for what nobody will take."""
        if self._receiving is not None:
            self._receiving.cancel()


async def _chain(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        async for chunk in rest:
            yield chunk


def _gone() -> ForwardError:
    return ForwardError("send", "the client left", status=CLIENT_GONE)
