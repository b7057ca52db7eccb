"""An upstream that dies between the head of its answer and the body, as servers do that write them apart."""

import asyncio
import io
import socket
import threading

import pytest

from strangle_mw import ForwardError, Route, Upstream, strangle

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 5\r\n\r\n"


@pytest.fixture
def dying():
    """Start servers that answer each request with these bytes and close."""
    listeners = []

    def start(answer):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve():
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    sock.recv(65536)
                    sock.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return Upstream(url=f"http://127.0.0.1:{listener.getsockname()[1]}")

    yield start
    for listener in listeners:
        listener.close()


def legacy_wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b"legacy " + environ["strangle.fallback"].encode()]


def ask_wsgi(route, method, body=b""):
    app = strangle(legacy_wsgi, [route])
    environ = {
        "REQUEST_METHOD": method, "PATH_INFO": "/m/x", "RAW_URI": "/m/x", "HTTP_HOST": "h",
        "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body) or ""),
    }  # fmt: skip
    seen = []
    try:
        result = app(environ, lambda line, headers: seen.append(int(line[:3])))
        content = next(iter(result), b"")
        if hasattr(result, "close"):
            result.close()
    finally:
        app.engine.close()
    return seen, content


@pytest.mark.parametrize(
    ("stage", "method", "body", "seen", "content"),
    [
        ({"stage": "canary", "weight": 100}, "GET", b"", [200], b"legacy reset"),
        ({"stage": "canary", "weight": 100}, "POST", b"x", [502], None),
        ({"stage": "modern"}, "GET", b"", [502], None),
        ({"stage": "modern", "fallback": "auto", "shared_store": True}, "PUT", b"x", [200], b"legacy reset"),
    ],
)
def test_under_wsgi_nothing_has_gone_to_the_client(dying, stage, method, body, seen, content):
    found, answer = ask_wsgi(Route("/m/*", to=dying(HEAD), **stage), method, body)
    assert found == seen
    assert content is None or answer == content


def test_the_head_of_an_event_stream_does_not_wait(dying):
    seen, first = ask_wsgi(Route("/m/*", to=dying(EVENTS), stage="canary", weight=100), "GET")
    assert (seen, first) == ([200], b"")


def test_under_asgi_the_head_goes_at_once_and_the_answer_is_cut(dying):
    async def legacy(scope, receive, send):
        raise AssertionError("the head has gone to the client")

    app = strangle(legacy, [Route("/m/*", to=dying(HEAD), stage="canary", weight=100)])
    sent = []

    async def run():
        async def receive():
            return {"type": "http.request"}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/m/x", "raw_path": b"/m/x", "query_string": b"", "headers": [(b"host", b"h")]}  # fmt: skip
        with pytest.raises(ForwardError):
            await app(scope, receive, send)
        await app.engine.aclose(asyncio.get_running_loop())

    asyncio.run(run())
    assert sent[0]["status"] == 200
    assert sent[-1]["more_body"]
