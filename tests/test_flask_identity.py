"""Who the user is in a Flask app, and what of that crosses: tokens, cookies, sticky keys, `when`."""

import logging
import sys

import pytest
from flask import abort, current_app, session
from flask_login import UserMixin

from echo import Echo
from flask_shop import SECRET, UPSTREAM, User, name_of, shop
from servers import request as raw
from servers import serve, talk
from strangle_mw import ConfigError, Identity, Route
from strangle_mw.flask import session_user
from strangle_mw.identity import Verifier

HEADER = "strangle-identity"


@pytest.fixture(scope="module")
def echo():
    upstream = Echo()
    yield upstream
    upstream.close()


@pytest.fixture
def make(echo):
    """Make apps, and close them at the end."""
    made = []

    def one(*routes, **config):
        made.append(shop(echo.address, *routes, **config))
        return made[-1]

    yield one
    for app in made:
        app.extensions["strangle"].close()


def canary(**more):
    return Route("/m/*", to=UPSTREAM, **more)


def sent(response):
    """Return the headers that the upstream has seen, by their names in lower case."""
    return {n.lower(): v for n, v in response.json["headers"]}


def identity_of(response):
    """Return who the upstream is told by a token that is good for this very request; None for nobody."""
    token = sent(response).get(HEADER)
    if token is None:
        return None
    method, target, _ = response.json["line"].split(" ")
    path, _, query = target.partition("?")
    verifier = Verifier(UPSTREAM, secrets=(SECRET,))
    return verifier.verify(token, method=method, path=path.encode(), query=query.encode())


# --- who it is


def test_the_user_of_flask_login(make):
    client = make().test_client()
    assert identity_of(client.get("/m/x")) is None
    client.get("/login/7")
    assert identity_of(client.get("/m/x?a=b")).subject == "7"
    assert identity_of(client.post("/m/x", data={"a": "1"})).subject == "7"
    assert client.get("/legacy").json["user"] == "7"


def test_a_user_who_is_remembered(make):
    client = make().test_client()
    client.get("/login/7?remember")
    client.delete_cookie("session")
    response = client.get("/m/x")
    assert identity_of(response).subject == "7"
    assert "cookie" not in sent(response)


@pytest.mark.parametrize(
    "lose",
    [
        lambda app: app.users.pop("7"),
        lambda app: setattr(app.users["7"], "active", False),
        lambda app: app.config.update(SESSION_PROTECTION="strong"),  # and the browser is another
        lambda app: app.config.update(SECRET_KEY="another"),
        lambda app: setattr(app.users["7"], "get_id", lambda: None),
    ],
)
def test_whom_flask_login_does_not_take_is_nobody(make, lose):
    app = make()
    client = app.test_client()
    client.get("/login/7")
    lose(app)
    assert identity_of(client.get("/m/x", headers={"User-Agent": "another"})) is None
    assert client.get("/legacy", headers={"User-Agent": "another"}).json["user"] is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer 7"}, 200),  # no browser sends that by itself
        ({"Authorization": "Digest 7"}, 403),
    ],
)
def test_the_user_of_a_request_loader(make, headers, status):
    app = make()
    client = app.test_client()
    foreign = {"Origin": "https://evil.example", **headers}
    response = client.post("/m/x", headers=foreign)
    assert response.status_code == status
    assert status != 200 or identity_of(response).subject == "7"
    client.get("/login/8")
    assert client.post("/m/x", headers=foreign).status_code == 403


@pytest.mark.parametrize(
    "identify",
    [
        session_user("name"),
        "flask_shop:name_of",
        name_of,
        lambda head: Identity(session["name"], {"shop": current_app.name}) if session else None,
    ],
)
def test_an_identify_of_the_apps_own(make, identify):
    client = make(STRANGLE_IDENTIFY=identify, login=False).test_client()
    assert identity_of(client.get("/m/x")) is None
    client.get("/session/ann")
    found = identity_of(client.get("/m/x"))
    assert found.subject == "ann"
    assert found.claims.get("shop") in (None, "shop")


def test_session_user_asks_for_the_origin_whatever_else_is_sent(make):
    client = make(STRANGLE_IDENTIFY=session_user("name"), login=False).test_client()
    client.get("/session/ann")
    headers = {"Authorization": "Basic eDp5", "Origin": "https://evil.example"}
    assert client.post("/m/x", headers=headers).status_code == 403


def test_an_identify_that_fails_is_nobody(make, caplog):
    client = make(STRANGLE_IDENTIFY=lambda head: abort(500)).test_client()
    client.get("/login/7")
    with caplog.at_level(logging.ERROR, "strangle_mw"):
        assert identity_of(client.get("/m/x")) is None
        assert identity_of(client.get("/m/x")) is None
    assert [r.message for r in caplog.records] == ["identify raised; taken for nobody (told once)"]


def test_a_teardown_that_misses_what_a_view_has_made_keeps_nobody_out(make):
    app = make(canary(identity=True), STRANGLE_IDENTIFY=lambda _: "alice")

    @app.teardown_request
    def close(_):
        raise AttributeError("db")

    assert identity_of(app.test_client().get("/m/x")).subject == "alice"


def test_claims_and_other_settings(make):
    settings = {
        "secrets": {UPSTREAM: SECRET},
        "claims": lambda identity: {"staff": identity.user.staff},
        "origins": ["https://partner.example"],
    }
    client = make(STRANGLE_IDENTITY=settings).test_client()
    client.get("/login/8")
    response = client.post("/m/x", headers={"Origin": "https://partner.example"})
    assert identity_of(response).claims["staff"] is True


# --- it is asked aside


def test_asking_changes_nothing_for_the_app(make):
    """Promise P4: the app gets the request as it came, its body unread, its session as it was."""
    asked = []

    def identify(head):
        session["n"] = "never saved"
        asked.append(current_app.name)
        return "somebody"

    plain = make(canary(stage="legacy"), STRANGLE_IDENTIFY=identify)
    split = make(canary(stage="canary", weight=0.01, sticky=["user"]), STRANGLE_IDENTIFY=identify)
    answers = [app.test_client().post("/m/x", data={"a": "1"}) for app in (plain, split)]
    assert asked == ["shop"]
    assert answers[0].json == answers[1].json == {"legacy": True, "form": {"a": "1"}, "user": None}
    assert "Set-Cookie" not in answers[1].headers
    assert [e for e in plain.seen if e != "teardown"] == [e for e in split.seen if e != "teardown"]
    assert split.seen[0] == "teardown"  # of the context that was asked in: what it has opened is closed


def test_the_user_is_that_of_the_request_whatever_context_it_came_in(make):
    """Flask keeps an app context that is there already, and in it who was the user last."""
    app = make()
    ann, anonymous = app.test_client(), app.test_client()
    ann.get("/login/7")
    with app.app_context():
        assert identity_of(ann.get("/m/x")).subject == "7"
        assert identity_of(anonymous.get("/m/x")) is None


def test_nobody_is_asked_without_need(make):
    asked = []
    app = make(canary(), STRANGLE_IDENTIFY=asked.append, STRANGLE_IDENTITY=None)
    client = app.test_client()
    assert client.get("/legacy").status_code == client.get("/m/x").status_code == 200
    assert asked == []


# --- stages


def test_the_user_decides_on_the_side(make):
    app = make(canary(stage="canary", weight=50, group="checkout"), STRANGLE_IDENTITY=None)
    app.users.update((f"u{n}", User(f"u{n}")) for n in range(20))
    sides = {}
    for name in app.users:
        if app.users[name].active:
            client = app.test_client()
            client.get(f"/login/{name}")
            answers = [client.get("/m/x").json for _ in range(2)]
            assert ("legacy" in answers[0]) is ("legacy" in answers[1])
            sides[name] = "legacy" if "legacy" in answers[0] else "modern"
    assert sides["u1"] == "legacy"  # design section 4.1: `checkout`, `u1` -> 6747
    assert set(sides.values()) == {"legacy", "modern"}


@pytest.mark.parametrize(
    "when",
    [lambda head: head.user == "8", lambda head: head.identity is not None and head.identity.user.staff],
)
def test_the_user_in_a_condition(make, when):
    app = make(canary(when=when), STRANGLE_IDENTITY=None)
    for name, side in (("7", "legacy"), ("8", "line")):
        client = app.test_client()
        client.get(f"/login/{name}")
        assert side in client.get("/m/x").json
    assert "legacy" in app.test_client().get("/m/x").json


def test_explain_knows_the_user(make):
    app = make(canary(when=lambda head: head.user == "7"), STRANGLE_IDENTITY=None)
    client = app.test_client()
    client.get("/login/7")
    run = app.test_cli_runner().invoke
    cookie = f"Cookie: session={client.get_cookie('session').value}"
    assert "[modern]: taken" in run(args=["strangle", "explain", "GET", "/m/x", "-H", cookie]).output
    assert "`when` said no" in run(args=["strangle", "explain", "GET", "/m/x"]).output


# --- cookies, and other sites


def test_session_cookies_stay_here(make):
    client = make(canary(), SESSION_COOKIE_NAME="shop_session", STRANGLE_IDENTITY=None).test_client()
    client.get("/login/7?remember")
    client.set_cookie("theme", "dark")
    client.set_cookie("session", "of another app")
    assert {c.strip().split("=")[0] for c in sent(client.get("/m/x"))["cookie"].split(";")} == {
        "theme",
        "session",
    }


def test_the_list_of_cookies_is_the_apps(make):
    client = make(canary(), STRANGLE_SESSION_COOKIES=["a"]).test_client()
    client.get("/login/7")
    client.set_cookie("a", "1")
    assert sent(client.get("/m/x"))["cookie"].startswith("session=")
    assert [c.split("=")[0] for c in client.get("/m/cookies").headers.getlist("Set-Cookie")] == ["b"]
    everything = make(canary(), STRANGLE_SESSION_COOKIES=[]).test_client()
    everything.set_cookie("remember_token", "1")
    assert sent(everything.get("/m/x"))["cookie"] == "remember_token=1"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({}, 200),
    ],
)
def test_a_page_of_another_site_cannot_act_for_the_user(make, echo, headers, status):
    client = make().test_client()
    assert client.post("/m/x", headers=headers).status_code == 200  # nobody is logged in: nothing to abuse
    client.get("/login/7")
    before = echo.requests
    assert client.post("/m/x", headers=headers).status_code == status
    assert echo.requests == before + (status == 200)
    assert client.get("/m/x", headers=headers).status_code == 200


def test_what_a_client_claims_to_be_is_dropped(make):
    client = make().test_client()
    forged = {"Strangle-Identity": "forged", "Strangle_Identity": "forged"}
    assert identity_of(client.get("/m/x", headers=forged)) is None
    client.get("/login/7")
    assert identity_of(client.get("/m/x", headers=forged)).subject == "7"


# --- at the start


class Callable(UserMixin):
    async def __call__(self, head): ...


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {"STRANGLE_IDENTIFY": 5},
            r"STRANGLE_IDENTIFY: must be a function, or 'module:name' of one \(type\)",
        ),
        (
            {"STRANGLE_IDENTIFY": "nomodule:x"},
            r"STRANGLE_IDENTIFY: cannot be imported: No module named 'nomodule'",
        ),
        (
            {"STRANGLE_IDENTIFY": "flask_shop:none"},
            r"STRANGLE_IDENTIFY: cannot be imported: .* no attribute 'none'",
        ),
        ({"STRANGLE_IDENTIFY": Callable()}, r"STRANGLE_IDENTIFY: must be a plain function: Flask is WSGI"),
        ({"STRANGLE_IDENTITY": None}, r"routes\[0\].identity: needs keys: .* in STRANGLE_IDENTITY"),
        ({"STRANGLE_IDENTITY": {"secret": {}}}, r"STRANGLE_IDENTITY.secret: .*did you mean 'secrets'"),
        ({"STRANGLE_IDENTITY": {"secrets": {UPSTREAM: "short"}}}, r"STRANGLE_IDENTITY.secrets.orders: "),
        ({"STRANGLE_IDENTITY": {"algorithm": "none"}}, r"STRANGLE_IDENTITY.algorithm: must be one of"),
        ({"STRANGLE_SESSION_COOKIES": "session"}, r"STRANGLE_SESSION_COOKIES: must be a list, not text"),
    ],
)
def test_a_wrong_setting_is_told_with_its_key(echo, config, says):
    with pytest.raises(ConfigError, match=says) as refused:
        shop(echo.address, **config)
    assert len(refused.value.problems) == 1


def test_an_identity_route_needs_somebody_to_name_the_user(echo, monkeypatch):
    monkeypatch.delitem(sys.modules, "flask_login")
    with pytest.raises(
        ConfigError, match=r"routes\[0\].identity: .* set STRANGLE_IDENTIFY, or set Flask-Login up"
    ):
        shop(echo.address, login=False)


def test_an_app_without_logins_beside_one_that_has_some(make):
    client = make(login=False).test_client()
    assert identity_of(client.get("/m/x")) is None


# --- a real server


def test_under_gunicorn(echo):
    with serve("gunicorn-gthread", "flask_shop", STRANGLE_TEST_UPSTREAM=echo.address) as port:
        done = talk(port, raw("GET", "/login/7"))
        cookie = ("Cookie", done.header("set-cookie").partition(";")[0])
        told = talk(port, raw("GET", "/m/a%2Fb?q=%zz", [cookie])).json()
        assert "cookie" not in {n.lower() for n, _ in told["headers"]}
        token = next(v for n, v in told["headers"] if n.lower() == HEADER)
        verifier = Verifier(UPSTREAM, secrets=(SECRET,))
        assert verifier.verify(token, method="GET", path=b"/m/a%2Fb", query=b"q=%zz").subject == "7"
        assert talk(port, raw("POST", "/m/x", [cookie, ("Origin", "http://evil.example")])).status == 403
        assert talk(port, raw("GET", "/legacy", [cookie])).json()["user"] == "7"
