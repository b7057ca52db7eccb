"""Under real servers: what a client sees on the wire, wrapped and in the middleware, and under `runserver`."""

import json
from unittest import mock

import pytest

from django_settings import OURS
from echo import Echo
from servers import SERVERS, connect, read_reply, request, serve, talk

RUNSERVER = ["django", "runserver", "--noreload", "127.0.0.1:{port}"]
SERVED = {
    "runserver wrapped": ("runserver", {}),
    "gunicorn wrapped": ("gunicorn-gthread", {}),
    "gunicorn middleware": ("gunicorn-gthread", {"STRANGLE_TEST_BARE": "1"}),
    "uvicorn wrapped": ("uvicorn-httptools", {}),
    "uvicorn middleware": ("uvicorn-httptools", {"STRANGLE_TEST_BARE": "1"}),
}
HOST = "127.0.0.1"


@pytest.fixture(scope="module", params=SERVED)
def served(request):
    server, more = SERVED[request.param]
    echo = Echo()
    routes = [{"path": "/m/*", "to": echo.address}, {"path": "/down/*", "to": "http://127.0.0.1:1"}]
    environment = {
        "STRANGLE_TEST_SETTINGS": json.dumps({"ROUTES": routes}),
        "STRANGLE_TEST_MIDDLEWARE": json.dumps([OURS]),
        "DJANGO_SETTINGS_MODULE": "django_settings",
        **more,
    }
    with (
        mock.patch.dict(SERVERS, {"runserver": RUNSERVER}),
        serve(server, "djangos.served", **environment) as port,
    ):
        yield port, echo, request.param
    echo.close()


def test_the_wire(served):
    port, _, name = served
    body = b"x" * 300_000
    told = talk(
        port, request("POST", "/m/caf%C3%A9?q=%zz", [("Content-Length", str(len(body)))], body, host=HOST)
    )
    assert told.json()["line"] == "POST /m/caf%C3%A9?q=%zz HTTP/1.1"
    assert told.json()["length"] == len(body)
    if "runserver" not in name:  # it hides an encoded slash
        assert talk(port, request("GET", "/m/a%2Fb", host=HOST)).json()["line"] == "GET /m/a%2Fb HTTP/1.1"
    seen = talk(port, request("GET", "/m/cookies", host=HOST))
    assert seen.all("set-cookie") == ["a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2"]
    assert (seen.status, len(seen.all("date")), len(seen.all("server"))) == (201, 1, 1)
    assert talk(port, request("GET", "/m/big", host=HOST)).body == b"x" * 3_000_000
    assert b"hello world" in talk(port, request("GET", "/shop/hello/", host=HOST)).body


def test_an_answer_that_is_cut_stays_cut(served):
    port, _, _ = served
    assert not talk(port, request("GET", "/m/cutlength", host=HOST)).complete


def test_the_legacy_app_answers_for_an_upstream_that_is_down(served):
    port, _, _ = served
    told = talk(port, request("POST", "/down/x", [("Content-Length", "3")], b"a=1", host=HOST)).json()
    assert (told["fallback"], told["length"]) == ("connect", 3)


def test_the_first_event_of_a_stream_arrives_at_once(served):
    port, echo, _ = served
    with connect(port) as sock:
        sock.sendall(request("GET", "/m/gated", host=HOST))
        seen = b""
        while b"data: 1\n\n" not in seen:
            seen += sock.recv(65536)
        assert not echo.gate.is_set()
        echo.gate.set()
        assert read_reply(sock, data=seen).body == b"data: 1\n\ndata: 2\n\n"
