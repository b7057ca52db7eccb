"""The ASGI driver: hands requests to the wrapped app untouched, or forwards them without a thread.

Only I/O lives here: reading the body, watching the client, relaying the answer. What happens to a request
is `core.decision.prepare`, in which order things are tried is `core.exchange`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from strangle_mw.asgi_client import Client
from strangle_mw.asgi_head import HTTP, identified
from strangle_mw.core.answers import public_headers
from strangle_mw.core.decision import LEGACY, Answer, Forward, Legacy, Reject, prepare
from strangle_mw.core.exchange import FallBack
from strangle_mw.core.exchange import Send as SendTo
from strangle_mw.core.fallback import NEVER, outcome_of
from strangle_mw.core.hygiene import CHUNKED
from strangle_mw.core.identity import NeedsIdentity
from strangle_mw.core.messages import status_class
from strangle_mw.core.paths import quote_path
from strangle_mw.core.sticky import mark_headers
from strangle_mw.core.upstreams import check_transports
from strangle_mw.engine import CLIENT_GONE, FALLBACK_KEY, Engine, log
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from strangle_mw.core.decision import Decision, HeadReader
    from strangle_mw.core.messages import Header
    from strangle_mw.transports.make import AsyncAnswer

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


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
        if scope["type"] != "http":
            await self._pass(scope, receive, send)
            return
        try:
            decision = self.decide_now(scope, HTTP)
        except NeedsIdentity as needs:
            decision = self.decide_now(scope, await identified(self.engine, needs))
        if decision is LEGACY:
            await self.app(scope, receive, send)
        else:
            await self.act(decision, scope, receive, send)

    async def decide(self, scope: Scope, reader: HeadReader = HTTP) -> Decision:
        """Decide on one HTTP request; `reader` builds its head if that is needed."""
        try:
            return self.decide_now(scope, reader)
        except NeedsIdentity as needs:
            return self.decide_now(scope, await identified(self.engine, needs))

    def decide_now(self, scope: Scope, reader: HeadReader = HTTP) -> Decision:
        """Do as `decide`, or raise `NeedsIdentity` if somebody has to be awaited first."""
        engine = self.engine
        if monotonic() >= engine.due:
            engine.look()
        path = scope["path"]
        raw = scope.get("raw_path") or None
        if root := scope.get("root_path"):
            raw, path = _whole(root, raw, path)
        return prepare(engine.snapshot, scope["method"], raw, path, scope, reader)

    async def act(self, decision: Decision, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as was decided."""
        if isinstance(decision, Forward):
            if decision.upstream.in_process:
                from strangle_mw.in_process import serve

                await serve(self, decision, scope, receive, send)
            else:
                await self._forward(decision, scope, receive, send)
        elif isinstance(decision, Legacy):
            await self._legacy(decision, scope, receive, send)
        else:
            await self._answer(decision, scope["method"], send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            from strangle_mw.websocket import serve

            target = _whole(scope.get("root_path", ""), scope.get("raw_path") or None, scope["path"])
            await serve(self.app, self.engine, scope, target, receive, send)
            return
        if scope["type"] == "lifespan":
            from strangle_mw.lifespans import serve_lifespan

            await serve_lifespan(self.app, self.engine, scope, receive, send)
        else:
            await self.app(scope, receive, send)

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
            await self.respond(send, decision.status, headers, decision.body)
        elif isinstance(decision, Reject):
            headers, body = self.engine.failure(method, decision.status, decision.reason, decision.request_id)
            await self.respond(send, decision.status, headers, body)

    @staticmethod
    async def respond(send: Send, status: int, headers: Any, body: bytes) -> None:
        """Send a whole answer of the library's own."""
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _forward(self, forward: Forward, scope: Scope, receive: Receive, send: Send) -> None:
        client = Client(receive)
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
                await self.respond(send, exc.status, *self.engine.failed(forward, exc))
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
            await self.fall_back(forward, fallback, client, scope, send)

    async def fall_back(
        self, forward: Forward, effect: FallBack, client: Client, scope: Scope, send: Send
    ) -> None:
        """Let the wrapped app answer for the modern side."""
        scope = {**scope, FALLBACK_KEY: effect.reason}
        try:
            await self._marked(forward, f"fallback:{effect.reason}", scope, client.replay, send)
        finally:
            client.leave()

    async def _converse(
        self, forward: Forward, client: Client
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


def _whole(root: str, raw: bytes | None, path: str) -> tuple[bytes | None, str]:
    """Return target and path with the root path, a part of both (design section 3.4); servers differ."""
    if path == root or path.startswith(root.rstrip("/") + "/"):
        return raw, path
    prefix = quote_path(root.encode())
    return prefix + raw if raw and not raw.startswith(prefix) else raw, root + path


async def _relay(answer: AsyncAnswer, send: Send) -> None:
    """Give the rest of the answer to the client as it comes."""
    complete = False
    while not complete:
        body = await answer.read()
        complete = not body or answer.complete
        await send({"type": "http.response.body", "body": body, "more_body": not complete})
