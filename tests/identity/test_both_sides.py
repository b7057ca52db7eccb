"""A monolith and a service over sockets: what one mints the other believes, whatever the route makes of a path."""

import json
import threading
from contextlib import ExitStack, contextmanager

import pytest
from flask import Flask, g, request
from werkzeug.serving import make_server

from identity.tokens import EC, EC_NEXT, SECRET
from servers import request as raw
from servers import talk
from strangle_mw import Identity, IdentityTokens, Route, SigningKey, strangle
from strangle_mw.identity import Verifier
from strangle_mw.identity.flask import guard

JWKS = "/.well-known/jwks.json"


@contextmanager
def serving(app):
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def service():
    app = Flask("orders")

    @app.route("/<path:path>", methods=["GET", "POST"])
    def view(path):
        user = g.strangle_identity
        return {
            "user": user and [user.subject, user.claims["roles"]],
            "path": path,
            "cookies": request.cookies,
        }

    return app


def monolith(port, identity):
    def identify(head):
        name = head.cookies.get("sessionid")
        return Identity(name, {"roles": ["staff"]}) if name else None

    def legacy(_environ, start_response):
        start_response("404 Not Found", [])
        return []

    routes = {
        "upstreams": {"orders": {"url": f"http://127.0.0.1:{port}/base"}},
        "routes": [
            Route("/as-is/*", to="orders", identity=True),
            Route("/cut/*", to="orders", strip_prefix="/cut", identity=True),
            Route("/old/{id}", to="orders", rewrite="/new/{id}", identity=True, encoded_slash=True),
        ],
    }
    return strangle(legacy, routes, identify=identify, identity=identity)


@pytest.fixture(scope="module", params=["HS256", "ES256"])
def port(request):
    """The monolith's port: a secret for the service, or keys that it fetches from the monolith."""
    with ExitStack() as stack:
        app = service()
        there = stack.enter_context(serving(app))
        if request.param == "HS256":
            tokens = IdentityTokens(secrets={"orders": SECRET})
        else:
            keys = [SigningKey(id="now", pem=EC), SigningKey(id="next", pem=EC_NEXT)]
            tokens = IdentityTokens(algorithm="ES256", keys=keys, jwks_path=JWKS)
        strangled = monolith(there, tokens)
        here = stack.enter_context(serving(strangled))
        stack.callback(strangled.engine.close)
        where = (
            {"secrets": SECRET}
            if request.param == "HS256"
            else {"jwks_url": f"http://127.0.0.1:{here}{JWKS}"}
        )
        guard(app, Verifier("orders", **where))
        yield here


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/as-is/x?a=%2F&b", "base/as-is/x"),
        ("/as-is/%C3%A9%20b", "base/as-is/é b"),
        ("/cut/x?", "base/x"),
        ("/cut/a%25b", "base/a%b"),
        ("/old/a%2Fb?q", "base/new/a/b"),
    ],
)
def test_the_service_knows_who_asks(port, target, path):
    found = talk(port, raw("GET", target, [("Cookie", "sessionid=zoe; theme=dark")])).json()
    assert found == {"user": ["zoe", ["staff"]], "path": path, "cookies": {"theme": "dark"}}


def test_nobody_is_nobody_whatever_they_send(port):
    forged = [("Strangle-Identity", "x"), ("Strangle_Identity", "y")]
    assert talk(port, raw("GET", "/as-is/x", forged)).json()["user"] is None


def test_a_page_of_another_site_may_not_act_for_the_user(port):
    headers = [("Cookie", "sessionid=zoe"), ("Origin", "https://evil.example"), ("Content-Length", "0")]
    assert talk(port, raw("POST", "/as-is/x", headers)).status == 403
    assert talk(port, raw("POST", "/as-is/x", [*headers[:1], *headers[2:]])).json()["user"] == [
        "zoe",
        ["staff"],
    ]


def test_public_keys_are_published_and_nothing_else(port, request):
    answer = talk(port, raw("GET", JWKS))
    if request.node.callspec.params["port"] == "HS256":
        assert answer.status == 404  # legacy's: there is no such route
        return
    assert answer.header("content-type") == "application/jwk-set+json"
    assert [k["kid"] for k in json.loads(answer.body)["keys"]] == ["now", "next"]
    assert b'"d"' not in answer.body
