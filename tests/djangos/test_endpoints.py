"""Endpoints that Django answers are counted by its own match, once, in every way."""

from functools import partial

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings

from django_settings import BEFORE, OURS
from djangos.ways import WAYS, DjangoWsgi, project
from strangle_mw import Route
from strangle_mw.django import engine, wrap


@pytest.mark.parametrize("way", WAYS)
def test_each_answer_counts_once(way, echo):
    routes = [
        Route("/m/*", to=echo.address),
        Route("/down/*", to="http://127.0.0.1:1"),
        Route("/who/", to=echo.address, stage="legacy"),
    ]
    with project(way, routes) as app:
        for target in (
            "/shop/hello/",
            "/shop/hello/x/",
            "/shop/hello/y/",
            "/nothing",
            "/broken/",
            "/m/x",
            "/down/x",
            "/who/",
        ):
            app.ask(target)
        app.ask("/upload/", method="POST", length=0)
        assert dict(engine().states.take_endpoints()) == {
            ("GET", "shop/hello/"): 1,
            ("GET", "shop/hello/<str:name>/"): 2,
            ("GET", "broken/"): 1,
            ("GET", "^(?:m|down|canary|told)/.*"): 1,
            ("GET", "who/"): 1,
            ("POST", "upload/"): 1,
        }


def test_with_both_each_answer_counts_once_and_the_middleware_does_not_decide_again(echo):
    middleware = [*BEFORE, OURS]
    routes = [Route("/canary/*", to=echo.address, stage="canary", weight=0.01, name="canary")]
    with project("wsgi wrapped", routes, before=[OURS]) as app:
        seen = app.ask("/canary/x")
        assert dict(engine().states.take_endpoints()) == {("GET", "^(?:m|down|canary|told)/.*"): 1}
        assert {k.route: n for k, n in engine().states.take_counts().items()} == {"canary": 1}
        assert len([c for c in seen.all(b"set-cookie") if b"strangle_id" in c]) == 1
    with override_settings(MIDDLEWARE=middleware, STRANGLE={"ROUTES": []}):
        app = DjangoWsgi(wrap(partial(WSGIHandler())))  # where nobody finds the handler
        app.ask("/shop/hello/")
        app.close()
        assert dict(engine().states.take_endpoints()) == {("GET", "shop/hello/"): 1}
