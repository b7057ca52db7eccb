"""An ASGI app called from threads: what it answers, what it receives, and many at once."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import ContextVar
from http import HTTPStatus

import pytest

from bridges.loop_apps import (
    PATIENCE,
    SCOPE,
    Lived,
    body,
    echo,
    forever,
    pipe,
    read_all,
    saying,
    start,
    until,
)
from strangle_mw.bridges.exchange import HIGH_WATER
from strangle_mw.bridges.loop import LoopApp

TIMES = {"connect_timeout": PATIENCE, "idle_timeout": PATIENCE}


def call(app, content=b"", method="GET", **scope):
    return LoopApp(app, **TIMES).send({**SCOPE, **scope}, content, method=method, timeout=PATIENCE)


class Told:
    """What an app on the loop tells a test in another thread."""

    def __init__(self):
        self._all = []

    def __call__(self, what):
        self._all.append(what)

    def wait(self, count=1):
        until(lambda: len(self._all) >= count)
        return self._all


ANSWERS = {
    "one piece": (saying(start(201, (b"X-A", b"1")), body(b"ok")), 201, [(b"x-a", b"1")], b"ok"),
    "two pieces": (saying(start(), body(b"a", True), body(b"b")), 200, [], b"ab"),
    "an empty end": (saying(start(), body(b"a", True), body()), 200, [], b"a"),
    "an empty beginning": (saying(start(), body(b"", True), body(b"a")), 200, [], b"a"),
    "nothing": (saying(start(204), body()), 204, [], b""),
    "no keys": (saying({"type": "http.response.start", "status": 200}, {"type": "http.response.body"}), 200, [], b""),
    "an enum": (saying(start(HTTPStatus.CREATED), body()), 201, [], b""),
    "views": (saying(start(), body(bytearray(b"a"), True), body(memoryview(b"b"))), 200, [], b"ab"),
    "a length": (saying(start(200, (b"Content-Length", b"2")), body(b"ok")), 200, [(b"content-length", b"2")], b"ok"),
    "an iterator of headers": (saying({**start(), "headers": iter([[b"a", b"1"], (b"a", b"2")])}, body()), 200, [(b"a", b"1"), (b"a", b"2")], b""),
    "a body that may not be": (saying(start(304, (b"content-length", b"9")), body(b"no")), 304, [(b"content-length", b"9")], b""),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_comes_as_it_was_sent(name):
    app, status, headers, data = ANSWERS[name]
    answer = call(app)
    assert (answer.status, answer.reason, answer.headers) == (status, b"", headers)
    assert read_all(answer) == data
    assert answer.complete
    with pytest.raises(RuntimeError, match="closed"):
        answer.read()
    assert answer.take() == b""
    answer.close()


def test_head_has_no_body():
    answer = call(saying(start(200, (b"content-length", b"2")), body(b"ok")), method="HEAD")
    assert answer.complete
    assert answer.headers == [(b"content-length", b"2")]
    assert read_all(answer) == b""


def test_a_small_answer_is_all_there_with_its_head():
    for _ in range(50):
        with closing(call(saying(start(), body(b"ok")))) as answer:
            assert answer.complete
            assert answer.take() == b"ok"


BODIES = [
    b"",
    b"whole",
    [],
    [b"a"],
    [b"a", b"", b"bc"],
    [b"x" * 100_000] * 20,
]


@pytest.mark.parametrize("content", BODIES, ids=lambda b: f"{type(b).__name__}-{len(b)}")
def test_a_body_arrives_whole(content):
    whole = content if isinstance(content, bytes) else b"".join(content)
    answer = call(echo, content if isinstance(content, bytes) else iter(content))
    assert read_all(answer) == whole


def test_a_body_is_read_by_the_caller_and_only_as_far_as_the_app_asks():
    read, told, more = [], Told(), threading.Event()

    def content():
        for number in range(100):
            read.append(threading.get_ident())
            yield b"%d" % number

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        first = await receive()
        await send(start())
        await send(body(first["body"], True))
        await asyncio.to_thread(more.wait, PATIENCE)
        for _ in range(2):
            await send(body((await receive())["body"], True))
        await send(body())
        told(await receive())

    answer = call(app, content())
    assert answer.read() == b"0"
    assert read == [threading.get_ident()]
    more.set()
    assert read_all(answer) == b"12"
    assert read == [threading.get_ident()] * 3
    assert told.wait() == [{"type": "http.disconnect"}]


def test_both_directions_at_once():
    chunks = [b"%d" % n for n in range(200)]
    answer = call(pipe, iter(chunks))
    assert answer.status == 200
    assert read_all(answer) == b"".join(chunks)


def test_an_event_stream_comes_event_by_event():
    go = threading.Semaphore(0)

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        await send(start(200, (b"content-type", b"text/event-stream")))
        for number in range(3):
            await asyncio.to_thread(go.acquire)
            await send(body(b"data: %d\n\n" % number, True))
        await send(body())

    answer = call(app)
    assert answer.take() == b""
    for number in range(3):
        assert not answer.complete
        go.release()
        assert answer.read() == b"data: %d\n\n" % number
    assert answer.read() == b""
    assert answer.complete
    answer.close()


def test_a_slow_reader_holds_the_app_back():
    sent = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        await send(start())
        for _ in range(1000):
            await send(body(b"x" * 10_000, True))
            sent.append(10_000)
        await send(body())

    answer = call(app)
    assert answer.status == 200
    until(lambda: sum(sent) > HIGH_WATER - 20_000)
    count = most = 0
    while data := answer.read():
        count += len(data)
        most = max(most, len(data), sum(sent) - count)
    assert count == 10_000_000
    assert most <= HIGH_WATER + 20_000
    answer.close()


def test_an_app_that_has_answered_hears_that_its_client_is_gone_and_goes_on():
    told = Told()

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        await send(start())
        await send(body(b"ok"))
        told((await receive())["type"])
        await asyncio.sleep(0)
        told("background work")

    answer = call(app)
    assert read_all(answer) == b"ok"
    assert told.wait(2) == ["http.disconnect", "background work"]


async def waits_in_receive(receive, send, told):
    await receive()
    told((await receive())["type"])


async def waits_in_receive_twice(receive, send, told):
    await receive()
    for message in await asyncio.gather(receive(), receive()):
        told(message["type"])


async def waits_for_room(receive, send, told):
    try:
        while True:
            await send(body(b"x" * 50_000, True))
    except OSError:
        told("OSError")


async def sends_later(receive, send, told):
    await receive()
    await receive()
    try:
        await send(body(b"x"))
    except OSError:
        told("OSError")


async def waits_for_something_else(receive, send, told):
    try:
        await forever()
    except asyncio.CancelledError:
        told("cancelled")
        raise


LEAVING = {
    waits_in_receive: ["http.disconnect"],
    waits_in_receive_twice: ["http.disconnect"] * 2,
    waits_for_room: ["OSError"],
    sends_later: ["OSError"],
    waits_for_something_else: ["cancelled"],
}


@pytest.mark.parametrize("inner", LEAVING, ids=lambda f: f.__name__)
def test_an_app_is_told_that_its_client_leaves(inner, caplog):
    told, running = Told(), []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        running.append(asyncio.current_task())
        await send(start())
        await inner(receive, send, told)

    answer = call(app)
    answer.close()
    assert not answer.complete
    assert told.wait(len(LEAVING[inner])) == LEAVING[inner]
    until(running[0].done)
    assert caplog.records == []


def test_the_context_of_the_caller_is_that_of_the_app():
    user = ContextVar("user", default="nobody")

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        before = user.get()
        user.set("app")
        await send(start())
        await send(body(before.encode()))

    user.set("ann")
    assert read_all(call(app)) == b"ann"
    assert user.get() == "ann"


def test_each_call_gets_its_own_copy_of_the_state():
    states = []

    async def inner(scope, receive, send):
        states.append(scope["state"])
        scope["state"]["mine"] = True
        await send(start())
        await send(body())

    app = LoopApp(Lived(inner=inner), **TIMES)
    for _ in range(2):
        read_all(app.send(dict(SCOPE), b"", method="GET", timeout=PATIENCE))
    assert [list(s) for s in states] == [["pid", "mine"]] * 2
    assert states[0] is not states[1]
    app.close()


def test_many_threads_share_one_loop_and_one_lifespan():
    together, tasks = 50, set()
    everyone, all_there = [], asyncio.Event()

    async def inner(scope, receive, send):
        tasks.add(id(asyncio.get_running_loop()))
        everyone.append(1)
        if len(everyone) == together:
            all_there.set()
        await all_there.wait()  # none holds the loop
        await echo(scope, receive, send)

    lived = Lived(inner=inner)
    app = LoopApp(lived, **TIMES)

    def one(number):
        return read_all(app.send(dict(SCOPE), iter([b"%d" % number, b"!"]), method="POST", timeout=PATIENCE))

    with ThreadPoolExecutor(together) as threads:
        assert list(threads.map(one, range(together))) == [b"%d!" % n for n in range(together)]
    assert lived.notes == ["start"]
    assert len(tasks) == 1
    app.close()
    until(lambda: lived.notes == ["start", "end"])


def test_a_closed_app_lets_its_calls_end_first():
    go, lived = threading.Event(), Lived(inner=pipe)
    app = LoopApp(lived, **TIMES)

    def content():
        yield b"a"
        go.wait(PATIENCE)
        yield b"b"

    answer = app.send(dict(SCOPE), content(), method="POST", timeout=PATIENCE)
    app.close()
    assert answer.read() == b"a"
    assert lived.notes == ["start"]
    go.set()
    assert read_all(answer) == b"b"
    until(lambda: lived.notes == ["start", "end"])
