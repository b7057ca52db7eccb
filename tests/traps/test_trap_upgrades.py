"""Traps of upgrades: a WebSocket keeps what its two ends agree on, and nothing else is switched to."""

import contextlib
import threading

import pytest
from tests.transports.upstream import head, send, until_gone
from trapped import OK, SERVE, scripted
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import serve

from servers import DEADLINE, request
from strangle_mw import Route


@contextlib.contextmanager
def websocket_upstream(handler, **options):
    with serve(handler, "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join(DEADLINE)


def client(front, **options):
    return connect(
        f"ws://127.0.0.1:{front.port}/m/x", open_timeout=DEADLINE, close_timeout=DEADLINE, **options
    )


def test_trap_23_subprotocol_and_close_code_are_carried(fronts):
    asked = []

    def handler(socket):
        asked.append(socket.request.headers)
        socket.send(socket.recv())
        socket.close(4001, "over")

    front = fronts("asgi-ws")
    with (
        websocket_upstream(handler, subprotocols=["two"]) as address,
        front.strangled([Route("/m/*", to=address)]),
        client(front, subprotocols=["one", "two"]) as socket,
    ):
        assert socket.subprotocol == "two"
        socket.send("text")
        assert socket.recv(DEADLINE) == "text"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(DEADLINE)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "over")
    assert asked[0].get("Sec-WebSocket-Extensions") is None  # offered by the client, not implemented here


def test_trap_23_no_subprotocol_is_none(fronts):
    front, ended = fronts("asgi-ws"), []

    def handler(socket):
        with contextlib.suppress(ConnectionClosed):
            socket.recv()
        ended.append((socket.protocol.close_rcvd.code, socket.protocol.close_rcvd.reason))

    with websocket_upstream(handler) as address, front.strangled([Route("/m/*", to=address)]):
        with client(front) as socket:
            assert socket.subprotocol is None
            socket.close(4002, "enough")
        front.settle()
    assert ended == [(4002, "enough")]


def test_trap_23_an_upgrade_is_not_made_by_accident(front):
    sent = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    with scripted(front, [head(), send(OK), *SERVE]) as upstream:
        assert front.ask(request("GET", "/m/x", sent, close=False)).body == b"ok"
        assert not [
            line
            for line in upstream.heads[0].lower().split(b"\r\n")
            if line.startswith((b"upgrade", b"connection"))
        ]
    with scripted(
        front, [head(), send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"), until_gone()]
    ):
        assert front.ask(request("GET", "/m/x", sent, close=False)).status == 502
