"""Fallback on real sockets, both drivers under real servers: who answers, and what each side has seen of it.

The matrix of design section 4.3 is in `fallback_table`; which stage has which fallback in `test_stages`, that of
WebSockets in `test_websocket`.
"""

import asyncio
import hashlib
import io
import json
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

    def counts(self):
        return {(k.side, k.outcome): n for k, n in self.app.engine.states.take_counts().items()}

    def ask(self, method, target=TARGET, body=BODIES["none"], headers=()):
        with connect(self.front.port) as sock:
            with suppress(OSError):  # an answer may come before the end of the request
                sock.sendall(request(method, target, [*headers, *body.headers], body.wire))
            reply = read_reply(sock, head_only=method == "HEAD")
        self.front.settle()
        return reply


def to(failure, server):
    port = server.endpoint.port if failure.script else free_port()
    return Upstream(url=failure.url.format(port=port), **{**TIMES, "breaker": NEVER, **failure.settings})


def prepare(served, failure, server, stack):
    """Bring about what must be so before the request: a full bulkhead, an open breaker."""
    if failure.reason == "breaker":
        served.ask("GET", "/m/before")
    elif failure.reason == "bulkhead":
        sock = stack.enter_context(connect(served.front.port))
        sock.sendall(request("GET", "/m/before"))
        until(lambda: server.heads)
        stack.callback(lambda: server.peers[0].sock.shutdown(2))
    served.counts()
    served.seen.clear()
    served.came.clear()


def who(reply):
    """Tell whose answer a client has, by what nobody else says."""
    ours = reply.header("content-type") == "application/problem+json"
    mine = {"legacy": reply.header("x-legacy"), "modern": reply.header("x-modern"), "ours": ours}
    (found,) = [name for name, there in mine.items() if there]
    return found


def check(front, failure, method, policy, body):
    wanted, detail = expected(failure, method, policy, body)
    with ExitStack() as stack:
        server = stack.enter_context(ScriptedUpstream(failure.script() if failure.script else [], [SERVE]))
        served = Strangled(front, [Route("/m/*", to=to(failure, server), **policy.fields)])
        stack.enter_context(served.mounted())
        before = stack.enter_context(ExitStack())
        prepare(served, failure, server, before)
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
