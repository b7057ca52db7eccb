"""A WSGI monolith behind `strangle(..., serve="asgi")`, and bare for a WSGI server.

`STRANGLE_TEST_UPSTREAM` is where its routes lead. `/hold` keeps a thread until the test lets go.
"""

import hashlib
import json
import os
import threading

from strangle_mw import Breaker, Route, Upstream, strangle

THREADS = 3
release = threading.Event()
SERVERS_OWN = ("HTTP_TRANSFER_ENCODING", "HTTP_EXPECT")


def wsgi(environ, start_response):
    """Tell what was received; some paths do what they are called."""
    path = environ["PATH_INFO"]
    if path == "/hold":
        assert release.wait(20)
    if path == "/raise":
        raise ZeroDivisionError
    if path == "/pieces":
        start_response("200 OK", [("X-A", "1")])
        return (b"%d," % n for n in range(1000))
    if path == "/late":
        start_response("200 OK", [("Content-Length", "6")])
        return late()
    if path == "/empty":
        start_response("204 No Content", [("X-A", "1")])
        return []
    return tell(environ, start_response)


def late():
    yield b"abc"
    raise ZeroDivisionError


def tell(environ, start_response):
    body = environ["wsgi.input"].read()
    keep = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL", "strangle.fallback", "CONTENT_TYPE", "CONTENT_LENGTH", "wsgi.url_scheme", "wsgi.input_terminated", "REMOTE_ADDR", "SERVER_NAME")  # fmt: skip
    found = {k: v for k, v in environ.items() if k in keep or k.startswith("HTTP_")}
    text = json.dumps(
        {"from": "legacy", "environ": found, "length": len(body), "sha256": hashlib.sha256(body).hexdigest()},
        sort_keys=True,
    ).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(text)))]
    start_response("200 OK", [*headers, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Caf\x65", "\xe9")])
    return [text]


def routes(address, sockets):
    never = Breaker(failures=0, ratio=0)
    modern = Upstream(url=address, max_in_flight=1000, connect_timeout=20, timeout=20, idle_timeout=20)
    return [
        Route("/m/*", to=modern),
        Route("/live/*", to=Upstream(url=sockets, max_in_flight=1000)),
        Route("/fallen/*", to=Upstream(url="http://127.0.0.1:1", breaker=never)),
        Route("/canary/*", to=modern, stage="canary", weight=50, sticky=["query:u", "cookie"]),
    ]


address = os.environ.get("STRANGLE_TEST_UPSTREAM")
if address:
    sockets = os.environ.get("STRANGLE_TEST_SOCKETS", address)
    strangled = strangle(wsgi, routes(address, sockets), serve="asgi", threads=THREADS)

    async def asgi(scope, receive, send):
        """Let go of what is held, without a thread; all else is the strangled app's."""
        if scope.get("path") != "/release":
            await strangled(scope, receive, send)
            return
        release.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
