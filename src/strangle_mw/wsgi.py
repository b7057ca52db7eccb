"""The WSGI driver: hands requests to the wrapped app untouched, or forwards them with blocking sockets.

Only I/O lives here, as in `asgi`; every decision is shared with it. The worker thread is held while the
upstream answers; `max_in_flight` bounds how many can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any

from strangle_mw.asking import is_awaited
from strangle_mw.core.answers import public_headers
from strangle_mw.core.decision import LEGACY, Answer, Forward, Legacy, prepare
from strangle_mw.core.exchange import FallBack, Relay, Send
from strangle_mw.core.fallback import NEVER, outcome_of
from strangle_mw.core.hygiene import CHUNKED
from strangle_mw.core.messages import RequestHead, status_class
from strangle_mw.core.sticky import mark_headers, mark_wsgi_headers
from strangle_mw.core.upstreams import check_transports
from strangle_mw.engine import CLIENT_GONE, FALLBACK_KEY, Engine, log
from strangle_mw.errors import ConfigError, ForwardError, Problem
from strangle_mw.wsgi_body import Body

if TYPE_CHECKING:
    from strangle_mw.core.decision import Decision, HeadReader, Reject
    from strangle_mw.core.messages import Header
    from strangle_mw.transports.make import BlockingAnswer

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

_CGI = ("CONTENT_TYPE", "CONTENT_LENGTH")


class _Reader:
    encoding = "latin-1"

    @staticmethod
    def head(source: Environ, path: bytes, authority: bytes) -> RequestHead:
        return RequestHead(
            source["REQUEST_METHOD"],
            path,
            source.get("QUERY_STRING", "").encode("latin-1", "replace"),
            _headers(source),
            source["wsgi.url_scheme"],
            source.get("REMOTE_ADDR", ""),
            authority,
            source.get("SERVER_PROTOCOL", "HTTP/1.1").rpartition("/")[2],
            source,
        )


READER: HeadReader = _Reader()
"""How this driver reads a request."""


def _headers(environ: Environ) -> list[Header]:
    return [
        (name, environ[key].encode("latin-1", "replace"))
        for key, name in _header_keys(tuple(environ))
        # CGI's own two may stand there empty; an empty header of the client's is kept (proxy trap 25).
        if environ[key] or key not in _CGI
    ]


@lru_cache(maxsize=512)
def _header_keys(keys: tuple[str, ...]) -> tuple[tuple[str, bytes], ...]:
    """Return the environ keys that stand for headers, with their names (PEP 3333, RFC 3875 section 4.1.18).

    Worked out once for a set of keys, as in `core.hygiene`.
    """
    names = ((k, k if k in _CGI else k[5:] if k.startswith("HTTP_") else "") for k in keys)
    return tuple((k, n.replace("_", "-").lower().encode("latin-1", "replace")) for k, n in names if n)


class WSGIStrangler:
    """A WSGI app around a WSGI app; made by `strangle`.

    The default route returns what the wrapped app returns, called with the very objects the server gave.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]], engine: Engine) -> None:
        check_transports(engine.snapshot.upstreams.values(), "wsgi")
        if is_awaited(engine.settings.identify):
            what = "must be a plain function: under WSGI nothing is awaited"
            raise ConfigError([Problem("strangle.identify", what, "identify-async")])
        self.app = app
        self.engine = engine

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        decision = self.decide(environ)
        return (
            self.app(environ, start_response)
            if decision is LEGACY
            else self.act(decision, environ, start_response)
        )

    def decide(self, environ: Environ, reader: HeadReader = READER) -> Decision:
        """Decide on one request; `reader` builds its head if that is needed."""
        engine = self.engine
        if monotonic() >= engine.due:
            engine.look()
        raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
        if not raw and not engine.told_raw:
            engine.tell_raw(environ.get("SERVER_SOFTWARE", "the server"))
        return prepare(
            engine.snapshot,
            environ["REQUEST_METHOD"],
            raw.partition("?")[0].encode("latin-1", "replace") if raw else None,
            environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
            environ,
            reader,
        )

    def act(self, decision: Decision, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request as was decided."""
        if isinstance(decision, Forward):
            return self._forward(decision, environ, start_response)
        if isinstance(decision, Legacy):
            return self._legacy(decision, environ, start_response)
        return self._answer(decision, environ["REQUEST_METHOD"], start_response)

    def _legacy(self, decision: Legacy, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Let the wrapped app answer for a route whose stage says so."""
        if decision.mark is None:
            self.engine.passed(decision, environ["REQUEST_METHOD"])
            return self.app(environ, start_response)
        return self._marked(decision, "", environ, start_response)

    def _marked(
        self, of: Legacy | Forward, outcome: str, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Let the wrapped app answer, count that, and mark a canaried answer; `outcome` if it is known."""
        mark, method, counted = of.mark, environ["REQUEST_METHOD"], bool(outcome)
        if outcome:  # whatever becomes of the answer: an app that is a generator has not even begun
            self.engine.count(of, "legacy", outcome)

        def marked(status: str, headers: list[tuple[str, str]], *more: Any, **named: Any) -> Any:
            nonlocal counted
            if not counted:
                counted = True
                self.engine.count(of, "legacy", _class_of(status))
            if mark is not None:
                headers = mark_wsgi_headers(headers, mark, method)
            return start_response(status, headers, *more, **named)

        try:
            return self.app(environ, marked)
        except BaseException:
            if not counted:
                self.engine.count(of, "legacy", "failed")
            raise

    def _answer(
        self, decision: Answer | Reject, method: str, start_response: StartResponse
    ) -> Iterable[bytes]:
        if isinstance(decision, Answer):
            headers = decision.headers
            if decision.mark is not None:
                headers = mark_headers(headers, decision.mark, method)
            self.engine.count(decision, "modern", status_class(decision.status))
            return _respond(start_response, decision.status, headers, decision.body)
        headers, body = self.engine.failure(method, decision.status, decision.reason, decision.request_id)
        return _respond(start_response, decision.status, headers, body)

    def _forward(self, forward: Forward, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = Body(environ, forward, self.engine.settings.replay_limit)
        try:
            found = self._converse(forward, body, environ)
        except ForwardError as error:
            self.engine.count(forward, "modern", outcome_of(error))
            return _respond(start_response, error.status, *self.engine.failed(forward, error))
        if not isinstance(found, FallBack):
            return self._relay(forward, *found, start_response)
        environ[FALLBACK_KEY] = found.reason
        body.replay(environ)
        return self._marked(forward, f"fallback:{found.reason}", environ, start_response)

    def _converse(
        self, forward: Forward, body: Body, environ: Environ
    ) -> tuple[BlockingAnswer, list[Header], bytes] | FallBack:
        """Perform the effects of `core.exchange`, blocking.

        Returns the answer, its headers and the first bytes of its body, or a fallback.
        """
        engine, method = self.engine, forward.head.method
        policy = engine.policy(forward)
        content, length = body.read()
        pools = engine.blocking_pools(forward.upstream)
        conversation = engine.begin(forward, pools, policy, replayable=isinstance(content, bytes))
        answer: BlockingAnswer | None = None
        headers: list[Header] = []
        first = b""
        try:
            effect = next(conversation)
            while isinstance(effect, Send):
                try:
                    answer = pools[effect.endpoint].send(
                        engine.serialize(forward, length, effect.endpoint, environ),
                        content,
                        method=method,
                        chunked=length == CHUNKED,
                        timeout=forward.action.timeout or forward.upstream.declared.timeout,
                        fresh=effect.fresh,
                        patient=policy is NEVER,
                    )
                    headers = public_headers(answer.headers, answer.status, forward, effect.endpoint)
                    effect = conversation.send(answer.status)
                    if isinstance(effect, Relay):
                        first = _first(answer, headers)
                except ForwardError as exc:
                    if answer is not None:
                        answer.close()
                    effect = conversation.throw(exc)
        except BaseException:  # gevent's timeouts are no more
            if answer is not None:
                answer.close()
            raise
        finally:
            conversation.close()
        if isinstance(effect, FallBack):
            if answer is not None:
                answer.close()
            return effect
        assert answer is not None  # noqa: S101 - `Relay` follows an answer
        return answer, headers, first

    def _relay(
        self,
        forward: Forward,
        answer: BlockingAnswer,
        headers: list[Header],
        body: bytes,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        try:
            complete = answer.complete
            if complete:
                answer.close()
            first = _respond(start_response, answer.status, headers, body, answer.reason.decode("latin-1"))
        except BaseException:
            answer.close()
            raise
        if not complete:
            return _Stream(answer, first, forward, self.engine)
        self.engine.count(forward, "modern", status_class(answer.status))
        return first


def _first(answer: BlockingAnswer, headers: list[Header]) -> bytes:
    """Read what comes with the head: servers send both together (PEP 3333), so a cut before can be told."""
    body: bytes = answer.take()
    if body or answer.complete or (b"content-type", b"text/event-stream") in _kinds(headers):
        return body
    return answer.read()


def _class_of(status: str) -> str:
    return status_class(int(status[:3])) if status[:3].isdecimal() else "failed"


def _respond(
    start_response: StartResponse, status: int, headers: Iterable[Header], body: bytes, reason: str = ""
) -> list[bytes]:
    fields = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers]
    start_response(f"{status} {reason or _reason(status)}", fields)
    return [body] if body else []


@lru_cache(maxsize=128)
def _reason(status: int) -> str:
    """Return a reason phrase: PEP 3333 requires one, RFC 9112 section 4 lets upstreams leave it out."""
    from http import HTTPStatus

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _kinds(headers: Iterable[Header]) -> Iterator[Header]:
    return ((n, v.partition(b";")[0].strip().lower()) for n, v in headers if n == b"content-type")


class _Stream:
    """The rest of an answer, chunk by chunk; a cut one ends in an exception, never cleanly (P6)."""

    def __init__(self, answer: BlockingAnswer, first: list[bytes], forward: Forward, engine: Engine) -> None:
        self._answer = answer
        self._forward = forward
        self._engine = engine
        self._counted = False
        # gunicorn sends the head with the first bytes, even if there are none: an event stream opens at once.
        self._first = first or [b""]
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first:
            return self._first.pop()
        try:
            chunk = b"" if self._ended else self._answer.read()
        except ForwardError:
            self._count("cut")
            raise
        if not chunk:
            self._ended = True
            self._answer.close()
            self._count(status_class(self._answer.status))
            raise StopIteration
        return chunk

    def close(self) -> None:
        if not self._answer.complete:
            log.debug("%d client gone: route %r", CLIENT_GONE, self._forward.route.name)
        self._count("gone" if not self._answer.complete else status_class(self._answer.status))
        self._answer.close()

    def _count(self, outcome: str) -> None:
        if not self._counted:
            self._counted = True
            self._engine.count(self._forward, "modern", outcome)
