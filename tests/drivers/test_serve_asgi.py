"""A WSGI monolith under ASGI servers: the same to its clients as under gunicorn, while what is forwarded needs no thread."""

import asyncio
import base64
import hashlib
import os
import threading
from contextlib import ExitStack

import pytest
from websocket_support import Upstream as Sockets
from websockets.sync.client import connect as connect_websocket

from drivers.serve_asgi_app import THREADS
from servers import DEADLINE, connect, read_reply, request, serve, talk

APP = "drivers.serve_asgi_app"
MANY = 200
SERVERS = ("uvicorn-httptools", "hypercorn", "granian-asgi")


class Slow:
    """An upstream that opens an event stream, or an answer, and goes on when the test says so; without threads."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._go = asyncio.Event()
        self._changed = threading.Condition()
        self.waiting = 0
        self._server = None
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(DEADLINE)
        self.address = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def _run(self, ready):
        async def main():
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1000)
            self._end = asyncio.Event()
            ready.set()
            await self._end.wait()
            self._server.close()

        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(main())

    def close(self):
        self.let_go()
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(DEADLINE)

    def let_go(self):
        self._loop.call_soon_threadsafe(self._go.set)

    def count(self, number):
        """Wait until so many requests are held at once; tell whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: self.waiting == number, DEADLINE)

    def _add(self, number):
        with self._changed:
            self.waiting += number
            self._changed.notify_all()

    async def _serve(self, reader, writer):
        try:
            line = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
            begun, rest = b"", b"HTTP/1.1 200 OK\r\nX-Modern: 1\r\nContent-Length: 6\r\n\r\nmodern"
            if line.endswith(b"/events"):
                begun = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
                rest = b"data: 2\n\n"
            writer.write(begun)
            if line.endswith((b"/events", b"/slow")):
                self._add(1)
                await self._go.wait()
                self._add(-1)
            writer.write(rest)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture(scope="module")
def slow():
    upstream = Slow()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def sockets():
    upstream = Sockets()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def gunicorn():
    with serve("gunicorn-gthread", APP) as port:
        yield port


def serving(name, slow, sockets=None):
    """Serve the strangled app; granian is told to accept WebSockets."""
    more = ("--ws",) if name.startswith("granian") else ()
    environment = {"STRANGLE_TEST_UPSTREAM": slow.address}
    if sockets is not None:
        environment["STRANGLE_TEST_SOCKETS"] = sockets.address
    return serve(name, APP, more=more, **environment)


@pytest.fixture(scope="module", params=SERVERS)
def server(request, slow, sockets):
    with serving(request.param, slow, sockets) as port:
        yield port


@pytest.fixture(params=SERVERS)
def fresh(request, sockets):
    """A server and its upstream for one test that lets go."""
    upstream = Slow()
    with serving(request.param, upstream, sockets) as port:
        yield port, upstream
    upstream.close()


def read_until(sock, mark):
    data = b""
    while mark not in data:
        more = sock.recv(65_536)
        assert more, data
        data += more
    return data


BODY = b"0123456789" * 10_000
ASKED = {
    "plain": request("GET", "/a?b=%20c"),
    "encoded": request("GET", "/caf%C3%A9/a%2Fb//c/%2e"),
    "latin-1": request("GET", "/caf%E9"),
    "repeated": request("GET", "/a", [("X-A", "1"), ("X-B", ""), ("x-a", "2"), ("X_B", "3")]),
    "cookies": request("GET", "/a", [("Cookie", "a=1; b=2")]),
    "length": request("POST", "/a", [("Content-Length", "6"), ("Content-Type", "text/x")], b"abcdef"),
    "large": request("PUT", "/a", [("Content-Length", str(len(BODY)))], BODY),
    "chunks": request("POST", "/a", [("Transfer-Encoding", "chunked")], b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
    "no length": request("POST", "/a", [("Content-Length", "0")]),
    "HEAD": request("HEAD", "/a"),
    "OPTIONS": request("OPTIONS", "/a"),
    "pieces": request("GET", "/pieces"),
    "empty": request("GET", "/empty"),
    "late": request("GET", "/late"),
    "HTTP/1.0": b"GET /a HTTP/1.0\r\nHost: h.example\r\n\r\n",
}
OWN = ("date", "server", "connection", "transfer-encoding")
"""Headers that are the server's."""


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_legacy_answers_as_under_gunicorn(server, gunicorn, asked):
    here, there = talk(server, asked), talk(gunicorn, asked)
    assert (here.status, here.complete) == (there.status, there.complete)
    assert here.body == there.body
    assert [h for h in here.headers if h[0] not in OWN] == [h for h in there.headers if h[0] not in OWN]


def test_an_error_of_legacy_is_a_500(server, gunicorn):
    assert (
        talk(server, request("GET", "/raise")).status
        == talk(gunicorn, request("GET", "/raise")).status
        == 500
    )


@pytest.mark.parametrize("size", [0, 3, 70_000])
def test_fallback_reaches_legacy_with_its_whole_body(server, size):
    data = b"x" * size
    reply = talk(server, request("POST", "/fallen/x", [("Content-Length", str(size))], data))
    assert (reply.status, reply.complete) == (200, True)
    found = reply.json()
    assert found["environ"]["strangle.fallback"] == "connect"
    assert (found["length"], found["sha256"]) == (size, hashlib.sha256(data).hexdigest())


def test_a_canary_has_two_arms_and_marks_both(server):
    replies = [talk(server, request("GET", f"/canary/x?u={n}")) for n in range(40)]
    legacy = [r for r in replies if r.header("x-modern") is None]
    assert {r.status for r in replies} == {200}
    assert 0 < len(legacy) < 40
    assert all(r.json()["from"] == "legacy" for r in legacy)
    assert {r.header("vary") for r in replies} == {"Cookie"}
    marked = talk(server, request("GET", "/canary/x"))  # without a key the library gives one
    assert marked.all("set-cookie")[-1].startswith("strangle_id=")


def test_a_websocket_for_legacy_is_denied(server):
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Key", key), ("Sec-WebSocket-Version", "13")]  # fmt: skip
    with connect(server) as sock:
        sock.sendall(request("GET", "/legacy", upgrade, close=False))
        assert read_until(sock, b"\r\n").split()[1] == b"403"
    assert talk(server, request("GET", "/a")).status == 200


def test_what_is_forwarded_goes_through_while_all_threads_are_taken(fresh):
    port, slow = fresh
    with ExitStack() as stack:
        held = [stack.enter_context(connect(port)) for _ in range(THREADS + 2)]
        for sock in held:
            sock.sendall(request("GET", "/hold"))
        for number in range(20):
            assert talk(port, request("GET", f"/m/{number}")).body == b"modern"
        events = stack.enter_context(connect(port))
        events.sendall(request("GET", "/m/events"))
        read_until(events, b"data: 1")
        with connect_websocket(f"ws://127.0.0.1:{port}/live/echo") as websocket:
            websocket.send("over there")
            assert websocket.recv(DEADLINE) == "over there"
        waiting = stack.enter_context(connect(port))
        waiting.sendall(request("GET", "/a"))
        assert talk(port, request("GET", "/release")).status == 200
        for sock in (*held, waiting):
            assert read_reply(sock).json()["from"] == "legacy"
        slow.let_go()
        read_until(events, b"data: 2")


def test_two_hundred_slow_ones_and_two_hundred_streams_leave_legacy_alone(fresh):
    port, slow = fresh
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(port)) for _ in range(2 * MANY)]
        for number, sock in enumerate(socks):
            sock.sendall(request("GET", "/m/slow" if number < MANY else "/m/events"))
        streams = socks[MANY:]
        for sock in streams:
            read_until(sock, b"data: 1")
        assert slow.count(2 * MANY)
        for _ in range(10):
            assert talk(port, request("GET", "/a")).json()["from"] == "legacy"
        assert slow.count(2 * MANY)  # they were open all the while
        slow.let_go()
        assert {read_reply(sock).body for sock in socks[:MANY]} == {b"modern"}
        for sock in streams:
            read_until(sock, b"data: 2")
