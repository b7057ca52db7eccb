"""P7: a connection to an upstream is not used again after anything unexpected; the next request gets another.

That no byte of one client's answer reaches another client is in tests/transports/test_two_clients.py.
"""

import threading

import pytest
from tests.transports.upstream import (
    ScriptedUpstream,
    forever,
    head,
    reset,
    send,
    tell,
    until_gone,
    wait,
)

from promises.drive import GONE, PATIENCE, address
from strangle_mw import Route, Upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NEXT = [forever(head(), send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"))]
START = b"HTTP/1.1 200 OK\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"

# answer, method, what the client sees: None for a failure
UNEXPECTED = {
    "bytes after a length": (OK + b"x", "GET", 200),
    "line end after a length": (OK + b"\r\n", "GET", 200),
    "a second answer": (OK + OK, "GET", 200),
    "bytes after the last chunk": (CHUNKED + b"2\r\nok\r\n0\r\n\r\nx", "GET", 200),
    "body after HEAD": (OK, "HEAD", 200),
    "chunked body after HEAD": (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", "HEAD", 200),
    "body after 204": (b"HTTP/1.1 204 N\r\n\r\nok", "GET", 204),
    "204 with a length": (b"HTTP/1.1 204 N\r\nContent-Length: 2\r\n\r\nok", "GET", 204),
    "204 that is chunked": (b"HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "GET", 204),
    "body after 304": (b"HTTP/1.1 304 N\r\nContent-Length: 2\r\n\r\nok", "GET", 304),
    "upstream says close": (START + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", "GET", 200),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET", 200),
    "switched protocols": (b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "GET", 502),
    "too many interim answers": (b"HTTP/1.1 103 E\r\n\r\n" * 99 + OK, "GET", 502),
    "not HTTP": (b"SSH-2.0-x\r\n", "GET", 502),
    "two lengths": (START + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", "GET", 502),
    "both framings": (CHUNKED[:-2] + b"Content-Length: 2\r\n\r\n0\r\n\r\n", "GET", 502),
    "unknown coding": (START + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n", "GET", 502),
    "malformed chunk": (CHUNKED + b"zz\r\n", "GET", None),
}


def route(server):
    """Idle connections live longer than any test: what closes one is not its age."""
    return Route("/m/*", to=Upstream(url=address(server), keepalive=10 * PATIENCE))


def next_one(side, server, gone, connections=2):
    """Whatever happened before: the next request is answered, on another connection."""
    assert side.pool.idle == 0
    assert gone.wait(PATIENCE), "the connection was left open"
    seen = side.ask("/m/next")
    assert (seen.status, seen.body, seen.ended) == (200, b"next", True)
    assert server.connections == connections


def test_a_clean_exchange_is_the_only_one_whose_connection_is_used_again(strangled):
    with ScriptedUpstream([forever(head(), send(OK))]) as server:
        side = strangled([route(server)])
        assert [side.ask().body for _ in range(3)] == [b"ok"] * 3
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 103 E\r\n\r\n" + OK, b"HTTP/1.1 204 N\r\n\r\n", b"HTTP/1.1 304 N\r\n\r\n"]
)
def test_what_is_usual_costs_nothing(strangled, answer):
    with ScriptedUpstream([head(), send(answer), *NEXT]) as server:
        side = strangled([route(server)])
        assert side.ask().ended
        assert side.ask("/m/next").body == b"next"
        assert server.connections == 1


@pytest.mark.parametrize(("answer", "method", "status"), UNEXPECTED.values(), ids=UNEXPECTED)
def test_after_an_unexpected_answer(strangled, answer, method, status):
    gone = threading.Event()
    with ScriptedUpstream([head(), send(answer), until_gone(), tell(gone)], NEXT) as server:
        side = strangled([route(server)])
        seen = side.ask(method=method)
        if status is None:
            assert seen.status == 502 or not seen.ended
        else:
            assert (seen.status, seen.ended) == (status, True)
        if method == "HEAD" or status in (204, 304):
            assert seen.body == b""
        next_one(side, server, gone)


@pytest.mark.parametrize("late", [b"x", b"\r\n", OK])
def test_after_bytes_that_nobody_asked_for(strangled, late):
    more, gone = threading.Event(), threading.Event()
    with ScriptedUpstream(
        [head(), send(OK), wait(more), send(late), tell(gone), until_gone()], NEXT
    ) as server:
        side = strangled([route(server)])
        assert side.ask().body == b"ok"
        more.set()
        assert gone.wait(PATIENCE)
        assert side.ask("/m/next").body == b"next"
        assert server.connections == 2


def test_after_an_early_answer(strangled):
    """The rest of the body was not sent: what came next would be read as a part of it."""
    answered, gone = threading.Event(), threading.Event()
    script = [head(), send(OK), tell(answered), until_gone(), tell(gone)]
    with ScriptedUpstream(script, NEXT) as server:
        side = strangled([route(server)])

        def more():
            assert answered.wait(PATIENCE)
            return b"y" * 1000

        seen = side.ask(body=[b"x" * 100_000, more, *[b"z" * 100_000] * 200], length=20_101_000)
        assert (seen.status, seen.body) == (200, b"ok")
        next_one(side, server, gone)


def test_after_a_client_that_left_in_its_body(strangled):
    gone = threading.Event()
    with ScriptedUpstream([until_gone(), tell(gone)], NEXT) as server:
        side = strangled([route(server)])
        side.ask(body=[b"x" * 100_000, GONE], length=200_000)
        next_one(side, server, gone)


def test_after_a_timeout(strangled):
    gone = threading.Event()
    with ScriptedUpstream([head(), until_gone(), tell(gone)], NEXT) as server:
        side = strangled([Route("/m/slow", to=address(server), timeout=0.05), route(server)])
        assert side.ask("/m/slow").status == 504
        next_one(side, server, gone)


def test_after_a_reset(strangled):
    gone = threading.Event()
    with ScriptedUpstream([head(), reset(), tell(gone)], NEXT) as server:
        side = strangled([route(server)])
        assert side.ask().status == 502
        next_one(side, server, gone)


SOME = START + b"Content-Length: 99\r\n\r\nsome"


@pytest.mark.parametrize("strangled", ["asgi"], indirect=True)  # nobody can cancel a thread
@pytest.mark.parametrize("answer", [b"", SOME, CHUNKED + b"1\r\nx\r\n"])
def test_after_a_cancelled_request(strangled, answer):
    asked, gone = threading.Event(), threading.Event()
    script = [head(), *([send(answer)] if answer else []), tell(asked), until_gone(), tell(gone)]
    with ScriptedUpstream(script, NEXT) as server:
        side = strangled([route(server)])
        waiting = side.start()
        assert asked.wait(PATIENCE)
        assert waiting.cancel()
        next_one(side, server, gone)


@pytest.mark.parametrize("leaves", ["when sent to", "when asked"])
def test_after_a_client_that_left_while_it_was_answered(strangled, leaves):
    gone = threading.Event()
    with ScriptedUpstream([head(), send(SOME), until_gone(), tell(gone)], NEXT) as server:
        side = strangled([route(server)])
        seen = side.ask(leaves=leaves)
        assert (seen.status, seen.ended) == (200, False)
        next_one(side, server, gone)


def test_a_pool_that_is_closed_keeps_nothing(strangled):
    gone = threading.Event()
    with ScriptedUpstream([head(), send(OK), until_gone(), tell(gone)]) as server:
        side = strangled([route(server)])
        assert side.ask().body == b"ok"
        assert side.pool.idle == 1
        side.close()
        assert gone.wait(PATIENCE)
