"""Both drivers behind one face: a strangled app is asked, and what its client would see is told.

No server stands between, so that a test can cut a body at any byte and see every message; the sockets to
the upstream are real. Assertions belong to the tests.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from strangle_mw import strangle

PATIENCE = 20.0
"""Seconds after which a test is stuck; nothing that goes well waits for it."""

GONE = object()
"""In a body: here its client leaves, or its connection breaks."""


class ClientLeftError(OSError):
    """What a server raises from `send` once its client has gone (ASGI HTTP 2.4)."""


@dataclass
class Seen:
    """What the client of one request sees: `ended` says that the answer came to a clean end."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    error: BaseException | None = None

    def header(self, name):
        return next((v for n, v in self.headers if n.lower() == name), None)

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name]


@dataclass
class Asked:
    """One request; `body` is a list of pieces, which may be callables that return one, or `GONE`."""

    target: str = "/m/x"
    method: str = "GET"
    headers: tuple = ()
    body: list = field(default_factory=list)
    framing: tuple = ()
    version: str = "1.1"
    peer: str = "192.0.2.1"
    scheme: str = "http"
    leaves: str = ""
    """How its client leaves in the middle of the answer: "when sent to" or "when asked"."""

    @classmethod
    def make(cls, target="/m/x", *, method=None, body=(), chunked=False, length=None, **more):
        pieces = [body] if isinstance(body, bytes) and body else list(body)
        framing = ()
        if chunked:
            framing = ((b"transfer-encoding", b"chunked"),)
        elif pieces or length is not None:
            known = sum(len(p) for p in pieces if isinstance(p, bytes)) if length is None else length
            framing = ((b"content-length", b"%d" % known),)
        return cls(target, method or ("POST" if framing else "GET"), body=pieces, framing=framing, **more)


class Asgi:
    """A strangled ASGI app in an event loop of its own thread."""

    name = "asgi"

    def __init__(self, routes, *, legacy=None, **settings):
        self.legacy = []
        self.answer = []  # headers that the wrapped app answers with
        self.app = strangle(legacy or self._legacy, routes, **settings)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    async def _legacy(self, scope, receive, send):
        self.legacy.append(scope)
        await send({"type": "http.response.start", "status": 299, "headers": self.answer})
        await send({"type": "http.response.body", "body": b"legacy"})

    def start(self, target="/m/x", **more):
        return asyncio.run_coroutine_threadsafe(self._ask(Asked.make(target, **more)), self.loop)

    def ask(self, target="/m/x", **more):
        return self.start(target, **more).result(PATIENCE)

    async def _ask(self, asked):
        seen, left = Seen(), asyncio.Event()
        pieces, messages = deque(asked.body), deque()
        if not pieces:
            messages.append({"type": "http.request", "body": b"", "more_body": False})

        async def receive():
            if messages:
                return messages.popleft()
            if not pieces:
                await left.wait()
                return {"type": "http.disconnect"}
            piece = pieces.popleft()
            if piece is GONE:
                return {"type": "http.disconnect"}
            data = await asyncio.to_thread(piece) if callable(piece) else piece
            return {"type": "http.request", "body": data, "more_body": bool(pieces)}

        async def send(message):
            if message["type"] == "http.response.start":
                seen.status, seen.headers = message["status"], list(message["headers"])
            else:
                if asked.leaves:
                    left.set()
                if asked.leaves == "when sent to":
                    raise ClientLeftError
                seen.body += message.get("body", b"")
                seen.ended = not message.get("more_body", False)

        try:
            await self.app(self._scope(asked), receive, send)
        except Exception as exc:
            seen.error = exc
        return seen

    @staticmethod
    def _scope(asked):
        path, _, query = asked.target.partition("?")
        return {
            "type": "http",
            "http_version": asked.version,
            "method": asked.method,
            "path": unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "headers": [(b"host", b"h.example"), *asked.headers, *asked.framing],
            "scheme": asked.scheme,
            "client": (asked.peer, 5),
        }

    def pools(self):
        """Return the pools to every upstream, that of the first route first."""
        return [p for u in _upstreams(self.app) for p in self.app.engine.async_pools(u, self.loop)]

    @property
    def pool(self):
        return self.pools()[0]

    def do(self, job):
        """Run a coroutine function in the app's loop."""
        return asyncio.run_coroutine_threadsafe(job(), self.loop).result(PATIENCE)

    def close(self):
        if self.loop.is_closed():
            return

        async def end():
            await self.app.engine.aclose(self.loop)
            return asyncio.all_tasks() - {asyncio.current_task()}

        left = self.do(end)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        assert not left, "a task was left behind"


class _Input:
    """`wsgi.input` over pieces; a read returns at most one of them, as a socket would."""

    def __init__(self, pieces):
        self._pieces = deque(pieces)
        self._rest = b""

    def read(self, size=-1):
        while not self._rest:
            if not self._pieces:
                return b""
            piece = self._pieces.popleft()
            if piece is GONE:
                raise ConnectionResetError("the client left")
            self._rest = piece() if callable(piece) else piece
        data = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(data) :]
        return data


class Wsgi:
    """A strangled WSGI app, each request in a thread."""

    name = "wsgi"

    def __init__(self, routes, *, legacy=None, **settings):
        self.legacy = []
        self.answer = []  # headers that the wrapped app answers with
        self.app = strangle(legacy or self._legacy, routes, **settings)
        self._threads = ThreadPoolExecutor(32)

    def _legacy(self, environ, start_response):
        self.legacy.append(environ)
        start_response("299 Legacy", [(n.decode("latin-1"), v.decode("latin-1")) for n, v in self.answer])
        return [b"legacy"]

    def start(self, target="/m/x", **more):
        return self._threads.submit(self._ask, Asked.make(target, **more))

    def ask(self, target="/m/x", **more):
        return self.start(target, **more).result(PATIENCE)

    def _ask(self, asked):
        seen, result = Seen(), ()

        def start_response(status, headers, exc_info=None):
            seen.status = int(status.split(" ")[0])
            seen.headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers]

        try:
            result = self.app(self._environ(asked), start_response)
            for chunk in result:
                seen.body += chunk
                if asked.leaves:
                    return seen  # servers then close what they did not exhaust (PEP 3333)
            seen.ended = True
        except Exception as exc:
            seen.error = exc
        finally:
            if hasattr(result, "close"):
                result.close()
        return seen

    @staticmethod
    def _environ(asked):
        path, _, query = asked.target.partition("?")
        environ = {
            "REQUEST_METHOD": asked.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "RAW_URI": asked.target,
            "QUERY_STRING": query,
            "SERVER_PROTOCOL": f"HTTP/{asked.version}",
            "REMOTE_ADDR": asked.peer,
            "wsgi.url_scheme": asked.scheme,
            "wsgi.input": _Input(asked.body),
        }
        for name, value in [(b"host", b"h.example"), *asked.headers, *asked.framing]:
            key = name.decode("latin-1").upper().replace("-", "_")
            key = key if key in ("CONTENT_LENGTH", "CONTENT_TYPE") else "HTTP_" + key
            text = value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
        if "HTTP_TRANSFER_ENCODING" in environ:
            environ["wsgi.input_terminated"] = True
        return environ

    def pools(self):
        return [p for u in _upstreams(self.app) for p in self.app.engine.blocking_pools(u)]

    @property
    def pool(self):
        return self.pools()[0]

    def close(self):
        self._threads.shutdown()
        self.app.engine.close()


SIDES = {"asgi": Asgi, "wsgi": Wsgi}


def _upstreams(app):
    """Return the upstreams of all routes, in their order."""
    routes = sorted(app.engine.snapshot.table.routes, key=lambda route: route.index)
    found = [u for r in routes for u in getattr(r.action, "upstreams", ())]
    return list(dict.fromkeys(found))


def address(server):
    """Return the URL of a scripted upstream."""
    endpoint = server.endpoint
    return f"{endpoint.scheme}://{endpoint.host}:{endpoint.port}"
