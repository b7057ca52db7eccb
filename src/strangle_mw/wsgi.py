"""The WSGI driver: hands requests to the wrapped app untouched, or forwards them with blocking sockets.

Only I/O lives here, as in `asgi`; every decision is shared with it. The worker thread is held while the
upstream answers; `max_in_flight` bounds how many can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from strangle_mw.core.answers import answer_headers
from strangle_mw.core.decision import LEGACY, Answer, Forward, prepare
from strangle_mw.core.exchange import SAFE_METHODS
from strangle_mw.core.hygiene import CHUNKED, UNDECLARED
from strangle_mw.core.messages import RequestHead
from strangle_mw.core.upstreams import check_transports
from strangle_mw.engine import CLIENT_GONE, REPLAY_LIMIT, Engine, log
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from strangle_mw.core.decision import Reject
    from strangle_mw.core.messages import Header
    from strangle_mw.transports.make import BlockingAnswer

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

_BLOCK = 65_536


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
        )


_READER = _Reader()


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
        self.app = app
        self.engine = engine

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
        if not raw and not self.engine.told_raw:
            self.engine.tell_raw(environ.get("SERVER_SOFTWARE", "the server"))
        decision = prepare(
            self.engine.snapshot,
            environ["REQUEST_METHOD"],
            raw.partition("?")[0].encode("latin-1", "replace") if raw else None,
            environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
            environ,
            _READER,
        )
        if decision is LEGACY:
            return self.app(environ, start_response)
        if isinstance(decision, Forward):
            return self._forward(decision, environ, start_response)
        return self._answer(decision, environ["REQUEST_METHOD"], start_response)  # type: ignore[arg-type]

    def _answer(
        self, decision: Answer | Reject, method: str, start_response: StartResponse
    ) -> Iterable[bytes]:
        if isinstance(decision, Answer):
            return _respond(start_response, decision.status, decision.headers, decision.body)
        headers, body = self.engine.failure(method, decision.status, decision.reason, decision.request_id)
        return _respond(start_response, decision.status, headers, body)

    def _forward(self, forward: Forward, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        body = _Body(environ, forward)
        try:
            answer, endpoint = self._converse(forward, body)
            return _relay(forward, answer, endpoint, start_response)
        except ForwardError as error:
            return _respond(start_response, error.status, *self.engine.failed(forward, error))

    def _converse(self, forward: Forward, body: _Body) -> tuple[BlockingAnswer, int]:
        """Perform the effects of `core.exchange`, blocking; return the answer, and whose it is."""
        content, length = body.read()
        pools = self.engine.blocking_pools(forward.upstream)
        conversation = self.engine.begin(forward, pools, replayable=isinstance(content, bytes))
        effect = next(conversation)
        try:
            while True:
                try:
                    answer = pools[effect.endpoint].send(
                        self.engine.serialize(forward, length, effect.endpoint),
                        content,
                        method=forward.head.method,
                        chunked=length == CHUNKED,
                        timeout=forward.action.timeout or forward.upstream.declared.timeout,
                        fresh=effect.fresh,
                    )
                except ForwardError as exc:
                    effect = conversation.throw(exc)
                else:
                    return answer, effect.endpoint
        finally:
            conversation.close()


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


def _relay(
    forward: Forward, answer: BlockingAnswer, endpoint: int, start_response: StartResponse
) -> Iterable[bytes]:
    try:
        plan = forward.action.response_headers
        headers = answer_headers(answer.headers, answer.status, plan, forward, endpoint)
        body, complete = answer.take(), answer.complete
        if not (body or complete or (b"content-type", b"text/event-stream") in _kinds(headers)):
            # Servers send the head with the first bytes (PEP 3333): a cut before them can still be told.
            body, complete = answer.read(), answer.complete
        if complete:
            answer.close()
        first = _respond(start_response, answer.status, headers, body, answer.reason.decode("latin-1"))
    except BaseException:
        answer.close()
        raise
    return first if complete else _Stream(answer, first, forward.route.name)


def _kinds(headers: Iterable[Header]) -> Iterator[Header]:
    return ((n, v.partition(b";")[0].strip().lower()) for n, v in headers if n == b"content-type")


class _Stream:
    """The rest of an answer, chunk by chunk; a cut one ends in an exception, never cleanly (P6)."""

    def __init__(self, answer: BlockingAnswer, first: list[bytes], route: str) -> None:
        self._answer = answer
        # gunicorn sends the head with the first bytes, even if there are none: an event stream opens at once.
        self._first = first or [b""]
        self._route = route
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first:
            return self._first.pop()
        chunk = b"" if self._ended else self._answer.read()
        if not chunk:
            self._ended = True
            self._answer.close()
            raise StopIteration
        return chunk

    def close(self) -> None:
        if not self._answer.complete:
            log.debug("%d client gone: route %r", CLIENT_GONE, self._route)
        self._answer.close()


class _Body:
    """The body of one forwarded request, read from `wsgi.input` and never past its end."""

    def __init__(self, environ: Environ, forward: Forward) -> None:
        self._input = environ["wsgi.input"]
        self._ends = bool(environ.get("wsgi.input_terminated"))
        self._length = forward.length
        self._limit = forward.max_body
        if forward.length == UNDECLARED and not self._ends and forward.head.method in SAFE_METHODS:
            self._length = 0  # nothing says that there is a body, and none is expected

    def read(self) -> tuple[bytes | Iterator[bytes], int]:
        """Return the body, whole if it is small, and its length as it will be framed."""
        if self._length == 0:
            return b"", 0
        if self._length > REPLAY_LIMIT:
            return self._counted(self._length), self._length
        if self._length > 0:
            return b"".join(self._counted(self._length)), self._length
        if not self._ends:
            # Without a length or an end, a read could block for ever (PEP 3333).
            raise ForwardError("send", "the server gives the body neither a length nor an end", status=411)
        if self._length == UNDECLARED:
            first = self._take(1)
            return (self._until_end(first), CHUNKED) if first else (b"", 0)
        return self._until_end(), CHUNKED

    def _counted(self, left: int) -> Iterator[bytes]:
        while left:
            chunk = self._take(min(left, _BLOCK))
            if not chunk:  # servers return a short read for a cut body, without an error (promise P6)
                raise ForwardError("send", "the body has not its declared length", status=400)
            left -= len(chunk)
            yield chunk

    def _until_end(self, first: bytes = b"") -> Iterator[bytes]:
        count = 0
        chunk = first or self._take(_BLOCK)
        while chunk:
            count += len(chunk)
            if self._limit is not None and count > self._limit:
                raise ForwardError("send", "the body passes max_body", status=413)
            yield chunk
            chunk = self._take(_BLOCK)

    def _take(self, most: int) -> bytes:
        try:
            data: bytes = self._input.read(most)
        except OSError as exc:  # the client's connection broke; a server's own errors for bad chunks pass
            raise ForwardError("send", "the body broke off", status=400) from exc
        return data
