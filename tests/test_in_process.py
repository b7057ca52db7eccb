"""Apps in this process when all is well, and when their client is not: both drivers, no server between.

Who answers for an app that fails is in `drivers/test_in_process`, what it sees in `laws/test_in_process`.
"""

import asyncio
import contextvars
import logging
import sys
import threading
import tracemalloc
import types

import pytest
from faulty_fronts import until

from calls import call
from promises.conftest import strangled
from promises.drive import GONE, PATIENCE, Asked
from servers import DEADLINE
from strangle_mw import Breaker, ForwardError, Route, Upstream, strangle
from strangle_mw.bridges.loop_thread import loop_thread
from test_asgi import Client, http
from test_wsgi import environ

__all__ = ["strangled"]


@pytest.fixture(scope="module", autouse=True)
def _loop():
    """The loop of this process stays, with its descriptors."""
    loop_thread()


NEVER = Breaker(failures=0, ratio=0)
KINDS = ["asgi", "wsgi"]


def up(kind, app, **more):
    return Route("/m/*", name="m", to=Upstream(**{kind: app}, **{"breaker": NEVER, **more}))


def counts(app):
    return {(k.side, k.outcome): n for k, n in app.engine.states.take_counts().items()}


async def answer(send, status=200, body=b"ok", headers=()):
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def without_lifespan(app):
    """An app for HTTP alone."""

    async def asgi(scope, receive, send):
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
        else:
            raise ValueError("no lifespan here")

    return asgi


async def read(receive):
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body, more = body + message["body"], message["more_body"]
    return body


# --- both drivers, both kinds of apps


@without_lifespan
async def asgi_echo(scope, receive, send):
    await answer(send, body=b"%d" % len(await read(receive)))


def wsgi_echo(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [b"%d" % len(body)]


ECHOES = {"asgi": asgi_echo, "wsgi": wsgi_echo}
FRAMED = [(size, chunked) for size in (0, 1, 65_536, 65_537, 1_000_000) for chunked in (False, True)]


@pytest.mark.parametrize(("size", "chunked"), FRAMED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_body_arrives_whole(strangled, kind, size, chunked):
    side = strangled([up(kind, ECHOES[kind])])
    body = [b"x" * min(50_000, size - at) for at in range(0, size, 50_000)]
    seen = side.ask(body=body, chunked=chunked, method="POST")
    assert (seen.status, seen.body, seen.ended) == (200, b"%d" % size, True)
    assert counts(side.app) == {("modern", "2xx"): 1}


BODYLESS = [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)]


@pytest.mark.parametrize(("method", "status"), BODYLESS)
@pytest.mark.parametrize("kind", KINDS)
def test_where_no_body_may_be_there_is_none(strangled, kind, method, status):
    @without_lifespan
    async def asgi(scope, receive, send):
        await answer(send, status, b"a body", [(b"content-length", b"6")])

    def wsgi(environ, start_response):
        start_response(f"{status} Status", [("Content-Length", "6")])
        return [b"a body"]

    side = strangled([up(kind, asgi if kind == "asgi" else wsgi)])
    seen = side.ask(method=method)
    assert (seen.status, seen.body, seen.ended) == (status, b"", True)
    assert seen.header(b"content-length") == (None if status in (204, 304) else b"6")


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_goes_out_before_the_next_one_is_made(strangled, kind):
    go, out = threading.Event(), []

    @without_lifespan
    async def asgi(scope, receive, send):
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        out.append(await asyncio.to_thread(go.wait, PATIENCE))
        await send({"type": "http.response.body", "body": b"two"})

    def wsgi(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        yield b"one"
        out.append(go.wait(PATIENCE))
        yield b"two"

    side = strangled([up(kind, asgi if kind == "asgi" else wsgi)])
    taken = []

    async def send(message):
        if message.get("body"):
            taken.append(message["body"])
            go.set()

    if strangled.kind == "asgi":
        client = Client()
        asyncio.run_coroutine_threadsafe(side.app(http("/m/x"), client.receive, send), side.loop).result(
            PATIENCE
        )
    else:
        result = side.app(side._environ(Asked.make("/m/x")), lambda *_: None)
        for chunk in result:
            taken.append(chunk)
            if chunk:
                go.set()
        result.close()
    assert [t for t in taken if t] == [b"one", b"two"]
    assert out == [True]


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_is_read_as_the_app_asks_for_it(strangled, kind):
    """Each piece is only made when the app wants it, after it has told what it has had."""
    had = threading.Semaphore(0)

    @without_lifespan
    async def asgi(scope, receive, send):
        sizes, more = [], True
        while more:
            message = await receive()
            more = message["more_body"]
            if message["body"]:
                sizes.append(len(message["body"]))
                had.release()
        await answer(send, body=repr(sizes).encode())

    def wsgi(environ, start_response):
        sizes = []
        while data := environ["wsgi.input"].read1(5):
            sizes.append(len(data))
            had.release()
        start_response("200 OK", [])
        return [repr(sizes).encode()]

    def after():
        assert had.acquire(timeout=PATIENCE)
        return b"abcde"

    side = strangled([up(kind, asgi if kind == "asgi" else wsgi)])
    assert side.ask(body=[b"abcde", after, after], chunked=True).body == b"[5, 5, 5]"


@pytest.mark.parametrize("kind", KINDS)
def test_64_mib_each_way_need_little_memory(strangled, kind):
    piece, number = b"x" * 1_048_576, 64

    @without_lifespan
    async def asgi(scope, receive, send):
        more, length = True, 0
        while more:
            message = await receive()
            length, more = length + len(message["body"]), message["more_body"]
        assert length == len(piece) * number
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for at in range(number):
            await send({"type": "http.response.body", "body": piece, "more_body": at < number - 1})

    def wsgi(environ, start_response):
        length = 0
        while data := environ["wsgi.input"].read(65_536):
            length += len(data)
        assert length == len(piece) * number
        start_response("200 OK", [])
        for _ in range(number):
            yield piece

    side = strangled([up(kind, asgi if kind == "asgi" else wsgi)])
    asked = Asked.make("/m/x", body=[piece] * number, chunked=True)
    drain = _drain_asgi if strangled.kind == "asgi" else _drain_wsgi
    tracemalloc.start()
    try:
        length = drain(side, asked)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert length == len(piece) * number
    assert peak < 12_000_000


def _drain_asgi(side, asked):
    """Ask, and throw away what comes; return how much that was."""
    pieces, sizes = iter(asked.body), []

    async def receive():
        piece = next(pieces, b"")
        return {"type": "http.request", "body": piece, "more_body": bool(piece)}

    async def send(message):
        sizes.append(len(message.get("body", b"")))

    asyncio.run_coroutine_threadsafe(side.app(side._scope(asked), receive, send), side.loop).result(PATIENCE)
    return sum(sizes)


def _drain_wsgi(side, asked):
    result = side.app(side._environ(asked), lambda *_: None)
    try:
        return sum(map(len, result))
    finally:
        result.close()


# --- the client is at fault, or has left


class Watching:
    """An app that notes how the body of its request ends for it."""

    def __init__(self):
        self.ends = []

    def of(self, kind):
        return self.asgi if kind == "asgi" else self.wsgi

    async def asgi(self, scope, receive, send):
        if scope["type"] == "lifespan":
            raise ValueError
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.ends.append((await receive())["type"])
                break
            more = message["more_body"]
        await answer(send)

    def wsgi(self, environ, start_response):
        for _ in range(2):
            try:
                while environ["wsgi.input"].read(65_536):
                    pass
            except OSError:
                self.ends.append("http.disconnect")
        start_response("200 OK", [])
        return [b"ok"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunked", [True, False])
def test_an_app_is_told_that_the_body_broke_off(strangled, caplog, kind, chunked):
    app = Watching()
    side = strangled([up(kind, app.of(kind))])
    with caplog.at_level(logging.DEBUG, "strangle_mw"):
        seen = side.ask(body=[b"x" * 70_000, GONE], chunked=chunked, length=None if chunked else 90_000)
    assert seen.status == (0 if strangled.kind == "asgi" else 400)
    until(lambda: app.ends)  # an ASGI app under WSGI is told on its own loop
    assert set(app.ends) == {"http.disconnect"}
    wanted = ("modern", "gone") if strangled.kind == "asgi" else ("modern", "4xx")
    assert counts(side.app) == {wanted: 1}
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


BAD_LENGTHS = {"short": ([b"x" * 70_000], 80_000, 400), "long": ([b"x" * 80_000], 70_000, 400)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("body", "length", "status"), BAD_LENGTHS.values(), ids=BAD_LENGTHS)
def test_a_body_that_has_not_its_length_has_no_answer(strangled, kind, body, length, status):
    app = Watching()
    side = strangled([up(kind, app.of(kind))])
    if strangled.kind == "wsgi" and length < len(body[0]):
        assert side.ask(body=body, length=length).status == 200  # the server's next request begins there
    else:
        assert side.ask(body=body, length=length).status == status


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_over_max_body_is_refused(strangled, kind):
    side = strangled([up(kind, ECHOES[kind])], max_body=100_000)
    assert side.ask(body=[b"x" * 70_000] * 2).status == 413
    assert side.ask(body=[b"x" * 70_000] * 2, chunked=True).status == 413
    assert side.ask(body=[b"x" * 70_000], chunked=True).status == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_leaves_is_no_failure(strangled, caplog, kind):
    closed = []

    @without_lifespan
    async def asgi(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
        finally:
            closed.append(True)

    def wsgi(environ, start_response):
        start_response("200 OK", [])
        try:
            while True:
                yield b"x"
        finally:
            closed.append(True)

    side = strangled([up(kind, asgi if kind == "asgi" else wsgi)])
    with caplog.at_level(logging.DEBUG, "strangle_mw"):
        seen = side.ask(leaves="when sent to")
    assert (seen.status, seen.ended) == (200, False)
    until(lambda: closed)  # an ASGI app under WSGI ends on its own loop
    assert counts(side.app) == {("modern", "gone"): 1}
    assert [r.getMessage() for r in caplog.records if r.levelno > logging.INFO] == []


# --- header hygiene, as for any other upstream

FORGED = [
    (b"x-forwarded-for", b"6.6.6.6"), (b"x-forwarded-host", b"evil.example"), (b"forwarded", b"for=6.6.6.6"), (b"x-real-ip", b"6.6.6.6"),
    (b"strangle-shadow", b"1"), (b"strangle_shadow", b"1"), (b"remote-user", b"root"), (b"remote_user", b"root"), (b"x_forwarded_for", b"6.6.6.6"),
    (b"proxy", b"http://evil"), (b"x-original-url", b"/evil"), (b"te", b"trailers"), (b"keep-alive", b"timeout=9"), (b"upgrade", b"h2c"),
    (b"connection", b"x-hop"), (b"x-hop", b"1"), (b"x.dotted", b"1"), (b"expect", b"100-continue"),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_forged_and_private_headers_do_not_get_through(strangled, kind):
    seen = []

    @without_lifespan
    async def asgi(scope, receive, send):
        seen.extend((n.decode(), v.decode()) for n, v in scope["headers"])
        await answer(send)

    def wsgi(environ, start_response):
        seen.extend((k[5:].lower().replace("_", "-"), v) for k, v in environ.items() if k.startswith("HTTP_"))
        start_response("200 OK", [])
        return []

    side = strangled([up(kind, asgi if kind == "asgi" else wsgi)])
    assert side.ask(headers=(*FORGED, (b"x-mine", b"1"))).status == 200
    ours = ("via", "x-request-id")
    assert sorted(h for h in seen if h[0] not in ours) == [
        ("forwarded", 'for=192.0.2.1;host="h.example";proto=http'), ("host", "h.example"), ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-host", "h.example"), ("x-forwarded-proto", "http"), ("x-mine", "1"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_refused_never_reaches_an_app(strangled, kind):
    called = []

    def wsgi(environ, start_response):
        called.append(environ)
        start_response("200 OK", [])
        return []

    @without_lifespan
    async def asgi(scope, receive, send):
        called.append(scope)
        await answer(send)

    side = strangled([up(kind, asgi if kind == "asgi" else wsgi)])
    marker = side.app.engine.snapshot.hygiene.hop_marker
    assert side.ask(headers=((b"via", b"1.1 " + marker),)).status == 508
    assert side.ask("/m/..%2fx").status == 400
    assert side.ask(headers=((b"transfer-encoding", b"gzip, chunked"),)).status == 400
    assert side.ask(method="CONNECT").status == 405
    assert called == []


@pytest.mark.parametrize("kind", KINDS)
def test_private_headers_of_an_answer_do_not_get_through(strangled, kind):
    sent = [("Date", "then"), ("Server", "own"), ("Connection", "close"), ("Keep-Alive", "1"), ("Transfer-Encoding", "chunked"),
            ("Strangle-X", "1"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Empty", ""), ("Location", "/a/y")]  # fmt: skip

    @without_lifespan
    async def asgi(scope, receive, send):
        await answer(send, headers=[(n.encode(), v.encode()) for n, v in sent])

    def wsgi(environ, start_response):
        start_response("200 OK", sent)
        return [b"ok"]

    route = Route("/m/*", to=Upstream(**{kind: asgi if kind == "asgi" else wsgi}), strip_prefix="/m")
    seen = strangled([route]).ask()
    assert [h for h in seen.headers if h[0] != b"content-length"] == [
        (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"x-empty", b""), (b"location", b"/m/a/y"),
    ]  # fmt: skip


# --- ASGI apps under the ASGI driver: the server's own callables


def run(app, route=None, client=None, scope=None, **settings):
    """Ask a strangled app once; return the client, and what was counted."""

    async def legacy(scope, receive, send):
        await answer(send, 299, await read(receive))

    async def main():
        middle = strangle(legacy, [route or up("asgi", without_lifespan(app))], **settings)
        asker = client or Client()
        task = asyncio.current_task()
        try:
            await middle(scope or http("/m/x"), asker.receive, asker.send)
        finally:
            assert task.cancelling() == 0
            (pool,) = middle.engine.app_pools(
                next(iter(middle.engine.snapshot.upstreams.values())), asyncio.get_running_loop()
            )
            assert (pool.in_flight, pool.gate.taken) == (0, 0)
            await middle.engine.aclose(asyncio.get_running_loop())
            left = asyncio.all_tasks() - {task}
            if left:
                await asyncio.wait(left, timeout=DEADLINE)
        return asker, counts(middle)

    return asyncio.run(main())


def post(*pieces, length=None):
    """A client that sends a body in pieces; it is streamed, since its length is not declared."""
    messages = [{"type": "http.request", "body": p, "more_body": True} for p in pieces]
    return Client(*messages, {"type": "http.request", "body": b"", "more_body": False})


CHUNKED = http("/m/x", method="POST", headers=[(b"host", b"h"), (b"transfer-encoding", b"chunked")])


def test_a_piece_is_not_lost_with_a_receive_that_was_given_up():
    go = asyncio.Event()

    class Slow(Client):
        async def receive(self):
            if len(self.messages) == 2:
                await go.wait()
            return await super().receive()

    async def app(scope, receive, send):
        pieces = [(await receive())["body"]]
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(receive(), 0.001)
        go.set()
        more = True
        while more:
            message = await receive()
            pieces.append(message["body"])
            more = message["more_body"]
        await answer(send, body=b"".join(pieces))

    client, counted = run(app, client=Slow(*post(b"one ", b"two").messages), scope=CHUNKED)
    assert client.body == b"one two"
    assert counted == {("modern", "2xx"): 1}


@pytest.mark.parametrize("scope", [http("/m/x"), CHUNKED], ids=["none", "chunked"])
def test_two_may_wait_for_the_client_at_once(scope):
    async def app(scope, receive, send):
        await read(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        both = [asyncio.ensure_future(receive()) for _ in range(2)]
        await asyncio.sleep(0)
        client.left.set()
        kinds = [(await b)["type"] for b in both]
        assert kinds == ["http.disconnect"] * 2
        assert (await receive())["type"] == "http.disconnect"
        with pytest.raises(OSError, match="nobody waits"):
            await send({"type": "http.response.body", "body": b"x"})

    client = post(b"x") if scope is CHUNKED else Client()
    _, counted = run(app, client=client, scope=scope)
    assert counted == {("modern", "gone"): 1}


def test_a_watch_for_the_client_ends_with_the_answer():
    """As Starlette's streaming answers do: who listens is cancelled when all is sent."""
    asked, waiting = [], asyncio.Event()

    class Counting(Client):
        async def receive(self):
            asked.append(len(self.messages))
            if not self.messages:
                waiting.set()
            return await super().receive()

    async def app(scope, receive, send):
        await receive()
        watch = asyncio.ensure_future(receive())
        await waiting.wait()
        await answer(send)
        watch.cancel()
        await asyncio.wait((watch,))
        assert (await receive())["type"] == "http.disconnect"  # the answer is complete (ASGI HTTP 2.5)

    client, counted = run(app, client=Counting())
    assert client.body == b"ok"
    assert asked == [1, 0]
    assert counted == {("modern", "2xx"): 1}


def test_work_behind_the_answer_is_done_and_does_not_hold_it(caplog):
    done = []

    async def app(scope, receive, send):
        await answer(send)
        assert client.body == b"ok"
        await asyncio.sleep(0.01)
        done.append(True)
        raise ZeroDivisionError

    client = Client()
    _, counted = run(app, up("asgi", without_lifespan(app), timeout=0.005), client)
    assert done == [True]
    assert counted == {("modern", "2xx"): 1}
    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert record.exc_info[0] is ZeroDivisionError


def test_context_variables_of_the_caller_are_seen():
    variable = contextvars.ContextVar("variable")

    async def app(scope, receive, send):
        await answer(send, body=variable.get())

    variable.set(b"seen")
    assert run(app)[0].body == b"seen"


@pytest.mark.parametrize("begun", [True, False])
def test_a_server_that_cancels_ends_the_app(begun):
    ended, entered = [], asyncio.Event()

    @without_lifespan
    async def app(scope, receive, send):
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def main():
        middle, client = strangle(asgi_echo, [up("asgi", app)]), Client()
        task = asyncio.ensure_future(middle(http("/m/x"), client.receive, client.send))
        await entered.wait()
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
        await middle.engine.aclose(asyncio.get_running_loop())
        return counts(middle), client.sent

    counted, sent = asyncio.run(main())
    assert ended == [True]
    assert counted == {("modern", "gone"): 1}
    assert len(sent) == begun


def test_the_time_is_that_of_the_call_and_not_of_a_task_within_it():
    """An app that receives in a task of its own is ended all the same, and the task is not."""
    inner = []

    async def app(scope, receive, send):
        async def reading():
            while (await receive())["more_body"]:
                pass
            inner.append(asyncio.current_task())
            await asyncio.Event().wait()

        async with asyncio.TaskGroup() as group:
            group.create_task(reading())

    client, counted = run(app, up("asgi", without_lifespan(app), timeout=0.05), post(b"x"), CHUNKED)
    assert client.status == 504
    assert inner[0].cancelled()
    assert counted == {("modern", "failed"): 1}


def test_the_time_counts_if_nothing_of_a_streamed_body_is_read():
    async def app(scope, receive, send):
        await asyncio.Event().wait()

    client, _ = run(app, up("asgi", without_lifespan(app), timeout=0.05), post(b"x"), CHUNKED)
    assert client.status == 504


def test_a_slow_client_does_not_use_up_the_time_of_an_app():
    class Slow(Client):
        async def receive(self):
            await asyncio.sleep(0.06)
            return await super().receive()

    async def app(scope, receive, send):
        await answer(send, body=await read(receive))

    client, _ = run(
        app, up("asgi", without_lifespan(app), timeout=0.05), Slow(*post(b"x", b"y").messages), CHUNKED
    )
    assert (client.status, client.body) == (200, b"xy")


def test_a_client_that_stalls_is_given_up():
    class Stalled(Client):
        async def receive(self):
            return await (super().receive() if len(self.messages) > 1 else asyncio.Event().wait())

    async def app(scope, receive, send):
        assert (await receive())["body"] == b"x"
        assert (await receive())["type"] == "http.disconnect"

    route = up("asgi", without_lifespan(app), idle_timeout=0.05)
    client, counted = run(app, route, Stalled(*post(b"x").messages), CHUNKED)
    assert client.status == 408
    assert counted == {("modern", "4xx"): 1}


async def second_start(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def body_first(scope, receive, send):
    await send({"type": "http.response.body", "body": b"x"})


async def more_after_the_end(scope, receive, send):
    await answer(send)
    await send({"type": "http.response.body", "body": b"x"})


async def not_offered(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
    await send({"type": "http.response.trailers", "headers": []})


@pytest.mark.parametrize("app", [second_start, not_offered])
def test_an_app_that_breaks_the_protocol_behind_its_head_is_cut(app):
    with pytest.raises(ForwardError) as caught:
        run(app)
    assert caught.value.stage == "body"


def test_an_app_that_breaks_the_protocol_before_its_head_or_behind_its_end():
    assert run(body_first)[0].status == 502
    client, counted = run(more_after_the_end)
    assert (client.status, client.body) == (200, b"ok")
    assert counted == {("modern", "2xx"): 1}


def test_what_legacy_has_replaced_is_dropped_and_not_for_ever():
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 503, "headers": []})
        assert (await receive())["type"] == "http.disconnect"
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            sent.append(True)

    route = Route("/m/*", to=Upstream(asgi=without_lifespan(app)), fallback="auto")
    client = Client({"type": "http.request", "body": b"kept", "more_body": False})
    scope = http("/m/x", headers=[(b"host", b"h"), (b"content-length", b"4")])
    client, counted = run(app, route, client, scope)
    assert (client.status, client.body) == (299, b"kept")
    assert len(sent) == 16
    assert counted == {("legacy", "fallback:status-503"): 1}


# --- places, threads, and tables that change


def test_a_place_is_held_until_the_answer_is_closed():
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"a"
        yield b"b"

    middle = strangle(wsgi_echo, [up("wsgi", app, max_in_flight=1, pool_timeout=0)])
    (pool,) = middle.engine.blocking_pools(*middle.engine.snapshot.upstreams.values())
    result = middle(environ("/m/x", RAW_URI="/m/x"), lambda *_: None)
    assert (pool.in_flight, pool.gate.taken) == (1, 1)
    result.close()
    assert (pool.in_flight, pool.gate.taken) == (0, 0)
    pool.close()
    with pytest.raises(ForwardError) as caught:
        pool.send(None, b"", method="GET", chunked=False, timeout=1.0)
    assert (caught.value.stage, pool.in_flight, pool.gate.taken) == ("pool", 0, 0)


def test_the_threads_of_a_wsgi_app_end_with_the_server():
    threads = []

    def app(environ, start_response):
        threads.append(threading.current_thread())
        return wsgi_echo(environ, start_response)

    client, _ = run(None, up("wsgi", app))
    assert client.status == 200
    threads[0].join(DEADLINE)
    assert not threads[0].is_alive()
    assert threads[0] is not threading.current_thread()


def test_a_wsgi_app_under_wsgi_runs_in_the_thread_of_its_request():
    threads = []

    def app(environ, start_response):
        threads.append(threading.current_thread())
        return wsgi_echo(environ, start_response)

    middle = strangle(wsgi_echo, [up("wsgi", app)])
    assert call(middle) == b"0"
    assert threads == [threading.current_thread()]


def test_a_reload_with_a_missing_module_keeps_the_table(tmp_path, caplog):
    path = tmp_path / "strangle.toml"
    path.write_text('[[routes]]\npath = "/m/*"\nto = "wsgi:test_in_process_target:wsgi"\n', "utf-8")
    sys.modules["test_in_process_target"] = target = types.ModuleType("test_in_process_target")
    target.wsgi = wsgi_echo
    try:
        middle = strangle(wsgi_echo, path)
        path.write_text(
            '[[routes]]\npath = "/m/*"\nto = "wsgi:nowhere_to_be_found:wsgi"\n# longer\n', "utf-8"
        )

        def told():
            middle.engine.live.look()
            return "cannot import 'nowhere_to_be_found'" in caplog.text

        until(told)
        assert list(middle.engine.snapshot.upstreams) == ["wsgi:test_in_process_target:wsgi"]
        assert call(middle) == b"0"
    finally:
        del sys.modules["test_in_process_target"]
