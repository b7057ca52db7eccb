"""WebSockets through a strangled app, under every ASGI server that speaks them, over real sockets."""

import asyncio
import hashlib
import itertools
import json
import logging
import os
import re
import socket
import ssl
import threading
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme
import uvicorn
from websocket_app import SECRET, legacy
from websocket_support import (
    BINARY,
    CLOSE,
    CONT,
    DEADLINE,
    PING,
    PONG,
    SERVERS,
    TEXT,
    RawUpstream,
    closing,
    frame,
    read_frame,
    serve,
    shake_hands,
)
from websocket_support import Upstream as RealUpstream
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from strangle_mw import Route, Tls, Upstream, strangle
from strangle_mw.identity import Verifier
from strangle_mw.transports import websocket as transport

LIMIT = 2**24


@pytest.fixture(scope="module")
def real():
    upstream = RealUpstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def raw():
    upstream = RawUpstream()
    yield upstream
    upstream.close()


class Front(int):
    """A server's port, its name, and what it can."""


@pytest.fixture(scope="module", params=SERVERS)
def front(request, real, raw):
    name = request.param
    addresses = {"STRANGLE_TEST_UPSTREAM": real.address, "STRANGLE_TEST_RAW": raw.address}
    with serve(name, **addresses) as port:
        served = Front(port)
        served.name, served.can = name, SERVERS[name]
        yield served


@pytest.fixture(scope="module")
def one(real, raw):
    """A server for what depends on no server."""
    with serve("uvicorn-sansio", STRANGLE_TEST_UPSTREAM=real.address, STRANGLE_TEST_RAW=raw.address) as port:
        served = Front(port)
        served.name, served.can = "uvicorn-sansio", SERVERS["uvicorn-sansio"]
        yield served


numbers = itertools.count()


def unique(target):
    """A target that no other test asks for."""
    return f"{target}{'&' if '?' in target else '?'}n={next(numbers)}"


@contextmanager
def client(port, target, **more):
    with connect(f"ws://127.0.0.1:{port}{target}", proxy=None, max_size=None, **more) as websocket:
        yield websocket


def told(port, target, *fields):
    """What the upstream has seen of a handshake."""
    sock, _ = shake_hands(port, target, *fields)
    with sock:
        found = json.loads(read_frame(sock)[2])
    found["headers"] = [tuple(h) for h in found["headers"]]
    return found


def frames(port, target):
    """Every frame up to the close frame, which is echoed."""
    sock, head = shake_hands(port, target)
    found = []
    with sock:
        assert head.startswith(b"HTTP/1.1 101"), head
        while not found or found[-1][0] != CLOSE:
            found.append(read_frame(sock))
        with suppress(OSError):
            sock.sendall(frame(CLOSE, found[-1][2], masked=True))
    return found


def end_frame(front, code, reason=b""):
    """The close frame that a server sends when it is told this."""
    if not front.can.any_code and code != 1000 and code < 3000:
        code, reason = 1011, b""
    return CLOSE, True, closing(code, reason if front.can.reason else b"")


def refusal(port, target, *fields):
    sock, head = shake_hands(port, target, *fields)
    with sock:
        lines = head.decode("latin-1").split("\r\n")
        headers = [(n.lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines[1:-2])]
        return int(lines[0].split(" ")[1]), headers


# --- the handshake


def test_what_no_route_names_is_legacys(front):
    with client(front, "/other") as websocket:
        assert json.loads(websocket.recv(DEADLINE)) == {"from": "legacy", "path": "/other"}


def test_plain_requests_are_not_upgraded(front):
    with urllib.request.urlopen(f"http://127.0.0.1:{front}/other") as answer:
        assert answer.read() == b"legacy"


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/m/a%2Fb//c?q=a+b&e&z=%zz", None),
        ("/m/a;x=1/b", None),
        ("/m", None),
        ("/base/a%2Fb?c", "/below/a%2Fb?c"),
        ("/base", "/below/"),
    ],
)
def test_the_target_arrives_byte_for_byte(front, target, sent):
    assert told(front, target)["target"] == (sent or target)


def test_parameters_of_the_last_segment_arrive(front):
    found = told(front, "/m/a;v=2?x")["target"]
    assert found == ("/m/a;v=2?x" if front.can.params else "/m/a?x")


def test_headers_seen_upstream(front, real):
    sent = [
        "Origin: http://page.example",
        "Cookie: a=1; b=2",
        "X-Two: 1",
        "X-Two: 2",
        "X-Forwarded-For: 6.6.6.6",
        "Proxy-Authorization: Basic x",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Protocol: v2, v1",
    ]
    sock, _ = shake_hands(front, "/m/told", *[s for s in sent if "Extensions" not in s])
    sock.close()
    headers = told(front, "/m/told", *[s for s in sent if "Extensions" not in s])["headers"]
    fields = dict(headers)
    assert fields["host"] == f"127.0.0.1:{real.port}"
    assert fields["origin"] == "http://page.example"
    assert fields["cookie"] == "a=1; b=2"
    assert [v for n, v in headers if n == "x-two"] == (["1", "2"] if front.can.duplicates else ["1,2"])
    assert fields["sec-websocket-protocol"] == "v2, v1"
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert (fields["x-forwarded-host"], fields["x-forwarded-proto"]) == ("h.example", "http")
    once = ("upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "host")
    assert sorted(n for n, _ in headers if n in once) == sorted(once)
    assert not {"proxy-authorization", "user-agent", "sec-websocket-extensions"} & set(fields)


FORGED = [
    ["Strangle-Identity: forged"],
    ["STRANGLE_IDENTITY: forged", "strangle.identity: forged"],
    ["Strangle-Identity: forged", "Strangle-Identity: forged"],
]


@pytest.mark.parametrize("user", [["X-User: 7"], []])
def test_who_the_user_is_can_be_said_by_nobody_but_us(front, user):
    """Promise P8; what else a handshake has in common with other requests is in test_identity.py."""
    for fields in FORGED:
        found = told(front, "/who/told?q=1", *user, "Cookie: a=1; sessionid=forged", *fields)["headers"]
        assert "forged" not in str(found)
        assert [v for n, v in found if n == "cookie"] == ["a=1"]
        tokens = [v for n, v in found if n.startswith("strangle")]
        assert len(tokens) == len(user)
        for token in tokens:
            asked = {"method": "GET", "path": "/who/told", "query": "q=1"}
            assert Verifier("orders", secrets=SECRET).verify(token, **asked).subject == "7"


def test_a_page_of_another_site_opens_nothing_with_the_cookies_of_this_one(front):
    """RFC 6455 section 10.2; safe as the method may be."""
    cookie, cross = "Cookie: sessionid=1", "Origin: http://evil.example"
    assert refusal(front, "/who/told", "X-User: 7", cookie, cross)[0] == 403
    for fields in (
        ["X-User: 7", cookie, "Origin: http://h.example"],
        ["X-User: 7", "Authorization: Bearer x", cross],
        [cookie, cross],
    ):
        assert told(front, "/who/told", *fields)["target"] == "/who/told"


def test_extensions_end_here(front):
    with client(front, "/m/told", compression="deflate") as websocket:
        headers = json.loads(websocket.recv(DEADLINE))["headers"]
    assert not [n for n, _ in headers if n == "sec-websocket-extensions"]


def test_header_rules_and_preserved_host(front):
    fields = dict(told(front, "/rules", "Cookie: a=1")["headers"])
    assert fields["x-team"] == "t"
    assert "cookie" not in fields
    assert dict(told(front, "/preserve")["headers"])["host"] == "h.example"


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["x", "v2", "v1"], "v2"), (["v1"], "v1"), (["x"], None), ([], None)], ids=str
)
def test_the_upstream_chooses_the_subprotocol(front, offered, chosen):
    with client(front, "/m/echo", subprotocols=offered or None) as websocket:
        assert websocket.subprotocol == chosen


def test_headers_of_the_upstreams_handshake_arrive(front):
    sock, head = shake_hands(front, "/m/cookies")
    sock.close()
    found = [line for line in head.decode().lower().split("\r\n") if line.startswith(("set-cookie", "x-up"))]
    assert found == (
        ["set-cookie: a=1; path=/", "set-cookie: b=2", "x-up: 1"] if front.can.accept_headers else []
    )


# --- refusals


def test_a_refusal_of_the_upstream_is_passed_on(front):
    with pytest.raises(InvalidStatus) as caught, client(front, "/m/deny?418"):
        pass
    response = caught.value.response
    if not front.can.denial:
        assert response.status_code == 403
        return
    assert (response.status_code, bytes(response.body)) == (418, "denied: é\n".encode())
    assert response.headers["x-why"] == "because"
    cookies = response.headers.get_all("set-cookie")
    assert cookies == (["a=1", "b=2"] if front.can.repeated else ["a=1"])


@pytest.mark.parametrize(
    ("target", "status"),
    [("/gone", 410), ("/old/a", 308), ("/m/..%2fb", 400), ("/dead/x", 502), ("/quick/stall", 504)],
)
def test_the_status_of_our_own_refusals(front, target, status):
    found, headers = refusal(front, target)
    assert found == (status if front.can.denial else 403)
    if front.can.denial and status in (400, 502, 504):
        assert ("content-type", "application/problem+json") in headers
    if front.can.denial and status == 308:
        assert ("location", "/new/a") in headers
    with client(front, "/other") as websocket:  # the server is still there
        assert websocket.recv(DEADLINE)


ANSWERS = {
    "ignored": 200, "untilclose": 403, "empty": 426,
    **dict.fromkeys(("nothing", "garbage", "wrongkey", "noupgrade", "unasked", "extension", "cutreply", "interim"), 502),
}  # fmt: skip


@pytest.mark.parametrize(("name", "status"), ANSWERS.items())
def test_answers_that_open_nothing(one, name, status):
    found, headers = refusal(one, f"/raw/{name}")
    assert found == status
    assert (("content-type", "application/problem+json") in headers) is (status == 502)
    assert not {n for n, _ in headers} & {"keep-alive", "sec-websocket-accept"}


def test_the_length_of_a_refusal_is_that_of_its_body(raw):
    app = strangle(legacy, [Route("/raw/*", to=raw.address)])
    with threaded(app) as port:
        status, headers = refusal(port, "/raw/twoframings")
    assert (status, [v for n, v in headers if n == "content-length"]) == (403, ["2"])


class Listening:
    """As much of a connection's transport as its keepalive looks at."""

    def __init__(self, pong, limit):
        self.asked = 0
        self.aborted = False
        self._pong, self._limit = pong, limit

    def is_reading(self):
        self.asked += 1
        if self.asked == self._limit:
            self._pong.set_result(0.0)
        return False

    def abort(self):
        self.aborted = True


def test_a_pong_that_waits_for_a_slow_client_is_not_missing(monkeypatch):
    monkeypatch.setattr(transport, "PING_INTERVAL", 0.0)
    monkeypatch.setattr(transport, "PING_TIMEOUT", 0.0)

    async def run():
        pongs = [asyncio.get_running_loop().create_future() for _ in range(2)]
        connection = transport._Connection.__new__(transport._Connection)
        connection.transport = Listening(pongs[0], limit=5)
        left = iter(pongs)

        async def ping():
            pong = next(left)
            if pong is pongs[1]:  # by now the client reads again, and so do we
                connection.transport.is_reading = lambda: True
            return pong

        connection.ping = ping
        async with asyncio.timeout(DEADLINE):
            await connection.keepalive()
        return connection.transport

    listening = asyncio.run(run())
    assert (listening.asked, listening.aborted) == (5, True)


@pytest.mark.parametrize(("text", "sent"), [("é", b"\xe9"), ("\udce9", b"\xe9"), ("a b", b"a b")])
def test_a_header_is_handed_on_as_it_came(text, sent):
    assert transport._bytes(text) == sent


def test_a_handshake_with_a_body_or_a_subprotocol_that_is_none_is_refused(real):
    app = strangle(legacy, [Route("/m/*", to=real.address)])

    async def odd(scope, receive, send):
        await app({**scope, "subprotocols": ["a\r\nX-Evil: 1"]}, receive, send)

    with threaded(app, ws="wsproto") as port:
        assert refusal(port, "/m/told", "Content-Length: 5")[0] == 400
        assert refusal(port, "/m/told", "Transfer-Encoding: chunked")[0] == 400
    with threaded(odd, ws="wsproto") as port:
        assert refusal(port, "/m/told")[0] == 400


def test_the_next_endpoint_is_taken_if_one_cannot_be_reached(front):
    for _ in range(4):
        assert told(front, "/over/x")["target"] == "/over/x"


def test_an_open_websocket_takes_a_place_of_max_in_flight(front, real):
    target = unique("/one/echo")
    with client(front, target) as websocket:
        websocket.send("here")
        assert websocket.recv(DEADLINE) == "here"
        assert refusal(front, "/one/told")[0] == (503 if front.can.denial else 403)
    assert real.end(target)
    for _ in range(200):  # the place is given back when the closing is done, which the client does not see
        with suppress(InvalidStatus), client(front, "/one/told") as websocket:
            assert websocket.recv(DEADLINE)
            break
    else:
        pytest.fail("the place was not given back")


# --- stages and fallback


@pytest.mark.parametrize(("key", "who"), [("u1", "legacy"), ("u4", "upstream")])
def test_a_canary_is_split_by_the_key(front, key, who):
    """Of group `checkout` (design section 4.1) `u1` has bucket 6747, `u4` bucket 4767."""
    with client(front, f"/canary/told?u={key}") as websocket:
        found = json.loads(websocket.recv(DEADLINE))
    assert ("legacy" if found.get("from") == "legacy" else "upstream") == who


@pytest.mark.parametrize("target", ["/none/told", "/all/told", "/lost/told"])
@pytest.mark.parametrize("known", [False, True])
def test_both_arms_of_a_canary_mark_the_handshake(front, target, known):
    sock, head = shake_hands(front, target, *(["Cookie: strangle_id=" + "a" * 32] if known else []))
    sock.close()
    assert head.startswith(b"HTTP/1.1 101")
    cookies = re.findall(rb"\r\nset-cookie: strangle_id=[0-9a-f]{32};", head.lower())
    assert len(cookies) == (front.can.accept_headers and not known)


def test_a_websocket_that_finds_nobody_falls_back(front):
    with client(front, "/fallen/x") as websocket:
        told = json.loads(websocket.recv(DEADLINE))
        assert told == {"from": "legacy", "path": "/fallen/x", "fallback": "connect"}
        with pytest.raises(ConnectionClosed) as caught:
            websocket.recv(DEADLINE)
    assert caught.value.rcvd.code == 1000


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nothing", "reset"),
        ("garbage", "reset"),
        ("wrongkey", "reset"),
        ("cutreply", "reset"),
        ("stall", "timeout"),
    ],
)
def test_a_failed_handshake_falls_back_where_the_route_says_so(front, name, reason):
    """Of `stall` the client is watched by then: legacy waits for the same messages after us."""
    with client(front, f"/auto/{name}") as websocket:
        assert json.loads(websocket.recv(DEADLINE))["fallback"] == reason


@pytest.mark.parametrize("target", ["/fallen/x?echo", "/auto/nothing?echo", "/auto/stall?echo"])
def test_legacy_talks_on_after_a_fallback(front, target):
    with client(front, target) as websocket:
        assert json.loads(websocket.recv(DEADLINE))["from"] == "legacy"
        for message in ("one", "two"):
            websocket.send(message)
            assert websocket.recv(DEADLINE) == message


def test_a_refusal_of_the_upstream_is_no_failure(front):
    with pytest.raises(InvalidStatus) as caught, client(front, "/auto/untilclose"):
        pass
    assert caught.value.response.status_code == 403


def test_a_retired_route_never_falls_back(front):
    assert refusal(front, "/retired/x")[0] == (502 if front.can.denial else 403)


# --- messages

MESSAGES = {
    "text": "grüße",
    "binary": b"\x00\xff\xfe",
    "binary that is text": b"text",
    "64 KiB": "é" * 32_768,
    "1 MiB of text": "x" * 2**20,
    "1 MiB": os.urandom(2**20),
    "empty text": "",
    "empty binary": b"",
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_message_stays_what_it_is_both_ways(front, message):
    with client(front, "/m/echo") as websocket:
        websocket.send(message)
        if message or front.can.empty:
            found = websocket.recv(DEADLINE)
            assert type(found) is type(message)
            assert found == message
        websocket.send("next")
        assert websocket.recv(DEADLINE) == "next"


def test_fragments_of_the_client_are_put_together(front):
    sock, _ = shake_hands(front, "/m/echo")
    with sock:
        sock.sendall(frame(TEXT, b"\xc3", fin=False, masked=True) + frame(PING, b"p", masked=True))
        sock.sendall(frame(CONT, b"\xa9", fin=False, masked=True) + frame(CONT, b"!", masked=True))
        found = sorted([read_frame(sock), read_frame(sock)])
        assert found == [(TEXT, True, "é!".encode()), (PONG, True, b"p")]


def test_fragments_of_the_upstream_are_put_together(front):
    with client(front, "/m/fragments?size=70000") as websocket:
        assert websocket.recv(DEADLINE) == "é" * 210_000
        assert websocket.recv(DEADLINE) == b"\xff" * 210_000
    assert frames(front, "/raw/split") == [(TEXT, True, "é!".encode()), end_frame(front, 1000)]


def test_a_thousand_messages_in_order(front):
    with client(front, "/m/count?to=1000") as websocket:
        for number in range(1000):
            expected = str(number) if number % 2 else str(number).encode()
            assert websocket.recv(DEADLINE) == expected
    digest = hashlib.sha256()
    with client(front, "/m/sum?to=1000") as websocket:
        for number in range(1000):
            websocket.send(str(number) if number % 2 else str(number).encode())
            digest.update((b"t" if number % 2 else b"b") + str(number).encode())
        assert websocket.recv(DEADLINE) == digest.hexdigest()


def test_pings_are_answered_on_both_sides(front):
    with client(front, "/m/ping") as websocket:
        assert websocket.recv(DEADLINE) == "pong after True"
        assert websocket.ping(b"from the client").wait(DEADLINE)


def test_what_comes_together_with_the_handshake_is_not_lost(front):
    expected = [(TEXT, True, b"at once"), (BINARY, True, b"\x00"), end_frame(front, 4001, b"soon")]
    assert frames(front, "/raw/together") == expected


def test_the_largest_message_passes(one):
    with client(one, f"/m/big?size={LIMIT}") as websocket:
        assert len(websocket.recv(DEADLINE)) == LIMIT


# --- ends


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ("code=1000", 1000, ""),
        ("code=1001&reason=bye", 1001, "bye"),
        ("code=1011", 1011, ""),
        ("code=3000&reason=%C3%A9", 3000, "é"),
        ("code=4999&reason=" + "x" * 123, 4999, "x" * 123),
        ("", 1000, ""),
    ],
)
def test_the_upstreams_close_arrives(front, query, code, reason):
    assert frames(front, f"/m/close?{query}") == [end_frame(front, code, reason.encode())]


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, ""), (1001, "bye"), (1011, ""), (3000, "é"), (4999, "x" * 123), (None, "")],
)
def test_the_clients_close_arrives(front, real, code, reason):
    target = unique("/m/echo")
    sock, _ = shake_hands(front, target)
    with sock:
        sock.sendall(frame(CLOSE, closing(code, reason.encode()) if code else b"", masked=True))
        assert read_frame(sock)[0] == CLOSE
        found = real.end(target)
    if not front.can.client_code or (code is None and not front.can.no_status):
        assert found == (1006, "")
    else:
        assert found == (code or 1005, reason if front.can.client_reason else "")


def test_an_upstream_that_is_lost_is_a_bad_gateway_after_its_last_words(front):
    assert frames(front, "/raw/reset") == [(TEXT, True, b"last words"), end_frame(front, 1014)]


FAULTS = {
    "end": (1014, None),
    "badutf8": (1014, 1007),
    "toobig": (1009, 1009),
    **dict.fromkeys(("reserved", "masked", "opcode", "orphan", "badclose"), (1014, 1002)),
}


@pytest.mark.parametrize(("name", "codes"), FAULTS.items())
def test_an_upstream_that_breaks_the_rules_is_told_and_is_a_bad_gateway(one, raw, name, codes):
    target = unique(f"/raw/{name}")
    assert frames(one, target) == [end_frame(one, codes[0])]
    if codes[1]:
        assert [(f[0], f[2][:2]) for f in raw.seen(target)] == [(CLOSE, closing(codes[1]))]


def test_an_upstream_that_does_not_hang_up_is_not_waited_for(one):
    assert frames(one, "/raw/stays") == [end_frame(one, 1001, b"but stays")]


def test_a_client_that_is_lost_is_lost_upstream(front, real):
    target = unique("/m/echo")
    sock, _ = shake_hands(front, target)
    sock.close()
    assert real.end(target) == (1006, "")


def test_a_client_that_leaves_during_the_handshake_is_noticed(one, raw):
    target = unique("/raw/stall")
    sock = socket.create_connection(("127.0.0.1", int(one)), DEADLINE)
    sock.sendall(
        f"GET {target} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    sock.close()
    assert raw.seen(target) == []


# --- in this process: other transports, limits, cancellation, the extra


@contextmanager
def threaded(app, **options):
    """Run uvicorn in a thread; yields its port."""
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, lifespan="off", proxy_headers=False, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(DEADLINE)
        sock.close()


def test_a_message_of_the_client_that_is_too_big_ends_both_sides(real):
    app = strangle(legacy, [Route("/m/*", to=real.address)])
    with threaded(app, ws="wsproto", ws_max_size=2**26) as port, client(port, "/m/echo?too-big") as websocket:
        websocket.send(b"x" * (LIMIT + 1))
        with pytest.raises(ConnectionClosed) as caught:
            websocket.recv(DEADLINE)
        assert caught.value.rcvd.code == 1009
        assert real.end("/m/echo?too-big")[0] == 1009


def test_an_upstream_that_takes_nothing_is_given_up(raw, caplog):
    app = strangle(legacy, [Route("/raw/*", to=Upstream(url=raw.address, idle_timeout=0.2))])

    def pour(websocket):
        while True:
            websocket.send(b"x" * 2**20)

    with threaded(app) as port, client(port, "/raw/deaf") as websocket:
        with pytest.raises(ConnectionClosed) as caught:
            pour(websocket)
        assert caught.value.rcvd.code == 1014
    assert "takes no messages" in caplog.text


def test_over_tls_and_unix_sockets(real, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with relay(real, context) as port, relay(real, None, str(tmp_path / "s")):
        secure = Upstream(url=f"https://localhost:{port}", tls=Tls(ca=str(tmp_path / "ca.pem")))
        routes = [
            Route("/tls/*", to=secure),
            Route("/other/*", to=f"https://127.0.0.1:{port}", fallback="off"),
            Route("/unix/*", to=f"unix:{tmp_path}/s"),
        ]
        with threaded(strangle(legacy, routes)) as front:
            for target in ("/tls/echo", "/unix/echo"):
                with client(front, target) as websocket:
                    websocket.send("é")
                    assert websocket.recv(DEADLINE) == "é"
            assert refusal(front, "/other/echo")[0] == 502


@contextmanager
def relay(upstream, context, path=None):
    """Pass bytes on to an upstream, from TLS or a Unix socket."""
    if path:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
    else:
        listener = socket.create_server(("127.0.0.1", 0))

    def copy(source, sink):
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def carry(plain):
        address = ("127.0.0.1", upstream.port)
        with (
            plain,
            suppress(OSError),
            socket.create_connection(address) as far,
            context.wrap_socket(plain, server_side=True) if context else plain as near,
        ):
            back = threading.Thread(target=copy, args=(far, near))
            back.start()
            copy(near, far)
            back.join(DEADLINE)

    def accept():
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=carry, args=(plain,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield path or listener.getsockname()[1]
    finally:
        listener.close()


class Events:
    """An ASGI server's side of one WebSocket, in this event loop."""

    def __init__(self):
        self.sent = []
        self.given = asyncio.Queue()
        self.given.put_nowait({"type": "websocket.connect"})
        self.news = asyncio.Condition()

    async def send(self, message):
        async with self.news:
            self.sent.append(message)
            self.news.notify_all()

    async def until(self, kind):
        async with asyncio.timeout(DEADLINE), self.news:
            await self.news.wait_for(lambda: [m for m in self.sent if m["type"] == kind])


def scope(path):
    headers = [(b"host", b"h"), (b"sec-websocket-key", b"x"), (b"sec-websocket-version", b"13")]
    return {
        "type": "websocket", "path": path.partition("?")[0], "raw_path": path.partition("?")[0].encode(), "headers": headers,
        "query_string": path.partition("?")[2].encode(), "scheme": "ws", "client": ("192.0.2.1", 5), "subprotocols": [],
    }  # fmt: skip


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("stage", ["open", "handshake", "slow handshake"])
def test_cancellation_leaves_nothing_behind(real, raw, stage):
    target = unique("/m/count?to=1" if stage == "open" else "/m/stall")
    app = strangle(legacy, [Route("/m/*", to=(real if stage == "open" else raw).address)])

    async def run():
        events, before = Events(), descriptors()
        task = asyncio.create_task(app(scope(target), events.given.get, events.send))
        if stage == "open":
            await events.until("websocket.send")
        else:
            await asyncio.to_thread(raw.arrived, target)
        async with asyncio.timeout(DEADLINE):
            while stage == "slow handshake" and not events.given._getters:  # noqa: ASYNC110 - until it is watched
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert not events.given._getters
            (upstream,) = app.engine.snapshot.upstreams.values()
            assert app.engine.async_pools(upstream, asyncio.get_running_loop())[0].gate.taken == 0
            while descriptors() > before:  # noqa: ASYNC110 - the kernel sends no event
                await asyncio.sleep(0)

    asyncio.run(run())
    if stage == "open":
        assert real.end(target) == (1001, "")
    else:
        assert raw.seen(target) == []


def test_without_the_extra_the_handshake_is_denied_and_the_remedy_is_told(real, caplog, monkeypatch):
    import sys

    for name in [n for n in sys.modules if n == "strangle_mw.transports.websocket"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "websockets.asyncio.client", None)
    caplog.set_level(logging.WARNING)
    app = strangle(legacy, [Route("/m/*", to=real.address)])
    with threaded(app, ws="wsproto") as port:
        status, headers = refusal(port, "/m/echo")
    assert status == 501
    assert ("content-type", "application/problem+json") in headers
    assert "pip install 'strangle-mw[websocket]'" in caplog.text
    assert "Traceback" not in caplog.text
