"""Who the user is, asked by each driver in its own way: plain functions, awaited ones, and both."""

import asyncio

import pytest

from calls import call
from strangle_mw import ConfigError, Identity, Respond, Route, strangle

MODERN = Route("/m/*", respond=Respond(status=200, body="modern"), when=lambda head: head.user == "alice")


async def monolith(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"legacy"})


def old(environ, start_response):
    start_response("200 OK", [])
    return [b"legacy"]


def ask(app, path="/m/x", **more):
    """Return what the client of an ASGI app is sent."""
    sent = []
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"host", b"h")], "scheme": "http", "client": ("192.0.2.1", 5), "http_version": "1.1", **more,
    }  # fmt: skip

    async def receive():
        return {"type": "websocket.connect" if scope["type"] == "websocket" else "http.request"}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def body(app, path="/m/x"):
    return ask(app, path)[-1]["body"]


class Both:
    """Knows the user by a wait, and without one."""

    def __init__(self, user):
        self.user = user
        self.asked = []

    def __call__(self, head):
        self.asked.append("plain")
        return self.user

    async def aidentify(self, head):
        await asyncio.sleep(0)
        self.asked.append("awaited")
        return self.user


@pytest.mark.parametrize(("user", "side"), [("alice", b"modern"), ("bob", b"legacy"), (None, b"legacy")])
def test_a_coroutine_function_is_awaited_once_a_request_and_only_if_needed(user, side):
    asked = []

    async def identify(head):
        await asyncio.sleep(0)
        asked.append(head.source["path"])
        return user

    app = strangle(monolith, [MODERN, Route("/n", respond=Respond())], identify=identify)
    assert body(app) == side
    assert asked == ["/m/x"]
    assert body(app, "/other") == b"legacy"
    assert body(app, "/n") == b""
    assert asked == ["/m/x"]


def test_a_path_that_needs_care_keeps_its_user():
    async def identify(head):
        return "alice"

    assert body(strangle(monolith, [MODERN], identify=identify), "/m/%20x") == b"modern"


def test_an_object_with_both_is_asked_as_the_driver_can():
    who = Both("alice")
    assert body(strangle(monolith, [MODERN], identify=who)) == b"modern"
    assert call(strangle(old, [MODERN], identify=who)) == b"modern"
    assert who.asked == ["awaited", "plain"]


def test_a_websocket_handshake_waits_for_its_user():
    who = Both("alice")
    sent = ask(strangle(monolith, [MODERN], identify=who), type="websocket", extensions={})
    assert sent[0]["type"] == "websocket.close", "the modern side answers a handshake with no WebSocket"
    who.user = "bob"
    assert ask(strangle(monolith, [MODERN], identify=who), type="websocket")[0]["type"] == "websocket.accept"
    assert who.asked == ["awaited", "awaited"]


def test_an_awaited_one_that_raises_is_nobody_and_told_once(caplog):
    async def identify(head):
        raise RuntimeError("no database")

    app = strangle(monolith, [MODERN], identify=identify)
    assert [body(app), body(app)] == [b"legacy", b"legacy"]
    assert caplog.text.count("identify raised; taken for nobody") == 1


def test_under_wsgi_nothing_is_awaited():
    async def identify(head):
        return "alice"

    class Awaited:
        async def __call__(self, head):
            return "alice"

    for found in (identify, Awaited()):
        with pytest.raises(ConfigError, match=r"strangle\.identify: must be a plain function"):
            strangle(old, [MODERN], identify=found)


def test_identify_is_shown_what_the_server_gave():
    seen = []
    app = strangle(old, [MODERN], identify=lambda head: seen.append(head.source["REMOTE_ADDR"]))
    assert call(app) == b"legacy"
    assert seen == ["192.0.2.1"]


def test_claims_of_an_identity_reach_when():
    route = Route(
        "/m/*", respond=Respond(body="m", status=200), when=lambda h: bool(h.identity.claims.get("staff"))
    )
    for staff in (True, False):
        app = strangle(old, [route], identify=lambda _, staff=staff: Identity("a", {"staff": staff}))
        assert call(app) == (b"m" if staff else b"legacy")
