"""WebSockets of apps in this process: without a server between, and with real clients under real servers."""

import asyncio
import logging

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from servers import DEADLINE, serve
from strangle_mw import Breaker, Route, Upstream, strangle

NEVER = Breaker(failures=0, ratio=0)
CONNECT = {"type": "websocket.connect"}
LEFT = {"type": "websocket.disconnect", "code": 1001}
DENIAL = {"websocket.http.response": {}}


def scope(**more):
    return {
        "type": "websocket", "asgi": {"version": "3.0"}, "http_version": "1.1", "path": "/m/x", "raw_path": b"/m/x", "query_string": b"a=1",
        "headers": [(b"host", b"h"), (b"sec-websocket-version", b"13")], "scheme": "ws", "client": ("192.0.2.1", 5), "subprotocols": ["v1"],
        "extensions": DENIAL, "user": "somebody", **more,
    }  # fmt: skip


class Client:
    """A server's side of one WebSocket."""

    def __init__(self, *messages, send=None):
        self.messages = [CONNECT, *messages]
        self.sent = []
        self._fail = send

    async def receive(self):
        if self.messages:
            return self.messages.pop(0)
        return await asyncio.Event().wait()

    async def send(self, message):
        if self._fail is not None:
            raise self._fail
        self.sent.append(message)

    @property
    def kinds(self):
        return [m["type"].removeprefix("websocket.") for m in self.sent]


def run(app, client=None, *, kind="asgi", asked=None, **more):
    """Shake hands once; return the client, what was counted, and the scopes that the wrapped app got."""
    legacy_scopes = []

    async def legacy(scope, receive, send):
        legacy_scopes.append(scope)
        assert await receive() == CONNECT
        await send({"type": "websocket.accept", "subprotocol": "legacy"})

    async def asgi(scope, receive, send):
        if scope["type"] == "lifespan":
            raise ValueError
        await app(scope, receive, send)

    target = {"asgi": asgi, "wsgi": app, "lambda": "lambda:f"}[kind]
    settings = {k: more.pop(k) for k in ("timeout", "max_in_flight", "pool_timeout") if k in more}
    up = target if kind == "lambda" else Upstream(**{kind: target}, breaker=NEVER, **settings)

    async def main():
        middle = strangle(legacy, [Route("/m/*", name="m", to=up, **more)])
        asker = client or Client()
        task = asyncio.current_task()
        try:
            await middle(asked or scope(), asker.receive, asker.send)
        finally:
            assert task.cancelling() == 0
            await middle.engine.aclose(asyncio.get_running_loop())
        return (
            asker,
            {(k.side, k.outcome): n for k, n in middle.engine.states.take_counts().items()},
            legacy_scopes,
        )

    return asyncio.run(main())


# --- without a server


def test_an_accepted_websocket_is_passed_on_as_it_is():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope)
        assert await receive() == CONNECT
        headers = [
            (b"X-A", b"1"),
            (b"sec-websocket-protocol", b"evil"),
            (b"set-cookie", b"a=1"),
            (b"connection", b"x"),
        ]
        await send({"type": "websocket.accept", "subprotocol": "v1", "headers": headers})
        message = await receive()
        await send({"type": "websocket.send", "text": message["text"]})
        assert await receive() == LEFT

    client, counted, _ = run(app, Client({"type": "websocket.receive", "text": "é"}, LEFT))
    assert client.sent == [
        {
            "type": "websocket.accept",
            "subprotocol": "v1",
            "headers": [(b"x-a", b"1"), (b"set-cookie", b"a=1")],
        },
        {"type": "websocket.send", "text": "é"},
    ]
    assert counted == {("modern", "1xx"): 1}
    (told,) = seen
    assert (told["path"], told["query_string"], told["subprotocols"], told["extensions"]) == (
        "/m/x",
        b"a=1",
        ["v1"],
        DENIAL,
    )
    assert "user" not in told
    assert dict(told["headers"])[b"x-forwarded-for"] == b"192.0.2.1"


def test_an_app_closes_with_a_code():
    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4001, "reason": "enough"})

    client, counted, _ = run(app)
    assert client.sent[1] == {"type": "websocket.close", "code": 4001, "reason": "enough"}
    assert counted == {("modern", "1xx"): 1}


async def closes(scope, receive, send):
    await send({"type": "websocket.close"})


async def denies(scope, receive, send):
    await send({"type": "websocket.http.response.start", "status": 404, "headers": [(b"x-a", b"1")]})
    await send({"type": "websocket.http.response.body", "body": b"no"})


@pytest.mark.parametrize(
    ("app", "kinds", "outcome"),
    [(closes, ["close"], "4xx"), (denies, ["http.response.start", "http.response.body"], "4xx")],
)
def test_an_app_denies(app, kinds, outcome):
    client, counted, legacy = run(app)
    assert client.kinds == kinds
    assert counted == {("modern", outcome): 1}
    assert legacy == []


async def raises(scope, receive, send):
    raise ZeroDivisionError


async def breaks_down(scope, receive, send):
    raise ConnectionRefusedError("its own database, not the client")


async def exits(scope, receive, send):
    raise SystemExit


async def returns(scope, receive, send):
    await receive()


async def sends_first(scope, receive, send):
    await send({"type": "websocket.send", "text": "x"})


async def bad_header(scope, receive, send):
    await send({"type": "websocket.accept", "headers": [(b"x-a", b"1\r\nset-cookie: a=1")]})


async def bad_status(scope, receive, send):
    await send({"type": "websocket.http.response.start", "status": 101, "headers": []})


async def bad_gateway(scope, receive, send):
    await send({"type": "websocket.http.response.start", "status": 503, "headers": []})
    assert (await receive())["type"] == "websocket.disconnect"  # what comes is legacy's
    await send({"type": "websocket.http.response.body", "body": b"no"})


async def hangs(scope, receive, send):
    await asyncio.Event().wait()


FAILURES = {
    raises: ("reset", 502), breaks_down: ("reset", 502), exits: ("reset", 502), returns: ("reset", 502), sends_first: ("reset", 502),
    bad_header: ("reset", 502), bad_status: ("reset", 502), bad_gateway: ("status-503", 503), hangs: ("timeout", 504),
}  # fmt: skip


@pytest.mark.parametrize("app", FAILURES)
def test_legacy_answers_for_an_app_that_does_not(app):
    reason, _ = FAILURES[app]
    client, counted, (legacy,) = run(app, fallback="auto", timeout=0.05)
    assert client.sent == [{"type": "websocket.accept", "subprotocol": "legacy"}]
    assert counted == {("legacy", f"fallback:{reason}"): 1}
    assert legacy == {**scope(), "strangle.fallback": reason}


@pytest.mark.parametrize("app", [a for a in FAILURES if a is not bad_gateway])
def test_without_fallback_the_handshake_is_refused(app):
    _, status = FAILURES[app]
    client, counted, legacy = run(app, fallback="off", timeout=0.05)
    assert (client.sent[0]["status"], legacy) == (status, [])
    assert dict(client.sent[0]["headers"])[b"content-type"] == b"application/problem+json"
    assert counted == {("modern", "failed"): 1}


def test_an_app_that_fails_later_ends_with_another_code_than_a_good_one(caplog):
    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        raise ZeroDivisionError

    client, counted, legacy = run(app, fallback="auto")
    assert client.sent[1:] == [{"type": "websocket.close", "code": 1011}]
    assert (counted, legacy) == ({("modern", "1xx"): 1}, [])
    assert [r.exc_info[0] for r in caplog.records if r.levelno == logging.ERROR] == [ZeroDivisionError]


async def asks(scope, receive, send):
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def accepts(scope, receive, send):
    await send({"type": "websocket.accept"})


@pytest.mark.parametrize(
    ("app", "client"),
    [(asks, Client(LEFT)), (accepts, Client(send=OSError("gone")))],
    ids=["asks", "accepts"],
)
def test_a_client_that_leaves_is_no_failure(caplog, app, client):
    with caplog.at_level(logging.DEBUG, "strangle_mw"):
        _, counted, legacy = run(app, client, fallback="auto")
    assert legacy == []
    assert sum(counted.values()) == 1
    assert ("modern", "failed") not in counted
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []


def wsgi_app(environ, start_response):
    raise AssertionError("never called")


@pytest.mark.parametrize("kind", ["wsgi", "lambda"])
def test_no_other_kind_of_upstream_takes_a_websocket(monkeypatch, kind):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    client, counted, legacy = run(wsgi_app, kind=kind, fallback="off")
    assert (client.sent[0]["status"], legacy) == (502, [])
    assert counted == {("modern", "failed"): 1}
    client, counted, (legacy,) = run(wsgi_app, kind=kind)
    assert legacy["strangle.fallback"] == "unsupported"
    assert counted == {("legacy", "fallback:unsupported"): 1}


def test_a_server_without_denial_is_told_to_close():
    async def app(scope, receive, send):
        assert scope["extensions"] == {}
        raise ZeroDivisionError

    client, _, _ = run(app, fallback="off", asked=scope(extensions={"tls": {}}))
    assert client.kinds == ["close"]


# --- under real servers


@pytest.fixture(scope="module", params=["uvicorn-httptools", "hypercorn"])
def server(request):
    with serve(request.param, "drivers.in_process_apps") as port:
        yield port


def test_messages_cross_both_ways(server):
    with connect(
        f"ws://127.0.0.1:{server}/asgi/plain/echo", subprotocols=["v1"], open_timeout=DEADLINE
    ) as socket:
        assert socket.subprotocol == "v1"
        assert socket.response.headers["X-App"] == "1"
        for message in ("é", b"\x00\xff", "x" * 100_000):
            socket.send(message)
            assert socket.recv(DEADLINE) == message
        socket.send("close 4001")
        with pytest.raises(Exception, match="4001"):
            socket.recv(DEADLINE)
        assert socket.close_code == 4001


def test_a_denial_reaches_the_client(server):
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://127.0.0.1:{server}/asgi/plain/deny", open_timeout=DEADLINE)
    assert caught.value.response.status_code == 403


def test_an_app_that_raises_is_refused(server):
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://127.0.0.1:{server}/asgi/plain/raise", open_timeout=DEADLINE)
    assert caught.value.response.status_code == 502
