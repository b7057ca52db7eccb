"""The public interface as a type checker sees it; checked by mypy, never run."""

from __future__ import annotations

from typing import Any, assert_type

from strangle_mw import (
    Breaker,
    Condition,
    HeaderRules,
    Health,
    HttpxUpstream,
    Pin,
    Redirect,
    RequestHead,
    Respond,
    Route,
    Shadow,
    Split,
    Stage,
    Upstream,
    strangle,
)
from strangle_mw.asgi import ASGIStrangler
from strangle_mw.wsgi import WSGIStrangler


def is_staff(head: RequestHead) -> bool:
    assert_type(head.header("X-Staff"), str | None)
    return head.header("X-Staff") == "1"


async def app(scope: Any, receive: Any, send: Any) -> None: ...


routes = [
    Route("GET /a", to="http://a"),
    Route("/b/{id:int}", to=[Split(upstream="http://b", weight=1)], rewrite="/c/{id}", timeout=1.5),
    Route(path="/d/*", methods=["GET"], hosts=["*.example"], to=Upstream(url="http://d", verify=False)),
    Route(regex="/e+", to="http://e", headers={"X": Condition(prefix="1")}, query={"q": "1"}, when=is_staff),
    Route("/f", redirect=Redirect(to="/g", status=301)),
    Route("/g", respond=Respond(status=410)),
    Route("/i", to=HttpxUpstream(object(), url="http://i", timeout=3)),
    Route("/j", to="http://j", stage="canary", weight=5, sticky=["user", "cookie"], fallback="auto"),
    Route("/k", to=Upstream(url="http://k", breaker=Breaker(failures=3), health=Health(path="/healthz"))),
    Route("/l", to="http://l", stage=Stage.SHADOW, shadow=Shadow(sample=10.0)),
    Route("/h", to="http://h", request_headers=HeaderRules(set={"A": "1"}, remove=["B"])),
]
assert_type(strangle(app, routes), ASGIStrangler | WSGIStrangler)
strangle(app, "strangle.toml", interface="asgi", trusted_proxies=["10.0.0.0/8"], max_body=1)
strangle(app, routes, store="memory:", identify=lambda head: head.header("X-User"), pin=Pin(secret="x" * 16))
strangle(app, {"routes": [{"path": "/a", "to": "http://a"}]})
