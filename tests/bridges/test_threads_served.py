"""A WSGI app on threads under real servers: what clients see, and that leaving ones leave nothing behind."""

import hashlib
import time

import pytest

from bridges.threaded_app import BLOCK, THREADS
from servers import DEADLINE, connect, read_reply, request, serve, talk

MIB = 1_048_576
SIZE = 64 * MIB
MOST_GROWN = 24 * MIB

# Not daphne: it lets the client of an answer that breaks off wait for the rest, whatever the app is.
SERVERS = ("uvicorn-httptools", "hypercorn", "granian-asgi", "gunicorn-asgi")


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    with serve(request.param, "bridges.threaded_app") as port:
        yield port


def get(port, path, *headers, method="GET"):
    return talk(port, request(method, path, headers))


def state(port):
    return get(port, "/state").json()


def until(port, condition):
    """Ask until the app's state is so; that takes no thread."""
    end = time.monotonic() + DEADLINE
    while not condition(found := state(port)):
        assert time.monotonic() < end, found
    return found


def test_an_environ_and_an_answer(server):
    reply = get(server, "/caf%C3%A9/a%2Fb?q=%20", ("X-A", "1"), ("X-A", "2"), ("X_User", "evil"))
    assert (reply.status, reply.complete) == (203, True)
    assert reply.all("set-cookie") == ["a=1", "b=2"]
    assert len(reply.all("date")) == 1
    assert reply.header("date") != "never"
    found = reply.json()
    assert found["PATH_INFO"] == "/caf\xc3\xa9/a/b"
    assert found["RAW_URI"] == found["REQUEST_URI"] == "/caf%C3%A9/a%2Fb?q=%20"
    assert (found["HTTP_X_A"], found["HTTP_HOST"]) == ("1,2", "h.example")
    assert not any("USER" in key for key in found)
    assert (found["REMOTE_ADDR"], found["SERVER_PORT"]) == ("127.0.0.1", str(server))


@pytest.mark.parametrize("path", ["/x", "/download?1", "/events"])
def test_head_has_no_body_and_ends(server, path):
    with connect(server) as sock:
        sock.sendall(request("HEAD", path))
        assert read_reply(sock, head_only=True).body == b""
        assert sock.recv(1) == b""


@pytest.mark.parametrize("path", ["/late", "/late-chunked", "/short"])
def test_an_answer_that_breaks_off_is_cut(server, path):
    reply = get(server, path)
    assert (reply.status, reply.body, reply.complete) == (200, b"abc", False)


def test_an_error_is_a_500(server):
    assert get(server, "/raise").status == 500
    assert get(server, "/x").status == 203


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_an_upload_that_is_cut_is_an_error_for_the_app(server, framing):
    """Promise P6, and the thread is free again."""
    before = state(server)["uploads"]
    header = ("Content-Length", "100000") if framing == "length" else ("Transfer-Encoding", "chunked")
    data = b"x" * 1000 if framing == "length" else b"3e8\r\n" + b"x" * 1000 + b"\r\n"
    with connect(server) as sock:
        sock.sendall(request("POST", "/upload", [header], data))
        until(server, lambda s: s["running"] or s["uploads"] != before)
    found = until(server, lambda s: s["uploads"] != before and not s["running"])
    assert found["uploads"] == [*before, "cut"]


def test_event_streams_whose_clients_leave_free_the_threads(server):
    """More of them than there are threads, one after the other and all at once."""
    before = state(server)["closed"]
    for _ in range(2):
        socks = [connect(server) for _ in range(THREADS)]
        for sock in socks:
            sock.sendall(request("GET", "/events"))
        for sock in socks:
            data = b""
            while b"data: 3" not in data:
                data += sock.recv(BLOCK)
        for sock in socks:
            sock.close()
        before += THREADS
        until(server, lambda s, closed=before: (s["closed"], s["running"], s["waiting"]) == (closed, 0, 0))


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_large_upload_needs_little_memory(server, framing):
    get(server, "/reset")
    block, digest = b"0123456789abcdef" * (BLOCK // 16), hashlib.sha256()
    header = ("Content-Length", str(SIZE)) if framing == "length" else ("Transfer-Encoding", "chunked")
    with connect(server) as sock:
        sock.sendall(request("POST", "/upload", [header]))
        for _ in range(SIZE // BLOCK):
            digest.update(block)
            sock.sendall(block if framing == "length" else b"%x\r\n%b\r\n" % (BLOCK, block))
        if framing == "chunks":
            sock.sendall(b"0\r\n\r\n")
        found = read_reply(sock).json()
    assert found == {"size": SIZE, "sha256": digest.hexdigest()}
    assert state(server)["grown"] < MOST_GROWN


def test_a_large_download_waits_for_its_client(server):
    get(server, "/reset")
    with connect(server) as sock:
        sock.sendall(request("GET", f"/download?{SIZE // MIB}"))
        produced, same = -1, 0
        while same < 20:  # until it has stopped: sockets take some
            found = state(server)["produced"]
            same = same + 1 if found == produced > 0 else 0
            produced = found
        assert 0 < produced < SIZE // 2
        got, data = 0, b""
        while not data.endswith(b"0\r\n\r\n"):
            data = sock.recv(MIB)
            assert data
            got += data.count(b"x")
    assert got == SIZE
    assert state(server)["grown"] < MOST_GROWN


def test_more_requests_than_threads_wait_their_turn(server):
    socks = [connect(server) for _ in range(200)]
    for sock in socks:
        sock.sendall(request("GET", "/hold"))
    until(server, lambda s: (s["running"], s["waiting"]) == (THREADS, 200 - THREADS))
    get(server, "/release")
    for sock in socks:
        with sock:
            assert read_reply(sock).json() == "held"
    until(server, lambda s: (s["running"], s["waiting"]) == (0, 0))
