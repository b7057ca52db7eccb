"""P11: no request for another protocol crosses, and an upstream that switches unasked is a bad gateway.

WebSocket is a feature of its own with its own tests; here are the ways round it.
"""

import threading

import pytest
from tests.transports.upstream import ScriptedUpstream, forever, head, send, tell, until_gone

from promises.drive import PATIENCE, address
from strangle_mw import Route

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ASKED = {
    "websocket": (
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"sec-websocket-version", b"13"),
    ),
    "h2c": (
        (b"connection", b"Upgrade, HTTP2-Settings"),
        (b"upgrade", b"h2c"),
        (b"http2-settings", b"AAMAAABkAARAAAAAAAIAAAAA"),
    ),
    "h2c, not nominated": ((b"upgrade", b"h2c"), (b"http2-settings", b"AAMAAABkAARAAAAAAAIAAAAA")),
    "two values": ((b"connection", b"keep-alive, upgrade"), (b"upgrade", b"websocket, h2c")),
    "spelt with dots": ((b"connection", b"http2.settings, upgrade"), (b"http2.settings", b"x")),
    "only nominated": ((b"connection", b"upgrade"),),
}
SWITCHED = {
    "101": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x02hi",
    "101 without fields": b"HTTP/1.1 101 S\r\n\r\n",
    "101 with a length": b"HTTP/1.1 101 S\r\nContent-Length: 2\r\n\r\nok",
    "101 then an answer": b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n" + OK,
    "101 after 103": b"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n",
}
SPEAKS_OF_UPGRADES = {b"connection", b"upgrade", b"http2-settings", b"http2.settings"}


@pytest.mark.parametrize("headers", ASKED.values(), ids=ASKED)
def test_a_request_for_another_protocol_is_a_plain_request_upstream(strangled, headers):
    with ScriptedUpstream([forever(head(), send(OK))]) as server:
        side = strangled([Route("/m/*", to=address(server))])
        assert side.ask(headers=headers).body == b"ok"
        side.close()
    (wire,) = server.heads
    sent = {line.partition(b":")[0].lower() for line in wire.split(b"\r\n")[1:]}
    assert not sent & SPEAKS_OF_UPGRADES
    assert b"h2c" not in wire


@pytest.mark.parametrize("headers", [(), ASKED["websocket"]])
@pytest.mark.parametrize("answer", SWITCHED.values(), ids=SWITCHED)
def test_an_upstream_that_switches_unasked_is_a_bad_gateway(strangled, answer, headers):
    gone = threading.Event()
    with ScriptedUpstream([head(), send(answer), until_gone(), tell(gone)]) as server:
        side = strangled([Route("/m/*", to=address(server))])
        seen = side.ask(headers=headers)
        assert gone.wait(PATIENCE), "a connection with an unknown protocol was kept"
        assert (server.connections, side.pool.idle) == (1, 0)
    assert (seen.status, side.legacy) == (502, [])
    assert b"hi" not in seen.body
    assert seen.body != b"ok"


@pytest.mark.parametrize("status", [b"200 OK", b"426 Upgrade Required"])
def test_an_offer_of_another_protocol_does_not_cross_back(strangled, status):
    offer = b"Connection: upgrade\r\nUpgrade: h2c, websocket\r\n"
    with ScriptedUpstream(
        [forever(head(), send(b"HTTP/1.1 " + status + b"\r\n" + offer + OK[17:]))]
    ) as server:
        side = strangled([Route("/m/*", to=address(server))])
        seen = side.ask()
        assert seen.status == int(status[:3])
        assert seen.body == b"ok"
        assert not {n.lower() for n, _ in seen.headers} & SPEAKS_OF_UPGRADES
        side.close()


def test_connect_is_refused_and_never_a_tunnel(strangled):
    with ScriptedUpstream([until_gone()]) as server:
        side = strangled([Route("/m/*", to=address(server))])
        assert side.ask(method="CONNECT").status == 405
        assert server.connections == 0
