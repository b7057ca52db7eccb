"""P15: whatever an upstream or a client does costs a bounded time and a bounded memory, and legacy goes on.

That a slow reader holds back the sender is in tests/transports/test_asyncio_pool.py, limits to the byte are
in tests/transports/test_h1.py.
"""

import socket
import threading
from contextlib import ExitStack

import pytest
from tests.transports.upstream import (
    ScriptedUpstream,
    body,
    close,
    forever,
    head,
    send,
    tell,
    until_gone,
    wait,
)

from promises.drive import PATIENCE, address
from strangle_mw import Route, Upstream
from strangle_mw.core.settings import Settings
from strangle_mw.transports.h1 import MAX_FIELDS, MAX_HEAD, MAX_INTERIM

REPLAY_LIMIT = Settings().replay_limit

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
START = b"HTTP/1.1 200 OK\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"
SOON = 0.05
"""Seconds for tests in which time must run out."""

TOO_MUCH = {
    "bytes of a head": START + b"A: " + b"x" * MAX_HEAD + b"\r\n\r\n",
    "bytes of many fields": START + (b"A: " + b"x" * 5000 + b"\r\n") * 15 + b"\r\n",
    "fields": START + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n",
    "interim answers": b"HTTP/1.1 100 C\r\n\r\n" * (MAX_INTERIM + 1) + OK,
    "bytes of interim answers": b"HTTP/1.1 103 E\r\nLink: " + b"x" * 60_000 + b"\r\n\r\n" + b"HTTP/1.1 103 E\r\nLink: " + b"x" * 6000 + b"\r\n\r\n" + OK,
    "reason": b"HTTP/1.1 200 " + b"x" * MAX_HEAD + b"\r\n\r\n",
    "a number": START + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
}  # fmt: skip
TOO_MUCH_LATER = {
    "bytes of trailers": CHUNKED + b"1\r\na\r\n0\r\n" + b"A: " + b"x" * 200_000,
    "bytes of a chunk extension": CHUNKED + b"1;" + b"x" * 200_000,
}
ENDLESS = {
    "a head": (START, b"A: b\r\n" * 1000),
    "interim answers": (b"", b"HTTP/1.1 102 P\r\n\r\n" * 100),
    "trailers": (CHUNKED + b"0\r\n", b"A: b\r\n" * 1000),
    "extensions": (CHUNKED + b"1;", b"x" * 10_000),
}


def endless(data):
    return forever(send(data))


def stalled(server, **more):
    return Upstream(url=address(server), max_in_flight=3, pool_timeout=SOON, **more)


# --- sizes


@pytest.mark.parametrize("answer", TOO_MUCH.values(), ids=TOO_MUCH)
def test_too_much_before_the_body_is_a_bad_gateway(strangled, answer):
    with ScriptedUpstream([head(), send(answer), until_gone()]) as server:
        side = strangled([Route("/m/*", to=address(server))])
        seen = side.ask()
        assert (seen.status, seen.ended, side.pool.idle) == (502, True, 0)


@pytest.mark.parametrize("answer", TOO_MUCH_LATER.values(), ids=TOO_MUCH_LATER)
def test_too_much_besides_the_body_cuts_it(strangled, answer):
    with ScriptedUpstream([head(), send(answer), until_gone()]) as server:
        side = strangled([Route("/m/*", to=address(server))])
        seen = side.ask()
        assert not seen.ended or seen.status == 502
        assert side.pool.idle == 0


@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=ENDLESS)
def test_what_never_ends_is_ended(strangled, start, more):
    with ScriptedUpstream([head(), send(start), endless(more)]) as server:
        seen = strangled([Route("/m/*", to=address(server))]).ask()
        assert seen.status == 502 or not seen.ended


@pytest.mark.parametrize("kept", [REPLAY_LIMIT, REPLAY_LIMIT + 1])
def test_a_body_is_kept_up_to_the_limit_and_not_beyond(strangled, kept):
    """Beyond it the upstream has the head while the client still sends."""
    begun = threading.Event()

    def last():
        if kept > REPLAY_LIMIT:
            assert begun.wait(PATIENCE), "the body was read whole before anything was sent"
        else:
            assert not begun.is_set()
        return b"y"

    with ScriptedUpstream([head(), tell(begun), body(kept), send(OK)]) as server:
        seen = strangled([Route("/m/*", to=address(server))]).ask(body=[b"x" * (kept - 1), last], length=kept)
        assert seen.status == 200
        assert server.bodies == [b"x" * (kept - 1) + b"y"]


@pytest.mark.parametrize("sent", ["declared", "chunked"])
def test_a_body_over_the_limit_of_the_table_is_refused(strangled, sent):
    more = {"body": [b"x" * 600, b"x" * 600], "chunked": sent == "chunked"}
    with ScriptedUpstream([until_gone()]) as server:
        side = strangled([Route("/m/*", to=address(server))], max_body=1000)
        assert side.ask(**more).status == 413
        if sent == "declared":
            assert server.connections == 0
        assert side.pool.idle == 0


# --- times


def test_connecting(strangled):
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        while True:  # fill the queue, until connecting takes its time
            other = stack.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(("127.0.0.1", port))
            other.settimeout(SOON)
            try:
                other.send(b"")
                other.getpeername()
            except OSError:
                break
        upstream = Upstream(url=f"http://127.0.0.1:{port}", connect_timeout=SOON)
        side = strangled([Route("/m/*", to=upstream, fallback="off")])
        assert (side.ask().status, side.legacy) == (504, [])


def test_the_head_as_a_whole_not_each_byte_of_it(strangled):
    stop = threading.Event()

    def drip(peer):
        while not stop.wait(SOON / 10):
            send(b"x")(peer)

    with ScriptedUpstream([head(), send(START + b"A: "), drip]) as server:
        side = strangled([Route("/m/*", to=address(server), timeout=SOON * 2)])
        assert side.ask().status == 504
        stop.set()


def test_the_silence_in_a_body(strangled):
    with ScriptedUpstream([head(), send(START + b"Content-Length: 9\r\n\r\nabc"), until_gone()]) as server:
        seen = strangled([Route("/m/*", to=Upstream(url=address(server), idle_timeout=SOON))]).ask()
        assert (seen.status, seen.body, seen.ended) == (200, b"abc", False)


def test_an_upstream_that_takes_no_more_of_a_body(strangled):
    enough = threading.Event()
    with ScriptedUpstream([head(), wait(enough), close()]) as server:
        upstream = Upstream(url=address(server), timeout=SOON, idle_timeout=SOON)
        side = strangled([Route("/m/*", to=upstream)])
        assert side.ask(body=[b"x" * 1_000_000] * 20).status == 504
        enough.set()


# --- many at a time


def test_a_dead_upstream_does_not_starve_legacy_nor_other_upstreams(strangled):
    release = threading.Event()
    hangs = [head(), wait(release), send(OK), until_gone()]
    with ScriptedUpstream(hangs) as dead, ScriptedUpstream([forever(head(), send(OK))]) as good:
        side = strangled([Route("/m/*", to=stalled(dead), fallback="off"), Route("/other", to=address(good))])
        waiting = [side.start() for _ in range(3)]
        for peer in range(3):
            until(lambda n=peer: len(dead.heads) > n)
        refused = [side.start() for _ in range(12)]
        assert side.ask("/legacy").status == 299
        assert side.ask("/other").status == 200
        answers = [f.result(PATIENCE) for f in refused]
        assert {a.status for a in answers} == {503}
        assert all(a.header(b"retry-after") for a in answers)
        assert [call for call in side.legacy if "/m/" in str(call)] == []
        assert (dead.connections, len(dead.heads), side.pool.in_flight) == (3, 3, 3)
        release.set()
        assert [f.result(PATIENCE).status for f in waiting] == [200] * 3


def test_as_many_wait_as_there_are_places_and_no_more(strangled):
    """The others are told at once: a queue without end would only fill the memory."""
    release = threading.Event()
    with ScriptedUpstream([forever(head(), wait(release), send(OK))]) as server:
        upstream = Upstream(url=address(server), max_in_flight=2, pool_timeout=PATIENCE)
        side = strangled([Route("/m/*", to=upstream, fallback="off")])
        waiting = [side.start() for _ in range(2)]
        until(lambda: len(server.heads) == 2)
        others = [side.start() for _ in range(12)]
        until(lambda: sum(f.done() for f in others) == 10)
        assert {f.result().status for f in others if f.done()} == {503}
        release.set()
        late = [f.result(PATIENCE).status for f in others]
        assert (late.count(200), late.count(503)) == (2, 10)
        assert [f.result(PATIENCE).status for f in waiting] == [200, 200]
        assert server.connections <= 2


def until(condition):
    """Wait for what threads bring about."""
    tick = threading.Event()
    for _ in range(int(PATIENCE / 0.005)):
        if condition():
            return
        tick.wait(0.005)
    raise AssertionError("it did not happen")
