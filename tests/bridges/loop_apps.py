"""ASGI apps for the loop's thread, by what they do, and a WSGI-like caller."""

import asyncio
import os
import time

SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": []}
PATIENCE = 20.0


def start(status=200, *headers):
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data=b"", more=False):
    return {"type": "http.response.body", "body": data, "more_body": more}


def saying(*messages):
    """An app that sends these, and raises those that are exceptions."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        for message in messages:
            if isinstance(message, BaseException):
                raise message
            await send(message)

    return app


async def read_body(receive):
    data, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left")
        data, more = data + message["body"], message["more_body"]
    return data


async def echo(scope, receive, send):
    """Answer with the body of the request."""
    if scope["type"] == "lifespan":
        return
    data = await read_body(receive)
    await send(start(200, (b"content-length", b"%d" % len(data))))
    await send(body(data))


async def pipe(scope, receive, send):
    """Answer each chunk of the request with the same chunk."""
    if scope["type"] == "lifespan":
        return
    await send(start())
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send(body(message.get("body", b""), more))


class Lived:
    """An app that notes how it starts and ends; `failing` starts fail at first."""

    def __init__(self, failing=0, inner=echo):
        self.notes = []
        self.failing = failing
        self.inner = inner

    async def __call__(self, scope, receive, send):
        if scope["type"] != "lifespan":
            await self.inner(scope, receive, send)
            return
        assert (await receive())["type"] == "lifespan.startup"
        self.notes.append("start")
        if self.failing:
            self.failing -= 1
            await send(
                {"type": "lifespan.startup.failed", "message": "Traceback ...\nOSError: no database\n"}
            )
            raise OSError("no database")
        scope["state"]["pid"] = os.getpid()
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        self.notes.append("end")
        await send({"type": "lifespan.shutdown.complete"})


def read_all(answer):
    """Read an answer to its end, and close it."""
    try:
        data = answer.take()
        while more := answer.read():
            data += more
        return data
    finally:
        answer.close()


def until(condition, what=""):
    """Wait until something is so, which no passing test waits for long."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what or condition
        time.sleep(0.002)


async def forever():
    await asyncio.get_running_loop().create_future()
