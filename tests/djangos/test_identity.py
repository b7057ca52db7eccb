"""Who the user is, in every way: asked only if a route needs it, read and never written."""

import jwt
import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.models import Session
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext, override_settings

from djangos.ways import MIDDLEWARE_WAYS, VIEWS, WAYS, project
from strangle_mw import Identity, Route
from strangle_mw.identity import verify

SECRET = "a secret of thirty-two bytes or more"


def claims(identity):
    return {"name": User.objects.get(pk=identity.subject).username}


def table(echo):
    return {
        "upstreams": {"orders": {"url": echo.address}},
        "routes": [
            Route("/m/*", to="orders", identity=True),
            Route("/plain/*", to="orders"),
            Route("/told/when", to="orders", when=lambda head: head.user is not None),
            Route(
                "/told/staff", to="orders", when=lambda head: head.identity and head.identity.user.is_staff
            ),
        ],
    }


@pytest.fixture(scope="module", params=WAYS)
def app(request, echo):
    identity = {"secrets": {"orders": SECRET}}
    with project(request.param, table(echo), IDENTITY=identity, CLAIMS=claims) as driver:
        driver.way = request.param
        yield driver


def cookie(*values):
    return tuple((b"cookie", v.encode()) for v in values)


def told(echo):
    """Return who the upstream was told the user is; the token must be good for this very request."""
    headers = {n.lower(): v for n, v in echo.last["headers"]}
    token = headers.get("strangle-identity")
    if token is None:
        return None
    method, target, _ = echo.last["line"].split(" ")
    path, _, query = target.partition("?")
    return verify(token, audience="orders", secrets=[SECRET], method=method, path=path, query=query)


def test_the_user_of_the_session_is_told(app, echo, session):
    ann = User.objects.get(username="ann")
    assert app.ask("/m/x?a=b", headers=cookie(f"lang=de; {session}; csrftoken=x")).status == 200
    found = told(echo)
    assert (found.subject, found.claims["name"]) == (str(ann.pk), "ann")
    assert dict(echo.last["headers"])["cookie"] == "lang=de"


@pytest.mark.parametrize("value", ["", "sessionid=", "sessionid=" + "x" * 32, "sessionid=%00/../x"])
def test_nobody_is_told_as_nobody(app, echo, value):
    app.ask("/m/x", headers=cookie(value))
    assert told(echo) is None


def test_a_header_of_the_clients_is_no_identity(app, echo):
    for name in (b"strangle-identity", b"strangle_identity"):
        app.ask("/m/x", headers=((name, b"forged"),))
        assert told(echo) is None
        assert "forged" not in str(echo.last)


def test_another_sites_page_is_refused(app, session):
    evil = ((b"origin", b"https://evil.example"), *cookie(session))
    assert app.ask("/m/x", method="POST", headers=evil, length=0).status == 403
    own = ((b"origin", b"http://h.example"), *cookie(session))
    assert app.ask("/m/x", method="POST", headers=own, length=0).status == 200


def test_the_user_decides_in_a_condition(app, session):
    assert b'"line"' in app.ask("/told/when", headers=cookie(session)).body
    assert b'"fallback"' in app.ask("/told/when").body
    assert b'"fallback"' in app.ask("/told/staff", headers=cookie(session)).body
    User.objects.filter(username="ann").update(is_staff=True)
    try:
        assert b'"line"' in app.ask("/told/staff", headers=cookie(session)).body
    finally:
        User.objects.filter(username="ann").update(is_staff=False)


def test_a_session_that_no_longer_holds_is_nobodys_and_stays_as_it_is(app, echo, session):
    """`get_user` would flush it where the application is wrapped; Django does so for itself elsewhere."""
    key = session.partition("=")[2]
    before = Session.objects.get(pk=key).session_data
    with override_settings(SECRET_KEY="another"):
        app.ask("/m/x", headers=cookie(session))
    assert told(echo) is None
    if "wrapped" in app.way:
        assert Session.objects.get(pk=key).session_data == before


def test_of_two_session_cookies_the_one_counts_that_django_takes(app, echo, session):
    for value in (f"sessionid=other; {session}", f"{session}; sessionid=other"):
        app.ask("/m/x", headers=cookie(value))
        ours = told(echo)
        seen = app.ask("/who/", headers=cookie(value)).body.decode()
        assert seen == ("None" if ours is None else ours.subject)


def test_the_database_is_not_asked_unless_a_route_needs_to_know(echo, session):
    """On this very thread, where queries can be counted."""
    for way in ("wsgi wrapped", "wsgi middleware"):
        with project(way, table(echo), IDENTITY={"secrets": {"orders": SECRET}}) as app:
            for target, asked in (("/plain/x", False), ("/m/x", True)):
                with CaptureQueriesContext(connection) as queries:
                    environ = app._environ(_asked(target, session))
                    b"".join(app.app(environ, lambda status, headers: None))
                assert bool(len(queries)) is asked, way


def _asked(target, session):
    from promises.drive import Asked

    return Asked.make(target, headers=cookie(session))


@pytest.mark.parametrize("way", MIDDLEWARE_WAYS)
@pytest.mark.parametrize(("middleware", "expected"), [("impersonating", "77"), ("lazily", "ben")])
def test_a_middleware_may_say_who_the_user_is(way, middleware, expected, echo, session):
    identity = {"secrets": {"orders": SECRET}}
    with project(way, table(echo), before=[VIEWS + middleware], IDENTITY=identity) as app:
        app.ask("/m/x", headers=cookie(session))
        ben = str(User.objects.get(username="ben").pk)
        assert told(echo).subject == (ben if expected == "ben" else expected)


async def awaited(head):
    user = await User.objects.aget(username="ben")
    return Identity(str(user.pk), claims={"by": "await"})


def plain(head):
    return User.objects.get(username="ben").pk


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("identify", [awaited, plain], ids=["async", "sync"])
def test_an_identify_of_ones_own_may_ask_the_database(way, identify, echo):
    with project(way, table(echo), IDENTITY={"secrets": {"orders": SECRET}}, IDENTIFY=identify) as app:
        app.ask("/m/x")
        assert told(echo).subject == str(User.objects.get(username="ben").pk)


@pytest.mark.parametrize("way", ["wsgi wrapped", "asgi wrapped"])
@pytest.mark.parametrize("key", ["IDENTIFY", "CLAIMS"])
def test_connections_to_the_database_are_given_back_where_no_request_of_djangos_is(way, key, echo):
    lent = []

    def identify(head):
        return User.objects.get(username="ann").pk

    def asking(given):
        found = User.objects.get(username="ben").pk
        lent.append(connections["default"])
        assert lent[-1].connection is not None
        return {"ben": found} if key == "CLAIMS" else found

    functions = {"IDENTIFY": identify, key: asking}
    with project(way, table(echo), IDENTITY={"secrets": {"orders": SECRET}}, **functions) as app:
        app.ask("/m/x")
        assert told(echo) is not None
    assert [wrapper.connection for wrapper in lent] == [None]


@pytest.mark.parametrize("way", ["wsgi wrapped", "asgi middleware"])
def test_an_identify_that_raises_makes_nobody(way, echo, caplog):
    def identify(head):
        raise ZeroDivisionError

    with project(way, table(echo), IDENTITY={"secrets": {"orders": SECRET}}, IDENTIFY=identify) as app:
        assert [app.ask("/m/x").status for _ in range(2)] == [200, 200]
        assert told(echo) is None
    assert caplog.text.count("identify raised") == 1


def test_the_token_is_a_jwt_like_any_other(echo, session):
    with project("wsgi wrapped", table(echo), IDENTITY={"secrets": {"orders": SECRET}}) as app:
        app.ask("/m/x", headers=cookie(session))
    token = {n.lower(): v for n, v in echo.last["headers"]}["strangle-identity"]
    found = jwt.decode(token, SECRET, ["HS256"], audience="orders", issuer="strangle-mw")
    assert found["sub"] == str(User.objects.get(username="ann").pk)


def test_without_the_auth_app_nobody_is_asked(echo):
    from strangle_mw.django import engine

    with override_settings(INSTALLED_APPS=["strangle_mw.django"], STRANGLE={"ROUTES": []}):
        assert engine().settings.identify is None
    assert str(AnonymousUser()) == "AnonymousUser"
