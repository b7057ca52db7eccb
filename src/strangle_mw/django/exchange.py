"""A request of Django's, decided on and forwarded by the drivers; their answers come back as responses.

The legacy app is not called here: a fallback is told by None, and the middleware goes on as if nothing had
been tried. How answers become responses is `responses`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from asgiref.sync import async_to_sync
from django.utils.encoding import repercent_broken_unicode

from strangle_mw.asgi import ASGIStrangler
from strangle_mw.asgi_head import HTTP
from strangle_mw.core.decision import Forward
from strangle_mw.django.conf import engine
from strangle_mw.django.responses import close_with, respond, text_fields
from strangle_mw.engine import FALLBACK_KEY
from strangle_mw.wsgi import READER, WSGIStrangler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, MutableMapping

    from strangle_mw.core.decision import Decision, HeadReader
    from strangle_mw.core.messages import RequestHead
    from strangle_mw.engine import Engine

    Message = MutableMapping[str, Any]

_BLOCK = 65_536
_CONSUMED = "a middleware before StrangleMiddleware has read the body (request.POST); put it behind"


@lru_cache(maxsize=1)
def wsgi_driver(of: Engine) -> WSGIStrangler:
    """Return the WSGI driver; what it calls as legacy app only stands for it."""
    return WSGIStrangler(lambda _environ, _start: [], of)


@lru_cache(maxsize=1)
def asgi_driver(of: Engine) -> ASGIStrangler:
    """Return the ASGI driver; what it calls as legacy app only says that it was called."""

    async def legacy(scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": FALLBACK_KEY, "reason": scope[FALLBACK_KEY]})

    return ASGIStrangler(legacy, of)


class _Reader:
    """Reads a head as the driver does, and says which request of Django's it is."""

    def __init__(self, reader: HeadReader, request: Any, *, waits: bool) -> None:
        self.encoding = reader.encoding
        self._reader = reader
        self._request = request
        self._waits = waits

    def head(self, source: Any, path: bytes, authority: bytes) -> RequestHead:
        head = self._reader.head(source, path, authority)
        head.source, head.waits = self._request, self._waits
        query: Any = head.query
        if isinstance(query, str):  # of the async test client
            head.query = query.encode()
        return head


# --- WSGI, and whatever else calls the middleware without awaiting it


def decide(request: Any) -> Decision:
    """Decide on a request; nothing of its body is read."""
    if hasattr(request, "environ"):
        reader = _Reader(READER, request, waits=False)
        return wsgi_driver(engine()).decide(as_received(request.environ), reader)
    driver = asgi_driver(engine())
    return driver.decide_now(request.scope, _Reader(HTTP, request, waits=False))


def act(request: Any, decision: Decision) -> Any:
    """Return the response to a request that was decided on, or None if the legacy app is to answer."""
    if not hasattr(request, "environ"):  # a middleware that cannot be awaited, under ASGI
        return async_to_sync(aact)(request, decision)
    driver, environ, began = wsgi_driver(engine()), as_received(request.environ), []
    if isinstance(decision, Forward) and not _lend_body(request, environ, decision.length):
        return _consumed(driver.engine, decision)
    given = environ["wsgi.input"]
    result = driver.act(decision, environ, lambda *head: began.append(head))
    if (reason := environ.get(FALLBACK_KEY)) is not None:
        if environ["wsgi.input"] is not given:  # it was read, and is given back
            request._stream, request._read_started = environ["wsgi.input"], False  # noqa: SLF001 - as in DRF
        request.META[FALLBACK_KEY] = reason
        return None
    ((line, fields),) = began
    status, _, phrase = line.partition(" ")
    if isinstance(result, list):
        return respond(request.method, int(status), phrase, fields, b"".join(result))
    response = respond(request.method, int(status), phrase, fields, result)
    close_with(response, result.close)  # type: ignore[attr-defined] # WSGI's own way (PEP 3333)
    return response


def as_received(environ: Any) -> Any:
    """Return the environ with the path as the server gave it: Django has put its own reading there."""
    script, path = environ["SCRIPT_NAME"], environ["PATH_INFO"]
    if not script and path.isascii() and "%" not in path:
        return environ
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI") or ""
    once = unquote_to_bytes(raw.partition("?")[0].encode("latin-1", "replace"))
    if repercent_broken_unicode(once).decode() in (script + path, path):
        return {**environ, "SCRIPT_NAME": "", "PATH_INFO": once.decode("latin-1")}
    return {**environ, "SCRIPT_NAME": _native(script), "PATH_INFO": _native(path)}


def _native(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _lend_body(request: Any, environ: Any, length: int) -> bool:
    """See that the body can be read from its beginning; tell whether it can."""
    if length <= 0:  # Django takes one of no declared length for none, and leaves it alone
        return True
    if hasattr(request, "_body"):
        environ["wsgi.input"] = BytesIO(request.body)
        return True
    return not request._read_started  # noqa: SLF001 - as in Django REST framework


def _consumed(of: Engine, forward: Forward) -> Any:
    method, route = forward.head.method, forward.route.name
    fields, body = of.failure(method, 500, "body-consumed", forward.request_id, route, _CONSUMED)
    return respond(method, 500, "", text_fields(fields), body)


# --- ASGI


async def adecide(request: Any) -> Decision:
    """Decide on a request; nothing of its body is read."""
    return await asgi_driver(engine()).decide(request.scope, _Reader(HTTP, request, waits=True))


async def aact(request: Any, decision: Decision) -> Any:
    """Return the response to a request that was decided on, or None if the legacy app is to answer."""
    exchange = _Exchange(request, decision)
    try:
        start = await exchange.next()
        if start["type"] == FALLBACK_KEY:
            await exchange.end()
            request._stream.seek(0)  # noqa: SLF001 - the driver has read it behind Django's back
            request.META[FALLBACK_KEY] = start["reason"]
            return None
        first = await exchange.next()
        if first.get("more_body"):
            body = exchange.stream(first["body"])
        else:
            body = first["body"]
            await exchange.end()
    except BaseException:
        exchange.cancel()
        raise
    fields = text_fields(start["headers"])
    response = respond(request.method, start["status"], "", fields, body, _nothing())
    close_with(response, exchange.close)
    return response


async def _nothing() -> AsyncIterator[bytes]:
    parts: tuple[bytes, ...] = ()
    for part in parts:
        yield part


_END: Any = None


class _Exchange:
    """One act of the driver, in a task of its own, whose messages wait until they are taken."""

    def __init__(self, request: Any, decision: Decision) -> None:
        self._request = request
        self._file = _from_start(request)
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Any] = asyncio.Queue(1)
        self._task = self._loop.create_task(self._run(request.scope, decision))

    async def _run(self, scope: Any, decision: Decision) -> None:
        end = _END
        try:
            await asgi_driver(engine()).act(decision, scope, self._receive, self._messages.put)
        except Exception as exc:  # noqa: BLE001 - raised where the answer is taken
            end = exc
        await self._messages.put(end)

    async def _receive(self) -> Message:
        if self._file is None:  # Django itself looks out for the client, and cancels us
            await self._loop.create_future()
        chunk = self._file.read(_BLOCK)
        if len(chunk) < _BLOCK:
            self._file = None
        return {"type": "http.request", "body": chunk, "more_body": self._file is not None}

    async def next(self) -> Any:
        """Take the next message, or `_END`; raise what the driver has raised."""
        message = await self._messages.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def end(self) -> None:
        """Wait until the driver is done: it counts what it has done."""
        while await self.next() is not _END:
            pass

    async def stream(self, first: bytes) -> AsyncIterator[bytes]:
        """Give the body as it comes; one that is cut ends in an exception (promise P6)."""
        try:
            yield first
            while (message := await self.next()) is not _END:
                yield message["body"]
        except Exception:
            self._request.close()  # Django does not, if its `send_response` raises
            raise
        finally:
            self.cancel()

    def cancel(self) -> None:
        """End the exchange if it is not over."""
        self._task.cancel()

    def close(self) -> None:
        """End the exchange if it is not over, from whatever thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._task.cancel)


def _from_start(request: Any) -> Any:
    """Return the body from its first byte, whatever was read before: Django keeps it in a file."""
    file = request._stream  # noqa: SLF001 - `request.read` would mark it as begun
    if not file.seekable():  # of the test client
        file = request._stream = BytesIO(file.read())  # noqa: SLF001 - as above
    file.seek(0)
    return file
