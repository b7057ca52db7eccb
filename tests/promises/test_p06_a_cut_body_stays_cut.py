"""P6: a body that ends early never looks complete to the other side, in either direction.

Behind every supported server the same is asked in tests/drivers/test_forwarding.py; here the drivers are
asked directly, so that the place of the cut is exact.
"""

import threading

import pytest
from tests.transports.upstream import ScriptedUpstream, body, close, head, reset, send, tell, until_gone, wait

from promises.drive import GONE, PATIENCE, address
from strangle_mw import ForwardError, Route

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
START = b"HTTP/1.1 200 OK\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
BIG = 200_000
"""More than is ever buffered before sending, so that the body is streamed."""


def everything(log, gone):
    """Keep what comes until the client has closed."""

    def step(peer):
        try:
            until_kept(peer)
        finally:
            log.append(peer.rest)
            gone.set()

    def until_kept(peer):
        while True:
            peer.receive()

    return step


# --- the body of the request

SHORT = {
    "length, client leaves": {"body": [b"x" * 1000, GONE], "length": BIG},
    "length, ends early": {"body": [b"x" * 1000], "length": BIG},
    "length, nothing comes": {"body": [GONE], "length": BIG},
    "length, one byte missing": {"body": [b"x" * (BIG - 1)], "length": BIG},
    "chunked, client leaves": {"body": [b"x" * 1000, b"y", GONE], "chunked": True},
}


@pytest.mark.parametrize("cut", SHORT.values(), ids=SHORT)
def test_a_streamed_request_that_is_cut_is_cut_upstream(strangled, cut):
    log, gone = [], threading.Event()
    with ScriptedUpstream([everything(log, gone)]) as server:
        side = strangled([Route("/m/*", to=address(server))])
        seen = side.ask(**cut)
        assert gone.wait(PATIENCE), "the connection to the upstream was left open"
        assert server.connections == 1
        assert side.pool.idle == 0
    assert seen.status in (0, 400, 502)
    assert side.legacy == [], "a request whose body is cut is not for another implementation either"
    _, _, wire = log[0].partition(b"\r\n\r\n")
    if "chunked" in cut:
        assert b"\r\n0\r\n" not in wire
    else:
        assert len(wire) < BIG


@pytest.mark.parametrize("pieces", [[GONE], [b"ab", GONE], [b"ab"]])
def test_a_small_request_that_is_cut_is_not_sent_at_all(strangled, pieces):
    with ScriptedUpstream([until_gone()]) as server:
        side = strangled([Route("/m/*", to=address(server))])
        seen = side.ask(body=pieces, length=5)
        assert server.connections == 0
    assert seen.status in (0, 400)
    assert side.legacy == []


def test_a_body_longer_than_declared_is_never_sent_on(strangled):
    # Behind WSGI the input is read no further than the length (PEP 3333), so there the request is a good one.
    log, gone, smuggled = [], threading.Event(), b"GET /smuggled HTTP/1.1\r\n\r\n"
    with ScriptedUpstream([head(), body(BIG), send(OK), everything(log, gone)]) as server:
        side = strangled([Route("/m/*", to=address(server))])
        seen = side.ask(body=[b"x" * BIG, smuggled], length=BIG)
        if side.name == "wsgi":
            assert (seen.status, seen.body) == (200, b"ok")
        else:
            assert seen.status in (0, 200, 400)
        side.close()
        assert gone.wait(PATIENCE)
    assert b"smuggled" not in b"".join(log + [peer.rest for peer in server.peers])


# --- the body of the answer

CUT = {
    "length": START + b"Content-Length: 9\r\n\r\nabc",
    "length, no byte": START + b"Content-Length: 9\r\n\r\n",
    "chunk": CHUNKED + b"9\r\nabc",
    "between chunks": CHUNKED + b"3\r\nabc\r\n",
    "before the last line end": CHUNKED + b"3\r\nabc\r\n0\r\n",
    "in the trailers": CHUNKED + b"3\r\nabc\r\n0\r\nA: b\r\n",
}
MALFORMED = {
    "chunk size": CHUNKED + b"3\r\nabc\r\nzz\r\n",
    "chunk too long": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "chunk size with 0x": CHUNKED + b"3\r\nabc\r\n0x1\r\n",
}


@pytest.mark.parametrize("end", [close, reset])
@pytest.mark.parametrize("start", CUT.values(), ids=CUT)
def test_a_cut_answer_never_ends_cleanly(strangled, start, end):
    with ScriptedUpstream([head(), send(start), end()]) as server:
        side = strangled([Route("/m/*", to=address(server))])
        seen = side.ask()
        assert not seen.ended or seen.status == 502
        assert server.connections == 1
        assert side.pool.idle == 0
    if seen.status == 200:
        assert isinstance(seen.error, ForwardError)
        assert b"abc".startswith(seen.body)
    else:
        # Nothing was sent to the client yet, because a reset overtook the head or no byte of the body came.
        assert (seen.status, seen.error, side.legacy) == (502, None, [])


@pytest.mark.parametrize("start", MALFORMED.values(), ids=MALFORMED)
def test_an_answer_that_is_malformed_on_the_way_never_ends_cleanly(strangled, start):
    first, _, rest = start.partition(b"\r\n\r\n")
    more = threading.Event()
    script = [head(), send(first + b"\r\n\r\n" + rest[:6]), wait(more), send(rest[6:])]
    with ScriptedUpstream([*script, until_gone()]) as server:
        side = strangled([Route("/m/*", to=address(server))])
        waiting = side.start()
        more.set()
        seen = waiting.result(PATIENCE)
    assert seen.status in (200, 502)
    assert not seen.ended or seen.status == 502
    assert (seen.error is None) == (seen.status == 502)


def test_a_known_length_is_kept_so_that_even_a_clean_end_shows_the_cut(strangled):
    with ScriptedUpstream([head(), send(CUT["length"]), close()]) as server:
        seen = strangled([Route("/m/*", to=address(server))]).ask()
    assert seen.header(b"content-length") == b"9"
    assert not seen.ended


@pytest.mark.parametrize(
    "start",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", START + b"Content-Length: 2\r\n", b"HTTP/1.1 103 E\r\n\r\n"],
)
def test_a_cut_head_is_a_bad_gateway(strangled, start):
    with ScriptedUpstream([head(), send(start), close()]) as server:
        side = strangled([Route("/m/*", to=address(server))])
        seen = side.ask()
        assert server.connections == 1
    assert (seen.status, seen.ended, side.legacy) == (502, True, [])


def test_a_body_without_length_ends_with_the_stream_and_not_with_a_reset(strangled):
    sent, more = threading.Event(), threading.Event()
    start = send(START + b"\r\nabc")
    script = [head(), start, tell(sent), wait(more), reset()]
    with ScriptedUpstream([head(), start, close()], script) as server:
        side = strangled([Route("/m/*", to=address(server))])
        whole = side.ask()
        assert (whole.status, whole.body, whole.ended) == (200, b"abc", True)
        waiting = side.start()
        assert sent.wait(PATIENCE)
        more.set()
        cut = waiting.result(PATIENCE)
    assert not cut.ended or cut.status == 502
