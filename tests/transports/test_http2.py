"""`http = "2"` against a real HTTP/2 server, in cleartext and over TLS, by both adapters."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import threading
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import pytest
import trustme
from tests.transports.clients import fetch, read_all, upstream
from tests.transports.h2_upstream import MIB, H2Upstream
from tests.transports.http2_clients import Http2Clients, OwnClient
from tests.transports.test_httpx import Answered, ask_asgi, ask_wsgi
from tests.transports.upstream import PATIENCE, ScriptedUpstream, close, forever, head, send, tell, until_gone

from strangle_mw.core.model import Endpoint, Tls, Upstream
from strangle_mw.errors import ForwardError
from strangle_mw.transports.httpx_async import AsyncHttpxPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.transports.upstream import Peer, Step

SOON = 0.05
Served = tuple[H2Upstream, Endpoint, Tls]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("h2")
    root = trustme.CA()
    root.cert_pem.write_to_path(str(path / "ca.pem"))
    issued = root.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(path / "cert.pem"))
    return path


@pytest.fixture(scope="module", params=["http", "https"])
def server(request: pytest.FixtureRequest, certificate: Path) -> Iterator[Served]:
    logging.getLogger("hypercorn.error").disabled = True  # it tells of the answers that are cut on purpose
    secure = request.param == "https"
    files = {"cert": certificate / "cert.pem", "key": certificate / "key.pem"} if secure else {}
    with H2Upstream(**files) as running:
        host = "localhost" if secure else "127.0.0.1"
        endpoint = Endpoint(request.param, host, running.port, b"leads.internal")
        yield running, endpoint, Tls(ca=str(certificate / "ca.pem")) if secure else Tls()


@pytest.fixture(params=["async", "sync"])
def made(request: pytest.FixtureRequest) -> Iterator[Http2Clients]:
    with Http2Clients(request.param) as clients:
        yield clients


@pytest.fixture
def served(server: Served, made: Http2Clients) -> tuple[H2Upstream, OwnClient]:
    running, endpoint, tls = server
    running.left.clear()
    running.arrived.clear()
    running.heads.clear()
    running.clients.clear()
    return running, made(endpoint, tls=tls)


def ask(client: OwnClient, *args: Any, **options: Any) -> dict[str, Any]:
    status, body = fetch(client, *args, **options)
    assert status == 200
    told: dict[str, Any] = json.loads(body)
    return told


def fails(client: OwnClient, *args: Any, **options: Any) -> ForwardError:
    with pytest.raises(ForwardError) as caught:
        fetch(client, *args, **options)
    assert client.pool.in_flight == 0
    return caught.value


def test_the_request_arrives_byte_for_byte_and_nothing_is_added(served: tuple[H2Upstream, OwnClient]) -> None:
    target = "/a%2Fb//c/../d%7e;x=[1]|?q=a+b&q=%zz&e"
    told = ask(served[1], target=target, fields=[("x-b", "1"), ("X-A", "2"), ("x-b", "3"), ("x-empty", "")])
    assert (told["version"], told["target"], told["method"]) == ("2", target, "GET")
    names = [n for n, _ in told["headers"]]
    assert names[-4:] == ["x-b", "x-a", "x-b", "x-empty"]
    assert set(names) <= {"host", ":authority", "x-a", "x-b", "x-empty"}
    assert [v for n, v in told["headers"] if n == "host"] == ["leads.internal"]


def test_a_connection_serves_one_request_after_another(served: tuple[H2Upstream, OwnClient]) -> None:
    server, client = served
    for _ in range(3):
        ask(client)
    assert (len(server.clients), client.pool.idle) == (1, 1)


def test_two_at_a_time_have_two_connections(served: tuple[H2Upstream, OwnClient]) -> None:
    server, client = served
    first, second = client.send(), client.send()
    read_all(first)
    read_all(second)
    first.close()
    second.close()
    assert (len(server.clients), client.pool.idle) == (2, 2)
    ask(client, fresh=True)
    assert len(server.clients) == 3


@pytest.mark.parametrize("chunked", [True, False])
def test_bodies_arrive_whole_both_ways(served: tuple[H2Upstream, OwnClient], chunked: bool) -> None:
    pieces = [b"u" * 65_536] * 16
    told = ask(served[1], pieces, method="POST", chunked=chunked)
    assert (told["length"], told["sha256"]) == (MIB, hashlib.sha256(b"u" * MIB).hexdigest())
    names = [n for n, _ in told["headers"]]
    assert "transfer-encoding" not in names
    assert names.count("content-length") == (0 if chunked else 1)
    assert fetch(served[1], target="/big") == (200, b"x" * MIB)


def test_a_body_in_bytes(served: tuple[H2Upstream, OwnClient]) -> None:
    assert ask(served[1], b"abc", method="PUT")["length"] == 3


def test_duplicates_in_the_answer_are_kept(served: tuple[H2Upstream, OwnClient]) -> None:
    answer = served[1].send(target="/cookies")
    kept = [h for h in answer.headers if h[0] in (b"set-cookie", b"x-empty")]
    assert kept == [(b"set-cookie", b"a=1"), (b"x-empty", b""), (b"set-cookie", b"b=2")]
    assert (read_all(answer), answer.complete, answer.reason) == (b"ok", True, b"")
    answer.close()
    assert "cookie" not in [n for n, _ in ask(served[1])["headers"]]


@pytest.mark.parametrize(("method", "target", "status"), [("HEAD", "/big", 200), ("GET", "/none", 204)])
def test_answers_without_a_body(
    served: tuple[H2Upstream, OwnClient], method: str, target: str, status: int
) -> None:
    answer = served[1].send(method=method, target=target)
    assert (answer.status, answer.complete, answer.read()) == (status, True, b"")
    answer.close()
    ask(served[1])
    assert len(served[0].clients) == 1


def test_trailers_are_dropped(served: tuple[H2Upstream, OwnClient]) -> None:
    answer = served[1].send(target="/trailers", fields=[("te", "trailers")])
    assert read_all(answer) == b"hello"
    assert b"x-sum" not in [n for n, _ in answer.headers]
    answer.close()


def h2_answer(end: str) -> Step:
    """Answer one request with three of nine bytes (or all of them: "whole"), and end that as told."""

    def step(peer: Peer) -> None:
        speaks = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        speaks.initiate_connection()
        stream = 0
        while not stream:
            peer.sock.sendall(speaks.data_to_send())
            peer.receive()
            asked = [e for e in speaks.receive_data(peer.rest) if isinstance(e, h2.events.RequestReceived)]
            peer.rest = b""
            stream = asked[0].stream_id if asked else 0
        speaks.send_headers(stream, [(":status", "200"), ("content-length", "9")])
        speaks.send_data(stream, b"abc" * (3 if end == "whole" else 1), end_stream=end in ("whole", "ended"))
        if end == "reset":
            speaks.reset_stream(stream)
        elif end == "goaway":
            speaks.close_connection()
        peer.sock.sendall(speaks.data_to_send())

    return step


@pytest.mark.parametrize("end", ["reset", "goaway", "closed"])
def test_a_cut_body_never_ends_cleanly(made: Http2Clients, end: str) -> None:
    with ScriptedUpstream([h2_answer(end)]) as server:
        client = made(server.endpoint)
        answer = client.send()
        for _ in range(2):
            with pytest.raises(ForwardError) as caught:
                read_all(answer)
            assert (caught.value.stage, caught.value.status) == ("body", 502)
        answer.close()
        assert (answer.complete, client.pool.idle) == (False, 0)


def test_a_body_that_ends_before_its_length_is_refused(made: Http2Clients) -> None:
    """h2 reads all that has come: the head of such an answer is never handed over."""
    with ScriptedUpstream([h2_answer("ended")]) as server:
        error = fails(made(server.endpoint))
        assert (error.stage, error.status, error.request_sent) == ("head", 502, True)


def test_an_idle_connection_that_ended_is_not_used(made: Http2Clients) -> None:
    ended = threading.Event()
    with ScriptedUpstream([h2_answer("whole"), close(), tell(ended)], [h2_answer("whole")]) as server:
        client = made(server.endpoint)
        assert fetch(client) == (200, b"abcabcabc")
        assert ended.wait(PATIENCE)
        assert fetch(client) == (200, b"abcabcabc")
        assert server.connections == 2


def test_an_idle_connection_grows_old(server: Served, made: Http2Clients) -> None:
    client = made(server[1], tls=server[2], keepalive=0.0)
    ports = [ask(client)["client"] for _ in range(2)]
    assert ports[0] != ports[1]
    assert client.pool.idle <= 1


def test_closing_the_pool_ends_what_goes_on(server: Served) -> None:
    async def run() -> ForwardError:
        pool = AsyncHttpxPool(server[1], upstream(http="2", tls=server[2]))
        head = b"GET /stall HTTP/1.1\r\nhost: h\r\n\r\n"
        server[0].arrived.clear()
        asked = pool.send(head, b"", method="GET", chunked=False, timeout=PATIENCE)
        asking = asyncio.get_running_loop().create_task(asked)
        while not server[0].arrived.is_set():  # noqa: ASYNC110 - a thread tells
            await asyncio.sleep(0)
        await pool.aclose()
        with pytest.raises(ForwardError) as caught:
            await asking
        await pool.aclose()
        assert (pool.in_flight, pool.gate.taken) == (0, 0)
        return caught.value

    error = asyncio.run(run())
    assert (error.status, error.request_sent) == (503, True)


@pytest.mark.parametrize("driver", [ask_asgi, ask_wsgi])
def test_both_drivers_speak_it(server: Served, driver: Callable[..., Answered]) -> None:
    endpoint = server[1]
    url = f"{endpoint.scheme}://{endpoint.host}:{endpoint.port}"
    given = Upstream(url=url, http="2", tls=server[2])
    told = json.loads(driver(given, "/m/a%2Fb?q=%zz", "POST", [("x-b", "1")], b"b" * MIB)[2])
    assert (told["version"], told["target"], told["length"]) == ("2", "/m/a%2Fb?q=%zz", MIB)
    assert ["x-b", "1"] in told["headers"]
    assert [v for n, v in told["headers"] if n == "host"] == [f"{endpoint.host}:{endpoint.port}"]
    status, headers, body = driver(given, "/m/cookies", "GET", [], b"")
    assert (status, body) == (200, b"ok")
    assert [v for n, v in headers if n == b"set-cookie"] == [b"a=1", b"b=2"]
    assert driver(given, "/m/big", "GET", [], b"")[2] == b"x" * MIB
    assert driver(given, "/m/trailers", "GET", [("te", "trailers")], b"")[2] == b"hello"


def test_an_answer_closed_early_ends_the_upstream(served: tuple[H2Upstream, OwnClient]) -> None:
    answer = served[1].send(target="/events")
    assert answer.read() == b"data: 1\n\n"
    answer.close()
    assert served[0].left.wait(PATIENCE)
    assert served[1].pool.idle == 0


def test_a_body_that_breaks_off_ends_the_upstream(served: tuple[H2Upstream, OwnClient]) -> None:
    cut = ForwardError("send", "cut", status=400)

    def broken() -> Iterator[bytes]:
        yield b"abc"
        assert served[0].arrived.wait(PATIENCE)
        raise cut

    assert fails(served[1], broken(), method="POST") is cut
    assert served[0].left.wait(PATIENCE)
    assert served[1].pool.idle == 0


def test_the_head_takes_too_long_and_others_go_on(served: tuple[H2Upstream, OwnClient]) -> None:
    server, client = served
    other = client.send(target="/big")
    error = fails_beside(client, target="/stall", timeout=SOON)
    assert (error.stage, error.status, error.request_sent) == ("head", 504, True)
    assert server.left.wait(PATIENCE)
    assert read_all(other) == b"x" * MIB
    other.close()


def test_an_idle_body_is_cut(server: Served, made: Http2Clients) -> None:
    client = made(server[1], tls=server[2], idle_timeout=SOON)
    answer = client.send(target="/events")
    with pytest.raises(ForwardError) as caught:
        read_all(answer)
    assert (caught.value.stage, caught.value.status) == ("body", 504)
    answer.close()


def test_the_bulkhead_is_full(server: Served, made: Http2Clients) -> None:
    client = made(server[1], tls=server[2], max_in_flight=1, pool_timeout=0)
    answer = client.send(target="/events")
    assert fails_beside(client).stage == "pool"
    answer.close()
    ask(client)


def fails_beside(client: OwnClient, **options: Any) -> ForwardError:
    with pytest.raises(ForwardError) as caught:
        client.send(**options)
    return caught.value


def test_an_unknown_authority_is_refused(server: Served, made: Http2Clients) -> None:
    if server[1].scheme == "https":
        error = fails(made(server[1]))
        assert (error.stage, error.status, error.request_sent) == ("connect", 502, False)
        assert "CERTIFICATE_VERIFY_FAILED" in error.reason
    else:
        error = fails(made(Endpoint("http", "127.0.0.1", 1, b"x")))
        assert (error.stage, error.status, error.request_sent) == ("connect", 502, False)


def test_the_proxies_of_the_environment_are_not_used(
    served: tuple[H2Upstream, OwnClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask(served[1])["version"] == "2"


def test_a_missing_file_is_a_failure_to_connect(made: Http2Clients) -> None:
    endpoint = Endpoint("https", "localhost", 1, b"localhost")
    error = fails(made(endpoint, tls=Tls(ca="/nonexistent/ca.pem")))
    assert (error.stage, error.status, error.request_sent) == ("connect", 502, False)


def test_a_server_that_speaks_http_1_without_tls_is_a_failure(made: Http2Clients) -> None:
    """h2 takes the first bytes for the length of a long frame, and waits for the rest."""
    with ScriptedUpstream([send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), until_gone()]) as server:
        error = fails(made(server.endpoint), timeout=SOON)
        assert (error.stage, error.status, error.request_sent) == ("head", 504, True)


def test_tls_may_choose_http_1_whose_connections_are_not_used_again(
    made: Http2Clients, tmp_path: Path
) -> None:
    """Bytes left over would be taken for the next answer (promise P7)."""
    from tests.transports.test_both_pools import OK, Authority

    authority = Authority(tmp_path)
    authority.server.set_alpn_protocols(["http/1.1"])
    with ScriptedUpstream([forever(head(), send(OK + OK))], context=authority.server) as server:
        client = made(server.endpoint, tls=Tls(ca=authority.file))
        assert [fetch(client), fetch(client)] == [(200, b"ok")] * 2
        assert server.connections == 2
        assert server.heads[0].startswith(b"GET / HTTP/1.1\r\nhost: scripted\r\n\r\n")


def test_a_closed_pool_takes_no_work(served: tuple[H2Upstream, OwnClient]) -> None:
    ask(served[1])
    served[1].close()
    assert served[1].pool.idle == 0
    assert fails_beside(served[1]).status == 503
