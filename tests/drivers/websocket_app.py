"""The app that the WebSocket tests serve: legacy answers for itself, some routes go upstream.

`STRANGLE_TEST_UPSTREAM` and `STRANGLE_TEST_RAW` are the addresses of the two upstreams.
"""

import json
import os

from strangle_mw import Breaker, HeaderRules, IdentityTokens, Redirect, Respond, Route, Upstream, strangle

SECRET = "o" * 32
"""What tokens for the upstream `orders` are signed with; `X-User` says who asks."""


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
        told = {"from": "legacy", "path": scope["path"]}
        told |= {"fallback": scope["strangle.fallback"]} if "strangle.fallback" in scope else {}
        await send({"type": "websocket.send", "text": json.dumps(told)})
        while scope["query_string"] == b"echo" and (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
        await send({"type": "websocket.close", "code": 1000})


def routes(address, raw):
    never = Breaker(failures=0, ratio=0)  # many tests fail on purpose, one after the other
    return [
        Route("/m/*", to=address),
        Route("/raw/*", to=Upstream(url=raw, timeout=2.0, breaker=never)),
        Route("/quick/*", to=Upstream(url=raw, timeout=0.3, breaker=never)),
        Route("/base/*", to=f"{address}/below", strip_prefix="/base"),
        Route("/preserve", to=Upstream(url=address, host="preserve")),
        Route("/one/*", to=Upstream(url=address, max_in_flight=1, pool_timeout=0.0), fallback="off"),
        Route("/rules", to=address, request_headers=HeaderRules(set={"X-Team": "t"}, remove=["Cookie"])),
        Route("/dead/*", to=Upstream(url="http://127.0.0.1:1", breaker=never), fallback="off"),
        Route("/over/*", to=Upstream(urls=["http://127.0.0.1:1", address])),
        Route("/fallen/*", to=Upstream(url="http://127.0.0.1:1", breaker=never)),
        Route("/auto/*", to=Upstream(url=raw, timeout=0.4, breaker=never), fallback="auto"),
        Route(
            "/canary/*", to=address, stage="canary", weight=50, group="checkout", sticky=["query:u", "cookie"]
        ),
        Route("/none/*", to=address, stage="canary", weight=0),
        Route("/all/*", to=address, stage="canary", weight=100),
        Route("/lost/*", to=Upstream(url="http://127.0.0.1:1", breaker=never), stage="canary", weight=100),
        Route("/retired/*", to="http://127.0.0.1:1", stage="retired"),
        Route("/gone", respond=Respond(status=410, body="gone")),
        Route("/old/*", redirect=Redirect(to="/new/{*}")),
        Route("/who/*", to="orders", identity=True),
    ]


if "STRANGLE_TEST_RAW" in os.environ:
    address = os.environ["STRANGLE_TEST_UPSTREAM"]
    asgi = strangle(
        legacy,
        {
            "upstreams": {"orders": {"url": address}},
            "routes": routes(address, os.environ["STRANGLE_TEST_RAW"]),
        },
        identify=lambda head: head.header("x-user"),
        identity=IdentityTokens(secrets={"orders": SECRET}),
    )
