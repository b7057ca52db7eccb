"""The app of the live tests: says who it is; its table and store come from the environment."""

import os

from strangle_mw import live, strangle

TABLE = os.environ["LIVE_TABLE"]
STORE = os.environ.get("LIVE_STORE") or None
if "LIVE_FAST" in os.environ:
    live.INTERVAL = 0.01  # 200 reloads need not take 200 seconds


async def asgi_app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            event = await receive()
            await send({"type": f"{event['type']}.complete"})
            if event["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"legacy %d" % os.getpid()})


def wsgi_app(environ, start_response):
    body = b"legacy %d" % os.getpid()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def __getattr__(name):
    """Make only the one that the server asks for: each follows the store on its own."""
    if name not in ("asgi", "wsgi"):
        raise AttributeError(name)
    app = strangle(asgi_app if name == "asgi" else wsgi_app, TABLE, store=STORE)
    globals()[name] = app
    return app
