"""`HttpxUpstream` under both drivers, and what its transports do otherwise than the own clients."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

import httpx
import httpx2
import pytest
from tests.transports.clients import Clients, fetch, read_all
from tests.transports.test_both_pools import OK, START, facts, fails
from tests.transports.test_httpx_conformance import ADAPTERS
from tests.transports.upstream import (
    PATIENCE,
    ScriptedUpstream,
    body,
    close,
    forever,
    head,
    send,
    tell,
    until_gone,
    wait,
)

from strangle_mw import ConfigError, HttpxUpstream, Route, Tls, Upstream, strangle
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

TARGET = "/m/a%2Fb;x=[1]|?q=a+b&q=%zz&e"
MIB = 1024 * 1024
SOON = 0.05


@pytest.fixture(scope="module")
def echo() -> Iterator[Any]:
    upstream = import_module("echo").Echo()
    yield upstream
    upstream.close()


@pytest.fixture(params=ADAPTERS)
def clients(request: pytest.FixtureRequest) -> Iterator[Clients]:
    with Clients(request.param) as made:
        yield made


# --- the drivers

Answered = tuple[int, list[tuple[bytes, bytes]], bytes]


async def legacy_asgi(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("not for legacy")


def legacy_wsgi(environ: Any, start_response: Any) -> list[bytes]:
    raise AssertionError("not for legacy")


def ask_asgi(
    given: Upstream, target: str, method: str, headers: list[tuple[str, str]], body: bytes
) -> Answered:
    app: Any = strangle(legacy_asgi, [Route("/m/*", to=given, fallback="off")])
    path, _, query = target.partition("?")
    fields = [(b"host", b"h.example"), *((n.encode(), v.encode()) for n, v in headers)]
    if body:
        fields.append((b"content-length", b"%d" % len(body)))
    scope = {
        "type": "http",
        "method": method,
        "path": httpx2.URL(f"http://h{path}").path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": fields,
        "scheme": "http",
        "http_version": "1.1",
        "client": ("192.0.2.1", 1),
    }
    pieces = [body[i : i + 50_000] for i in range(0, len(body), 50_000)] or [b""]
    events = [
        {"type": "http.request", "body": p, "more_body": n < len(pieces)} for n, p in enumerate(pieces, 1)
    ]
    got: list[Any] = []

    async def receive() -> Any:
        if events:
            return events.pop(0)
        return await asyncio.Event().wait()

    async def told(message: Any) -> None:
        got.append(message)

    async def run() -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await app(scope, receive, told)
        finally:
            await app.engine.aclose(asyncio.get_running_loop())
            if isinstance(given, HttpxUpstream):
                await given.transport.aclose()
            await asyncio.sleep(0)
        assert not asyncio.all_tasks() - {asyncio.current_task()}, "a task was left behind"

    asyncio.run(run())
    return got[0]["status"], got[0]["headers"], b"".join(m["body"] for m in got[1:])


def ask_wsgi(
    given: Upstream, target: str, method: str, headers: list[tuple[str, str]], body: bytes
) -> Answered:
    app: Any = strangle(legacy_wsgi, [Route("/m/*", to=given, fallback="off")])
    path, _, query = target.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": httpx2.URL(f"http://h{path}").path,
        "RAW_URI": target,
        "QUERY_STRING": query,
        "HTTP_HOST": "h.example",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        **{f"HTTP_{n.upper().replace('-', '_')}": v for n, v in headers},
    }
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    got: list[Any] = []
    answer = app(environ, lambda status, fields: got.append((status, fields)))
    try:
        content = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
        app.engine.close()
        if isinstance(given, HttpxUpstream):
            given.transport.close()
    return int(got[0][0][:3]), [(n.encode(), v.encode()) for n, v in got[0][1]], content


DRIVERS: dict[str, tuple[Callable[..., Answered], Callable[..., Any]]] = {
    "asgi-httpx2": (ask_asgi, httpx2.AsyncHTTPTransport),
    "asgi-httpx": (ask_asgi, httpx.AsyncHTTPTransport),
    "wsgi-httpx2": (ask_wsgi, httpx2.HTTPTransport),
    "wsgi-httpx": (ask_wsgi, httpx.HTTPTransport),
}


class Driver:
    def __init__(self, name: str, address: str) -> None:
        self._ask, self._transport = DRIVERS[name]
        self._address = address

    def __call__(
        self, target: str, method: str = "GET", headers: Any = (), body: bytes = b"", **settings: Any
    ) -> Answered:
        given = HttpxUpstream(self._transport(verify=False), url=self._address, **settings)
        return self._ask(given, target, method, list(headers), body)


@pytest.fixture(params=DRIVERS)
def ask(request: pytest.FixtureRequest, echo: Any) -> Driver:
    return Driver(request.param, echo.address)


def test_the_request_arrives_byte_for_byte_and_nothing_is_added(ask: Driver, echo: Any) -> None:
    told = json.loads(ask(TARGET, headers=[("x-b", "1"), ("x-a", "2"), ("cookie", "a=1")])[2])
    assert told["line"] == f"GET {TARGET} HTTP/1.1"
    names = [n for n, _ in told["headers"]]
    assert names[:4] == ["host", "x-b", "x-a", "cookie"]
    ours = {
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "forwarded",
        "via",
        "x-request-id",
    }
    assert set(names[4:]) <= ours
    assert told["headers"][0] == ["host", echo.address.removeprefix("http://")]


@pytest.mark.parametrize("size", [1, 65_537, MIB])
def test_a_body_arrives_whole(ask: Driver, size: int) -> None:
    told = json.loads(ask("/m/up", "POST", body=b"b" * size)[2])
    assert told["length"] == size
    assert [v for n, v in told["headers"] if n == "content-length"] == [str(size)]
    assert "transfer-encoding" not in [n for n, _ in told["headers"]]


def test_a_big_answer_comes_whole(ask: Driver) -> None:
    status, _, content = ask("/m/big")
    assert (status, len(content)) == (200, 3_000_000)


def test_cookies_are_kept_apart_and_never_kept(ask: Driver) -> None:
    status, headers, content = ask("/m/cookies")
    assert (status, content) == (201, b"ok")
    assert [v for n, v in headers if n == b"set-cookie"][1] == b"b=2"
    assert len([v for n, v in headers if n == b"set-cookie"]) == 2
    assert {b"x-hop", b"keep-alive", b"connection"}.isdisjoint(n for n, _ in headers)


@pytest.mark.parametrize("package", [httpx2, httpx])
@pytest.mark.parametrize("driver", [ask_asgi, ask_wsgi])
def test_one_users_cookies_are_not_sent_for_the_next(package: Any, driver: Callable[..., Answered]) -> None:
    """GHSA-7vwr-g6pm-9hc8: a shared client has a cookie jar; what is asked here is its transport."""
    seen: list[Any] = []

    def handle(request: Any) -> Any:
        seen.append(request.headers.raw)
        return package.Response(200, headers=[("Set-Cookie", "session=first; Path=/")])

    given = HttpxUpstream(package.MockTransport(handle))
    for _ in range(2):
        assert driver(given, "/m/x", "GET", [], b"")[0] == 200
    assert len(seen) == 2
    assert "cookie" not in {n.lower().decode() for fields in seen for n, _ in fields}


def test_proxies_of_the_environment_are_not_asked(ask: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask("/m/x")[0] == 200


@pytest.mark.parametrize(
    ("target", "status", "content"),
    [
        ("none", 204, b""),
        ("unchanged", 304, b""),
        ("chunked", 200, b"hello world"),
        ("early", 200, b"ok"),
        ("trailers", 200, b"hello"),
        ("untilclose", 200, b"until the end"),
        ("noreason", 299, b""),
    ],
)
def test_kinds_of_answers(ask: Driver, target: str, status: int, content: bytes) -> None:
    found, headers, got = ask(f"/m/{target}")
    assert (found, got) == (status, content)
    assert b"x-sum" not in [n for n, _ in headers]


@pytest.mark.parametrize("target", ["x", "cookies", "none"])
def test_head_has_no_body(ask: Driver, target: str) -> None:
    assert ask(f"/m/{target}", "HEAD")[2] == b""


@pytest.mark.parametrize("target", ["cutlength", "cutchunks"])
def test_a_cut_answer_stays_cut(ask: Driver, target: str) -> None:
    with pytest.raises(ForwardError) as caught:
        ask(f"/m/{target}")
    assert (caught.value.stage, caught.value.status) == ("body", 502)


@pytest.mark.parametrize(
    ("target", "status", "reason"),
    [
        ("nothing", 502, "upstream-head"),
        ("cuthead", 502, "upstream-head"),
        ("garbage", 502, "upstream-head"),
        ("twolengths", 502, "upstream-head"),
        ("switch", 502, "upstream-head"),
        ("stall", 504, "upstream-head"),
    ],
)
def test_failures_are_told_as_problems(ask: Driver, target: str, status: int, reason: str) -> None:
    found, _, content = ask(f"/m/{target}", timeout=0.3)
    assert (found, json.loads(content)["type"]) == (status, f"urn:strangle-mw:{reason}")
    assert b"127.0.0.1" not in content


@pytest.mark.parametrize("name", DRIVERS)
def test_an_upstream_that_is_down(name: str) -> None:
    found, _, content = Driver(name, "http://127.0.0.1:1")("/m/x")
    assert (found, json.loads(content)["type"]) == (502, "urn:strangle-mw:upstream-connect")


# --- transports of other kinds


@pytest.mark.parametrize("package", [httpx2, httpx])
@pytest.mark.parametrize("driver", [ask_asgi, ask_wsgi])
def test_a_mock_transport_sees_the_request(package: Any, driver: Callable[..., Answered]) -> None:
    seen: list[Any] = []

    def handle(request: Any) -> Any:
        seen.append((str(request.url), request.headers.raw, request.content, request.extensions["target"]))
        return package.Response(201, headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")], text="made")

    given = HttpxUpstream(package.MockTransport(handle), url="http://leads.internal:8080/base")
    status, headers, content = driver(given, "/m/a?b=c", "POST", [], b"abc")
    assert (status, content) == (201, b"made")
    assert [v for n, v in headers if n == b"set-cookie"] == [b"a=1", b"b=2"]
    url, fields, got, target = seen[0]
    assert (url, got, target) == ("http://leads.internal:8080/base/m/a?b=c", b"abc", b"/base/m/a?b=c")
    assert (fields[0][0], fields[0][1]) == (b"host", b"leads.internal:8080")


def test_a_method_keeps_its_case() -> None:
    seen: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.method)
        return httpx2.Response(200)

    ask_wsgi(HttpxUpstream(httpx2.MockTransport(handle)), "/m/a", "purge", [], b"")
    assert seen == ["purge"]


class Raising(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """A transport of a user's own, whose failures are its own."""

    def __init__(self, problem: Exception) -> None:
        self._problem = problem

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        raise self._problem

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        raise self._problem


@pytest.mark.parametrize("driver", [ask_asgi, ask_wsgi])
@pytest.mark.parametrize(
    ("problem", "status", "told"),
    [
        (KeyError("secret at 10.0.0.1"), 502, "head: KeyError"),
        (httpx2.PoolTimeout("secret"), 503, "pool: the transport has no free connection"),
        (httpx2.ConnectTimeout("secret"), 504, "connect: timed out"),
        (httpx2.ProxyError("secret"), 502, "connect: ProxyError"),
        (httpx2.ReadTimeout("secret"), 504, "head: timed out"),
        (TimeoutError("secret"), 504, "head: timed out"),
        (httpx2.WriteTimeout("secret"), 504, "send: timed out"),
        (httpx2.WriteError("secret"), 502, "send: WriteError"),
        (httpx2.RemoteProtocolError("bad\r\nline: secret"), 502, "head: RemoteProtocolError: bad bytes"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_a_transport_raises(
    driver: Callable[..., Answered],
    problem: Exception,
    status: int,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "strangle_mw"):
        found = driver(HttpxUpstream(Raising(problem)), "/m/x", "GET", [], b"")
    assert found[0] == status
    assert b"secret" not in found[2]
    logged = caplog.text
    assert told in logged
    assert "secret" not in logged


ANSWERS = {
    "status": lambda p: p.Response(101),
    "two lengths": lambda p: p.Response(
        200, headers=[("Content-Length", "2"), ("Content-Length", "2")], stream=p.ByteStream(b"ok")
    ),
    "both framings": lambda p: p.Response(
        200, headers=[("Content-Length", "2"), ("Transfer-Encoding", "chunked")], stream=p.ByteStream(b"ok")
    ),
    "coding": lambda p: p.Response(200, headers=[("Transfer-Encoding", "gzip")], stream=p.ByteStream(b"ok")),
    "length": lambda p: p.Response(200, headers=[("Content-Length", "+2")], stream=p.ByteStream(b"ok")),
    "long length": lambda p: p.Response(
        200, headers=[("Content-Length", "1" * 5000)], stream=p.ByteStream(b"ok")
    ),
    "fields": lambda p: p.Response(200, headers=[("A", "b")] * 257, stream=p.ByteStream(b"ok")),
    "control bytes": lambda p: p.Response(200, headers=[(b"A", b"b\r\nc: d")], stream=p.ByteStream(b"ok")),
    "name": lambda p: p.Response(200, headers=[(b"A b", b"c")], stream=p.ByteStream(b"ok")),
}


@pytest.mark.parametrize("package", [httpx2, httpx])
@pytest.mark.parametrize("driver", [ask_asgi, ask_wsgi])
@pytest.mark.parametrize("make", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_the_own_clients_would_refuse(
    package: Any, driver: Callable[..., Answered], make: Callable[[Any], Any]
) -> None:
    given = HttpxUpstream(package.MockTransport(lambda _: make(package)))
    assert driver(given, "/m/x", "GET", [], b"")[0] == 502


@pytest.mark.parametrize("driver", [ask_asgi, ask_wsgi])
@pytest.mark.parametrize("length", [1, 3])
def test_a_body_that_is_not_as_long_as_told_is_cut(driver: Callable[..., Answered], length: int) -> None:
    def handle(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(
            200, headers=[("Content-Length", str(length))], stream=httpx2.ByteStream(b"ok")
        )

    given = HttpxUpstream(httpx2.MockTransport(handle))
    if driver is ask_wsgi and length == 1:  # under WSGI what comes before the first bytes is still told
        assert driver(given, "/m/x", "GET", [], b"")[0] == 502
        return
    with pytest.raises(ForwardError, match="bytes than told"):
        driver(given, "/m/x", "GET", [], b"")


def test_a_streamed_body_is_never_sent_twice() -> None:
    class Twice(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            assert isinstance(request.stream, httpx2.SyncByteStream)
            return httpx2.Response(200, text=str(len(b"".join([*request.stream, *request.stream]))))

    found = ask_wsgi(HttpxUpstream(Twice()), "/m/x", "POST", [], b"b" * 70_000)
    assert found[0] == 502


class AsyncSigner(httpx2.AsyncBaseTransport):
    """Reads the body before it connects, as a transport that signs requests does."""

    def __init__(self) -> None:
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        request.stream = httpx2.ByteStream(b"".join([part async for part in request.stream]))
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


class BlockingSigner(httpx2.BaseTransport):
    def __init__(self) -> None:
        self._inner = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, httpx2.SyncByteStream)
        request.stream = httpx2.ByteStream(b"".join(request.stream))
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


@pytest.mark.parametrize(("driver", "signer"), [(ask_asgi, AsyncSigner), (ask_wsgi, BlockingSigner)])
def test_a_body_that_was_read_goes_to_no_other_endpoint(
    driver: Callable[..., Answered], signer: Callable[[], Any], echo: Any
) -> None:
    seen = set()
    for _ in range(12):
        given = HttpxUpstream(signer(), urls=["http://127.0.0.1:1", echo.address])
        status, _, content = driver(given, "/m/up", "POST", [], b"b" * 70_000)
        seen.add((status, json.loads(content).get("length")))
    assert (200, 70_000) in seen
    assert seen <= {(200, 70_000), (502, None)}


def test_a_body_that_was_read_goes_to_no_other_endpoint_after_a_timeout_either() -> None:
    class Slow(httpx2.AsyncBaseTransport):
        """Reads the body, says that it connects, and never does."""

        asked = 0

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            assert isinstance(request.stream, httpx2.AsyncByteStream)
            self.asked += len(b"".join([part async for part in request.stream]))
            await request.extensions["trace"]("connection.connect_tcp.started", {})
            await asyncio.Event().wait()
            raise AssertionError

    slow = Slow()
    given = HttpxUpstream(slow, urls=["http://a", "http://b"], connect_timeout=SOON, timeout=SOON)
    status, _, content = ask_asgi(given, "/m/up", "POST", [], b"b" * 70_000)
    assert (status, json.loads(content)["type"]) == (504, "urn:strangle-mw:upstream-send")
    assert slow.asked == 70_000


def test_a_client_that_leaves_ends_the_exchange() -> None:
    """`on_slow` hands out, at once, what ends the waiting for the upstream."""
    ended = threading.Event()
    gone = ForwardError("send", "the client left", status=499)

    class Waiting(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

    async def run() -> None:
        from strangle_mw.core.model import Endpoint
        from strangle_mw.transports.httpx_async import AsyncHttpxPool

        pool = AsyncHttpxPool(Endpoint("http", "h", 80, b"h"), HttpxUpstream(Waiting()))

        def leave(fail: Callable[[ForwardError], None]) -> None:
            asyncio.get_running_loop().call_soon(fail, gone)

        with pytest.raises(ForwardError) as caught:
            await pool.send(
                b"GET / HTTP/1.1\r\nhost: h\r\n\r\n",
                b"",
                method="GET",
                chunked=False,
                timeout=PATIENCE,
                on_slow=leave,
            )
        assert caught.value is gone
        assert pool.in_flight == 0
        await pool.aclose()

    asyncio.run(run())
    assert ended.is_set()


def test_a_body_that_stalls_is_the_clients_fault() -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield b"abc"
        await asyncio.Event().wait()

    async def run() -> ForwardError:
        from strangle_mw.transports.httpx_async import AsyncHttpxPool

        with ScriptedUpstream([head(), until_gone()]) as server:
            transport = httpx2.AsyncHTTPTransport()
            pool = AsyncHttpxPool(server.endpoint, HttpxUpstream(transport, idle_timeout=SOON))
            start = b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
            with pytest.raises(ForwardError) as caught:
                await pool.send(start, stalled(), method="POST", chunked=True, timeout=PATIENCE)
            await pool.aclose()
            await transport.aclose()
            return caught.value

    error = asyncio.run(run())
    assert (error.stage, error.status) == ("send", 408)


# --- what differs (docs/httpx.md)


def test_an_answer_is_complete_after_its_last_read(clients: Clients) -> None:
    with ScriptedUpstream([head(), send(OK), *[forever(head(), send(OK))]]) as server:
        client = clients(server.endpoint)
        answer = client.send()
        assert (answer.complete, answer.take(), answer.complete) == (False, b"ok", False)
        assert (answer.read(), answer.complete) == (b"", True)
        answer.close()
        assert fetch(client) == (200, b"ok")
        assert server.connections == 1


def test_a_connection_that_died_is_502_and_not_replaced(clients: Clients) -> None:
    with ScriptedUpstream([head(), send(OK), head()], [forever(head(), send(OK))]) as server:
        client = clients(server.endpoint)
        fetch(client)
        assert facts(fails(client)) == ("head", 502, True, False)


def test_an_early_answer_comes_when_the_body_is_sent(clients: Clients) -> None:
    early = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"
    answered = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b"x"
        assert answered.wait(PATIENCE)
        for _ in range(5):
            yield b"x" * 1000

    with ScriptedUpstream([head(), send(early), tell(answered), body(5000), until_gone()]) as server:
        assert fetch(clients(server.endpoint), pieces(), method="POST") == (413, b"big")


def test_an_end_without_a_closure_alert_is_taken_for_a_clean_one(clients: Clients, tmp_path: Any) -> None:
    from tests.transports.test_both_pools import Authority

    authority = Authority(tmp_path)
    with ScriptedUpstream([head(), send(START + b"\r\nabc"), close()], context=authority.server) as server:
        answer = clients(server.endpoint, tls=Tls(ca=authority.file)).send()
        assert read_all(answer) == b"abc"
        answer.close()


def test_a_body_of_told_length_is_cut_without_a_closure_alert(clients: Clients, tmp_path: Any) -> None:
    from tests.transports.test_both_pools import Authority

    authority = Authority(tmp_path)
    script = [head(), send(START + b"Content-Length: 9\r\n\r\nabc"), close()]
    with ScriptedUpstream(script, context=authority.server) as server:
        answer = clients(server.endpoint, tls=Tls(ca=authority.file)).send()
        with pytest.raises(ForwardError, match="body"):
            read_all(answer)
        answer.close()


def test_interim_answers_are_limited_by_time_alone(clients: Clients) -> None:
    stop = threading.Event()
    with ScriptedUpstream([head(), send(b"HTTP/1.1 100 Continue\r\n\r\n" * 17), wait(stop)]) as server:
        error = fails(clients(server.endpoint), timeout=SOON)
        stop.set()
        assert facts(error) == ("head", 504, True, False)


def test_a_head_of_100_kib_is_refused(clients: Clients) -> None:
    with ScriptedUpstream([head(), send(START), forever(send(b"A: b\r\n" * 1000))]) as server:
        assert fails(clients(server.endpoint)).status == 502


def test_a_target_beyond_ascii_is_refused(echo: Any) -> None:
    """h11 writes nothing but ASCII; the own clients send these bytes as they came."""
    given = HttpxUpstream(httpx2.HTTPTransport(), url=echo.address)
    assert ask_wsgi(given, "/m/\xe9", "GET", [], b"")[0] == 502


# --- the table

TO = "routes[0].to"


def refused(make: Callable[[], object]) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        make()
    return [(p.where, p.id) for p in caught.value.problems]


@pytest.mark.parametrize(
    ("app", "transport", "remedy"),
    [
        (legacy_asgi, httpx2.HTTPTransport(), "httpx2.AsyncHTTPTransport()"),
        (legacy_wsgi, httpx.AsyncHTTPTransport(), "httpx.HTTPTransport()"),
    ],
)
def test_a_transport_of_the_wrong_kind_is_told_at_start(app: Any, transport: Any, remedy: str) -> None:
    route = Route("/m/*", to=HttpxUpstream(transport))
    with pytest.raises(ConfigError) as caught:
        strangle(app, [route])
    problem = caught.value.problems[0]
    assert (problem.where, problem.id) == ("upstreams.http://localhost.transport", "transport-interface")
    assert remedy in problem.what


@pytest.mark.parametrize("what", [None, 5, "x", httpx2.HTTPTransport, httpx2.Client(), httpx.AsyncClient()])
def test_what_is_no_transport_is_told_at_start(what: Any) -> None:
    found = refused(lambda: strangle(legacy_wsgi, [Route("/m/*", to=HttpxUpstream(what))]))
    assert found == [(f"{TO}.transport", "transport-type")]


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"verify": False}, "verify"),
        ({"http": "2"}, "http"),
        ({"keepalive": 9.0}, "keepalive"),
        ({"url": "https://h", "tls": Tls(cert=__file__)}, "tls"),
        ({"url": "unix:/s"}, "url"),
    ],
)
def test_what_is_the_transports_business(settings: dict[str, Any], where: str) -> None:
    given = HttpxUpstream(httpx2.HTTPTransport(), **settings)
    assert refused(lambda: strangle(legacy_wsgi, [Route("/m/*", to=given)])) == [
        (f"{TO}.{where}", "transport-setting")
    ]


def test_settings_and_names_hold_as_for_other_upstreams() -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, text="named"))
    table: Any = {
        "upstreams": {"leads": HttpxUpstream(transport, timeout=3)},
        "routes": [{"path": "/m/*", "to": "leads"}],
    }
    app: Any = strangle(legacy_wsgi, table)
    declared = app.engine.snapshot.upstreams["leads"].declared
    assert (declared.transport, declared.timeout, declared.url) == (transport, 3, "http://localhost")
    other = HttpxUpstream(httpx2.MockTransport(lambda _: httpx2.Response(200)))
    routes = [Route("/m/a", to=HttpxUpstream(transport)), Route("/m/b", to=other)]
    two: Any = strangle(legacy_wsgi, routes)
    assert list(two.engine.snapshot.upstreams) == ["http://localhost", "http://localhost (2)"]
    wrong = Route("/m/*", to=HttpxUpstream(transport, timeout=0))
    assert refused(lambda: strangle(legacy_wsgi, [wrong])) == [(f"{TO}.timeout", "upstream-range")]


@pytest.mark.parametrize("fallback", ["off", "connect"])
def test_no_websocket_crosses(fallback: Any) -> None:
    async def legacy(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.close", "code": 4000, "reason": scope["strangle.fallback"]})

    transport = httpx2.MockTransport(lambda _: httpx2.Response(200))
    app: Any = strangle(legacy, [Route("/m/*", to=HttpxUpstream(transport), fallback=fallback)])
    got: list[Any] = []

    async def run() -> None:
        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def told(message: Any) -> None:
            got.append(message)

        scope = {
            "type": "websocket",
            "path": "/m/ws",
            "raw_path": b"/m/ws",
            "query_string": b"",
            "headers": [(b"host", b"h")],
            "scheme": "ws",
            "http_version": "1.1",
            "client": ("192.0.2.1", 1),
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
        }
        await app(scope, receive, told)

    asyncio.run(run())
    if fallback == "connect":
        assert got == [{"type": "websocket.close", "code": 4000, "reason": "unsupported"}]
    else:
        assert got[0]["type"] == "websocket.http.response.start"
        assert got[0]["status"] == 502
