"""A WSGI app, and beside it ASGI apps in the same process: what a Flask monolith with FastAPI parts looks like.

The lifespan notes itself in the folder `STRANGLE_TEST_NOTES`, one file for each start and end of a process.
"""

import asyncio
import hashlib
import os
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route as On

from strangle_mw import Route, Upstream, strangle


def note(what):
    folder = os.environ.get("STRANGLE_TEST_NOTES")
    if folder:
        Path(folder, f"{what}-{os.getpid()}").touch(exist_ok=False)


@asynccontextmanager
async def lifespan(_):
    note("start")
    yield {"pid": os.getpid()}
    note("end")


async def state(request):
    return JSONResponse({"state": request.state.pid, "pid": os.getpid(), "path": request.url.path})


async def upload(request):
    digest, pieces = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        pieces += bool(piece)
    return JSONResponse({"sha256": digest.hexdigest(), "pieces": pieces})


gates = {}


async def events(request):
    """Send an event, and the next one when `/m/next` has been asked for."""
    name = request.query_params["name"]
    gate = gates[name] = asyncio.Event()

    async def made():
        yield b"data: 0\n\n"
        await gate.wait()
        yield b"data: 1\n\n"

    return StreamingResponse(made(), media_type="text/event-stream")


async def next_event(request):
    gate = gates.get(request.query_params["name"])
    if gate is not None:
        gate.set()
    return PlainTextResponse(str(gate is not None))


def plain(_):
    """Answer on a thread, as Starlette's functions without `async` do."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return PlainTextResponse("no loop")
    return PlainTextResponse("a loop")


async def raises(_):
    raise ValueError("no")


modern = Starlette(
    routes=[
        On("/m/state", state),
        On("/m/upload", upload, methods=["POST"]),
        On("/m/events", events),
        On("/m/next", next_event),
        On("/m/plain", plain),
        On("/m/raises", raises),
    ],
    lifespan=lifespan,
)


async def broken(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        return
    raise AssertionError("called, although it has not started")


def legacy(environ, start_response):
    start_response("200 OK", [("Content-Length", "6")])
    return [b"legacy"]


wsgi = strangle(
    legacy,
    [
        Route("/m/*", to="asgi:drivers.asgi_under_wsgi:modern"),
        Route("/broken/*", to=Upstream(asgi=broken), fallback="auto"),
    ],
)
