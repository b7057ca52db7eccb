"""Traps of headers: nothing added, nothing joined, nothing believed."""

import logging

import pytest
from tests.transports.upstream import ScriptedUpstream, head, send, until_gone
from trapped import SERVE, START, names, scripted, told

from servers import request
from strangle_mw import Route, Upstream, strangle

OURS = {
    "host",
    "forwarded",
    "via",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
}


@pytest.fixture
def echoing(front, echo):
    """Both drivers, with `/m/*` on the echo."""
    with front.strangled([Route("/m/*", to=echo.address)]):
        yield front


def test_trap_05_nothing_is_added_but_ours(echoing):
    found = told(echoing, "GET", "/m/x", [("X-Mine", "1")])
    assert set(names(found)) - {"x-mine"} <= OURS
    sent = [("User-Agent", "u"), ("Accept-Encoding", "br"), ("Accept", "a/b")]
    assert {(n.lower(), v) for n, v in sent} <= set(told(echoing, "GET", "/m/x", sent)["headers"])


def test_trap_14_other_spellings_of_protected_names_do_not_pass(echoing):
    sent = [("X_Forwarded_For", "6.6.6.6"), ("X_Real_IP", "6.6.6.6"), ("X.Forwarded.For", "6.6.6.6"), ("Strangle_Identity", "root"),
            ("Strangle-Identity", "root"), ("Remote_User", "root")]  # fmt: skip
    found = told(echoing, "GET", "/m/x", sent)
    assert [v for n, v in found["headers"] if n == "x-forwarded-for"] == ["127.0.0.1"]
    assert not [h for h in found["headers"] if "6.6.6.6" in h[1] or "root" in h[1]]
    assert not [n for n in names(found) if "_" in n or "." in n]


@pytest.mark.parametrize(
    ("trusted", "expected"), [([], "127.0.0.1"), (["127.0.0.1"], "192.0.2.9, 127.0.0.1"), (["198.51.100.0/24"], "127.0.0.1")]
)  # fmt: skip
def test_trap_15_forwarding_headers_are_believed_of_listed_peers_only(front, echo, trusted, expected):
    with front.strangled([Route("/m/*", to=echo.address)], trusted_proxies=trusted):
        found = told(front, "GET", "/m/x", [("X-Forwarded-For", "192.0.2.9")])
    assert [v for n, v in found["headers"] if n == "x-forwarded-for"] == [expected]


def test_trap_16_connection_does_not_drop_our_own_headers(echoing):
    listed = "close, X-Forwarded-For, Via, X-Hop"
    found = told(echoing, "GET", "/m/x", [("X-Hop", "1"), ("Connection", listed)], close=False)
    assert ("x-forwarded-for", "127.0.0.1") in found["headers"]
    assert "via" in names(found)
    assert not {"x-hop", "connection"} & set(names(found))


def test_trap_17_cookies_are_not_joined(echoing):
    reply = echoing.ask(request("GET", "/m/cookies"))
    assert reply.all("set-cookie") == ["a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2"]


def test_trap_18_a_cookie_that_http_2_has_split_is_one_header_again(asgi, echo):
    app = strangle(asgi.legacy, [Route("/m/*", to=echo.address)])

    async def as_http_2(scope, receive, send):
        split = [(b"cookie", b"a=1"), (b"x-between", b"1"), (b"cookie", b"b=2; c=3")]
        await app({**scope, "http_version": "2", "headers": [*scope["headers"], *split]}, receive, send)

    with asgi.mounted(as_http_2, app):
        found = told(asgi, "GET", "/m/x")
    assert [v for n, v in found["headers"] if n == "cookie"] == ["a=1; b=2; c=3"]
    assert ("x-between", "1") in found["headers"]


def test_trap_19_date_and_server_are_not_doubled(echoing):
    reply = echoing.ask(request("GET", "/m/cookies"))
    assert (len(reply.all("date")), len(reply.all("server"))) == (1, 1)
    assert reply.header("date") != "then"
    assert reply.header("server") != "echo"


def test_trap_24_a_large_head_passes_and_a_too_large_one_is_a_502_that_says_why(front, caplog):
    def answer(size):
        return START + b"X-Long: " + b"a" * size + b"\r\nContent-Length: 2\r\n\r\nok"

    with scripted(front, [head(), send(answer(60_000)), *SERVE]):
        assert len(front.ask(request("GET", "/m/x")).header("x-long")) == 60_000
    with scripted(front, [head(), send(answer(70_000)), until_gone()]):
        assert front.ask(request("GET", "/m/x")).status == 502
    assert [r.levelno for r in caplog.records if "head longer than 65536 bytes" in r.getMessage()] == [
        logging.WARNING
    ]


def test_trap_25_empty_values_are_kept(echoing):
    assert ("x-empty", "") in told(echoing, "GET", "/m/x", [("X-Empty", "")])["headers"]
    assert echoing.ask(request("GET", "/m/cookies")).header("x-empty") == ""


def test_trap_26_order_is_kept_and_case_is_not(front, echo):
    with front.strangled([Route("/m/*", to=echo.address)]):
        found = told(front, "GET", "/m/x", [("X-C", "1"), ("x-a", "2"), ("X-B", "3")])
    assert [n for n in names(found) if n in ("x-a", "x-b", "x-c")] == ["x-c", "x-a", "x-b"]
    answer = START + b"X-C: 1\r\nX-A: 2\r\nX-C: 3\r\nX-B: 4\r\nContent-Length: 2\r\n\r\nok"
    with scripted(front, [head(), send(answer), *SERVE]):
        reply = front.ask(request("GET", "/m/x"))
    assert [h for h in reply.headers if h[0].startswith("x-")] == [
        ("x-c", "1"),
        ("x-a", "2"),
        ("x-c", "3"),
        ("x-b", "4"),
    ]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("http://127.0.0.1:{port}/base/new?a=b", "/api/new?a=b"), ("/base/new", "/api/new"), ("/base", "/api"),
        ("http://127.0.0.1:1/base/new", "http://127.0.0.1:1/base/new"), ("https://login.example/", "https://login.example/"),
    ],
)  # fmt: skip
def test_trap_27_a_redirect_does_not_name_the_internal_host(front, location, expected):
    def moved(peer):
        place = location.format(port=upstream.endpoint.port).encode()
        send(b"HTTP/1.1 302 Found\r\nLocation: " + place + b"\r\nContent-Length: 0\r\n\r\n")(peer)

    with ScriptedUpstream([head(), moved, *SERVE]) as upstream:
        modern = Upstream(url=f"http://127.0.0.1:{upstream.endpoint.port}/base")
        with front.strangled([Route("/api/*", to=modern, strip_prefix="/api")]):
            reply = front.ask(request("GET", "/api/x"))
    assert (reply.status, reply.header("location")) == (302, expected)


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        ("a=1; Path=/base; HttpOnly", "a=1; Path=/api; HttpOnly"), ("a=1; Path=/base/x", "a=1; Path=/api/x"), ("a=1; Domain=127.0.0.1", "a=1; Domain=h.example"),
        ("a=1; Domain=other.example; Path=/", "a=1; Domain=other.example; Path=/"),
    ],
)  # fmt: skip
def test_trap_27_a_cookie_does_not_either(front, cookie, expected):
    answer = START + b"Set-Cookie: " + cookie.encode() + b"\r\nContent-Length: 2\r\n\r\nok"
    with ScriptedUpstream([head(), send(answer), *SERVE]) as upstream:
        modern = Upstream(url=f"http://127.0.0.1:{upstream.endpoint.port}/base")
        with front.strangled([Route("/api/*", to=modern, strip_prefix="/api")]):
            assert front.ask(request("GET", "/api/x")).all("set-cookie") == [expected]
