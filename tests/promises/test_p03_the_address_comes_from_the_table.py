"""P3: nothing in a request changes scheme, host or port of the upstream; CONNECT is refused."""

import socket

import pytest

from echo import Echo
from servers import connect, read_reply, request, talk
from strangle_mw import Route, strangle
from test_wsgi import call, environ, legacy


@pytest.fixture
def trap():
    """A server that must never be asked."""
    other = Echo()
    yield other
    other.close()


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("/m/x", "127.0.0.1:{port}"),
        ("http://127.0.0.1:{port}/m/x", "h.example"),
        ("http://127.0.0.1:{port}@h/m/x", "h.example"),
        ("/m/x?url=http://127.0.0.1:{port}/", "h.example"),
        ("/m/@127.0.0.1:{port}/x", "h.example"),
        ("/m/x", "h.example@127.0.0.1:{port}"),
        ("/api//127.0.0.1:{port}/x", "h.example"),
        ("/api/http://127.0.0.1:{port}/x", "h.example"),
        ("@127.0.0.1:{port}/m/x", "h.example"),
    ],
)
def test_the_request_cannot_name_another_address(server, trap, target, host):
    asked = request("GET", target.format(port=trap.port), host=host.format(port=trap.port))
    with connect(server) as sock:
        sock.sendall(asked)
        try:
            reply = read_reply(sock)
        except (ConnectionError, IndexError, ValueError):
            reply = None  # some servers just hang up on such a target
    assert reply is None or reply.status in (200, 400, 404)
    assert trap.connections == 0


def test_connect_is_refused_on_a_forwarded_route(server, trap):
    with connect(server) as sock:
        sock.sendall(request("CONNECT", "/m/x"))
        try:
            status = read_reply(sock).status
        except (ConnectionError, IndexError):
            status = None
    assert status in (405, 400, 501, None)


def test_redirects_of_the_upstream_are_not_followed(trap):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        import threading

        def answer():
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(
                    b"HTTP/1.1 302 Found\r\nLocation: %s/x\r\nContent-Length: 0\r\n\r\n"
                    % trap.address.encode()
                )

        thread = threading.Thread(target=answer)
        thread.start()
        app = strangle(legacy, [Route("/m/*", to=f"http://127.0.0.1:{listener.getsockname()[1]}")])
        found = call(app, environ("/m/x"))
        thread.join()
        app.engine.close()
    assert found.status == "302 Found"
    assert dict(found.headers)["location"] == f"{trap.address}/x"
    assert trap.connections == 0


def test_proxies_of_the_environment_are_ignored(trap, echo, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, trap.address)
    app = strangle(legacy, [Route("/m/*", to=echo.address)])
    assert call(app, environ("/m/x", HTTP_PROXY=trap.address)).status == "200 OK"
    app.engine.close()
    assert trap.connections == 0


def test_a_rewrite_cannot_make_an_authority(echo):
    app = strangle(legacy, [Route("/m/*", to=echo.address, rewrite="/{*}")])
    for path in ("/m//evil.example/x", "/m///evil.example"):
        import json

        line = json.loads(call(app, environ(path, RAW_URI=path)).body)["line"]
        assert line.split(" ")[1].startswith("/evil.example")
    app.engine.close()


def test_talk_reaches_the_table_only(server, echo):
    before = echo.requests
    assert talk(server, request("GET", "/m/x")).status == 200
    assert echo.requests == before + 1
