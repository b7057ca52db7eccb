"""Several endpoints of one upstream, under both drivers, on real sockets."""

import asyncio
import io
import socket

import pytest

from echo import Echo
from strangle_mw import Route, Upstream, strangle


def unused_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def asgi_legacy(scope, receive, send):
    raise AssertionError("the wrapped app was called")


def wsgi_legacy(environ, start_response):
    raise AssertionError("the wrapped app was called")


class AsgiApp:
    """Calls a strangled ASGI app, all requests in one loop."""

    def __init__(self, routes):
        self.app = strangle(asgi_legacy, routes)

    def ask(self, count, method="GET", body=b""):
        async def one():
            status, sent = [], []
            messages = [{"type": "http.request", "body": body, "more_body": False}]

            async def receive():
                return messages.pop() if messages else await asyncio.Future()

            async def send(message):
                status.append(message.get("status"))
                sent.append(message.get("body", b""))

            headers = [(b"host", b"h")] + ([(b"content-length", str(len(body)).encode())] if body else [])
            scope = {"type": "http", "method": method, "path": "/m/x", "raw_path": b"/m/x", "query_string": b"", "headers": headers, "client": ("127.0.0.1", 1), "http_version": "1.1"}  # fmt: skip
            await self.app(scope, receive, send)
            return status[0], b"".join(sent)

        async def run():
            found = [await one() for _ in range(count)]
            await self.app.engine.aclose(asyncio.get_running_loop())
            return found

        return asyncio.run(run())


class WsgiApp:
    def __init__(self, routes):
        self.app = strangle(wsgi_legacy, routes)

    def ask(self, count, method="GET", body=b""):
        found = []
        for _ in range(count):
            status = []
            environ = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": "/m/x", "RAW_URI": "/m/x", "QUERY_STRING": "", "HTTP_HOST": "h", "wsgi.url_scheme": "http", "REMOTE_ADDR": "127.0.0.1", "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)) if body else ""}  # fmt: skip
            answer = self.app(environ, lambda line, headers, s=status: s.append(int(line[:3])))
            content = b"".join(answer)
            getattr(answer, "close", lambda: None)()
            found.append((status[0], content))
        self.app.engine.close()
        return found


@pytest.fixture(params=[AsgiApp, WsgiApp], ids=["asgi", "wsgi"])
def driver(request):
    return request.param


@pytest.fixture
def two():
    echoes = [Echo(), Echo()]
    yield echoes
    for echo in echoes:
        echo.close()


def test_requests_go_to_all_endpoints(driver, two):
    app = driver([Route("/m/*", to=Upstream(urls=[e.address for e in two]))])
    assert {status for status, _ in app.ask(40)} == {200}
    assert all(e.requests >= 5 for e in two)
    assert sum(e.requests for e in two) == 40


@pytest.mark.parametrize(("method", "body"), [("GET", b""), ("POST", b"x" * 100), ("POST", b"x" * 100_000)])
def test_an_endpoint_that_is_down_is_not_noticed(driver, two, method, body):
    dead = f"http://127.0.0.1:{unused_port()}"
    app = driver([Route("/m/*", to=Upstream(urls=[dead, two[0].address]))])
    answers = app.ask(20, method, body)
    assert {status for status, _ in answers} == {200}
    assert two[0].requests == 20
    assert all(f'"length": {len(body)}'.encode() in text for _, text in answers)


def test_all_endpoints_down_is_a_502(driver):
    urls = [f"http://127.0.0.1:{unused_port()}", f"http://127.0.0.1:{unused_port()}"]
    [(status, text)] = driver([Route("/m/*", to=Upstream(urls=urls), fallback="off")]).ask(1)
    assert status == 502
    assert b"upstream-connect" in text


def test_each_endpoint_gets_its_own_host_and_base_path(driver, two):
    urls = [f"{two[0].address}/one", f"{two[1].address}/two"]
    app = driver([Route("/m/*", to=Upstream(urls=urls))])
    texts = [text.decode() for _, text in app.ask(30)]
    for echo, base in zip(two, ("one", "two"), strict=True):
        mine = [t for t in texts if f"GET /{base}/m/x HTTP/1.1" in t]
        assert mine
        assert all(f'["host", "127.0.0.1:{echo.port}"]' in t for t in mine)
