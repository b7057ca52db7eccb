"""The app that the load goes through: a route in a canary, one that has not moved, and no route at all."""

import os
from pathlib import Path

from chaos.service import Journal
from strangle_mw import Breaker, Route, Upstream, strangle

ROUTE = GROUP = "shop"
WEIGHT = 50
TIMEOUT = 0.5
CONNECT_TIMEOUT = 0.3


def _journal():
    return Journal(Path(os.environ["STRANGLE_TEST_FOLDER"], "legacy"), "legacy")


def _more(source):
    return {"fallback": source.get("strangle.fallback", ""), "pid": os.getpid()}


async def _asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{event}"
            await send({"type": f"lifespan.{event}.complete"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    user = dict(scope["headers"]).get(b"x-user", b"").decode()
    text = _kept.execute(scope["method"], scope["path"], user, body, **_more(scope))
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def _wsgi(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    user = environ.get("HTTP_X_USER", "")
    text = _kept.execute(environ["REQUEST_METHOD"], environ["PATH_INFO"], user, body, **_more(environ))
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]


def _routes():
    modern = Upstream(
        url=os.environ["STRANGLE_TEST_UPSTREAM"],
        timeout=TIMEOUT,
        connect_timeout=CONNECT_TIMEOUT,
        max_in_flight=int(os.environ["STRANGLE_TEST_PLACES"]),
        # For a load of about a hundred requests a second, and faults that last for a second.
        breaker=Breaker(minimum=4, window=2.0, open=0.1),
    )
    return [
        Route("/shop/*", name=ROUTE, to=modern, stage="canary", weight=WEIGHT, group=GROUP, sticky=["header:X-User"]),
        Route("/old/*", name="old", to=modern, stage="legacy"),
    ]  # fmt: skip


if "STRANGLE_TEST_UPSTREAM" in os.environ:
    _kept = _journal()
    _store = os.environ.get("STRANGLE_TEST_STORE")
    asgi = strangle(_asgi, _routes(), store=_store)
    wsgi = strangle(_wsgi, _routes(), store=_store)
