"""What can go wrong between a thread and an ASGI app on the loop, and what the caller is told of it."""

import asyncio
import logging
import threading
import time

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
from strangle_mw.bridges import exchange as exchange_module
from strangle_mw.bridges import loop as loop_module
from strangle_mw.bridges.loop import LoopApp
from strangle_mw.bridges.loop_thread import loop_thread
from strangle_mw.errors import ForwardError


def app_of(app, **times):
    return LoopApp(app, **{"connect_timeout": PATIENCE, "idle_timeout": PATIENCE, **times})


def send(app, content=b"", timeout=PATIENCE, method="GET"):
    app = app if isinstance(app, LoopApp) else app_of(app)
    return app.send(dict(SCOPE), content, method=method, timeout=timeout)


def idle():
    """Whether nothing of any call runs on the loop."""
    return all(not home.running for home in [*loop_thread().homes])


BEFORE = {
    "raises": (saying(ValueError("no")), "ValueError: no", True),
    "raises after the start": (saying(start(), ValueError("no")), "ValueError: no", True),
    "ends the process": (saying(SystemExit(3)), "SystemExit: 3", True),
    "cancels itself": (saying(asyncio.CancelledError()), "CancelledError: ", True),
    "returns": (saying(), "returned without an answer", False),
    "no status": (saying({"type": "http.response.start"}), "malformed message: KeyError: 'status'", True),
    "status is text": (saying(start("200")), "the status is str, not int", True),
    "status is a flag": (saying(start(True)), "the status is bool, not int", True),
    "interim": (saying(start(103)), "status 103", True),
    "headers are text": (saying(start(200, ("a", "b"))), "the headers are not bytes", True),
    "headers are no pairs": (saying(start(200, b"abc")), "malformed message: ValueError: too many values to unpack (expected 2)", True),
    "a header splits": (saying(start(200, (b"a", b"b\r\nc: d"))), "a header with characters that it may not have", True),
    "a header has no name": (saying(start(200, (b"", b"b"))), "a header with characters that it may not have", True),
    "two lengths": (saying(start(200, (b"content-length", b"1"), (b"content-length", b"2"))), "a Content-Length that is not one number", True),
    "no length": (saying(start(200, (b"content-length", b"-1"))), "a Content-Length that is not one number", True),
    "body first": (saying(body(b"a")), "a body before the start of the answer", True),
    "two starts": (saying(start(), start()), "a second start of the answer", True),
    "text": (saying(start(), body("text")), "the body is str, not bytes", True),
    "too long": (saying(start(200, (b"content-length", b"1")), body(b"ab")), "the body is longer than its Content-Length", True),
    "too short": (saying(start(200, (b"content-length", b"9")), body(b"ab")), "the body is shorter than its Content-Length", True),
    "unknown": (saying({"type": "http.response.push"}), "unexpected message 'http.response.push'", True),
    "websocket": (saying({"type": "websocket.accept"}), "unexpected message 'websocket.accept'", True),
    "no type": (saying({}), "malformed message: KeyError: 'type'", True),
}  # fmt: skip


@pytest.mark.parametrize("name", BEFORE)
def test_before_the_head(name, caplog):
    app, reason, logged = BEFORE[name]
    with pytest.raises(ForwardError) as caught:
        send(app)
    error = caught.value
    assert (error.stage, error.status, error.request_sent) == ("head", 502, True)
    assert error.reason == reason
    until(idle)
    told = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(told) == logged
    assert all(r.exc_info and r.message == "an ASGI app failed before its answer" for r in told)
    assert read_all(send(saying(start(), body(b"ok")))) == b"ok"  # the loop goes on


WITHIN = {
    "raises": (saying(start(), body(b"a", True), ValueError("no")), "ValueError: no"),
    "returns": (saying(start(), body(b"a", True)), "returned within its answer"),
    "text": (saying(start(), body(b"a", True), body("b")), "the body is str, not bytes"),
    "too short": (saying(start(200, (b"content-length", b"9")), body(b"a", True), body()), "the body is shorter than its Content-Length"),
    "too long": (saying(start(200, (b"content-length", b"1")), body(b"a", True), body(b"b")), "the body is longer than its Content-Length"),
    "two starts": (saying(start(), body(b"a", True), start()), "a second start of the answer"),
}  # fmt: skip


@pytest.mark.parametrize("name", WITHIN)
def test_within_the_body(name):
    app, reason = WITHIN[name]
    answer = send(app)
    assert answer.read() == b"a"
    for _ in range(2):
        with pytest.raises(ForwardError) as caught:
            answer.read()
        error = caught.value
        assert (error.stage, error.status, error.request_sent, error.reason) == ("body", 502, True, reason)
    assert not answer.complete
    answer.close()
    until(idle)


def test_after_the_answer_it_is_logged_and_changes_nothing(caplog):
    assert read_all(send(saying(start(), body(b"ok"), ValueError("no")))) == b"ok"
    until(lambda: caplog.records)
    assert [(r.levelno, r.message) for r in caplog.records] == [
        (logging.ERROR, "an ASGI app failed after its answer")
    ]


def test_a_fault_that_the_app_swallows_is_one_all_the_same():
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        await send(start())
        await send(body(b"a", True))
        try:
            await send(body("text", True))
        except RuntimeError:
            await forever()

    answer = send(app)
    assert answer.read() == b"a"
    with pytest.raises(ForwardError, match="not bytes"):
        answer.read()
    answer.close()
    until(idle)


def silent(before):
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        for message in before:
            await send(message)
        await forever()

    return app


def test_no_head_in_time():
    with pytest.raises(ForwardError) as caught:
        send(silent([]), timeout=0.02)
    error = caught.value
    assert (error.stage, error.status, error.request_sent) == ("head", 504, True)
    until(idle)


def test_no_more_of_the_body_in_time():
    answer = send(app_of(silent([start(), body(b"a", True)]), idle_timeout=0.02))
    assert answer.read() == b"a"
    for _ in range(2):
        with pytest.raises(ForwardError) as caught:
            answer.read()
        assert (caught.value.stage, caught.value.status) == ("body", 504)
    answer.close()
    until(idle)


def test_the_time_for_the_head_begins_anew_with_each_piece_of_the_request(monkeypatch):
    pieces, ahead = 5, 0.0

    def content():
        nonlocal ahead
        for _ in range(pieces):
            ahead += 2 * PATIENCE  # the client's time, not the app's
            yield b"x"

    for module in (loop_module, exchange_module):
        monkeypatch.setattr(module, "monotonic", lambda: time.monotonic() + ahead)
    assert read_all(send(echo, content())) == b"x" * pieces


@pytest.mark.parametrize("when", [0, 1, 3])
@pytest.mark.parametrize("app", [echo, pipe])
@pytest.mark.parametrize(
    "error", [ForwardError("send", "too large", status=413), OSError("reset"), KeyboardInterrupt()]
)
def test_what_the_body_raises_goes_to_the_caller_and_the_app_hears_of_a_client_that_left(app, when, error):
    seen = []

    async def watched(scope, receive, send):
        async def receiving():
            seen.append(await receive())
            return seen[-1]

        await app(scope, receiving, send)

    def content():
        for _ in range(when):
            yield b"x"
        raise error

    with pytest.raises(type(error)) as caught:  # noqa: PT012 - either of them
        answer = send(watched, content())
        try:
            read_all(answer)
        finally:
            answer.close()
    assert caught.value is error
    until(idle)
    assert seen[-1] == {"type": "http.disconnect"}
    assert len(seen) == when + 1


def test_a_failed_start_fails_the_call_and_is_tried_again():
    lived = Lived(failing=2)
    app = app_of(lived)
    for _ in range(2):
        with pytest.raises(ForwardError) as caught:
            send(app)
        error = caught.value
        assert (error.stage, error.status, error.request_sent) == ("connect", 502, False)
        assert error.reason == "its startup failed: OSError: no database"
    assert read_all(send(app, b"now")) == b"now"
    assert lived.notes == ["start"] * 3
    app.close()


def test_a_slow_start_is_not_waited_for_longer_than_connecting(monkeypatch):
    monkeypatch.setattr(loop_module, "_SLACK", PATIENCE)
    go = threading.Event()

    async def slow(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await asyncio.to_thread(go.wait, PATIENCE)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return
        await echo(scope, receive, send)

    app = app_of(slow, connect_timeout=0.02)
    with pytest.raises(ForwardError) as caught:
        send(app)
    error = caught.value
    assert (error.stage, error.status, error.request_sent) == ("connect", 504, False)
    assert error.reason == "its startup is not complete"
    go.set()
    until(lambda: all(h.lifespan.started for h in [*loop_thread().homes] if h.app is slow))
    assert read_all(send(app, b"now")) == b"now"
    app.close()


def test_a_blocked_loop_means_that_nothing_was_executed(monkeypatch):
    monkeypatch.setattr(loop_module, "_SLACK", 0.0)
    calls, blocked, go = [], threading.Event(), threading.Event()

    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            calls.append(scope["path"])
            await echo(scope, receive, send)

    loop = loop_thread().loop
    loop.call_soon_threadsafe(lambda: (blocked.set(), go.wait(PATIENCE)))
    assert blocked.wait(PATIENCE)
    with pytest.raises(ForwardError) as caught:
        send(app_of(app, connect_timeout=0.02))
    error = caught.value
    assert (error.stage, error.status, error.request_sent) == ("connect", 504, False)
    go.set()
    assert read_all(send(app, b"next")) == b"next"
    assert calls == ["/"]  # that of the second call


def test_an_app_that_ends_the_process_in_a_task_of_its_own_does_not_end_the_loop(caplog):
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return

        async def leave():
            raise SystemExit(3)

        scope["task"] = asyncio.create_task(leave())
        await asyncio.sleep(0.001)
        await send(start())
        await send(body(b"ok"))

    assert read_all(send(app)) == b"ok"
    assert "tried to end the process" in caplog.text


def test_a_closed_app_takes_no_calls():
    lived = Lived()
    app = app_of(lived)
    app.close()
    with pytest.raises(ForwardError) as caught:
        send(app)
    assert (caught.value.stage, caught.value.status) == ("pool", 503)
    assert lived.notes == []


def test_a_call_that_is_on_its_way_when_its_app_closes_is_refused():
    app = app_of(echo)
    assert read_all(send(app)) == b""
    home = app._homes[loop_thread()]
    home.closed = True
    with pytest.raises(ForwardError) as caught:
        send(app)
    assert (caught.value.stage, caught.value.status) == ("pool", 503)


class Interrupted(BaseException):
    """What a signal's handler, or gevent's timeout, raises wherever a thread waits."""


@pytest.mark.parametrize("app", [echo, pipe, saying(start(), body(b"a", True), body(b"b"))])
@pytest.mark.parametrize("step", range(8))
def test_an_interruption_at_any_wait_leaves_nothing_behind(app, step, monkeypatch):
    count = 0
    make = loop_module.make_bell

    def make_bell():
        bell = make()

        class Bell:
            ring = staticmethod(bell.ring)

            @staticmethod
            def wait(seconds):
                nonlocal count
                count += 1
                if count > step:
                    raise Interrupted
                bell.wait(seconds)

        return Bell()

    monkeypatch.setattr(loop_module, "make_bell", make_bell)
    try:
        answer = send(app, iter([b"x", b"y"]), method="POST")
        try:
            read_all(answer)
        finally:
            answer.close()
    except Interrupted:
        pass
    until(idle)
    assert count <= step + 1


@pytest.mark.parametrize("reads", range(6))
def test_closing_after_any_read_leaves_nothing_behind(reads):
    chunks = [b"%d" % n for n in range(4)]
    answer = send(pipe, iter(chunks), method="POST")
    found = b"".join(answer.read() for _ in range(reads))
    answer.close()
    assert b"".join(chunks).startswith(found)
    until(idle)
