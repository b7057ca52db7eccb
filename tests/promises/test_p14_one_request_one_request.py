"""P14: one request of a client is at most one request upstream.

With one documented exception, which no HTTP client can do without (RFC 9112 section 9.3.1): a connection
that was used before and died before the first byte of an answer is replaced once, if the method is safe and
the body was kept. The upstream counts.
"""

import threading

import pytest
from tests.transports.upstream import (
    ScriptedUpstream,
    body,
    chunked_body,
    close,
    forever,
    head,
    reset,
    send,
    tell,
    until_gone,
)

from promises.drive import GONE, PATIENCE, address
from strangle_mw import Route, Upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SERVE = [forever(head(), send(OK))]
SAFE = ["GET", "HEAD", "OPTIONS", "TRACE"]
UNSAFE = ["POST", "PUT", "DELETE", "PATCH", "PURGE", "get"]
ANSWERED = {  # what comes once a request was read, and what the client is told
    "closed": ([close()], 502),
    "reset": ([reset()], 502),
    "cut head": ([send(b"HTTP/1.1 200 OK\r\nCont"), close()], 502),
    "interim, then closed": ([send(b"HTTP/1.1 103 E\r\n\r\n"), close()], 502),
    "not HTTP": ([send(b"SSH-2.0\r\n"), until_gone()], 502),
    "500": ([send(OK.replace(b"200 OK", b"500 No")), until_gone()], 500),
    "503": ([send(OK.replace(b"200 OK", b"503 No")), until_gone()], 503),
    "425 Too Early": ([send(OK.replace(b"200 OK", b"425 No")), until_gone()], 425),
    "cut body": ([send(OK[:-1]), close()], None),
    "nothing in time": ([until_gone()], 504),
}


def route(server, **more):
    return Route("/m/*", to=Upstream(url=address(server), **more), timeout=0.1)


CASES = [(a, m) for a in ANSWERED for m in (*SAFE, *UNSAFE) if a != "nothing in time" or m in ("GET", "POST")]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_new_connection_carries_the_only_one(strangled, name, method):
    steps, status = ANSWERED[name]
    with ScriptedUpstream([head(), *steps], SERVE) as server:
        side = strangled([route(server)])
        seen = side.ask(method=method)
        if status is not None:
            assert seen.status == status
        elif method != "HEAD":
            assert not seen.ended or seen.status == 502
        assert (len(server.heads), server.connections, side.legacy) == (1, 1, [])


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize("end", [close, reset])
def test_an_unsafe_request_on_a_connection_that_dies_is_not_sent_again(strangled, method, end):
    with ScriptedUpstream([head(), send(OK), head(), end()], SERVE) as server:
        side = strangled([route(server)])
        assert side.ask().status == 200
        assert side.ask(method=method).status == 502
        assert (len(server.heads), server.connections) == (2, 1)


@pytest.mark.parametrize("method", SAFE)
@pytest.mark.parametrize("end", [close, reset])
def test_a_safe_one_is_replaced_once(strangled, method, end):
    with ScriptedUpstream([head(), send(OK), head(), end()], SERVE) as server:
        side = strangled([route(server)])
        assert side.ask().status == 200
        assert side.ask(method=method).status == 200
        assert (len(server.heads), server.connections) == (3, 2)


def test_and_only_once_though_other_connections_wait(strangled):
    """The replacement gets a new connection: old ones may all have died in the same moment."""
    both = threading.Barrier(2)
    dies = [head(), lambda _: both.wait(PATIENCE), send(OK), head(), close()]
    with ScriptedUpstream(dies, dies, [head(), close()], SERVE) as server:
        side = strangled([route(server)])
        assert [f.result(PATIENCE).status for f in (side.start(), side.start())] == [200, 200]
        assert side.ask("/m/again").status == 502
        assert [b"/m/again" in h for h in server.heads].count(True) == 2
        assert server.connections == 3


@pytest.mark.parametrize(
    "answer", [b"H", b"HTTP/1.1 103 E\r\n\r\n", b"HTTP/1.1 200 OK\r\n"], ids=["a byte", "interim", "a line"]
)
def test_nothing_is_sent_again_once_a_byte_of_an_answer_came(strangled, answer):
    with ScriptedUpstream([head(), send(OK), head(), send(answer), close()], SERVE) as server:
        side = strangled([route(server)])
        assert side.ask().status == 200
        assert side.ask().status == 502
        assert (len(server.heads), server.connections) == (2, 1)


def test_a_kept_body_is_sent_again_whole(strangled):
    script = [head(), body(3), send(OK)]
    with ScriptedUpstream([head(), send(OK), head(), body(3), close()], script) as server:
        side = strangled([route(server)])
        assert side.ask().status == 200
        assert side.ask(method="QUERY", body=[b"a", b"bc"]).status == 200
        assert server.bodies == [b"abc", b"abc"]


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("method", ["QUERY", "POST"])
def test_a_streamed_body_is_never_sent_again(strangled, method, framing):
    read = body(100_000) if framing == "length" else chunked_body()
    with ScriptedUpstream([head(), send(OK), head(), read, close()], SERVE) as server:
        side = strangled([route(server)])
        assert side.ask().status == 200
        seen = side.ask(method=method, body=[b"x" * 50_000, b"y" * 50_000], chunked=framing == "chunked")
        assert seen.status == 502
        assert (len(server.heads), server.connections) == (2, 1)


def test_a_connection_that_was_closed_in_time_costs_nobody_anything(strangled):
    ended = threading.Event()
    with ScriptedUpstream([head(), send(OK), close(), tell(ended)], SERVE) as server:
        side = strangled([route(server)])
        assert side.ask().status == 200
        assert ended.wait(PATIENCE)
        assert side.ask(method="POST").status == 200
        assert (len(server.heads), server.connections) == (2, 2)


def test_a_body_that_its_client_cuts_is_not_sent_again(strangled):
    with ScriptedUpstream([head(), send(OK), until_gone()], SERVE) as server:
        side = strangled([route(server)])
        assert side.ask().status == 200
        assert side.ask(method="QUERY", body=[b"x" * 100_000, GONE], length=200_000).status in (0, 400)
        assert (len(server.heads), server.connections) == (1, 1)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_is_tried_again_where_nothing_listens(strangled, method):
    side = strangled([Route("/m/*", to="http://127.0.0.1:1", fallback="off")])
    assert (side.ask(method=method).status, side.legacy) == (502, [])
