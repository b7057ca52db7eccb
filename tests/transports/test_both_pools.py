"""What holds for both pools, against real sockets: reuse, framing, failures, limits, TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from random import randbytes
from typing import TYPE_CHECKING

import pytest
import trustme
from tests.transports.clients import Client, Clients, fetch, read_all
from tests.transports.test_h1 import MALFORMED
from tests.transports.upstream import (
    PATIENCE,
    Peer,
    ScriptedUpstream,
    body,
    chunked_body,
    close,
    forever,
    half_close,
    head,
    reset,
    send,
    tell,
    until_gone,
    unwrap,
    wait,
)

from strangle_mw.core.model import Endpoint, Tls
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.transports.upstream import Step

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
START = b"HTTP/1.1 200 OK\r\n"
SERVE = [forever(head(), send(OK))]
SOON = 0.05
"""Seconds for tests in which time must run out."""


@pytest.fixture(params=["asyncio", "threads"])
def clients(request: pytest.FixtureRequest) -> Iterator[Clients]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Clients(request.param) as made:
        yield made
    assert len(list(Path("/proc/self/fd").iterdir())) <= before, "a descriptor was left open"


def fails(client: Client, *args: object, **options: object) -> ForwardError:
    with pytest.raises(ForwardError) as caught:
        client.send(*args, **options)  # type: ignore[arg-type]
    assert client.pool.in_flight == 0
    assert len(caught.value.reason) < 210
    return caught.value


def facts(error: ForwardError) -> tuple[str, int, bool, bool]:
    return error.stage, error.status, error.request_sent, error.stale


# --- reuse


def test_one_connection_serves_one_request_after_another(clients: Clients) -> None:
    with ScriptedUpstream(SERVE) as server:
        client = clients(server.endpoint)
        for _ in range(3):
            assert fetch(client) == (200, b"ok")
        assert (server.connections, client.pool.idle, client.pool.in_flight) == (1, 1, 0)
        client.close()


def test_a_small_answer_is_complete_at_once(clients: Clients) -> None:
    with ScriptedUpstream([head(), send(OK), until_gone()]) as server:
        answer = clients(server.endpoint).send()
        assert (answer.complete, answer.status, answer.reason) == (True, 200, b"OK")
        assert answer.headers == [(b"Content-Length", b"2")]
        assert answer.take() == b"ok"
        assert answer.take() == b""
        assert answer.read() == b""
        answer.close()


def test_the_connection_used_last_is_used_next(clients: Clients) -> None:
    scripts = [[forever(head(), send(OK.replace(b"ok", name)))] for name in (b"aa", b"bb")]
    with ScriptedUpstream(*scripts) as server:
        client = clients(server.endpoint)
        first, second = client.send(), client.send()
        assert (first.take(), second.take()) == (b"aa", b"bb")
        first.close()
        second.close()
        assert client.pool.idle == 2
        assert [fetch(client)[1], fetch(client)[1]] == [b"bb", b"bb"]


def test_close_may_be_repeated_and_ends_reading(clients: Clients) -> None:
    with ScriptedUpstream(SERVE) as server:
        client = clients(server.endpoint)
        answer = client.send()
        assert client.pool.in_flight == 1
        answer.close()
        answer.close()
        assert (client.pool.in_flight, client.pool.idle) == (0, 1)
        assert answer.complete
        assert answer.take() == b""
        with pytest.raises(RuntimeError):
            answer.read()


def test_an_answer_closed_early_costs_the_connection(clients: Clients) -> None:
    gone = threading.Event()
    script = [head(), send(START + b"Content-Length: 9\r\n\r\nabc"), until_gone(), tell(gone)]
    with ScriptedUpstream(script) as server:
        client = clients(server.endpoint)
        answer = client.send()
        assert not answer.complete
        answer.close()
        client.settle(gone.is_set)
        assert gone.wait(PATIENCE)
        assert (client.pool.idle, answer.complete) == (0, False)


def test_an_idle_connection_that_ended_is_not_used(clients: Clients) -> None:
    ended = threading.Event()
    with ScriptedUpstream([head(), send(OK), close(), tell(ended)], SERVE) as server:
        client = clients(server.endpoint)
        fetch(client)
        assert ended.wait(PATIENCE)
        client.settle(lambda: client.pool.idle == 0)
        assert fetch(client) == (200, b"ok")
        assert server.connections == 2


@pytest.mark.parametrize(
    "surplus", [b"x", b"\r\n", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"]
)
def test_bytes_on_an_idle_connection_end_it(clients: Clients, surplus: bytes) -> None:
    quiet, spoiled = threading.Event(), threading.Event()
    script = [head(), send(OK), wait(quiet), send(surplus), tell(spoiled), until_gone()]
    with ScriptedUpstream(script, SERVE) as server:
        client = clients(server.endpoint)
        fetch(client)
        quiet.set()
        assert spoiled.wait(PATIENCE)
        client.settle(lambda: client.pool.idle == 0)
        assert fetch(client) == (200, b"ok")
        assert server.connections == 2


def test_an_idle_connection_grows_old(clients: Clients) -> None:
    with ScriptedUpstream(SERVE) as server:
        client = clients(server.endpoint, keepalive=0.0)
        fetch(client)
        client.settle(lambda: client.pool.idle == 0)
        fetch(client)
        assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"\r\n",
        OK + b"x",
        OK + OK,
        START + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
def test_a_spoiled_connection_is_not_used_again(clients: Clients, answer: bytes) -> None:
    with ScriptedUpstream([head(), send(answer), until_gone()], SERVE) as server:
        client = clients(server.endpoint)
        assert fetch(client) == (200, b"ok")
        assert client.pool.idle == 0
        assert fetch(client) == (200, b"ok")
        assert server.connections == 2


def test_surplus_in_a_later_segment_spoils_the_connection(clients: Clients) -> None:
    read, spoiled = threading.Event(), threading.Event()
    script = [head(), send(OK), wait(read), send(b"HTTP/1.1 200"), tell(spoiled), until_gone()]
    with ScriptedUpstream(script, SERVE) as server:
        client = clients(server.endpoint)
        answer = client.send()
        read.set()
        assert spoiled.wait(PATIENCE)
        assert read_all(answer) == b"ok"
        answer.close()
        client.settle(lambda: client.pool.idle == 0)
        fetch(client)
        assert server.connections == 2


# --- a reused connection that died


@pytest.mark.parametrize("end", [close, reset])
def test_a_reused_connection_that_dies_is_stale(clients: Clients, end: Callable[[], Step]) -> None:
    with ScriptedUpstream([head(), send(OK), head(), end()], SERVE) as server:
        client = clients(server.endpoint)
        fetch(client)
        error = fails(client)
        assert (error.status, error.request_sent, error.stale) == (502, True, True)
        assert fetch(client) == (200, b"ok")


def test_fresh_opens_a_connection_though_one_is_idle(clients: Clients) -> None:
    with ScriptedUpstream(SERVE) as server:
        client = clients(server.endpoint)
        fetch(client)
        assert fetch(client, fresh=True) == (200, b"ok")
        assert (server.connections, client.pool.idle) == (2, 2)


def test_a_reused_connection_that_dies_in_the_answer_is_not_stale(clients: Clients) -> None:
    with ScriptedUpstream([head(), send(OK), head(), send(b"HTTP/1.1 2"), close()]) as server:
        client = clients(server.endpoint)
        fetch(client)
        assert facts(fails(client)) == ("head", 502, True, False)


@pytest.mark.parametrize("end", [close, reset])
def test_a_new_connection_that_dies_is_not_stale(clients: Clients, end: Callable[[], Step]) -> None:
    with ScriptedUpstream([head(), end()]) as server:
        assert facts(fails(clients(server.endpoint))) == ("head", 502, True, False)


# --- answers


def test_head_answers_have_no_body(clients: Clients) -> None:
    script = [head(), send(START + b"Content-Length: 999\r\n\r\n"), *SERVE]
    with ScriptedUpstream(script) as server:
        client = clients(server.endpoint)
        answer = client.send(method="HEAD")
        assert (answer.complete, answer.headers) == (True, [(b"Content-Length", b"999")])
        answer.close()
        assert fetch(client) == (200, b"ok")
        assert server.connections == 1
        assert server.heads[0].startswith(b"HEAD / ")


@pytest.mark.parametrize(
    ("method", "start", "status"),
    [
        ("HEAD", START + b"Content-Length: 2\r\n\r\n", 200),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", 304),
    ],
)
def test_a_body_where_none_may_be_is_dropped(
    clients: Clients, method: str, start: bytes, status: int
) -> None:
    with ScriptedUpstream([head(), send(start + b"ok"), until_gone()], SERVE) as server:
        client = clients(server.endpoint)
        assert fetch(client, method=method) == (status, b"")
        assert fetch(client) == (200, b"ok")
        assert server.connections == 2


@pytest.mark.parametrize("start", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n"])
def test_204_and_304_keep_the_connection(clients: Clients, start: bytes) -> None:
    with ScriptedUpstream([head(), send(start), *SERVE]) as server:
        client = clients(server.endpoint)
        assert fetch(client)[1] == b""
        assert fetch(client) == (200, b"ok")
        assert server.connections == 1


def test_interim_answers_are_swallowed(clients: Clients) -> None:
    interim = send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
    with ScriptedUpstream([head(), interim, interim, send(OK), *SERVE]) as server:
        client = clients(server.endpoint)
        assert fetch(client) == (200, b"ok")
        assert fetch(client) == (200, b"ok")
        assert server.connections == 1


def test_a_chunked_answer_in_pieces(clients: Clients) -> None:
    gates = [threading.Event() for _ in range(3)]
    script = [
        head(),
        send(START + b"Transfer-Encoding: chunked\r\n\r\n"),
        wait(gates[0]),
        send(b"3\r\nabc\r\n"),
        wait(gates[1]),
        send(b"2\r\nde"),
        wait(gates[2]),
        send(b"\r\n0\r\nX-Trailer: 1\r\n\r\n"),
        *SERVE,
    ]
    with ScriptedUpstream(script) as server:
        client = clients(server.endpoint)
        answer = client.send()
        pieces = []
        for gate in gates:
            assert not answer.complete
            assert answer.take() == b""
            gate.set()
            pieces.append(answer.read())
        assert pieces == [b"abc", b"de", b""]
        assert answer.complete
        assert answer.headers == [(b"Transfer-Encoding", b"chunked")]
        answer.close()
        assert fetch(client) == (200, b"ok")
        assert server.connections == 1


@pytest.mark.parametrize("start", [START, b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"])
def test_a_body_that_ends_with_the_stream(clients: Clients, start: bytes) -> None:
    more = threading.Event()
    with ScriptedUpstream([head(), send(start + b"\r\nab"), wait(more), send(b"cd"), close()]) as server:
        client = clients(server.endpoint)
        answer = client.send()
        before = answer.complete
        more.set()
        assert read_all(answer) == b"abcd"
        assert (before, answer.complete) == (False, True)
        answer.close()
        assert client.pool.idle == 0


def test_a_large_body_comes_whole(clients: Clients) -> None:
    data = randbytes(4_000_000)
    with ScriptedUpstream(
        [head(), send(START + b"Content-Length: %d\r\n\r\n" % len(data) + data), *SERVE]
    ) as server:
        client = clients(server.endpoint)
        status, received = fetch(client)
        assert status == 200
        assert received == data
        assert fetch(client) == (200, b"ok")
        assert server.connections == 1


# --- cut bodies (promise P6)


@pytest.mark.parametrize("end", [close, reset])
@pytest.mark.parametrize(
    "start",
    [
        START + b"Content-Length: 9\r\n\r\nabc",
        START + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        START + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
        START + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ],
)
def test_a_cut_body_never_ends_cleanly(clients: Clients, start: bytes, end: Callable[[], Step]) -> None:
    delivered = threading.Event()
    with ScriptedUpstream([head(), send(start), wait(delivered), end()]) as server:
        client = clients(server.endpoint)
        answer = client.send()
        assert answer.take() == b"abc"
        delivered.set()
        for _ in range(2):
            with pytest.raises(ForwardError) as caught:
                answer.read()
            assert facts(caught.value) == ("body", 502, True, False)
        assert not answer.complete
        answer.close()
        assert client.pool.idle == 0


def test_a_reset_is_no_end_of_a_body_without_length(clients: Clients) -> None:
    delivered = threading.Event()
    with ScriptedUpstream([head(), send(START + b"\r\nabc"), wait(delivered), reset()]) as server:
        answer = clients(server.endpoint).send()
        delivered.set()
        with pytest.raises(ForwardError, match="body"):
            read_all(answer)
        answer.close()


def test_a_body_malformed_on_the_way_is_an_error(clients: Clients) -> None:
    delivered = threading.Event()
    script = [
        head(),
        send(START + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n"),
        wait(delivered),
        send(b"zz\r\n"),
    ]
    with ScriptedUpstream([*script, until_gone()]) as server:
        client = clients(server.endpoint)
        answer = client.send()
        assert answer.take() == b"a"
        delivered.set()
        for _ in range(2):
            with pytest.raises(ForwardError) as caught:
                answer.read()
            assert facts(caught.value) == ("body", 502, True, False)
        answer.close()
        assert client.pool.idle == 0


# --- malformed heads


@pytest.mark.parametrize(
    "name", ["not http", "switching", "both framings", "coding gzip", "fields", "status 99"]
)
def test_malformed_answers_are_502(clients: Clients, name: str) -> None:
    with ScriptedUpstream([head(), send(MALFORMED[name]), until_gone()], SERVE) as server:
        client = clients(server.endpoint)
        error = fails(client)
        assert facts(error) == ("head", 502, True, False)
        assert error.reason.startswith("malformed answer: ")
        assert client.pool.idle == 0
        assert fetch(client) == (200, b"ok")


def test_a_head_without_end_is_refused(clients: Clients) -> None:
    with ScriptedUpstream([head(), send(START), forever(send(b"A: b\r\n" * 1000))]) as server:
        assert "head longer" in fails(clients(server.endpoint)).reason


def test_too_many_interim_answers(clients: Clients) -> None:
    with ScriptedUpstream([head(), send(b"HTTP/1.1 100 Continue\r\n\r\n" * 17), until_gone()]) as server:
        assert "interim" in fails(clients(server.endpoint)).reason


# --- requests with a body


@pytest.mark.parametrize("size", [1, 5000, 300_000])
def test_a_body_in_bytes(clients: Clients, size: int) -> None:
    data = randbytes(size)
    with ScriptedUpstream([forever(head(), body(size), send(OK))]) as server:
        client = clients(server.endpoint)
        for _ in range(2):
            assert fetch(client, data, method="POST") == (200, b"ok")
        assert server.bodies == [data, data]
        assert server.connections == 1


def test_head_and_body_leave_in_one_write(clients: Clients) -> None:
    segments: list[bytes] = []

    def first_segment(peer: Peer) -> None:
        segments.append(peer.sock.recv(65_536))

    with ScriptedUpstream([first_segment, send(OK), until_gone()]) as server:
        fetch(clients(server.endpoint), b"hello", method="POST")
    assert segments[0].endswith(b"\r\n\r\nhello")


def test_a_streamed_body_in_chunks(clients: Clients) -> None:
    with ScriptedUpstream([head(), chunked_body(), send(OK), *SERVE]) as server:
        client = clients(server.endpoint)
        assert fetch(client, [b"abc", b"", b"x" * 17], method="POST") == (200, b"ok")
        assert server.bodies == [b"3\r\nabc\r\n11\r\n" + b"x" * 17 + b"\r\n0\r\n\r\n"]
        fetch(client)
        assert server.connections == 1


def test_a_streamed_body_of_known_length(clients: Clients) -> None:
    with ScriptedUpstream([head(), body(6), send(OK), *SERVE]) as server:
        client = clients(server.endpoint)
        assert fetch(client, [b"abc", b"", b"def"], method="POST", chunked=False) == (200, b"ok")
        assert server.bodies == [b"abcdef"]
        fetch(client)
        assert server.connections == 1


def test_a_large_streamed_body_arrives_whole(clients: Clients) -> None:
    pieces = [randbytes(100_000) for _ in range(40)]
    with ScriptedUpstream([head(), body(4_000_000), send(OK), until_gone()]) as server:
        assert fetch(clients(server.endpoint), pieces, method="PUT", chunked=False) == (200, b"ok")
        assert server.bodies == [b"".join(pieces)]


EARLY = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"


@pytest.mark.parametrize("after", [[until_gone()], [half_close(), until_gone()], [close()]])
def test_an_early_answer_is_delivered(clients: Clients, after: list[Step]) -> None:
    """The upstream refuses after the head; the body would go on for ever."""
    answered = threading.Event()

    def endless() -> Iterator[bytes]:
        yield b"x"
        assert answered.wait(PATIENCE)
        while True:
            yield b"x" * 10_000

    with ScriptedUpstream([head(), send(EARLY), tell(answered), *after], SERVE) as server:
        client = clients(server.endpoint)
        assert fetch(client, endless(), method="POST") == (413, b"big")
        assert client.pool.idle == 0
        assert fetch(client) == (200, b"ok")
        assert server.connections == 2


def test_an_answer_before_the_body_has_left_costs_the_connection(clients: Clients) -> None:
    stop = threading.Event()
    with ScriptedUpstream([head(), send(EARLY), wait(stop)]) as server:
        client = clients(server.endpoint)
        assert fetch(client, bytes(20_000_000), method="POST") == (413, b"big")
        assert client.pool.idle == 0
        stop.set()


def test_a_broken_pipe_is_no_error_if_there_is_an_answer(clients: Clients) -> None:
    """The answer and the reset are both there before the next write."""
    broken = threading.Event()

    def stalled() -> Iterator[bytes]:
        yield b"x" * 1000
        assert broken.wait(PATIENCE)
        for _ in range(3):
            yield b"x" * 1000

    with ScriptedUpstream([head(), send(EARLY), close(), tell(broken)]) as server:
        answer = clients(server.endpoint).send(stalled(), method="POST")
        assert answer.status == 413
        assert read_all(answer) == b"big"
        answer.close()


def test_a_broken_pipe_without_an_answer(clients: Clients) -> None:
    broken = threading.Event()

    def endless() -> Iterator[bytes]:
        yield b"x"
        assert broken.wait(PATIENCE)
        while True:
            yield b"x" * 10_000

    with ScriptedUpstream([head(), reset(), tell(broken)]) as server:
        error = fails(clients(server.endpoint), endless(), method="POST")
        assert error.stage in {"send", "head"}
        assert (error.status, error.request_sent, error.stale) == (502, True, False)


def test_an_interim_answer_does_not_stop_the_body(clients: Clients) -> None:
    told, left = threading.Event(), threading.Event()

    def halting() -> Iterator[bytes]:
        yield b"abc"
        assert told.wait(PATIENCE)
        yield b"def"
        left.set()  # an answer that comes earlier would cost the connection

    interim = send(b"HTTP/1.1 100 Continue\r\n\r\n")
    script = [head(), body(3), interim, tell(told), body(3), wait(left), send(OK), *SERVE]
    with ScriptedUpstream(script) as server:
        client = clients(server.endpoint)
        assert fetch(client, halting(), method="POST", chunked=False) == (200, b"ok")
        assert server.bodies == [b"abc", b"def"]
        fetch(client)
        assert server.connections == 1


def test_an_end_of_stream_stops_the_body(clients: Clients) -> None:
    ended = threading.Event()

    def endless() -> Iterator[bytes]:
        yield b"x"
        assert ended.wait(PATIENCE)
        while True:
            yield b"x"

    with ScriptedUpstream([head(), half_close(), tell(ended), until_gone()]) as server:
        assert fails(clients(server.endpoint), endless(), method="POST").status == 502


class ClientGoneError(Exception):
    pass


@pytest.mark.parametrize(
    "problem",
    [
        ClientGoneError("gone"),
        ForwardError("send", "cut", status=400),
        ConnectionResetError(),
        TimeoutError(),
    ],
)
def test_what_the_body_raises_aborts_and_propagates(clients: Clients, problem: Exception) -> None:
    seen = bytearray()
    ended = threading.Event()

    def everything(peer: Peer) -> None:
        with contextlib.suppress(OSError):
            while data := peer.sock.recv(65_536):
                seen.extend(data)
        ended.set()

    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise problem

    with ScriptedUpstream([everything]) as server:
        client = clients(server.endpoint)
        with pytest.raises(type(problem)) as caught:
            client.send(broken(), method="POST")
        assert caught.value is problem
        assert (client.pool.in_flight, client.pool.idle) == (0, 0)
        client.settle(ended.is_set)
        assert ended.wait(PATIENCE)
    assert b"0\r\n\r\n" not in seen


# --- time and limits


def test_the_head_takes_too_long(clients: Clients) -> None:
    with ScriptedUpstream([head(), until_gone()]) as server:
        error = fails(clients(server.endpoint), timeout=SOON)
        assert facts(error) == ("head", 504, True, False)


def test_the_head_takes_too_long_after_a_streamed_body(clients: Clients) -> None:
    def give_up_at_last(peer: Peer) -> None:
        peer.sock.settimeout(SOON * 40)
        with contextlib.suppress(TimeoutError):
            until_gone()(peer)

    with ScriptedUpstream([head(), give_up_at_last]) as server:
        error = fails(clients(server.endpoint), [b"abc"], method="POST", timeout=SOON)
        assert facts(error) == ("head", 504, True, False)


def test_a_head_in_drops_does_not_stretch_the_time(clients: Clients) -> None:
    gone = threading.Event()

    def drip(peer: Peer) -> None:
        send(START + b"A: ")(peer)
        for _ in range(40):
            if gone.wait(SOON / 5):
                break
            send(b"x")(peer)

    with ScriptedUpstream([head(), drip]) as server:
        error = fails(clients(server.endpoint), timeout=SOON)
        gone.set()
        assert facts(error) == ("head", 504, True, False)


def test_the_body_is_idle_for_too_long(clients: Clients) -> None:
    with ScriptedUpstream([head(), send(START + b"Content-Length: 9\r\n\r\nabc"), until_gone()]) as server:
        client = clients(server.endpoint, idle_timeout=SOON)
        answer = client.send()
        assert answer.take() == b"abc"
        with pytest.raises(ForwardError) as caught:
            answer.read()
        assert facts(caught.value) == ("body", 504, True, False)
        answer.close()
        assert client.pool.idle == 0


def test_an_upstream_that_takes_no_more(clients: Clients) -> None:
    stop = threading.Event()
    with ScriptedUpstream([head(), wait(stop)]) as server:
        error = fails(
            clients(server.endpoint), (b"x" * 1_000_000 for _ in range(100)), method="POST", timeout=SOON
        )
        stop.set()
        assert facts(error) == ("send", 504, True, False)


def test_the_bulkhead_is_full(clients: Clients) -> None:
    with ScriptedUpstream(SERVE) as server:
        client = clients(server.endpoint, max_in_flight=2)
        first, second = client.send(), client.send()
        with pytest.raises(ForwardError) as caught:
            client.send()
        assert facts(caught.value) == ("pool", 503, False, False)
        assert client.pool.in_flight == 2
        first.close()
        assert fetch(client) == (200, b"ok")
        second.close()


def test_failures_leave_the_bulkhead_empty(clients: Clients) -> None:
    with ScriptedUpstream([head(), reset()]) as server:
        client = clients(server.endpoint, max_in_flight=1)
        for _ in range(3):
            assert fails(client).stage == "head"


def test_a_closed_pool_takes_no_work(clients: Clients) -> None:
    with ScriptedUpstream(SERVE) as server:
        client = clients(server.endpoint)
        fetch(client)
        client.close() if clients.kind == "threads" else client.pool.abort()  # type: ignore[union-attr]
        assert client.pool.idle == 0
    assert facts(fails(client)) == ("pool", 503, False, False)


# --- connecting


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint(scheme="http", host="127.0.0.1", port=unused_port(), authority=b""),
        Endpoint(scheme="http", host="does-not-exist.invalid", port=80, authority=b""),
        Endpoint(scheme="http", host="a" * 70, port=80, authority=b""),
        Endpoint(scheme="unix", host="", port=0, authority=b"", socket="/nonexistent/socket"),
    ],
    ids=["refused", "unknown name", "bad name", "no socket"],
)
def test_no_connection_is_502_and_nothing_was_sent(clients: Clients, endpoint: Endpoint) -> None:
    assert facts(fails(clients(endpoint))) == ("connect", 502, False, False)


def test_connecting_takes_too_long(clients: Clients) -> None:
    """TCP connects, TLS never answers: the limit covers both."""
    stop = threading.Event()
    with ScriptedUpstream([wait(stop)]) as server:
        endpoint = Endpoint(scheme="https", host="127.0.0.1", port=server.endpoint.port, authority=b"")
        error = fails(clients(endpoint, connect_timeout=SOON))
        stop.set()
        assert facts(error) == ("connect", 504, False, False)


def test_a_unix_socket(clients: Clients, tmp_path: Path) -> None:
    with ScriptedUpstream(SERVE, path=str(tmp_path / "s")) as server:
        client = clients(server.endpoint)
        assert [fetch(client), fetch(client)] == [(200, b"ok")] * 2
        assert server.connections == 1


# --- TLS (promise P19)


class Authority:
    def __init__(self, path: Path) -> None:
        self.root = trustme.CA()
        self.file = str(path / "ca.pem")
        self.root.cert_pem.write_to_path(self.file)
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.root.issue_cert("localhost").configure_cert(self.server)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def test_tls(clients: Clients, authority: Authority) -> None:
    with ScriptedUpstream(SERVE, context=authority.server) as server:
        client = clients(server.endpoint, tls=Tls(ca=authority.file))
        assert [fetch(client), fetch(client)] == [(200, b"ok")] * 2
        assert server.connections == 1


def test_tls_with_streams_both_ways(clients: Clients, authority: Authority) -> None:
    data = randbytes(1_000_000)
    answer = send(START + b"Content-Length: %d\r\n\r\n" % len(data) + data)
    with ScriptedUpstream([head(), body(len(data)), answer, *SERVE], context=authority.server) as server:
        client = clients(server.endpoint, tls=Tls(ca=authority.file))
        pieces = [data[i : i + 50_000] for i in range(0, len(data), 50_000)]
        assert fetch(client, pieces, method="POST", chunked=False) == (200, data)
        assert server.bodies == [data]
        assert fetch(client) == (200, b"ok")
        assert server.connections == 1


def test_an_unknown_authority_is_refused(clients: Clients, authority: Authority) -> None:
    with ScriptedUpstream(SERVE, context=authority.server) as server:
        error = fails(clients(server.endpoint))
        assert facts(error) == ("connect", 502, False, False)
        assert "CERTIFICATE_VERIFY_FAILED" in error.reason
        assert server.heads == []


def test_a_wrong_name_is_refused(clients: Clients, authority: Authority) -> None:
    with ScriptedUpstream(SERVE, context=authority.server) as server:
        endpoint = Endpoint(scheme="https", host="127.0.0.1", port=server.endpoint.port, authority=b"")
        error = fails(clients(endpoint, tls=Tls(ca=authority.file)))
        assert facts(error) == ("connect", 502, False, False)
        assert "CERTIFICATE_VERIFY_FAILED" in error.reason


def test_verification_can_be_turned_off(clients: Clients, authority: Authority) -> None:
    with ScriptedUpstream(SERVE, context=authority.server) as server:
        assert fetch(clients(server.endpoint, verify=False)) == (200, b"ok")


def test_a_missing_file_is_a_failure_to_connect(clients: Clients, authority: Authority) -> None:
    with ScriptedUpstream(SERVE, context=authority.server) as server:
        error = fails(clients(server.endpoint, tls=Tls(ca="/nonexistent/ca.pem")))
        assert facts(error) == ("connect", 502, False, False)


def test_a_client_certificate_is_shown(clients: Clients, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.server.verify_mode = ssl.CERT_REQUIRED
    authority.root.configure_trust(authority.server)
    files = Tls(ca=authority.file, cert=str(tmp_path / "cert.pem"), key=str(tmp_path / "key.pem"))
    issued = authority.root.issue_cert("client@example.org")
    issued.private_key_pem.write_to_path(files.key)
    issued.cert_chain_pems[0].write_to_path(files.cert)
    with ScriptedUpstream(SERVE, context=authority.server) as server:
        assert fetch(clients(server.endpoint, tls=files)) == (200, b"ok")
        error = fails(clients(server.endpoint, tls=Tls(ca=authority.file)))
        assert error.status == 502


@pytest.mark.parametrize("end", [unwrap, close])
def test_only_a_closure_alert_ends_a_body_without_length(
    clients: Clients, authority: Authority, end: Callable[[], Step]
) -> None:
    more = threading.Event()
    script = [head(), send(START + b"\r\nabc"), wait(more), end()]
    with ScriptedUpstream(script, context=authority.server) as server:
        answer = clients(server.endpoint, tls=Tls(ca=authority.file)).send()
        more.set()
        if end is unwrap:
            assert read_all(answer) == b"abc"
        else:
            with pytest.raises(ForwardError, match="body"):
                read_all(answer)
        answer.close()


def test_tls_ends_while_idle(clients: Clients, authority: Authority) -> None:
    ended = threading.Event()
    with ScriptedUpstream(
        [head(), send(OK), close(), tell(ended)], SERVE, context=authority.server
    ) as server:
        client = clients(server.endpoint, tls=Tls(ca=authority.file))
        fetch(client)
        assert ended.wait(PATIENCE)
        client.settle(lambda: client.pool.idle == 0)
        assert fetch(client) == (200, b"ok")
        assert server.connections == 2
