"""Traps of bodies and framing: nothing decoded, nothing held back, nothing ended that was cut."""

import asyncio
import gzip
import logging
import threading

import pytest
from tests.transports.upstream import (
    PATIENCE,
    ScriptedUpstream,
    body,
    close,
    head,
    send,
    tell,
    until_gone,
    wait,
)
from trapped import OK, SERVE, START, names, scripted, told

from servers import connect, read_reply, request
from strangle_mw import Route, strangle

EVENTS = START + b"Content-Type: text/event-stream\r\n\r\n"


def read_until(sock, mark):
    data = b""
    while mark not in data:
        more = sock.recv(65_536)
        assert more, data
        data += more
    return data


def test_trap_04_a_compressed_body_is_not_decoded(front):
    packed = gzip.compress(b"text " * 1000)
    answer = START + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    with scripted(front, [head(), send(answer), *SERVE]):
        reply = front.ask(request("GET", "/m/x"))
    assert reply.body == packed
    assert (reply.header("content-encoding"), reply.header("content-length")) == ("gzip", str(len(packed)))


def test_trap_06_expect_is_answered_here_and_not_forwarded(front, echo):
    with front.strangled([Route("/m/*", to=echo.address)]), connect(front.port) as sock:
        sock.sendall(request("POST", "/m/x", [("Content-Length", "4"), ("Expect", "100-continue")]))
        assert b" 100 " in read_until(sock, b"\r\n\r\n")
        sock.sendall(b"body")
        found = read_reply(sock).json()
    assert found["length"] == 4
    assert "expect" not in {n.lower() for n, _ in found["headers"]}


@pytest.mark.parametrize(
    ("method", "name", "status", "length"),
    [("HEAD", "cookies", 201, "2"), ("GET", "none", 204, None), ("GET", "unchanged", 304, None), ("GET", "early", 200, "2")],
)  # fmt: skip
def test_trap_08_no_body_where_none_may_be(front, echo, method, name, status, length):
    with front.strangled([Route("/m/*", to=echo.address)]):
        reply = front.ask(request(method, f"/m/{name}"))
    assert (reply.status, reply.header("content-length")) == (status, length)
    assert reply.body == (b"ok" if name == "early" else b"")
    assert reply.header("transfer-encoding") is None


@pytest.mark.parametrize("start", [b"204 No Content", b"304 Not Modified"])
def test_trap_08_no_length_where_no_body_may_be(front, start):
    answer = b"HTTP/1.1 " + start + b"\r\nContent-Length: 9\r\nX-A: 1\r\n\r\n"
    with scripted(front, [head(), send(answer), *SERVE]):
        reply = front.ask(request("GET", "/m/x"))
    assert (reply.header("x-a"), reply.header("content-length"), reply.body) == ("1", None, b"")


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_trap_09_no_framing_is_invented(front, echo, method):
    with front.strangled([Route("/m/*", to=echo.address)]):
        without = names(told(front, method, "/m/x"))
        zero = told(front, method, "/m/x", [("Content-Length", "0")])
    assert not {"content-length", "transfer-encoding"} & set(without)
    assert ("content-length", "0") in zero["headers"]
    assert "transfer-encoding" not in names(zero)


def test_trap_20_events_arrive_at_once(front):
    more = threading.Event()
    script = [head(), send(EVENTS + b"data: 1\n\n"), wait(more), send(b"data: 2\n\n"), close()]
    with scripted(front, script), connect(front.port) as sock:
        sock.sendall(request("GET", "/m/x"))
        first = read_until(sock, b"data: 1")
        more.set()
        reply = read_reply(sock, data=first)
    assert reply.header("content-type") == "text/event-stream"
    assert (reply.body, reply.complete) == (b"data: 1\n\ndata: 2\n\n", True)


def test_trap_20_the_head_does_not_wait_for_the_first_event(asgi):
    # Under WSGI it does: servers send the head with the first bytes (PEP 3333).
    more = threading.Event()
    script = [head(), send(EVENTS), wait(more), send(b"data: 1\n\n"), close()]
    with scripted(asgi, script), connect(asgi.port) as sock:
        sock.sendall(request("GET", "/m/x"))
        first = read_until(sock, b"\r\n\r\n")
        more.set()
        assert read_reply(sock, data=first).body == b"data: 1\n\n"


@pytest.mark.parametrize("start", [b"", EVENTS + b"data: 1\n\n"], ids=["waiting", "streaming"])
def test_trap_21_a_client_that_leaves_ends_the_upstreams_work(asgi, caplog, start):
    caplog.set_level(logging.DEBUG, "strangle_mw")
    arrived, gone = threading.Event(), threading.Event()
    with scripted(asgi, [head(), send(start), tell(arrived), until_gone(), tell(gone)]):
        with connect(asgi.port) as sock:
            sock.sendall(request("GET", "/m/x"))
            assert arrived.wait(PATIENCE)
            if start:
                read_until(sock, b"data: 1")
        assert gone.wait(PATIENCE)
    found = [r for r in caplog.records if r.name == "strangle_mw"]
    assert [r.levelname for r in found if "499" in r.getMessage()] == ["DEBUG"]
    assert not [r for r in found if r.levelno >= logging.WARNING]


def test_trap_21_a_thread_notices_when_it_writes(fronts):
    front, gone = fronts("wsgi"), threading.Event()

    def endless(peer):
        try:
            while True:
                send(b"data: 1\n\n" * 1000)(peer)
        finally:
            gone.set()

    with scripted(front, [head(), send(EVENTS), endless]):
        with connect(front.port) as sock:
            sock.sendall(request("GET", "/m/x"))
            read_until(sock, b"data: 1")
        assert gone.wait(PATIENCE)


def test_trap_22_an_upload_is_not_buffered(front):
    first = threading.Event()
    script = [head(), body(65_536), tell(first), body(134_464), send(OK), *SERVE]
    with scripted(front, script) as upstream, connect(front.port) as sock:
        sock.sendall(request("POST", "/m/x", [("Content-Length", "200000")], b"a" * 100_000))
        assert first.wait(PATIENCE), "the upstream got nothing before the last byte was sent"
        sock.sendall(b"b" * 100_000)
        assert read_reply(sock).body == b"ok"
        assert b"".join(upstream.bodies) == b"a" * 100_000 + b"b" * 100_000


def test_trap_22_the_adapter_of_a_wsgi_app_buffers_nothing():
    asked = []

    def app(environ, start_response):
        first = environ["wsgi.input"].read(10)
        asked_then = len(asked)
        rest = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d %d %d" % (len(first), asked_then, len(rest))]

    async def receive():
        asked.append(1)
        return {"type": "http.request", "body": b"a" * 10, "more_body": len(asked) < 5}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/x", "raw_path": b"/x",
        "query_string": b"", "root_path": "", "headers": [(b"content-length", b"50")],
        "client": ("192.0.2.1", 1), "server": ("192.0.2.2", 80),
    }  # fmt: skip
    asyncio.run(strangle(app, [], serve="asgi")(scope, receive, send))
    assert b"".join(m.get("body", b"") for m in sent) == b"10 1 40"


def test_trap_28_a_mirror_cannot_block(front):
    # Copies of requests come with their bounds; until then one is counted where it would have been made.
    with ScriptedUpstream([until_gone()]) as upstream:
        mirrored = Route("/m/*", to=f"http://127.0.0.1:{upstream.endpoint.port}", stage="shadow")
        with front.strangled([mirrored]):
            assert front.ask(request("GET", "/m/x")).body == b"legacy"
            counts = front.app.engine.states.take_counts()
        assert upstream.connections == 0
    assert {(k.side, k.outcome): n for k, n in counts.items()} == {
        ("legacy", "passed"): 1,
        ("shadow", "not-compared"): 1,
    }


@pytest.mark.parametrize(
    "start", [b"Content-Length: 9\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"], ids=["length", "chunks"]
)  # fmt: skip
def test_trap_29_a_cut_answer_stays_cut(front, start):
    with scripted(front, [head(), send(START + start), close()]):
        reply = front.ask(request("GET", "/m/x"))
    assert (reply.status, reply.body, reply.complete) == (200, b"abc", False)


@pytest.mark.parametrize("kind", ["asgi", "wsgi", "wsgi-waitress"])
def test_trap_29_a_cut_before_the_first_byte_of_the_body_is_no_500(fronts, kind):
    front = fronts(kind)
    with scripted(front, [head(), send(START + b"Content-Length: 9\r\n\r\n"), close()]):
        reply = front.ask(request("GET", "/m/x"))
    # Threads can still say so; under ASGI the head has gone out at once.
    assert (reply.status, reply.complete) == ((200, False) if kind == "asgi" else (502, True))


def test_trap_29_a_cut_upload_is_not_completed_for_the_upstream(front):
    gone = threading.Event()
    with scripted(front, [head(), body(70_000), until_gone(), tell(gone)]) as upstream:
        with connect(front.port) as sock:
            sock.sendall(request("POST", "/m/x", [("Content-Length", "100000")], b"x" * 70_000))
        assert gone.wait(PATIENCE)
        assert upstream.bodies == [b"x" * 70_000]
        assert upstream.connections == 1
