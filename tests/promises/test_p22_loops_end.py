"""P22: a request that comes back is answered with 508; what a client writes into `Via` has no effect."""

import contextlib
import threading
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
import uvicorn
from tests.transports.upstream import ScriptedUpstream, forever, head, send

from promises.drive import PATIENCE, address
from servers import free_port, request, talk
from strangle_mw import Route, strangle

SERVE = [forever(head(), send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))]


async def asgi_legacy(scope, receive, send):
    while scope["type"] == "lifespan":
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return
    await send({"type": "http.response.start", "status": 299, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def wsgi_legacy(environ, start_response):
    start_response("299 Legacy", [("Content-Length", "0")])
    return []


@contextlib.contextmanager
def asgi_server(port, routes):
    app = strangle(asgi_legacy, routes, interface="asgi")
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="on", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until_it_answers(port)
    yield
    server.should_exit = True
    thread.join(PATIENCE)


class Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def wsgi_server(port, routes):
    app = strangle(wsgi_legacy, routes, interface="wsgi")
    with make_server("127.0.0.1", port, app, Threads, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        wait_until_it_answers(port)
        yield
        server.shutdown()
        thread.join(PATIENCE)
    app.engine.close()


KINDS = {"asgi": asgi_server, "wsgi": wsgi_server}


def wait_until_it_answers(port):
    for _ in range(2000):
        with contextlib.suppress(OSError):
            assert talk(port, request("GET", "/ready")).status == 299
            return
        threading.Event().wait(0.01)
    raise AssertionError("the server did not start")


def to(port):
    return f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("kind", KINDS)
def test_an_app_that_is_its_own_upstream(kind):
    port = free_port()
    with KINDS[kind](port, [Route("/m/*", to=to(port))]):
        reply = talk(port, request("GET", "/m/x"))
        assert reply.status == 508
        assert reply.header("content-type") == "application/problem+json"
        assert talk(port, request("GET", "/x")).status == 299


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_two_apps_that_are_each_others_upstream(first, second):
    there, back = free_port(), free_port()
    with (
        KINDS[first](there, [Route("/m/*", to=to(back))]),
        KINDS[second](back, [Route("/m/*", to=to(there))]),
    ):
        assert talk(there, request("GET", "/m/x")).status == 508
        assert talk(back, request("POST", "/m/x", [("Content-Length", "2")], b"ab")).status == 508
        assert talk(there, request("GET", "/x")).status == 299


@pytest.mark.parametrize("first", KINDS)
def test_two_apps_in_a_row_are_no_loop(first):
    there, back = free_port(), free_port()
    with (
        ScriptedUpstream(SERVE) as server,
        KINDS[first](there, [Route("/m/*", to=to(back))]),
        asgi_server(back, [Route("/m/*", to=address(server))]),
    ):
        assert talk(there, request("GET", "/m/x")).body == b"ok"
        vias = [line for line in server.heads[0].split(b"\r\n") if line.startswith(b"via: ")]
        assert len(b",".join(vias).split(b",")) == 2


def vias(wire):
    return [line[5:] for line in wire.split(b"\r\n") if line.startswith(b"via: ")]


def seen_via(strangled, *values):
    with ScriptedUpstream(SERVE) as server:
        side = strangled([Route("/m/*", to=address(server))])
        status = side.ask(headers=tuple((b"via", v) for v in values)).status
        side.close()
    return status, vias(server.heads[0]) if server.heads else []


FORGED = [
    b"1.1 strangle-",
    b"1.1 strangle-000000000000000000000000",
    b"1.1 strangle-0123456789abcdef01234567, 1.1 other",
    b"1.1 vegur",
    b"strangle",
    b"",
    b"1.1 " + b"x" * 4000,
]


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_marker_has_no_effect(strangled, forged):
    status, told = seen_via(strangled, forged)
    assert status == 200
    assert forged in b", ".join(told[:-1] if len(told) > 1 else told) or not forged
    assert told[-1].rpartition(b" ")[2].startswith(b"strangle-")


def test_the_marker_of_another_app_has_no_effect(strangled):
    _, (theirs,) = seen_via(strangled)
    status, told = seen_via(strangled, theirs)
    assert status == 200
    assert theirs in told
    assert len(set(told)) == 2


@pytest.mark.parametrize("form", ["{}", "1.0 first, {}", "{}, 1.1 last", "1.1 a,{} (comment)"])
def test_our_own_marker_ends_the_request(strangled, form):
    with ScriptedUpstream(SERVE) as server:
        side = strangled([Route("/m/*", to=address(server))])
        side.ask()
        (ours,) = vias(server.heads[0])
        looped = form.format(ours.decode()).encode()
        assert side.ask(headers=((b"via", b"1.1 x"), (b"via", looped))).status == 508
        assert side.legacy == [], "legacy is not a way out of a loop"
        assert len(server.heads) == 1
        side.close()


def test_a_loop_through_the_default_route_is_legacys_own(strangled):
    """Only what a route names is looked at (P4)."""
    with ScriptedUpstream(SERVE) as server:
        side = strangled([Route("/m/*", to=address(server))])
        side.ask()
        (ours,) = vias(server.heads[0])
        assert side.ask("/x", headers=((b"via", ours),)).status == 299
        side.close()


def test_a_fleet_with_one_key_knows_itself(strangled, monkeypatch):
    monkeypatch.setenv("STRANGLE_HOP_KEY", "k1")
    _, (first,) = seen_via(strangled)
    assert seen_via(strangled, first)[0] == 508
    monkeypatch.setenv("STRANGLE_HOP_KEY", "k2")
    assert seen_via(strangled, first)[0] == 200


def test_the_key_is_not_told(strangled, monkeypatch):
    monkeypatch.setenv("STRANGLE_HOP_KEY", "hunter2")
    _, (told,) = seen_via(strangled)
    assert b"hunter2" not in told
