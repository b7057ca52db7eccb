"""An event stream opens before its first event, where the server can do that (proxy trap 20)."""

import threading

import pytest
from tests.transports.upstream import PATIENCE, ScriptedUpstream, head, send, wait

from servers import connect, request, serve

OPENED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"


@pytest.mark.parametrize(
    "name", ["uvicorn-httptools", "hypercorn", "granian-asgi", "gunicorn-gthread", "gunicorn-gevent"]
)
def test_the_head_goes_out_before_the_first_event(name):
    seen = threading.Event()
    script = [head(), send(OPENED), wait(seen), send(b"data: 1\n\n")]
    with ScriptedUpstream(script) as upstream:
        address = f"http://127.0.0.1:{upstream.endpoint.port}"
        with serve(name, "drivers.strangled", STRANGLE_TEST_UPSTREAM=address) as port, connect(port) as sock:
            sock.settimeout(PATIENCE)
            sock.sendall(request("GET", "/m/events"))
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(65_536)
            assert data.startswith(b"HTTP/1.1 200")
            assert b"data: 1" not in data
            seen.set()
            while b"data: 1" not in data:
                data += sock.recv(65_536)
