"""Apps in this process that break the rules: what one leaves behind, sends wrongly, or never ends."""

import asyncio
from contextlib import suppress

import pytest

from promises.drive import SIDES, Asgi
from strangle_mw import Breaker, Route, Upstream
from strangle_mw.bridges.deadline import Deadline

NEVER = Breaker(failures=0, ratio=0)
SHORT = 0.05
LONG = 20.0
"""Seconds that no test that passes waits for."""
TWICE = [(b"content-length", b"2"), (b"content-length", b"2")]


def to(app, kind="asgi", **times):
    return Upstream(**{kind: app}, **{"connect_timeout": LONG, **times}, breaker=NEVER)


def canary(upstream):
    return [Route("/m/*", name="m", to=upstream, stage="canary", weight=100, sticky=["header:x"])]


def modern(upstream):
    return [Route("/m/*", name="m", to=upstream)]


async def start(send, status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def give(send, body=b"", *, more=False):
    await send({"type": "http.response.body", "body": body, "more_body": more})


def only_http(app):
    """Leave the lifespan out."""

    async def called(scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await app(scope, receive, send)

    return called


def outcomes(side):
    return {tuple(key[3:]): n for key, n in side.app.engine.states._counts.items()}


@pytest.fixture
def strangled():
    made = []

    def make(kind, routes, **more):
        made.append(SIDES[kind](routes, **more))
        return made[-1]

    yield make
    for side in made:
        side.close()


# --- what an app leaves behind


def test_what_an_app_sends_after_its_end_never_comes_into_the_answer_of_legacy(strangled):
    begun, sent, tasks = [], [], []

    async def later(send):
        await begun[0].wait()
        for message in (
            {"type": "http.response.start", "status": 200, "headers": []},
            {"type": "http.response.body", "body": b"modern", "more_body": True},
        ):
            with suppress(Exception):
                await send(message)
        sent[0].set()

    @only_http
    async def app(scope, receive, send):
        tasks.append(asyncio.create_task(later(send)))  # and returns: a fallback, as after a reset

    async def legacy(scope, receive, send):
        await start(send, 299)
        await give(send, b"leg", more=True)
        begun[0].set()
        await sent[0].wait()
        await give(send, b"acy")

    side = strangled("asgi", canary(to(app)), legacy=legacy)

    async def events():
        begun.append(asyncio.Event())
        sent.append(asyncio.Event())

    side.do(events)
    seen = side.ask()
    assert (seen.status, seen.body, seen.ended) == (299, b"legacy", True)


def test_what_an_app_receives_after_its_end_is_not_taken_from_legacy(strangled):
    taken, given = [], []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        taken.append(receive)
        raise ZeroDivisionError

    async def legacy(scope, receive, send):
        given.append((await receive())["type"])
        given.append((await taken[0]())["type"])
        given.append((await receive())["type"])
        await send({"type": "websocket.close"})

    side = strangled("asgi", canary(to(app)), legacy=legacy)
    messages = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "for legacy"}]

    async def receive():
        return messages.pop(0)

    async def send(message):
        given.append(message["type"])

    scope = {**Asgi._scope(_asked()), "type": "websocket", "scheme": "ws", "subprotocols": []}
    side.do(lambda: side.app(scope, receive, send))
    assert given == [
        "websocket.connect", "websocket.disconnect", "websocket.receive", "websocket.close",
    ]  # fmt: skip


def _asked():
    from promises.drive import Asked

    return Asked.make()


# --- what an app sends wrongly


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("body", ["text", None, 7, [b"a"]])
def test_a_body_that_is_not_bytes_is_cut_and_counted_as_that(strangled, body, more):
    @only_http
    async def app(scope, receive, send):
        await start(send)
        await give(send, body, more=more)

    side = strangled("asgi", modern(to(app)))
    seen = side.ask()
    assert not seen.ended
    assert seen.error is not None
    assert outcomes(side) == {("modern", "cut"): 1}


@pytest.mark.parametrize("body", [bytearray(b"modern"), memoryview(b"modern")])
def test_a_body_of_other_bytes_reaches_the_server_as_bytes(strangled, body):
    @only_http
    async def app(scope, receive, send):
        await start(send, headers=[(b"content-length", b"6")])
        await give(send, body)

    seen = strangled("asgi", modern(to(app))).ask()
    assert (seen.body, type(seen.body), seen.ended) == (b"modern", bytes, True)


def test_an_end_that_the_server_does_not_take_is_no_end(strangled):
    @only_http
    async def app(scope, receive, send):
        await start(send)
        await give(send, b"begun", more=True)
        with suppress(ValueError):
            await give(send, b"end")

    side = strangled("asgi", modern(to(app)))
    got = []

    async def send(message):
        if message.get("body") == b"end":
            raise ValueError("a server refuses it")
        got.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    with pytest.raises(Exception, match="the app ended before its answer"):
        side.do(lambda: side.app(Asgi._scope(_asked()), receive, send))
    assert [m["type"] for m in got] == ["http.response.start", "http.response.body"]
    assert outcomes(side) == {("modern", "cut"): 1}


def asgi_with(headers):
    @only_http
    async def app(scope, receive, send):
        await start(send, headers=headers)
        await give(send, b"" if scope["method"] == "HEAD" else b"ok")

    return app


def wsgi_with(headers):
    def app(environ, start_response):
        start_response("200 OK", [(n.decode(), v.decode()) for n, v in headers])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else b"ok"]

    return app


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize("side", SIDES)
def test_a_repeated_length_is_refused_as_from_another_machine(strangled, side, kind, method):
    app = (asgi_with if kind == "asgi" else wsgi_with)(TWICE)
    seen = strangled(side, modern(to(app, kind))).ask(method=method)
    assert seen.status == 502


@pytest.mark.parametrize("value", [b"+2", b"2, 2", b"", b"2 2", b"9" * 5000])
@pytest.mark.parametrize("side", SIDES)
def test_a_length_that_is_no_number_is_refused_for_a_head_too(strangled, side, value):
    app = asgi_with([(b"content-length", value)])
    assert strangled(side, modern(to(app))).ask(method="HEAD").status == 502


# --- what an app never ends


@pytest.mark.parametrize("begun", [b"", b"begun"])
@pytest.mark.parametrize("side", SIDES)
def test_an_app_that_stalls_in_its_answer_is_cut_and_gives_its_place_back(strangled, side, begun):
    ended = []

    @only_http
    async def app(scope, receive, send):
        try:
            await start(send)
            if begun:
                await give(send, begun, more=True)
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    made = strangled(side, modern(to(app, timeout=LONG, idle_timeout=SHORT)))
    seen = made.ask()
    assert not (seen.ended and seen.status == 200)
    if seen.status == 200:  # a WSGI driver has the head until the first bytes
        assert seen.body == begun
        assert outcomes(made) == {("modern", "cut"): 1}
    else:
        assert (side, seen.status) == ("wsgi", 504)
    assert ended or side == "wsgi"
    assert made.pool.gate.taken == 0


def test_an_answer_in_drops_is_not_cut(strangled):
    @only_http
    async def app(scope, receive, send):
        await start(send)
        for _ in range(8):
            await asyncio.sleep(0.2)
            await give(send, b"a", more=True)
        await give(send)

    seen = strangled("asgi", modern(to(app, timeout=0.1, idle_timeout=1.0))).ask()
    assert (seen.body, seen.ended) == (b"a" * 8, True)


def test_work_behind_an_answer_has_all_the_time_it_needs(strangled):
    done = []

    @only_http
    async def app(scope, receive, send):
        await start(send)
        await give(send, b"modern")
        await asyncio.sleep(4 * SHORT)
        done.append(True)

    seen = strangled("asgi", modern(to(app, timeout=SHORT, idle_timeout=SHORT))).ask()
    assert (seen.body, seen.ended, done) == (b"modern", True, [True])


def test_an_app_that_is_not_ended_by_its_time_and_reads_on_gets_a_504_all_the_same(strangled):
    late = []

    @only_http
    async def app(scope, receive, send):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await receive()
        await asyncio.sleep(4 * SHORT)
        late.append(True)

    side = strangled("asgi", modern(to(app, timeout=SHORT)))
    seen = side.ask(body=[b"x" * 70_000, b"y"])
    assert (seen.status, late) == (504, [True])


def test_apps_that_do_not_end_are_waited_for_together(strangled):
    together, late = asyncio.Barrier(3), []

    def app(number):
        async def called(scope, receive, send):
            if scope["type"] != "lifespan":
                await asgi_with([])(scope, receive, send)
                return
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await together.wait()  # for the others, which have to be told meanwhile
            late.append(number)
            await send({"type": "lifespan.shutdown.complete"})

        return called

    side = strangled("asgi", [Route(f"/m/{n}", to=to(app(n), timeout=LONG)) for n in range(3)])
    assert [side.ask(f"/m/{n}").status for n in range(3)] == [200, 200, 200]
    side.close()
    assert sorted(late) == [0, 1, 2]


# --- the time itself


def test_a_time_is_over_with_its_call():
    async def call():
        deadline = Deadline(asyncio.get_running_loop(), 0.0)
        assert not deadline.settle()
        deadline.start()
        await asyncio.sleep(0.01)
        return asyncio.current_task().cancelling()

    assert asyncio.run(call()) == 0


def test_a_cancellation_by_somebody_else_is_never_taken_back():
    async def call():
        task = asyncio.current_task()
        deadline = Deadline(asyncio.get_running_loop(), 0.0)
        deadline.start()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        task.cancel()
        found = deadline.expired, deadline.settle(), deadline.settle(), task.cancelling()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return found

    assert asyncio.run(call()) == (True, True, True, 1)


def test_a_time_may_be_made_shorter_and_longer():
    async def call(first, then):
        deadline = Deadline(asyncio.get_running_loop(), first)
        deadline.start()
        deadline.stop()
        deadline.start(then)
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            deadline.settle()
            return "expired"
        deadline.settle()
        return "in time"

    assert asyncio.run(call(LONG, 0.01)) == "expired"
    assert asyncio.run(call(0.01, LONG)) == "in time"
