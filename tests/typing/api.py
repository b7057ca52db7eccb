"""The public interface as a type checker sees it; checked by mypy, never run."""

from __future__ import annotations

from typing import Any, assert_type

from strangle_mw import (
    Condition,
    HeaderRules,
    HttpxUpstream,
    Redirect,
    RequestHead,
    Respond,
    Route,
    Split,
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
    Route("/h", to="http://h", request_headers=HeaderRules(set={"A": "1"}, remove=["B"])),
]
assert_type(strangle(app, routes), ASGIStrangler | WSGIStrangler)
strangle(app, "strangle.toml", interface="asgi", trusted_proxies=["10.0.0.0/8"], max_body=1)
strangle(app, {"routes": [{"path": "/a", "to": "http://a"}]})
