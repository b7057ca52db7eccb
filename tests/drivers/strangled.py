"""The apps that the driver tests serve: legacy apps that say what they received, bare or strangled.

`STRANGLE_TEST_UPSTREAM` is the echo's address; without it the apps are bare. Asked for `?watch`, the ASGI app
answers, and then waits until its client has left; `left` tells how many have.
"""

import hashlib
import json
import os

from strangle_mw import Breaker, HeaderRules, IdentityTokens, Redirect, Respond, Route, Upstream, strangle

SECRET = "o" * 32
"""What tokens for the upstream `orders` are signed with; `X-User` says who asks."""
left = []


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message.get("body", b""), message.get("more_body", False)
    text = json.dumps(
        {
            "from": "legacy",
            "method": scope["method"],
            "raw": (scope.get("raw_path") or b"").decode("latin-1"),
            "path": scope["path"],
            "query": scope["query_string"].decode("latin-1"),
            "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in scope["headers"]],
            **_body(body, scope),
            "left": len(left),
        }
    ).encode()
    if scope["query_string"] == b"watch":
        await _watch(text, receive, send)
        return
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(text)),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})


async def _watch(text, receive, send):
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text, "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass
    left.append(True)


def _body(body, source):
    """Tell a body, and the mark of a fallback if there is one."""
    fallback = {"fallback": source["strangle.fallback"]} if "strangle.fallback" in source else {}
    return {"length": len(body), "sha256": hashlib.sha256(body).hexdigest(), **fallback}


def wsgi(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = (
        environ["wsgi.input"].read()
        if environ.get("wsgi.input_terminated")
        else environ["wsgi.input"].read(length)
    )
    keep = (
        "SCRIPT_NAME",
        "PATH_INFO",
        "QUERY_STRING",
        "REQUEST_METHOD",
        "RAW_URI",
        "REQUEST_URI",
        "CONTENT_TYPE",
        "CONTENT_LENGTH",
    )
    text = json.dumps(
        {
            "from": "legacy",
            "environ": {k: v for k, v in environ.items() if k.startswith("HTTP_") or k in keep},
            **_body(body, environ),
        }
    ).encode()
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(text))),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
    ]
    start_response("200 OK", headers)
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else text]


def routes(address):
    never = Breaker(failures=0, ratio=0)  # many tests fail on purpose, one after the other
    quick = Upstream(url=address, timeout=0.3, idle_timeout=0.4, max_in_flight=32, breaker=never)
    dead = Upstream(url="http://127.0.0.1:1", breaker=never)
    return [
        Route("/m/*", to=address),
        Route("GET /only-get", to=address),
        Route("/api/*", to=address, strip_prefix="/api"),
        Route("/re/{id}", to=address, rewrite="/new/{id}/x"),
        Route("/rules", to=address, request_headers=HeaderRules(set={"X-Team": "t"}, remove=["Cookie"])),
        Route(
            "/rules/cookies",
            to=address,
            response_headers=HeaderRules(set={"X-Made": "1"}, remove=["X-Empty"]),
        ),
        Route("/quick/*", to=quick),
        Route("/dead/*", to=dead, fallback="off"),
        Route("/fallen/*", to=dead),
        Route("/slow/*", to=Upstream(url=address, timeout=0.35, breaker=never), fallback="auto"),
        Route(
            "/canary/*", to=address, stage="canary", weight=50, group="checkout", sticky=["query:u", "cookie"]
        ),
        Route("/shadow/*", to=address, stage="shadow"),
        Route("/retired/*", to=dead, stage="retired"),
        Route("/loop/*", to=address),
        Route("/gone", respond=Respond(status=410, body="gone")),
        Route("/old/*", redirect=Redirect(to="/new/{*}")),
        Route("/hosted", hosts=["m.example"], to=address),
        Route("/beta", headers={"X-Beta": "1"}, to=address),
        Route("/preserve", to=Upstream(url=address, host="preserve")),
        Route("/who/*", to="orders", identity=True),
    ]


def strangled(app, address):
    """Strangle an app of either kind, with the upstream at this address."""
    return strangle(
        app,
        {"upstreams": {"orders": Upstream(url=address)}, "routes": routes(address)},
        max_body=10_000_000,
        identify=lambda head: head.header("x-user"),
        identity=IdentityTokens(secrets={"orders": SECRET}),
        allow_headers=["strangle_identity", "strangle.identity"],
    )


address = os.environ.get("STRANGLE_TEST_UPSTREAM")
if address:
    asgi = strangled(asgi, address)  # type: ignore[assignment]
    wsgi = strangled(wsgi, address)  # type: ignore[assignment]
