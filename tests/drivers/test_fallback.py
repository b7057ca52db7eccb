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
    EVERY_POLICY,
    FAILURES,
    IDEMPOTENT,
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
from tests.transports.upstream import (
    PATIENCE,
    ScriptedUpstream,
    close,
    forever,
    reset,
    send,
    until_gone,
    wait,
)

from promises.drive import address
from servers import ASGI, connect, free_port, read_reply, request, talk
from strangle_mw import Route, Upstream, strangle
from test_wsgi import call, environ

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


@pytest.fixture(scope="module")
def wsgi():
    front = FRONTS["wsgi"]()
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
        self.came.append({**scope, "headers": [*scope["headers"]]})
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


def read_until(sock, mark):
    data = b""
    while mark not in data:
        more = sock.recv(65_536)
        assert more, data
        data += more
    return data


def failing(failure):
    """An upstream whose first connection fails in this way; further ones are served as they should be."""
    return ScriptedUpstream(failure.script() if failure.script else [], SERVE)


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
        server = stack.enter_context(failing(failure))
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
@pytest.mark.parametrize("policy", ["canary", "modern", "shared store", "everything"])
def test_every_method(front, policy, method):
    check(front, SENT["reset"], method, EVERY_POLICY[policy], BODIES["none"])


PARTS = [
    ("canary", "GET"),
    ("canary", "POST"),
    ("modern", "GET"),
    ("shared store", "PUT"),
    ("everything", "HEAD"),
]


@pytest.mark.parametrize(("policy", "method"), PARTS)
@pytest.mark.parametrize("failure", MORE.values(), ids=MORE)
def test_every_failure(front, failure, policy, method):
    check(front, failure, method, EVERY_POLICY[policy], BODIES["none"])


@pytest.mark.parametrize("policy", MORE_POLICIES.values(), ids=MORE_POLICIES)
@pytest.mark.parametrize("failure", ["refused", "reset", "503", "500", "404"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_every_policy(front, failure, policy, method):
    check(front, FAILURES[failure], method, policy, BODIES["1 byte"])


# --- what each side sees


def canary(server, **more):
    """A route that falls back where it may."""
    return Route("/m/*", name="m", to=Upstream(url=address(server), breaker=NEVER, **TIMES), **CANARY, **more)


@pytest.mark.parametrize("failure", [UNSENT["refused"], SENT["reset"]], ids=["refused", "reset"])
def test_legacy_sees_the_headers_as_they_were_sent(front, failure):
    sent = [
        ("X-Two", "1"),
        ("Cookie", "a=1"),
        ("X-Empty", ""),
        ("X-Two", "2"),
        ("Authorization", "Basic eA=="),
        ("X-Forwarded-For", "6.6.6.6"),
    ]
    with failing(failure) as server:
        served = Strangled(front, [Route("/m/*", to=to(failure, server), **CANARY)])
        with served.mounted():
            assert served.ask("GET", TARGET, BODIES["1 byte"], sent).status == 299
    ((source, _),) = served.seen
    path, _, query = TARGET.partition("?")
    if front.kind == "asgi":
        assert (source["method"], source["raw_path"].decode(), source["query_string"].decode()) == (
            "GET",
            path,
            query,
        )
        lower = [(n.lower().encode(), v.encode()) for n, v in [*sent, ("Content-Length", "1")]]
        assert [h for h in source["headers"] if h[0] not in (b"host", b"connection")] == lower
    else:
        assert (source["REQUEST_METHOD"], source["REQUEST_URI"], source["QUERY_STRING"]) == (
            "GET",
            TARGET,
            query,
        )
        found = {k: v for k, v in source.items() if k.startswith("HTTP_")}
        assert found["HTTP_AUTHORIZATION"] == "Basic eA=="
        assert (found["HTTP_COOKIE"], found["HTTP_X_EMPTY"], found["HTTP_X_FORWARDED_FOR"]) == (
            "a=1",
            "",
            "6.6.6.6",
        )
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
    fields = EVERY_POLICY[policy].fields
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
            data = read_until(sock, b"\r\n\r\n")
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

    with failing(failure) as server:
        routes = [Route("/m/*", to=to(failure, server), **CANARY)]
        served = Strangled(front, routes, both(front.kind, asgi_app, wsgi_app), interface=front.kind)
        with served.mounted(), connect(front.port) as sock:
            sock.sendall(request("GET", TARGET))
            data = read_until(sock, b"one ")
            assert b"two" not in data
            go.set()
            reply = read_reply(sock, data=data)
    assert (reply.status, reply.body, reply.complete) == (299, b"one two", True)


REPLAYED = {
    f"{name}, {what}": (failure, body)
    for name, failure in (("refused", UNSENT["refused"]), ("reset", SENT["reset"]))
    for what, body in BODIES.items()
    if body.kept or failure.point == "unsent"
}


@pytest.mark.parametrize(("failure", "body"), REPLAYED.values(), ids=REPLAYED)
def test_legacy_may_wait_for_the_client_to_leave(asgi, failure, body):
    seen = []

    async def app(scope, receive, send):
        while not seen or seen[-1].get("more_body"):
            seen.append(await receive())
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b"open", "more_body": True})
        seen.append(await receive())

    with failing(failure) as server:
        served = Strangled(asgi, [Route("/m/*", to=to(failure, server), **CANARY)], app)
        with served.mounted():
            with connect(asgi.port) as sock:
                sock.sendall(request("GET", TARGET, body.headers, body.wire))
                read_until(sock, b"open")
            asgi.settle()
    *messages, last = seen
    assert last == {"type": "http.disconnect"}
    assert {m["type"] for m in messages} == {"http.request"}
    assert b"".join(m["body"] for m in messages) == body.data


@pytest.mark.parametrize(("failure", "body"), REPLAYED.values(), ids=REPLAYED)
def test_legacy_may_read_the_body_in_pieces(wsgi, failure, body):
    pieces = []

    def app(environ, start_response):
        source, size = environ["wsgi.input"], len(body.data)
        pieces.extend((source.read(min(size, 1)), source.readline(max(0, min(size - 1, 7)))))
        while left := size - sum(map(len, pieces)):
            pieces.append(source.read(min(left, 20_000)))
        start_response("299 Legacy", LEGACYS)
        return [b"legacy"]

    with failing(failure) as server:
        served = Strangled(wsgi, [Route("/m/*", to=to(failure, server), **CANARY)], app)
        with served.mounted():
            assert served.ask("GET", TARGET, body).status == 299
    assert b"".join(pieces) == body.data


@pytest.mark.parametrize("data", [b"", b"a", b"line\nand more\n", b"x" * 100_000])
@pytest.mark.parametrize(
    "read",
    [lambda s: s.read(), b"".join, lambda s: s.read(1) + s.readline() + s.read()],
    ids=["whole", "lines", "mixed"],
)
def test_a_body_that_nothing_declares_is_given_back_whole(data, read):
    """HTTP/2 says only by its first event whether there is one: one byte of it was read by then."""
    seen = []

    def app(environ, start_response):
        seen.append((environ[KEY], read(environ["wsgi.input"])))
        start_response("299 Legacy", [])
        return []

    refused = Upstream(url=f"http://127.0.0.1:{free_port()}")
    app = strangle(app, [Route("/m/*", to=refused)])
    came = environ(
        "/m/x",
        REQUEST_METHOD="POST",
        SERVER_PROTOCOL="HTTP/2",
        **{"wsgi.input": io.BytesIO(data), "wsgi.input_terminated": True},
    )
    came.pop("CONTENT_LENGTH", None)
    call(app, came)
    assert seen == [("connect", data)]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_legacy_may_leave_the_body_alone(front, body):
    async def asgi_app(scope, receive, send):
        await send({"type": "http.response.start", "status": 299, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def wsgi_app(environ, start_response):
        start_response("299 Legacy", [("Content-Length", "2")])
        return [b"ok"]

    routes = [Route("/m/*", to=f"http://127.0.0.1:{free_port()}")]
    served = Strangled(front, routes, both(front.kind, asgi_app, wsgi_app))
    with served.mounted():
        for _ in range(2):
            reply = served.ask("POST", TARGET, body)
            assert (reply.status, reply.body) == (299, b"ok")


@pytest.mark.parametrize("failure", [UNSENT["refused"], SENT["reset"]], ids=["refused", "reset"])
@pytest.mark.parametrize("when", ["at once", "after the head"])
def test_legacy_may_raise(front, failure, when):
    """It is the server's to answer, as it is without us; nobody else is asked, and the fallback is counted."""

    async def asgi_app(scope, receive, send):
        if when == "after the head":
            await send({"type": "http.response.start", "status": 299, "headers": [(b"content-length", b"7")]})
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        raise ZeroDivisionError

    def wsgi_app(environ, start_response):
        if when == "at once":
            raise ZeroDivisionError
        start_response("299 Legacy", [("Content-Length", "7")])
        return broken()

    def broken():
        yield b"abc"
        raise ZeroDivisionError

    with failing(failure) as server:
        routes = [Route("/m/*", name="m", to=to(failure, server), **CANARY)]
        served = Strangled(front, routes, both(front.kind, asgi_app, wsgi_app))
        with served.mounted():
            reply = served.ask("GET")
            front.settle()
            assert served.counts() == {("legacy", f"fallback:{failure.reason}"): 1}
    if when == "after the head":
        assert (reply.status, reply.body, reply.complete) == (299, b"abc", False)
    else:
        assert reply.status == 500
        assert reply.header("content-type") != "application/problem+json"


@pytest.mark.parametrize("lazy", [False, True])
def test_an_error_of_legacy_is_its_own(strangled, lazy):
    async def asgi_app(scope, receive, send):
        raise ZeroDivisionError

    def wsgi_app(environ, start_response):
        if not lazy:
            raise ZeroDivisionError
        return broken(start_response)

    def broken(start_response):  # an app that is a generator is not begun before its first chunk is wanted
        raise ZeroDivisionError
        yield

    routes = [Route("/m/*", to=f"http://127.0.0.1:{free_port()}")]
    side = strangled(routes, legacy=both(strangled.kind, asgi_app, wsgi_app))
    assert isinstance(side.ask().error, ZeroDivisionError)
    ((key, number),) = side.app.engine.states.take_counts().items()
    assert (key.side, key.outcome, number) == ("legacy", "fallback:connect", 1)


# --- several tries, several endpoints


@pytest.mark.parametrize(("method", "status", "heads"), [("GET", 299, 3), ("POST", 502, 2)])
def test_a_stale_connection_is_replaced_first(strangled, method, status, heads):
    """The one exception to one request, one request (promise P14) comes before legacy."""
    with ScriptedUpstream([whole, send(answer(200)), whole, close()], [whole, close()]) as server:
        side = strangled([canary(server)])
        assert side.ask().status == 200
        assert side.ask(method=method).status == status
        assert (len(server.heads), len(side.legacy)) == (heads, status == 299)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_endpoints_are_asked_before_legacy(strangled, method):
    dead = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    with ScriptedUpstream(SERVE) as server:
        two = Upstream(urls=[*dead, address(server)], breaker=NEVER)
        side = strangled([Route("/m/*", to=two), Route("/dead", to=Upstream(urls=dead, breaker=NEVER))])
        assert {side.ask(method=method).status for _ in range(5)} == {200}
        assert side.legacy == []
        assert side.ask("/dead", method=method).status == 299
        assert len(side.legacy) == 1
        side.close()


@pytest.mark.parametrize(("method", "status"), [("GET", 299), ("POST", 502)])
def test_once_it_was_sent_no_other_endpoint_is_asked(strangled, method, status):
    with ScriptedUpstream([whole, close()]) as one, ScriptedUpstream([whole, close()]) as other:
        up = Upstream(urls=[address(one), address(other)], breaker=NEVER)
        side = strangled([Route("/m/*", to=up, **CANARY)])
        assert side.ask(method=method).status == status
        assert len(one.heads) + len(other.heads) == 1


# --- how many


def within_budget(requests):
    """Write down design section 4.2 rule 4: at most 20 % of the requests, plus 10 a second over 10 s."""
    spent, found = 0, []
    for number in range(1, requests + 1):
        allowed = spent + 1 <= 0.2 * number + 100
        spent += allowed
        found.append(allowed)
    return found


@pytest.mark.parametrize(("step", "status"), [(close(), 502), (send(answer(503)), 503)])
def test_legacy_does_not_get_all_load_at_once(strangled, step, status):
    with ScriptedUpstream([forever(whole, step)]) as server:
        side = strangled(
            [canary(server), Route("/other/*", to=Upstream(url=address(server), breaker=NEVER), **CANARY)]
        )
        found = [side.ask().status for _ in range(140)]
        assert found == [299 if allowed else status for allowed in within_budget(140)]
        assert found.index(status) == 125
        assert side.ask("/other/x").status == 299  # each route has its own
        assert len(server.heads) == 141
        side.close()


def test_what_was_never_sent_is_not_counted_against_it(strangled):
    side = strangled(
        [Route("/m/*", to=Upstream(url=f"http://127.0.0.1:{free_port()}", breaker=NEVER), **CANARY)]
    )
    assert {side.ask(method=m).status for m in ("GET", "POST") for _ in range(100)} == {299}


# --- under every server


def told(reply):
    assert (reply.status, reply.complete) == (200, True)
    found = reply.json()
    return found["from"], found["fallback"], found["length"], found["sha256"]


@pytest.mark.parametrize("size", [3, 70_000])
def test_served_a_body_reaches_legacy_whole(server, size):
    data = b"x" * size
    reply = talk(server, request("POST", "/fallen/x", [("Content-Length", str(size))], data))
    assert told(reply) == ("legacy", "connect", size, hashlib.sha256(data).hexdigest())


def test_served_a_request_that_waited_reaches_legacy(server, echo):
    """By then its client is watched, which a second `receive` must not mind: legacy watches it, too."""
    before, watch = echo.requests, server.name in ASGI
    with connect(server) as sock:
        target = "/slow/stall?watch" if watch else "/slow/stall"
        sock.sendall(request("GET", target, [("Content-Length", "3")], b"abc"))
        data = read_until(sock, b"}") if watch else b""
        found = (
            json.loads(data[data.index(b"{") : data.rindex(b"}") + 1]) if watch else read_reply(sock).json()
        )
    assert (found["from"], found["fallback"], found["length"]) == ("legacy", "timeout", 3)
    assert echo.requests == before + 1
    if watch:
        until(lambda: talk(server, request("GET", "/other")).json()["left"] > found["left"])
