"""Servers in threads of the test process, whose app can be exchanged: what a client reads is read from the wire.

One server of a kind serves a whole module of tests; each test mounts its own app. No table of faults here.
"""

import asyncio
import functools
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress

import cheroot.wsgi
import uvicorn
import waitress.server
from waitress import wasyncore

from servers import DEADLINE, read_reply, talk
from strangle_mw import strangle


def until(condition, why="nothing happened"):
    """Wait for what another thread does; a test that passes never sees the deadline."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, why
        os.sched_yield()


class Front:
    """A server of one kind; `mount` says for which app. `legacy_calls` counts the wrapped app's requests."""

    kind = ""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.legacy_calls = 0
        self.app = None
        self._busy = 0
        self._lock = threading.Lock()

    @contextmanager
    def strangled(self, routes, **settings):
        """Serve the legacy app, strangled; yields the front, and closes all pools in the end."""
        app = strangle(self.legacy, routes, **settings)
        with self.mounted(app, app):
            yield self

    @contextmanager
    def mounted(self, app, strangled):
        """Serve any app of this front's interface; `strangled` is the one inside it, whose pools are closed."""
        self.app, self.legacy_calls = app, 0
        try:
            yield self
        finally:
            self.settle()
            self.close_pools(strangled)
            self.app = None

    def settle(self):
        """Wait until no request is being worked on: the client may be faster than the clean-up."""
        until(lambda: self._busy == 0, "a request does not end")

    def ask(self, request, **options):
        """Send bytes, read one answer, and let the server finish."""
        reply = talk(self.port, request, **options)
        self.settle()
        return reply

    def count(self, step):
        with self._lock:
            self._busy += step

    def close_pools(self, app): ...


class AsgiFront(Front):
    """uvicorn on an event loop in a thread."""

    kind = "asgi"

    def __init__(self, **options):
        super().__init__()
        self.loop = None
        config = uvicorn.Config(
            self._call,
            **{"http": "httptools", "ws": "none", **options},
            interface="asgi3",
            loop="asyncio",
            lifespan="off",
            proxy_headers=False,
            log_config=None,
            access_log=False,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()
        until(lambda: self._server.started, "uvicorn does not start")

    async def _call(self, scope, receive, send):
        self.loop = asyncio.get_running_loop()
        self.count(1)
        try:
            await self.app(scope, receive, send)
        finally:
            self.count(-1)

    async def legacy(self, scope, receive, send):
        self.legacy_calls += 1
        await send({"type": "http.response.start", "status": 299, "headers": [(b"content-length", b"6")]})
        await send({"type": "http.response.body", "body": b"legacy"})

    def close_pools(self, app):
        if self.loop is not None:
            asyncio.run_coroutine_threadsafe(app.engine.aclose(self.loop), self.loop).result(DEADLINE)

    def close(self):
        self._server.should_exit = True
        self._thread.join(DEADLINE)
        self._listener.close()


class _Counted:
    """An app's result that says when it is closed."""

    def __init__(self, result, closed):
        self._result, self._closed = result, closed
        self._iterator = iter(result)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._iterator)

    def close(self):
        try:
            if hasattr(self._result, "close"):
                self._result.close()
        finally:
            closed, self._closed = self._closed, lambda: None
            closed()


class WsgiFront(Front):
    """The WSGI half of a front; how it is served is the subclass's."""

    kind = "wsgi"

    def _call(self, environ, start_response):
        self.count(1)
        try:
            result = self.app(environ, start_response)
        except BaseException:
            self.count(-1)
            raise
        if isinstance(result, list):
            self.count(-1)
            return result
        return _Counted(result, lambda: self.count(-1))

    def legacy(self, environ, start_response):
        self.legacy_calls += 1
        start_response("299 Legacy", [("Content-Length", "6")])
        return [b"legacy"]

    def close_pools(self, app):
        app.engine.close()


class CherootFront(WsgiFront):
    """cheroot: threads, bodies read as they come."""

    def __init__(self):
        super().__init__()
        self._listener.close()
        self._server = cheroot.wsgi.Server(("127.0.0.1", self.port), self._call, numthreads=4)
        self._server.error_log = lambda *_, **__: None  # a cut answer is an exception, which it would print
        self._server.prepare()
        self._thread = threading.Thread(target=self._server.serve)
        self._thread.start()

    def close(self):
        self._server.stop()
        self._thread.join(DEADLINE)


class WaitressFront(WsgiFront):
    """waitress: threads, bodies read before the app is called."""

    def __init__(self):
        super().__init__()
        self._map = {}
        self._server = waitress.server.create_server(
            self._call, map=self._map, sockets=[self._listener], threads=4, expose_tracebacks=False
        )
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()

    def close(self):
        self._server.trigger.pull_trigger(lambda: wasyncore.close_all(self._map))
        self._thread.join(DEADLINE)
        self._server.task_dispatcher.shutdown()


FRONTS = {
    "asgi": AsgiFront,
    "wsgi": CherootFront,
    "asgi-h11": functools.partial(AsgiFront, http="h11"),
    "asgi-ws": functools.partial(AsgiFront, ws="websockets-sansio"),
    "wsgi-waitress": WaitressFront,
}


def upload(front, head, pieces):
    """Send a body while the answer is read, as a client must (RFC 9112 section 9.5); stop at the answer."""
    with socket.create_connection(("127.0.0.1", front.port), DEADLINE) as sock:
        writer = threading.Thread(target=_write, args=(sock, head, pieces))
        writer.start()
        try:
            return read_reply(sock)
        finally:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            writer.join(DEADLINE)
            front.settle()


def _write(sock, head, pieces):
    with suppress(OSError):
        sock.sendall(head)
        for piece in pieces:
            sock.sendall(piece)
