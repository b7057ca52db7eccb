"""A Starlette app, asked over HTTP and as a Lambda function behind mangum: what it sees, what it answers.

Nothing here knows `strangle_mw` but the events that are handed to mangum.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from mangum import Mangum
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from strangle_mw.core.lambda_events import encode_event, make_event

if TYPE_CHECKING:
    from starlette.requests import Request

KINDS = ["2.0", "1.0", "rest", "alb"]
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
HOST = b"shop.example.com:8443"


class Seen(NamedTuple):
    """One request as an app sees it."""

    method: str
    path: str
    query: bytes
    parameters: list[tuple[str, str]]
    headers: list[tuple[bytes, bytes]]
    cookies: dict[str, str]
    body: bytes


class App:
    """Keeps the request that it has seen last, and answers with what it is told to."""

    def __init__(self):
        self.seen = None
        self.answer = (200, [], b"")
        self.asgi = Starlette(routes=[Route("/{rest:path}", self._endpoint, methods=METHODS)])

    async def _endpoint(self, request: Request):
        self.seen = Seen(
            request.method,
            request.scope["path"],
            request.scope["query_string"],
            request.query_params.multi_items(),
            [(name, value) for name, value in request.scope["headers"]],
            request.cookies,
            await request.body(),
        )
        status, headers, body = self.answer
        response = Response(body, status)
        response.raw_headers = list(headers)
        return response


class Function:
    """The app behind mangum, on an event loop of its own; `invoke` speaks JSON, as Lambda does."""

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop):
        self.app = app
        self._loop = loop
        self._handler = Mangum(app.asgi, lifespan="off")

    def invoke(self, kind, call):
        event = json.loads(encode_event(make_event(kind, call)))
        self.app.seen = None
        answer = json.dumps(self._handler(event, None)).encode()
        assert self.app.seen is not None, "the request did not reach the app"
        return answer

    def over_http(self, call):
        """Ask the app as an ASGI server would: the scope that httptools and uvicorn make of the raw bytes."""
        scope = {
            "type": "http",
            "method": call.method,
            "path": unquote(call.path.decode("ascii")),
            "raw_path": call.path,
            "root_path": "",
            "query_string": call.query,
            "headers": list(call.headers),
        }
        sent = []

        async def receive():
            return {"type": "http.request", "body": call.body, "more_body": False}

        async def send(message):
            sent.append(message)

        self.app.seen = None
        self._loop.run_until_complete(self.app.asgi(scope, receive, send))
        return self.app.seen


@contextmanager
def running():
    """Yield a function on an event loop that mangum, which asks for the current one, can find."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    logging.getLogger("mangum").setLevel(logging.CRITICAL)
    try:
        yield Function(App(), loop)
    finally:
        logging.getLogger("mangum").setLevel(logging.NOTSET)
        asyncio.set_event_loop(None)
        loop.close()


# --- what a format, and mangum's reading of it, may make of what was seen over HTTP


def views(kind, over_http, invoked):
    """Return both views of one request in the form in which they should be equal."""
    sent = [value for name, value in over_http.headers if name == b"cookie"]
    # Starlette reads the first of several fields, and Latin-1.
    cookies = len(sent) <= 1 and sent == [as_utf_8(value) for value in sent]
    told = over_http._replace(headers=_told(kind, over_http.headers))
    return tuple(_carried(kind, seen, cookies=cookies) for seen in (told, invoked))


def _told(kind, headers):
    """Return the headers as a function sees them at least."""
    grouped = {}
    for name, value in headers:
        grouped.setdefault(name, []).append(as_utf_8(value))
    if kind == "alb":
        return [(name, value) for name, values in grouped.items() for value in values]
    if kind == "2.0":
        return [(n, (b"; " if n == b"cookie" else b",").join(values)) for n, values in grouped.items()]
    return [(n, b", ".join(v)) for n, v in grouped.items()]  # mangum joins what the events tell apart


def _carried(kind, seen, *, cookies):
    parameters = {}
    for name, value in seen.parameters:  # the order of different names is lost with the maps
        parameters.setdefault(name, []).append(value)
    return {
        "method": seen.method,
        "path": seen.path,
        "query": seen.query if kind == "2.0" else parameters,
        "headers": sorted(seen.headers),
        "cookies": seen.cookies if cookies else None,
        "body": seen.body,
    }


def as_utf_8(value):
    """Read bytes as UTF-8, else as Latin-1, and write them as UTF-8: JSON cannot say bytes."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1").encode()
    return value
