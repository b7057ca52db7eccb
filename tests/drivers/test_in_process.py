"""Apps in this process that fail: who answers (design section 4.3), under both drivers and for both kinds of apps.

The matrix is that of `fallback_table`; what an app does when all is well is in `tests/test_in_process.py`.
"""

import asyncio
import threading
from contextlib import ExitStack, contextmanager

import pytest
from fallback_table import (
    BODIES,
    CLASSES,
    EVERY_POLICY,
    IDEMPOTENT,
    NEVER,
    OTHER,
    POLICIES,
    SAFE,
    TARGET,
    Failure,
    expected,
)
from faulty_fronts import FRONTS, until
from test_fallback import LEGACYS, OWN, Strangled, assert_original, who
from tests.transports.upstream import PATIENCE

from servers import connect, request, serve, talk
from strangle_mw import Breaker, Route, Upstream

MODERN = (b"x-modern", b"1")


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def front(request):
    front = FRONTS[request.param]()
    yield front
    front.close()


class App:
    """An app of one kind that counts its calls; `act` says what it does."""

    def __init__(self, kind, act):
        self.kind, self.act = kind, act
        self.calls = 0
        self.hold = threading.Event()
        self.app = self._asgi() if kind == "asgi" else self._wsgi()

    def _asgi(self):
        async def app(scope, receive, send):
            if scope["type"] == "lifespan":
                await self._live(receive, send)
                return
            self.calls += 1
            if scope["path"] == "/before" and self.act in ASGI_HELD:
                await asyncio.to_thread(self.hold.wait, PATIENCE)
                await answer(503 if self.act == "breaker" else 200)(scope, receive, send)
            else:
                await ASGI[self.act](scope, receive, send)

        return app

    async def _live(self, receive, send):
        await receive()
        if self.act == "startup failed":
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            return
        if self.act == "startup hangs":
            await asyncio.Event().wait()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def _wsgi(self):
        def app(environ, start_response):
            self.calls += 1
            if environ["PATH_INFO"] == "/before" and self.act in ASGI_HELD:
                self.hold.wait(PATIENCE)
                return wsgi_answer("503 Bad" if self.act == "breaker" else "200 OK")(environ, start_response)
            return WSGI[self.act](environ, start_response)

        return app


ASGI_HELD = ("bulkhead", "breaker")


def answer(status, headers=(MODERN, (b"content-length", b"6"))):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else b"modern"
        await send({"type": "http.response.body", "body": body})

    return app


async def raises(scope, receive, send):
    raise ZeroDivisionError


async def exits(scope, receive, send):
    raise SystemExit(3)


async def returns(scope, receive, send):
    await receive()


async def hangs(scope, receive, send):
    await asyncio.Event().wait()


async def hangs_on(scope, receive, send):
    """Not to be ended by one cancellation."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await answer(200)(scope, receive, send)


async def cancels_itself(scope, receive, send):
    raise asyncio.CancelledError


async def refuses_then_hangs(scope, receive, send):
    await answer(503)(scope, receive, send)
    await asyncio.Event().wait()


ASGI = {
    "raises": raises, "exits": exits, "returns": returns, "hangs": hangs, "hangs on": hangs_on, "cancels itself": cancels_itself,
    "status 99": answer(99), "status 700": answer(700), "a status of text": answer("200"), "headers of text": answer(200, [("x-modern", "1")]),
    "a line break": answer(200, [MODERN, (b"x-a", b"1\r\nset-cookie: a=1")]), "a bad name": answer(200, [MODERN, (b"x a", b"1")]),
    "two lengths": answer(200, [MODERN, (b"content-length", b"6"), (b"content-length", b"7")]),
    "no number": answer(200, [MODERN, (b"content-length", b"+6")]), "503, then hangs": refuses_then_hangs,
    "startup failed": answer(200), "startup hangs": answer(200), "bulkhead": answer(200), "breaker": answer(200),
    **{str(s): answer(s) for s in (404, 500, 502, 503, 504)},
}  # fmt: skip


def wsgi_answer(status, headers=(("X-Modern", "1"), ("Content-Length", "6")), body=b"modern"):
    def app(environ, start_response):
        start_response(status, [*headers])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    return app


def wsgi_raises(environ, start_response):
    raise ZeroDivisionError


def wsgi_exits(environ, start_response):
    raise SystemExit(3)


def wsgi_returns(environ, start_response):
    return [b"modern"]


def wsgi_raises_behind_the_head(environ, start_response):
    start_response("200 OK", [("X-Modern", "1")])
    yield b""
    raise ZeroDivisionError


WSGI = {
    "raises": wsgi_raises, "exits": wsgi_exits, "returns": wsgi_returns, "raises behind the head": wsgi_raises_behind_the_head,
    "status 99": wsgi_answer("99 Low"), "status 700": wsgi_answer("700 High"), "no status": wsgi_answer("OK"),
    "a line break": wsgi_answer("200 OK", [("X-Modern", "1"), ("X-A", "1\r\nSet-Cookie: a=1")]),
    "a reason with a line break": wsgi_answer("200 OK\r\nX-A: 1"), "a bad name": wsgi_answer("200 OK", [("X A", "1")]),
    "a body of text": wsgi_answer("200 OK", body="modern"), "bulkhead": wsgi_answer("200 OK"), "breaker": wsgi_answer("200 OK"),
    **{str(s): wsgi_answer(f"{s} Status") for s in (404, 500, 502, 503, 504)},
}  # fmt: skip

BROKEN = Failure("sent", 502, "reset", None)
MEANINGS = {
    "hangs": Failure("sent", 504, "timeout", None, settings={"timeout": 0.1}),
    "hangs on": Failure("sent", 504, "timeout", None, settings={"timeout": 0.1}),
    "503, then hangs": Failure("answered", 503, "status-503", None, settings={"timeout": 0.1}),
    "startup failed": Failure("unsent", 502, "connect", None),
    "startup hangs": Failure("unsent", 504, "connect-timeout", None, settings={"connect_timeout": 0.1}),
    "bulkhead": Failure("unsent", 503, "bulkhead", None, settings={"max_in_flight": 1, "pool_timeout": 0.0}),
    "breaker": Failure("unsent", 503, "breaker", None, settings={"breaker": Breaker(ratio=0.5, minimum=1, open=60)}),
    **{str(s): Failure("answered", s, f"status-{s}", None) for s in (404, 500, 502, 503, 504)},
}  # fmt: skip
ENDLESS = "503, then hangs"  # by itself: one that answers for itself may go on for ever
CASES = [*(("asgi", act) for act in ASGI if act != ENDLESS), *(("wsgi", act) for act in WSGI)]


@contextmanager
def strangled(front, app, act, **fields):
    failure = MEANINGS.get(act, BROKEN)
    times = {"connect_timeout": PATIENCE, "timeout": PATIENCE, "breaker": NEVER, **failure.settings}
    routes = [Route("/m/*", name="m", to="up", **fields), Route("/before", to="up", fallback="off")]
    served = Strangled(
        front, {"upstreams": {"up": Upstream(**{app.kind: app.app}, **times)}, "routes": routes}
    )
    with served.mounted():
        yield served, failure


@contextmanager
def prepared(served, app):
    """Bring about what must be so before the request: an open breaker, a full bulkhead."""
    with ExitStack() as stack:
        if app.act == "breaker":
            app.hold.set()
            assert served.ask("GET", "/before").status == 503
        elif app.act == "bulkhead":
            sock = stack.enter_context(connect(served.front.port))
            sock.sendall(request("GET", "/before"))
            until(lambda: app.calls)
        served.came.clear()
        try:
            yield
        finally:
            app.hold.set()
    served.front.settle()


def check(front, kind, act, method, policy, body):
    app = App(kind, act)
    with strangled(front, app, act, **policy.fields) as (served, failure):
        wanted, detail = expected(failure, method, policy, body)
        with prepared(served, app):
            before = app.calls
            reply = served.ask(method, TARGET, body)
        assert app.calls - before == (failure.point != "unsent")
        assert (who(reply), reply.status) == (wanted, 299 if wanted == "legacy" else detail)
        if wanted == "legacy":
            assert [h for h in reply.headers if h[0] not in OWN] == LEGACYS
            assert (reply.body, reply.complete) == (b"" if method == "HEAD" else b"legacy", True)
            assert_original(served, detail, body)
            assert served.counts() == {("legacy", f"fallback:{detail}"): 1}
        else:
            assert served.seen == []
            assert served.counts() == {("modern", "failed" if wanted == "ours" else f"{detail // 100}xx"): 1}


@pytest.mark.parametrize("method", CLASSES)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("kind", "act"), CASES)
def test_every_failure(front, kind, act, policy, method):
    check(front, kind, act, method, EVERY_POLICY[policy], BODIES["1 byte"])


def test_an_app_whose_answer_is_dropped_has_no_more_time_than_for_its_head(front):
    check(front, "asgi", ENDLESS, "GET", EVERY_POLICY["canary"], BODIES["1 byte"])


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("act", ["raises", "bulkhead", "503"])
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_every_body(front, kind, act, method, body):
    check(front, kind, act, method, EVERY_POLICY["canary"], BODIES[body])


@pytest.mark.parametrize("method", [*SAFE, *IDEMPOTENT, *OTHER])
@pytest.mark.parametrize("policy", ["modern", "everything"])
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_every_method(front, kind, policy, method):
    check(front, kind, "raises", method, EVERY_POLICY[policy], BODIES["none"])


@pytest.mark.parametrize("act", ["startup failed", "503", "500", "404"])
@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_every_policy(front, policy, act):
    check(front, "asgi", act, "GET", EVERY_POLICY[policy], BODIES["none"])


# --- after the first byte

SERVERS = [
    "uvicorn-httptools", "uvicorn-h11", "hypercorn", "granian-asgi", "gunicorn-asgi",
    "gunicorn-sync", "gunicorn-gthread", "waitress", "cheroot",
]  # fmt: skip


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    with serve(request.param, "drivers.in_process_apps") as port:
        yield port


@pytest.mark.parametrize("act", ["late", "late-chunked", "short"])
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_an_answer_that_has_begun_is_cut_and_never_ended_cleanly(server, kind, act):
    reply = talk(server, request("GET", f"/{kind}/plain/{act}"))
    assert (reply.status, reply.body, reply.complete) == (200, b"begun", False)


def test_an_answer_without_its_last_message_is_cut(server):
    reply = talk(server, request("GET", "/asgi/plain/unended"))
    assert (reply.status, reply.body, reply.complete) == (200, b"begun", False)


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_both_kinds_of_apps_answer_under_every_server(server, kind):
    for method, body in (("GET", None), ("HEAD", None), ("POST", b"x" * 100_000)):
        headers = [] if body is None else [("Content-Length", str(len(body)))]
        reply = talk(server, request(method, f"/{kind}/strip/a%2Fb?c=d", headers, body or b""))
        assert reply.status == 200
        if method == "HEAD":
            assert reply.body == b""
        else:
            told = reply.json()
            assert told["length"] == len(body or b"")
            assert told.get("query", told.get("environ", {}).get("QUERY_STRING")) == "c=d"
