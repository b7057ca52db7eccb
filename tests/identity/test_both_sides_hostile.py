"""Attacks on identity that have once succeeded, each with what it took."""

import json
import os
import threading
import uuid

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.testclient import TestClient
from support import Reader, decide, request

from calls import call
from django_settings import setup
from identity.tokens import ED, ED_NEXT, SECRET
from strangle_mw import ConfigError, HeaderRules, Identity, IdentityTokens, Route, strangle
from strangle_mw.config import load
from strangle_mw.core.answers import public_headers
from strangle_mw.core.decision import Forward, Legacy, Reject, prepare
from strangle_mw.core.identity import HEADER
from strangle_mw.identity import Verifier
from strangle_mw.identity.minting import make_minter
from strangle_mw.inspection import explain
from strangle_mw.starlette import StrangleMiddleware

TOKENS = IdentityTokens(secrets={"orders": SECRET})
ORDERS = Verifier("orders", secrets=SECRET)


def asked(found="7", headers=(), method="GET", tokens=TOKENS, route=(), **settings):
    settings = {"identify": lambda _: found, "identity": tokens, "mint": make_minter, **settings}
    table = {
        "upstreams": {"orders": {"url": "http://m"}},
        "routes": [Route("/who", to="orders", identity=True, **dict(route))],
    }
    return decide(table, "/who", method, [("Host", "h"), *headers], settings=settings)


def subject(forward):
    token = dict(forward.headers).get(HEADER)
    return None if token is None else ORDERS.verify(token, method="GET", path="/who").subject


# --- what `identify` returns


class Unwritable:
    def __str__(self):
        raise RuntimeError("no database")


ID = uuid.UUID("6f1f1c3e-6f0e-4f1c-9d59-0d5f6f3c2a11")
CANARY = {"stage": "canary", "weight": 50, "sticky": ["user"]}


@pytest.mark.parametrize("wrap", [lambda found: found, Identity], ids=["id", "Identity"])
@pytest.mark.parametrize(
    ("found", "user"),
    [(7, "7"), (0, "0"), (ID, str(ID)), (None, None), (False, None), ("", None), (Unwritable(), None)],
)
def test_an_id_of_any_type_is_a_user_or_nobody_and_no_500(found, user, wrap):
    assert subject(asked(wrap(found))) == user
    text = None if user is None else Identity(user)
    assert type(asked(wrap(found), route=CANARY)) is type(asked(text, route=CANARY))


def framework_users():
    setup()
    from django.contrib.auth.models import AnonymousUser
    from flask_login import AnonymousUserMixin
    from starlette.authentication import SimpleUser, UnauthenticatedUser

    return [AnonymousUser(), AnonymousUserMixin(), UnauthenticatedUser(), SimpleUser("alice"), True]


@pytest.mark.parametrize("at", range(5))
def test_a_user_of_a_framework_is_no_id(at, caplog):
    """The text of a user who is not logged in is "AnonymousUser", say, for which a service would take it."""
    assert subject(asked(framework_users()[at])) is None
    assert "return the user's id" in caplog.text


def test_explaining_a_request_waits_for_nobody():
    async def identify(_):
        return "7"

    table = [Route("/a", to="http://m", when=lambda head: head.user == "7")]
    assert isinstance(explain(load(table, identify=identify), "GET", "/a").decision, Legacy)


# --- where a request comes from


def test_the_origin_is_read_in_any_case_of_its_name():
    """What a middleware of ASGI has written before us is another matter than what servers write."""
    snapshot = load(
        {"upstreams": {"orders": {"url": "http://m"}}, "routes": [Route("/who", to="orders", identity=True)]},
        identify=lambda _: Identity("7"),
        identity=TOKENS,
        mint=make_minter,
    )
    for name in (b"Origin", b"ORIGIN", b"Sec-Fetch-Site"):
        source = request("POST", headers=[("host", "h")])
        source["headers"].append((name, b"http://evil.example"))
        found = prepare(snapshot, "POST", b"/who", "/who", source, Reader())
        assert isinstance(found, Reject), name


def test_who_is_known_by_a_certificate_is_known_by_what_browsers_send_by_themselves():
    foreign = [("Sec-Fetch-Site", "cross-site")]
    assert isinstance(asked(headers=foreign, method="POST"), Reject)
    assert isinstance(asked(headers=[*foreign, ("Authorization", "Bearer x")], method="POST"), Forward)
    assert isinstance(asked(method="POST"), Forward), "no browser"


@pytest.mark.parametrize("listed", ["https://p.example:443", "https://p.example"])
def test_a_listed_origin_may_tell_its_port(listed):
    tokens = IdentityTokens(secrets={"orders": SECRET}, origins=[listed])
    found = asked(Identity("7"), [("Origin", "https://p.example")], "POST", tokens)
    assert isinstance(found, Forward)


# --- what crosses


@pytest.mark.parametrize("mark", "!#$%&'*+.^_`|~-")
@pytest.mark.parametrize("name", ["strangle{}identity", "remote{}user", "x{}forwarded{}user"])
@pytest.mark.parametrize("allowed", [False, True])
def test_no_character_stands_for_a_dash_in_a_name_of_ours(mark, name, allowed):
    """CGI of lighttpd makes `HTTP_STRANGLE_IDENTITY` of all of them."""
    spelt = name.format(mark, mark)
    found = asked(headers=[(spelt, "forged")], allow_headers=[spelt] if allowed else ())
    assert "forged" not in str(found.headers)
    assert asked(headers=[(f"x{mark}y", "1")], allow_headers=[f"x{mark}y"]).headers[0] == (
        f"x{mark}y".encode(),
        b"1",
    )


def test_a_trace_does_not_show_the_client_its_token():
    found = asked(method="TRACE")
    assert isinstance(found, Forward)
    assert HEADER not in dict(found.headers)


@pytest.mark.parametrize("name", ["sid ", "sid=", "", "a;b", "\xe9", "\u20ac"])
def test_a_cookie_that_could_never_be_withheld_is_refused(name):
    for setting in ("session_cookies", "framework_cookies"):
        with pytest.raises(ConfigError, match=r"session_cookies\[1\]: .* cannot be the name of a cookie"):
            asked(**{setting: ["ok", name]})


VARY = {  # what an upstream says -> what the client is told of it
    "nothing": ([], [b"Cookie, Authorization"]),
    "what it sees": ([(b"vary", b"Strangle-Identity")], [b"Strangle-Identity", b"Cookie, Authorization"]),
    "the cookie": ([(b"vary", b"cookie")], [b"cookie", b"Authorization"]),
    "all": ([(b"vary", b"*")], [b"*"]),
    "that it may be kept": ([(b"cache-control", b"public, max-age=60")], [b"Cookie, Authorization"]),
    "that it may not": ([(b"cache-control", b"no-store")], []),
}


@pytest.mark.parametrize(("said", "told"), VARY.values(), ids=VARY)
@pytest.mark.parametrize("user", ["7", None])
def test_a_cache_in_front_keeps_users_apart(said, told, user):
    """It sees no token: one user's page would be another's, who sends the same address."""
    made = public_headers(said, 200, asked(user), 0)
    assert [v for n, v in made if n == b"vary"] == told


def test_what_caches_are_told_comes_after_the_rules_of_the_route():
    rules = HeaderRules(remove=["Vary"])
    made = public_headers([(b"vary", b"x")], 200, asked(route={"response_headers": rules}), 0)
    assert made == [(b"vary", b"Cookie, Authorization")]


@pytest.mark.parametrize(
    ("named", "settings", "told"),
    [
        ("sid", {}, True),
        ("sid", {"session_cookies": ["sid"]}, False),
        ("sid", {"session_cookies": []}, False),
        ("session", {}, False),
    ],
)
@pytest.mark.parametrize("outer", [True, False])
def test_a_session_cookie_of_another_name_is_told(caplog, named, settings, told, outer):
    entries = [
        Middleware(SessionMiddleware, secret_key="x", session_cookie=named),
        Middleware(StrangleMiddleware, routes=[Route("/m", to="http://m")], **settings),
    ]
    with TestClient(Starlette(middleware=entries if outer else entries[::-1])):
        assert ("session_cookies=['sid']" in caplog.text) is told


# --- secrets


@pytest.mark.parametrize("text", ['    secrets: {orders: "%s\n', "    secrets: {orders: %s: x}\n"])
def test_a_file_that_is_no_yaml_is_not_shown(tmp_path, text):
    path = tmp_path / "table.yaml"
    path.write_text("strangle:\n  identity:\n" + text % SECRET)
    with pytest.raises(ConfigError, match="line 3") as caught:
        load(path)
    assert SECRET not in str(caught.value)


TABLE = """
[strangle.identity]
algorithm = "EdDSA"
keys = [{ id = "a", file = "%s" }]
jwks_path = "/keys"
"""


def test_another_key_in_the_same_file_is_read_when_the_table_is_touched(tmp_path):
    """The text of the table is the same; the old key may be one that others know."""
    table, key = tmp_path / "table.toml", tmp_path / "key.pem"
    table.write_text(TABLE % key)
    key.write_text(ED)
    app = strangle(lambda _environ, _start: [b"legacy"], table)
    published = []
    for stamp, pem in enumerate([ED, "no key", ED_NEXT]):
        key.write_text(pem)
        os.utime(table, (stamp, stamp))
        app.engine.due = 0.0
        call(app, "/other")
        for reload in [t for t in threading.enumerate() if t.name == "strangle-reload"]:
            reload.join(10)
        published.append(json.loads(call(app, "/keys"))["keys"][0]["x"])
    app.engine.close()
    assert published[0] == published[1] != published[2]
