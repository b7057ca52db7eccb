"""Fallback on real sockets, both drivers under real servers: who answers, and what each side has seen of it.

The matrix of design section 4.3 is in `fallback_table`; which stage has which fallback in `test_stages`, that of
WebSockets in `test_websocket`.
"""

import asyncio
import hashlib
import io
import json
import socket
import threading
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import pytest
from fallback_table import (
    BODIES,
    CANARY,
    CLASSES,
    FAILURES,
    IDEMPOTENT,
    LIMIT,
    MORE,
    MORE_POLICIES,
    NEVER,
    OTHER,
    POLICIES,
    SAFE,
    SENT,
    SERVE,
    TARGET,
    UNSENT,
    answer,
    expected,
    whole,
)
from faulty_fronts import FRONTS, until
from tests.transports.upstream import PATIENCE, ScriptedUpstream, close, head, reset, send, until_gone, wait

from promises.drive import SIDES, address
from servers import connect, free_port, read_reply, request, talk
from strangle_mw import ForwardError, Route, Upstream, strangle
from test_wsgi import Answer, environ

TIMES = {"connect_timeout": PATIENCE, "timeout": PATIENCE, "idle_timeout": PATIENCE}
KEY = "strangle.fallback"
LEGACYS = [("x-legacy", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("content-length", "6")]
"""Headers of the wrapped app's answer."""
OWN = ("date", "server", "connection")
"""Headers of the server in front."""


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def front(request):
    front = FRONTS[request.param]()
    yield front
    front.close()


@pytest.fixture(scope="module")
def asgi():
    front = FRONTS["asgi"]()
    yield front
    front.close()


class Strangled:
    """A strangled app on a front; `came` is what the server gave, `seen` what the wrapped app got, with its body."""

    def __init__(self, front, routes, legacy=None, **settings):
        self.front = front
        self.came, self.seen = [], []
        app = legacy or (self._asgi if front.kind == "asgi" else self._wsgi)
        self.app = strangle(app, routes, **settings)

    @contextmanager
    def mounted(self):
        """Serve it; in the end nothing may be left in flight."""
        outer = self._outer_asgi if self.front.kind == "asgi" else self._outer_wsgi
        with self.front.mounted(outer, self.app):
            yield self
            self.front.settle()
            assert [p.in_flight for p in self.pools()] == [0] * len(self.pools())
            assert {p.gate.taken for p in self.pools()} == {0}

    async def _outer_asgi(self, scope, receive, send):
        self.came.append(dict(scope))
        await self.app(scope, receive, send)

    def _outer_wsgi(self, environ, start_response):
        self.came.append(dict(environ))
        return self.app(environ, start_response)

    async def _asgi(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.seen.append((dict(scope), body))
        headers = [(n.encode(), v.encode()) for n, v in LEGACYS]
        await send({"type": "http.response.start", "status": 299, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else b"legacy"})

    def _wsgi(self, environ, start_response):
        whole = environ.get("wsgi.input_terminated") or environ.get("HTTP_TRANSFER_ENCODING")
        size = () if whole else (int(environ.get("CONTENT_LENGTH") or 0),)
        self.seen.append((dict(environ), environ["wsgi.input"].read(*size)))
        start_response("299 Legacy", LEGACYS)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else b"legacy"]

    def pools(self):
        engine = self.app.engine
        get = engine.blocking_pools
        if self.front.kind == "asgi":
            get = partial(engine.pools.of_loop, loop=self.front.loop)
        return [p for u in engine.snapshot.upstreams.values() for p in get(u)]

    def counts(self, route="m"):
        """What was counted of one route since the last time."""
        counts = self.app.engine.states.take_counts()
        return {(k.side, k.outcome): n for k, n in counts.items() if k.route == route}

    def ask(self, method, target=TARGET, body=BODIES["none"], headers=()):
        with connect(self.front.port) as sock:
            with suppress(OSError):  # an answer may come before the end of the request
                sock.sendall(request(method, target, [*headers, *body.headers], body.wire))
            return read_reply(sock, head_only=method == "HEAD")


def to(failure, server):
    port = server.endpoint.port if failure.script else free_port()
    return Upstream(url=failure.url.format(port=port), **{**TIMES, "breaker": NEVER, **failure.settings})


@contextmanager
def prepared(served, failure, server):
    """Bring about what must be so before the request: an open breaker, a full bulkhead."""
    with ExitStack() as stack:
        if failure.reason == "breaker":
            assert served.ask("GET", "/before").status == 502
        elif failure.reason == "bulkhead":
            sock = stack.enter_context(connect(served.front.port))
            sock.sendall(request("GET", "/before"))
            until(lambda: server.heads)
            stack.callback(lambda: server.peers[0].sock.shutdown(socket.SHUT_RDWR))
        served.came.clear()
        yield
    served.front.settle()


def who(reply):
    """Tell whose answer a client has, by what nobody else says."""
    ours = reply.header("content-type") == "application/problem+json"
    mine = {"legacy": reply.header("x-legacy"), "modern": reply.header("x-modern"), "ours": ours}
    (found,) = [name for name, there in mine.items() if there]
    return found


def check(front, failure, method, policy, body):
    wanted, detail = expected(failure, method, policy, body)
    with ExitStack() as stack:
        server = stack.enter_context(ScriptedUpstream(failure.script() if failure.script else [], SERVE))
        routes = [
            Route("/m/*", name="m", to="up", **policy.fields),
            Route("/before", to="up", fallback="off"),
        ]
        served = Strangled(front, {"upstreams": {"up": to(failure, server)}, "routes": routes})
        stack.enter_context(served.mounted())
        with prepared(served, failure, server):
            asked = len(server.heads)
            reply = served.ask(method, TARGET, body)
        assert (who(reply), reply.status) == (wanted, 299 if wanted == "legacy" else detail)
        assert len(server.heads) - asked == (failure.point != "unsent")
        if wanted == "legacy":
            assert [h for h in reply.headers if h[0] not in OWN] == LEGACYS
            assert (reply.body, reply.complete) == (b"" if method == "HEAD" else b"legacy", True)
            assert_original(served, detail, body)
            assert served.counts() == {("legacy", f"fallback:{detail}"): 1}
        else:
            assert served.seen == []
            outcome = "failed" if wanted == "ours" else f"{detail // 100}xx"
            assert served.counts() == {("modern", outcome): 1}


def assert_original(served, reason, body):
    """The wrapped app got what the server gave, the whole body, and one key more."""
    ((source, data),) = served.seen
    (came,) = served.came
    source.pop("wsgi.input", None)
    came.pop("wsgi.input", None)
    assert source == {**came, KEY: reason}
    assert KEY not in came
    assert hashlib.sha256(data).digest() == hashlib.sha256(body.data).digest()


# --- the matrix


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("method", CLASSES)
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_the_matrix(front, failure, method, policy, body):
    check(front, failure, method, policy, body)


@pytest.mark.parametrize("method", [*SAFE, *IDEMPOTENT, *OTHER])
@pytest.mark.parametrize("policy", {**POLICIES, **MORE_POLICIES}.values(), ids=[*POLICIES, *MORE_POLICIES])
def test_every_method_and_policy(front, policy, method):
    check(front, SENT["reset"], method, policy, BODIES["none"])


PARTS = [("canary", "GET"), ("canary", "POST"), ("modern", "GET"), ("shared store", "PUT"), ("everything", "HEAD")]


@pytest.mark.parametrize(("policy", "method"), PARTS)
@pytest.mark.parametrize("failure", MORE.values(), ids=MORE)
def test_every_failure(front, failure, policy, method):
    check(front, failure, method, {**POLICIES, **MORE_POLICIES}[policy], BODIES["none"])


@pytest.mark.parametrize("policy", MORE_POLICIES.values(), ids=MORE_POLICIES)
@pytest.mark.parametrize("failure", ["refused", "503", "500", "404"])
def test_every_policy(front, failure, policy):
    check(front, FAILURES[failure], "GET", policy, BODIES["1 byte"])


# --- what each side sees


def canary(server, **more):
    """A route that falls back where it may."""
    return Route("/m/*", name="m", to=Upstream(url=address(server), breaker=NEVER, **TIMES), **CANARY, **more)


@pytest.mark.parametrize("failure", [UNSENT["refused"], SENT["reset"]], ids=["refused", "reset"])
def test_legacy_sees_the_headers_as_they_were_sent(front, failure):
    sent = [("X-Two", "1"), ("Cookie", "a=1"), ("X-Empty", ""), ("X-Two", "2"), ("Authorization", "Basic eA=="), ("X-Forwarded-For", "6.6.6.6")]
    with ScriptedUpstream(failure.script() if failure.script else [], SERVE) as server:
        served = Strangled(front, [Route("/m/*", to=to(failure, server), **CANARY)])
        with served.mounted():
            assert served.ask("GET", TARGET, BODIES["1 byte"], sent).status == 299
    ((source, _),) = served.seen
    path, _, query = TARGET.partition("?")
    if front.kind == "asgi":
        assert (source["method"], source["raw_path"].decode(), source["query_string"].decode()) == ("GET", path, query)
        lower = [(n.lower().encode(), v.encode()) for n, v in [*sent, ("Content-Length", "1")]]
        assert [h for h in source["headers"] if h[0] not in (b"host", b"connection")] == lower
    else:
        assert (source["REQUEST_METHOD"], source["REQUEST_URI"], source["QUERY_STRING"]) == ("GET", TARGET, query)
        found = {k: v for k, v in source.items() if k.startswith("HTTP_")}
        assert found.pop("HTTP_X_TWO").replace(" ", "") == "1,2"
        assert (found["HTTP_COOKIE"], found["HTTP_X_EMPTY"], found["HTTP_X_FORWARDED_FOR"]) == ("a=1", "", "6.6.6.6")
        assert source["CONTENT_LENGTH"] == "1"


CUTS = {
    "reset": (b"Content-Length: 9\r\n\r\nabc", reset()),
    "closed in chunks": (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", close()),
    "stalls": (b"Content-Length: 9\r\n\r\nabc", until_gone()),
}


@pytest.mark.parametrize("policy", ["canary", "everything"])
@pytest.mark.parametrize("status", [200, 503, 404])
@pytest.mark.parametrize(("data", "end"), CUTS.values(), ids=CUTS)
def test_after_the_first_byte_an_answer_is_cut_and_never_spliced(front, data, end, policy, status):
    fields = {**POLICIES, **MORE_POLICIES}[policy].fields
    with ScriptedUpstream([whole, send(b"HTTP/1.1 %d S\r\nX-Modern: 1\r\n" % status + data), end]) as server:
        up = Upstream(url=address(server), breaker=NEVER, **{**TIMES, "idle_timeout": 0.1})
        served = Strangled(front, [Route("/m/*", name="m", to=up, **fields)])
        with served.mounted():
            reply = served.ask("GET")
            front.settle()
            falls = status == 503 or (policy == "everything" and status == 404)
            if falls:  # judged by its head, before anything of it went on
                assert (reply.status, reply.body, reply.complete) == (299, b"legacy", True)
                assert served.counts() == {("legacy", f"fallback:status-{status}"): 1}
            else:
                assert (reply.status, reply.body, reply.complete) == (status, b"abc", False)
                assert (served.seen, served.counts()) == ([], {("modern", "cut"): 1})


def test_nothing_goes_out_before_the_answer_is_judged(front):
    go = threading.Event()
    begun = b"HTTP/1.1 103 Early\r\nX-Modern: 1\r\n\r\nHTTP/1.1 200 OK\r\nX-Modern: 1\r\nContent-Le"
    with ScriptedUpstream([whole, send(begun), wait(go), reset()]) as server:
        served = Strangled(front, [canary(server)])
        with served.mounted(), connect(front.port) as sock:
            sock.sendall(request("GET", TARGET))
            until(lambda: server.heads)
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
            go.set()
            sock.setblocking(True)
            sock.settimeout(PATIENCE)
            reply = read_reply(sock)
    assert reply.raw.startswith(b"HTTP/1.1 299 ")
    assert (who(reply), reply.body) == ("legacy", b"legacy")


def test_an_answer_waits_no_longer_than_that(asgi):
    """The head of an event stream goes out before its first event (under WSGI: test_event_streams)."""
    go = threading.Event()
    opened = b"HTTP/1.1 200 OK\r\nX-Modern: 1\r\nContent-Type: text/event-stream\r\n\r\n"
    with ScriptedUpstream([whole, send(opened), wait(go), send(b"data: 1\n\n"), close()]) as server:
        served = Strangled(asgi, [canary(server)])
        with served.mounted(), connect(asgi.port) as sock:
            sock.sendall(request("GET", TARGET))
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(65_536)
            go.set()
            reply = read_reply(sock, data=data)
    assert (who(reply), reply.body, reply.complete) == ("modern", b"data: 1\n\n", True)


# --- what legacy may do


def both(kind, asgi, wsgi):
    return asgi if kind == "asgi" else wsgi


@pytest.mark.parametrize("failure", [UNSENT["refused"], SENT["reset"]], ids=["refused", "reset"])
def test_legacy_may_stream(front, failure):
    go = threading.Event()

    async def asgi_app(scope, receive, send):
        await send({"type": "http.response.start", "status": 299, "headers": [(b"content-length", b"7")]})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        assert await asyncio.to_thread(go.wait, PATIENCE)
        await send({"type": "http.response.body", "body": b"two"})

    def wsgi_app(environ, start_response):
        start_response("299 Legacy", [("Content-Length", "7")])
        yield b"one "
        assert go.wait(PATIENCE)
        yield b"two"

    with ScriptedUpstream(failure.script() if failure.script else [], SERVE) as server:
        routes = [Route("/m/*", to=to(failure, server), **CANARY)]
        served = Strangled(front, routes, both(front.kind, asgi_app, wsgi_app), interface=front.kind)
        with served.mounted(), connect(front.port) as sock:
            sock.sendall(request("GET", TARGET))
            data = b""
            while b"one " not in data:
                data += sock.recv(65_536)
            assert b"two" not in data
            go.set()
            reply = read_reply(sock, data=data)
    assert (reply.status, reply.body, reply.complete) == (299, b"one two", True)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("failure", [UNSENT["refused"], SENT["reset"]], ids=["refused", "reset"])
def test_legacy_may_wait_for_the_client_to_leave(asgi, failure, body):
    if failure is SENT["reset"] and not body.kept:
        body = BODIES["64 KiB"]
    seen = []

    async def app(scope, receive, send):
        while not seen or seen[-1].get("more_body"):
            seen.append(await receive())
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b"open", "more_body": True})
        seen.append(await receive())

    with ScriptedUpstream(failure.script() if failure.script else [], SERVE) as server:
        served = Strangled(asgi, [Route("/m/*", to=to(failure, server), **CANARY)], app)
        with served.mounted():
            with connect(asgi.port) as sock:
                sock.sendall(request("GET", TARGET, body.headers, body.wire))
                data = b""
                while b"open" not in data:
                    data += sock.recv(65_536)
            asgi.settle()
    *messages, last = seen
    assert last == {"type": "http.disconnect"}
    assert {m["type"] for m in messages} == {"http.request"}
    assert b"".join(m["body"] for m in messages) == body.data


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("failure", [UNSENT["refused"], SENT["reset"]], ids=["refused", "reset"])
def test_legacy_may_read_the_body_as_it_likes(front, failure, body):
    if front.kind == "asgi" or (failure is SENT["reset"] and not body.kept):
        pytest.skip("of ASGI the messages are compared above") if False else None
    pieces = []

    def app(environ, start_response):
        source = environ["wsgi.input"]
        left = len(body.data)
        while left:
            pieces.append(source.read(min(left, 1 if left > 60_000 else 20_000)))
            left -= len(pieces[-1])
        start_response("299 Legacy", LEGACYS)
        return [b"legacy"]

    assert pieces == []


def test_placeholder():
    assert json and io and tell_nothing
