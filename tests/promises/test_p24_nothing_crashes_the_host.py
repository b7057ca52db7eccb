"""P24: every hostile request ends in a client or gateway error, never 500; the next request is answered.

A server may refuse a request itself or hang up; what we hand on must not fail in our code.
"""

import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servers import connect, read_reply, request, talk
from strangle_mw import Route, strangle
from test_wsgi import call, environ, legacy

TARGETS = [
    b"/m/" + b"a/" * 2000, b"/m/" + b"%2e%2e/" * 500, b"/m/" + b"\xff" * 50, b"/m/%ff%fe", b"/m/?" + b"a=b&" * 1500, b"*", b"m", b"?",
    b"http://", b"http://h", b"//", b"/m/%", b"/m/%u0041", b"/re/", b"/re/%2f", b"/old/" + b"/" * 100, b"/hosted", b"/beta",
]  # fmt: skip
HEADERS = [
    b"X-Beta: " + b"1" * 5000, b"Cookie: " + b"a=b;" * 1000, b"Connection: " + b"a," * 1000, b"Content-Length: 999999999999999999999",
    b"Content-Length: -1", b"Transfer-Encoding: identity", b"Host: \xff", b"X: \xff\xfe", b"\xff: 1", b": 1", b"X-Forwarded-For: \xe9",
]  # fmt: skip


# They wait for a body of the declared length before they call the app; nobody is to wait with them.
PATIENT = ("daphne", "waitress", "cheroot")


def attempt(server, asked):
    with connect(server, timeout=2) as sock:
        try:
            sock.sendall(asked)
            if server.name in PATIENT and b"Content-Length: 9" in asked:
                sock.shutdown(socket.SHUT_WR)
            return read_reply(sock, head_only=asked.startswith(b"HEAD ")).status
        except (OSError, ValueError, IndexError):
            return None


def alive(server):
    assert talk(server, request("GET", "/canary")).json()["from"] == "legacy"
    assert talk(server, request("GET", "/m/canary")).json()["line"] == "GET /m/canary HTTP/1.1"


@pytest.mark.parametrize(
    "method", [b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"TRACE", b"get", b"X" * 100]
)
@pytest.mark.parametrize("part", ["target", "header"])
def test_hostile_requests(server, method, part):
    for hostile in TARGETS if part == "target" else HEADERS:
        target, header = (hostile, b"X: 1") if part == "target" else (b"/m/x", hostile)
        status = attempt(
            server, b"%b %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n%b\r\n\r\n" % (method, target, header)
        )
        assert status != 500, hostile
    alive(server)


texts = st.text(st.characters(max_codepoint=255), max_size=30)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {"REQUEST_METHOD": texts, "PATH_INFO": texts.map(lambda t: "/m/" + t), "QUERY_STRING": texts},
        optional={
            "RAW_URI": texts, "REQUEST_URI": texts, "SCRIPT_NAME": texts, "CONTENT_LENGTH": texts, "CONTENT_TYPE": texts,
            "HTTP_HOST": texts, "HTTP_TRANSFER_ENCODING": texts, "HTTP_CONNECTION": texts, "HTTP_VIA": texts, "HTTP_COOKIE": texts,
            "HTTP_X_FORWARDED_FOR": texts, "REMOTE_ADDR": texts, "SERVER_PROTOCOL": texts,
        },
    )
)  # fmt: skip
def test_any_environ_ends_in_an_answer(found):
    app = strangle(
        legacy,
        [
            Route("/m/*", to="http://127.0.0.1:1"),
            Route("/c", cookies={"a": "1"}, hosts=["*.x"], to="http://127.0.0.1:1"),
        ],
    )
    status = int(call(app, {**environ(), **found}).status.split(" ")[0])
    assert status in (299, 400, 405, 411, 413, 502, 503, 504)
