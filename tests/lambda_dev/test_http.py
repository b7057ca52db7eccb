"""The HTTP server of lambda-dev: whole requests in, each answer in one write."""

import asyncio

import pytest

from servers import request, talk
from strangle_mw.lambda_dev.http import MAX_PIPELINED, Answer, Connection

ECHO = Answer(200, {"X-A": "1"}, b"hello")


class Transport(asyncio.Transport):
    """Counts what is written."""

    def __init__(self):
        super().__init__()
        self.writes = []
        self.closed = False

    def write(self, data):
        self.writes.append(bytes(data))

    def close(self):
        self.closed = True


def connected(handle, max_body=100):
    connection, transport = Connection(handle, max_body), Transport()
    connection.connection_made(transport)
    return connection, transport


def kept(seen, answer=ECHO):
    def handle(request, reply):
        seen.append(request)
        reply(answer)

    return handle


@pytest.mark.parametrize("size", [0, 1, 100_000, 6_000_000])
def test_head_and_body_leave_in_one_write(size):
    connection, transport = connected(kept([], Answer(200, {}, b"x" * size)))
    connection.data_received(request("GET", "/", close=False))
    assert [len(w.partition(b"\r\n\r\n")[2]) for w in transport.writes] == [size]
    assert not transport.closed


@pytest.mark.parametrize(
    ("sent", "writes", "closed"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", [b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello"], False),
        (b"HEAD / HTTP/1.1\r\n\r\n", [b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 5\r\n\r\n"], False),
        (
            b"GET / HTTP/1.0\r\n\r\n",
            [b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"],
            True,
        ),
    ],
)
def test_bytes_of_an_answer(sent, writes, closed):
    connection, transport = connected(kept([]))
    connection.data_received(sent)
    assert (transport.writes, transport.closed) == (writes, closed)


def test_an_answer_without_content_has_no_length():
    assert Answer(204).encode(close=False) == b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_request_in_pieces(step):
    seen = []
    connection, transport = connected(kept(seen))
    sent = request("POST", "/a?b=%20", [("X-B", "2"), ("Content-Length", "3")], b"abc", close=False)
    sent += b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
    for at in range(0, len(sent), step):
        connection.data_received(sent[at : at + step])
    assert [(r.method, r.target, r.body, r.too_large) for r in seen] == [
        ("POST", b"/a?b=%20", b"abc", False),
        ("POST", b"/c", b"abcdef", False),
    ]
    assert seen[0].headers == {"host": "h.example", "x-b": "2", "content-length": "3"}
    assert len(transport.writes) == 2


@pytest.mark.parametrize(("size", "too_large"), [(100, False), (101, True), (1000, True)])
def test_a_body_that_is_too_large_is_dropped(size, too_large):
    seen = []
    connection, _ = connected(kept(seen))
    connection.data_received(request("POST", "/", [("Content-Length", str(size))]))
    for _ in range(size):
        connection.data_received(b"x")
    assert [(r.too_large, len(r.body)) for r in seen] == [(too_large, 0 if too_large else size)]


def test_a_client_that_asks_first_may_send():
    connection, transport = connected(kept([]))
    connection.data_received(request("POST", "/", [("Content-Length", "1"), ("Expect", "100-continue")]))
    assert transport.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    connection.data_received(b"x")
    assert len(transport.writes) == 2


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01 this is TLS\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n" * (MAX_PIPELINED + 2), b"400"),
        (b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", b"501"),
    ],
)
def test_what_is_refused(sent, status):
    connection, transport = connected(lambda request, reply: None)
    connection.data_received(sent)
    assert [w.split(b" ")[1] for w in transport.writes] == [status]
    assert transport.closed


def test_answers_keep_the_order_of_requests():
    waiting = []
    connection, transport = connected(lambda request, reply: waiting.append((request.target, reply)))
    connection.data_received(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n")
    assert [target for target, _ in waiting] == [b"/a"]
    waiting[0][1](Answer(200, {}, b"a"))
    waiting[0][1](Answer(200, {}, b"twice"))
    assert [target for target, _ in waiting] == [b"/a", b"/b"]
    waiting[1][1](Answer(200, {}, b"b"))
    assert [w.rpartition(b"\r\n")[2] for w in transport.writes] == [b"a", b"b"]


def test_a_client_that_leaves():
    seen, told = [], []
    connection, transport = connected(lambda request, reply: seen.append((request, reply)))
    connection.data_received(b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n")
    seen[0][0].gone = lambda: told.append("gone")
    connection.connection_lost(None)
    seen[0][1](ECHO)
    assert (told, transport.writes, len(seen)) == (["gone"], [], 1)


def test_on_a_real_socket():
    async def ask():
        seen = []
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(kept(seen), 10), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        reply = await asyncio.to_thread(talk, port, request("POST", "/x", [("Content-Length", "2")], b"ab"))
        server.close()
        return reply, seen

    reply, seen = asyncio.run(ask())
    assert (reply.status, reply.body, seen[0].body) == (200, b"hello", b"ab")
