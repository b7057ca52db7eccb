"""Apps in this process, and what calls them: one app that tells what it sees, strangled and bare, for real servers.

`asgi` and `wsgi` forward `/asgi/*` and `/wsgi/*` to apps of this module, or, asked with `X-By: http`, to the same apps
behind servers of their own, whose addresses are in the environment. Under `STRANGLE_TEST_BARE` they are those apps.
"""

import asyncio
import hashlib
import json
import os

from strangle_mw import Breaker, Route, Upstream, strangle

NEVER = Breaker(failures=0, ratio=0)
TOLD = []
"""What has happened to apps, for tests in this process."""
WSGI_KEYS = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_METHOD", "RAW_URI", "CONTENT_TYPE", "CONTENT_LENGTH")  # fmt: skip


def _digest(body):
    return {"length": len(body), "sha256": hashlib.sha256(body).hexdigest()}


async def tell_asgi(scope, receive, send):
    """Tell the request in JSON; `/x/...` does what it is called."""
    if scope["type"] == "lifespan":
        await _live(scope, receive, send)
        return
    name = scope["path"].rpartition("/")[2]
    if scope["type"] == "websocket":
        await _talk(name, receive, send)
        return
    if name in ACTS:
        await ACTS[name](scope, receive, send)
        return
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message.get("body", b""), message.get("more_body", False)
    told = {
        "keys": sorted(scope),
        "method": scope["method"],
        "path": scope["path"],
        "raw": scope["raw_path"].decode("latin-1"),
        "root": scope.get("root_path", ""),
        "query": scope["query_string"].decode("latin-1"),
        "headers": sorted([n.decode("latin-1"), v.decode("latin-1")] for n, v in scope["headers"]),
        "state": scope.get("state"),
        **_digest(body),
    }
    text = json.dumps(told).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})


async def _talk(name, receive, send):
    """Send back what comes, until told to close."""
    if name == "raise":
        raise ZeroDivisionError
    await receive()
    if name == "deny":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept", "subprotocol": "v1", "headers": [(b"x-app", b"1")]})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text") or ""
        if text.startswith("close "):
            await send({"type": "websocket.close", "code": int(text[6:])})
            return
        kind = "text" if message.get("text") is not None else "bytes"
        await send({"type": "websocket.send", kind: message[kind]})


async def _live(scope, receive, send):
    while True:
        kind = (await receive())["type"]
        TOLD.append(kind)
        scope["state"]["started"] = "yes"
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


async def _begin(send, *headers):
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})


async def late(scope, receive, send):
    await _begin(send, (b"content-length", b"10"))
    raise ZeroDivisionError


async def late_chunked(scope, receive, send):
    await _begin(send)
    raise ZeroDivisionError


async def short(scope, receive, send):
    await _begin(send, (b"content-length", b"10"))
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unended(scope, receive, send):
    await _begin(send)


async def events(scope, receive, send):
    """One event, and then nothing until the client leaves."""
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    finally:
        TOLD.append("left")


async def left(scope, receive, send):
    """Tell how many have left."""
    text = str(TOLD.count("left")).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]}
    )
    await send({"type": "http.response.body", "body": text})


ACTS = {f.__name__.replace("_", "-"): f for f in (late, late_chunked, short, unended, events, left)}


def tell_wsgi(environ, start_response):
    """Tell the request in JSON."""
    name = environ["PATH_INFO"].rpartition("/")[2]
    if name in WSGI_ACTS:
        return WSGI_ACTS[name](environ, start_response)
    body = environ["wsgi.input"].read() if environ.get("wsgi.input_terminated") else _exactly(environ)
    seen = {k: v for k, v in environ.items() if k in WSGI_KEYS or k.startswith("HTTP_")}
    ours = sorted(k for k in environ if k.startswith(("werkzeug.", "strangle.", "gunicorn.")))
    text = json.dumps({"environ": seen, "foreign": ours, **_digest(body)}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else text]


def _exactly(environ):
    return environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def wsgi_late(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    yield b"begun"
    raise ZeroDivisionError


def wsgi_late_chunked(environ, start_response):
    start_response("200 OK", [])
    yield b"begun"
    raise ZeroDivisionError


def wsgi_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    yield b"begun"


WSGI_ACTS = {"late": wsgi_late, "late-chunked": wsgi_late_chunked, "short": wsgi_short}


async def legacy_asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await _live(scope, receive, send)
        return
    await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 299, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"legacy"})


def legacy_wsgi(environ, start_response):
    start_response("299 Legacy", [("Content-Length", "6")])
    return [b"legacy"]


def routes():
    """Each app in this process, or asked with `X-By: http` behind its own server, under the same kinds of routes."""
    found = []
    for kind, app in (("asgi", tell_asgi), ("wsgi", tell_wsgi)):
        ways = [({}, Upstream(**{kind: app}, breaker=NEVER))]
        if address := os.environ.get(f"STRANGLE_TEST_{kind.upper()}"):
            ways.append(({"X-By": "http"}, Upstream(url=address, host="preserve", breaker=NEVER)))
        for headers, to in ways:
            more = {"to": to, "headers": headers}
            found += [
                Route(f"/{kind}/plain/*", encoded_slash=True, **more),
                Route(f"/{kind}/strip/*", strip_prefix=f"/{kind}/strip", encoded_slash=True, **more),
                Route(f"/{kind}/re/{{id}}", rewrite="/new/{id}/x", **more),
            ]
    return found


if os.environ.get("STRANGLE_TEST_BARE"):
    asgi, wsgi = tell_asgi, tell_wsgi
else:
    asgi = strangle(legacy_asgi, routes())
    wsgi = strangle(legacy_wsgi, routes())
