"""A server by hand: one ASGI call with what it receives and all that it sends, and WSGI apps for it."""

import asyncio
import threading
from contextlib import suppress

PATIENCE = 20.0

SCOPE = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/a",
    "raw_path": b"/a",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"h.example")],
    "client": ("192.0.2.1", 4321),
    "server": ("192.0.2.2", 8080),
}
LEAVES = {"type": "http.disconnect"}


def scope(*headers, **changes):
    return {**SCOPE, "headers": [*SCOPE["headers"], *headers], **changes}


def body(*chunks, whole=True):
    """Messages of a request body; unless `whole`, more is announced than comes."""
    last = len(chunks) - 1
    return [
        {"type": "http.request", "body": c, "more_body": i < last or not whole} for i, c in enumerate(chunks)
    ] or [{"type": "http.request", "body": b"", "more_body": not whole}]


class Exchange:
    """The server's side of a call; it answers `messages`, one for each time it is asked, and then nothing more.

    `sent` is what came back. `fails` may raise in place of taking a message; `taking` may wait before one is taken.
    """

    def __init__(self, *messages, fails=None, taking=None):
        self.messages = [*messages]
        self.sent = []
        self.asked = 0
        self.receiving = 0
        self.fails = fails
        self.taking = taking
        self.more = asyncio.Event()

    def arrive(self, *messages):
        self.messages += messages
        self.more.set()

    async def receive(self):
        self.asked += 1
        self.receiving += 1
        assert self.receiving == 1, "two receives at a time"
        try:
            while not self.messages:
                self.more.clear()
                await self.more.wait()
            return self.messages.pop(0)
        finally:
            self.receiving -= 1

    async def send(self, message):
        if self.fails is not None:
            self.fails(message)
        if self.taking is not None:
            await self.taking()
        self.sent.append(message)

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def headers(self):
        return self.sent[0]["headers"]

    @property
    def body(self):
        return b"".join(m["body"] for m in self.sent[1:])

    @property
    def ended(self):
        return bool(self.sent) and self.sent[-1].get("more_body") is False


def call(app, exchange=None, scope=SCOPE):
    """Run one call to its end; returns the exchange, raises what the app raises."""

    async def main():
        found = exchange() if callable(exchange) else exchange or Exchange(*body())
        try:
            await asyncio.wait_for(app(scope, found.receive, found.send), PATIENCE)
        finally:
            await app.aclose()
        return found

    return asyncio.run(main())


async def until(condition):
    """Wait on the loop until something is so that another thread brings about."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the other thread knows no event of this loop
            await asyncio.sleep(0.001)


async def end(task):
    """Cancel a task and see it end."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class Closing:
    """An iterable of chunks that notes the threads in which it is closed; a chunk may be an exception, or a call."""

    def __init__(self, *chunks):
        self.chunks = iter(chunks)
        self.closed = []

    def __iter__(self):
        return self

    def __next__(self):
        chunk = next(self.chunks)
        if callable(chunk):
            chunk = chunk()
        if isinstance(chunk, BaseException):
            raise chunk
        return chunk

    def close(self):
        self.closed.append(threading.current_thread().name)


def answering(result, status="200 OK", headers=()):
    """Make an app that answers this; `result` may be a call."""

    def app(environ, start_response):
        start_response(status, [*headers])
        return result(environ) if callable(result) else result

    return app
