"""The app that the WebSocket tests serve: legacy answers for itself, some routes go upstream.

`STRANGLE_TEST_UPSTREAM` and `STRANGLE_TEST_RAW` are the addresses of the two upstreams.
"""

import json
import os

from strangle_mw import HeaderRules, Redirect, Respond, Route, Upstream, strangle


async def legacy(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "http":
        headers = [(b"content-length", b"6"), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"legacy"})
    elif (await receive())["type"] == "websocket.connect":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": json.dumps({"from": "legacy", "path": scope["path"]})})
        await send({"type": "websocket.close", "code": 1000})


def routes(address, raw):
    return [
        Route("/m/*", to=address),
        Route("/raw/*", to=Upstream(url=raw, timeout=2.0)),
        Route("/quick/*", to=Upstream(url=raw, timeout=0.3)),
        Route("/base/*", to=f"{address}/below", strip_prefix="/base"),
        Route("/preserve", to=Upstream(url=address, host="preserve")),
        Route("/one/*", to=Upstream(url=address, max_in_flight=1, pool_timeout=0.0)),
        Route("/rules", to=address, request_headers=HeaderRules(set={"X-Team": "t"}, remove=["Cookie"])),
        Route("/dead/*", to="http://127.0.0.1:1"),
        Route("/over/*", to=Upstream(urls=["http://127.0.0.1:1", address])),
        Route("/gone", respond=Respond(status=410, body="gone")),
        Route("/old/*", redirect=Redirect(to="/new/{*}")),
    ]


if "STRANGLE_TEST_RAW" in os.environ:
    asgi = strangle(legacy, routes(os.environ["STRANGLE_TEST_UPSTREAM"], os.environ["STRANGLE_TEST_RAW"]))
