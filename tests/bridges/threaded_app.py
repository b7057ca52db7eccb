"""A WSGI app on threads, for real servers: it streams both ways, fails, waits, and tells what has become of it."""

import hashlib
import json
import threading
from pathlib import Path

from strangle_mw.bridges.threads import ThreadedWSGI

BLOCK = 65_536
THREADS = 4

told = {"closed": 0, "produced": 0, "uploads": []}
release = threading.Event()
pause = threading.Event()
base = 0


def memory(field):
    """Return a number of /proc/self/status in bytes; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def reset():
    """Forget the largest size so far."""
    global base  # noqa: PLW0603
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")
    base = memory("VmRSS")
    told["produced"] = 0


def state():
    return {**told, "running": app.running, "waiting": app.waiting, "grown": memory("VmHWM") - base}


def upload(environ):
    digest, size, source = hashlib.sha256(), 0, environ["wsgi.input"]
    try:
        while data := source.read(BLOCK):
            digest.update(data)
            size += len(data)
            told["produced"] = size
    except OSError:
        told["uploads"].append("cut")
        raise
    told["uploads"].append("whole")
    return {"size": size, "sha256": digest.hexdigest()}


def hold(environ):
    assert release.wait(20)
    return "held"


def raises(environ):
    raise ZeroDivisionError


def told_environ(environ):
    return {k: v for k, v in environ.items() if isinstance(v, str | bool)}


JSON = {"/upload": upload, "/hold": hold, "/raise": raises}


def events(environ):
    number = 0
    try:
        while True:
            yield b"data: %d\n\n" % number
            number += 1
            pause.wait(0.01)
    finally:
        told["closed"] += 1


def download(environ):
    block = b"x" * BLOCK
    for _ in range(int(environ["QUERY_STRING"]) * 16):
        told["produced"] += BLOCK
        yield block


def late(environ):
    yield b"abc"
    raise ZeroDivisionError


def short(environ):
    yield b"abc"


STREAMS = {
    "/events": (events, [("Content-Type", "text/event-stream")]),
    "/download": (download, []),
    "/late": (late, [("Content-Length", "6")]),
    "/late-chunked": (late, []),
    "/short": (short, [("Content-Length", "6")]),
}


def wsgi(environ, start_response):
    if environ["PATH_INFO"] in STREAMS:
        stream, headers = STREAMS[environ["PATH_INFO"]]
        start_response("200 OK", headers)
        return stream(environ)
    text = json.dumps(JSON.get(environ["PATH_INFO"], told_environ)(environ)).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
    headers += [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Date", "never"), ("Connection", "close")]
    start_response("203 Own Words", headers)
    return [text]


app = ThreadedWSGI(wsgi, THREADS)
LOOP = {"/state": state, "/reset": reset, "/release": release.set}


async def asgi(scope, receive, send):
    """Answer what the tests ask for without a thread, and all else by the WSGI app."""
    answer = LOOP.get(scope.get("path"))
    if answer is None:
        await app(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(answer()).encode()})
