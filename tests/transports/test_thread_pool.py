"""What only the blocking pool has: threads, gevent, and that asyncio stays out."""

from __future__ import annotations

import select
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import trustme
from tests.transports.clients import BlockingClient, fetch, upstream
from tests.transports.upstream import (
    PATIENCE,
    Peer,
    ScriptedUpstream,
    body,
    close,
    forever,
    head,
    reset,
    send,
    tell,
    until_gone,
)

from strangle_mw.core.model import Tls
from strangle_mw.errors import ForwardError
from strangle_mw.transports.h1 import serialize_head
from strangle_mw.transports.thread_connection import Connection
from strangle_mw.transports.thread_pool import BlockingPool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SERVE = [forever(head(), send(OK))]


def echo(peer: Peer) -> None:
    """Answer with the target of the request."""
    target = peer.heads[-1].split(b" ")[1]
    send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))(peer)


def ask(pool: BlockingPool, target: bytes) -> bytes:
    head = serialize_head(b"GET", b"", target, b"h", b"\r\n")
    answer = pool.send(head, b"", method="GET", chunked=False, timeout=PATIENCE)
    try:
        data = answer.take()
        while more := answer.read():
            data += more
        return data
    finally:
        answer.close()


def test_many_threads_share_a_pool() -> None:
    with ScriptedUpstream([forever(head(), echo)]) as server:
        pool = BlockingPool(server.endpoint, upstream())
        together = threading.Barrier(32)

        def work(thread: int) -> bool:
            together.wait(PATIENCE)
            targets = [b"/%d/%d" % (thread, i) for i in range(25)]
            return [ask(pool, target) for target in targets] == targets

        with ThreadPoolExecutor(32) as threads:
            assert all(threads.map(work, range(32)))
        assert pool.in_flight == 0
        assert 1 <= pool.idle == server.connections <= 32
        pool.close()


def test_the_bulkhead_holds_under_threads() -> None:
    with ScriptedUpstream([forever(head(), echo)]) as server:
        pool = BlockingPool(server.endpoint, upstream(max_in_flight=3))
        together = threading.Barrier(16)

        seen: set[bytes] = set()

        def work(thread: int) -> None:
            together.wait(PATIENCE)
            for i in range(25):
                target = b"/%d/%d" % (thread, i)
                try:
                    got = ask(pool, target)
                except ForwardError as exc:
                    got = exc.stage.encode()
                seen.add(b"echo" if got == target else got)

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(work, range(16)))
        assert b"echo" in seen
        assert seen <= {b"echo", b"pool"}
        assert (pool.in_flight, server.connections <= 3) == (0, True)
        pool.close()


def test_old_connections_leave_when_a_younger_one_comes_back() -> None:
    with ScriptedUpstream(SERVE) as server:
        client = BlockingClient(server.endpoint, upstream())
        answers = [client.send() for _ in range(3)]
        answers[0].close()
        answers[1].close()
        for connection in client.pool._idle:
            connection.rested -= PATIENCE * 2
        answers[2].close()
        assert client.pool.idle == 1
        client.close()


def test_close_while_an_exchange_goes_on() -> None:
    with ScriptedUpstream(SERVE) as server:
        client = BlockingClient(server.endpoint, upstream())
        answer = client.send()
        client.close()
        assert answer.take() == b"ok"
        answer.close()
        assert (client.pool.idle, client.pool.in_flight) == (0, 0)


def test_the_body_is_read_no_further_than_the_answer() -> None:
    answered = threading.Event()
    produced = []

    def pieces() -> Iterator[bytes]:
        for i in range(100):
            produced.append(i)
            yield b"x"
            assert answered.wait(PATIENCE)

    script = [head(), body(1), send(OK), tell(answered), until_gone()]
    with ScriptedUpstream(script) as server:
        client = BlockingClient(server.endpoint, upstream())
        assert fetch(client, pieces(), method="POST", chunked=False) == (200, b"ok")
        assert len(produced) == 2
        assert client.pool.idle == 0


def test_without_poll_select_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "poll")
    ended = threading.Event()
    first = [head(), body(6), send(OK), head(), send(OK), close(), tell(ended)]
    with ScriptedUpstream(first, SERVE) as server:
        client = BlockingClient(server.endpoint, upstream())
        assert fetch(client, [b"abc", b"def"], method="POST", chunked=False) == (200, b"ok")
        assert fetch(client) == (200, b"ok")
        assert server.connections == 1
        assert ended.wait(PATIENCE)
        assert fetch(client) == (200, b"ok")
        assert server.connections == 2
        client.close()


@pytest.mark.parametrize("content", [b"abc", [b"abc"]])
def test_a_connection_that_breaks_at_the_write_is_stale(
    monkeypatch: pytest.MonkeyPatch, content: bytes | list[bytes]
) -> None:
    """The end comes after every look at the socket, and before the write."""
    ended = threading.Event()
    with ScriptedUpstream([head(), send(OK), reset(), tell(ended)]) as server:
        client = BlockingClient(server.endpoint, upstream())
        fetch(client)
        assert ended.wait(PATIENCE)
        monkeypatch.setattr(Connection, "alive", lambda _self: True)
        monkeypatch.setattr(Connection, "_ready", lambda _self, _seconds, *, write: (False, write))
        with pytest.raises(ForwardError) as caught:
            client.send(content, method="POST", chunked=False)
        assert (caught.value.stage, caught.value.request_sent, caught.value.stale) == ("send", True, True)


def test_tls_tickets_are_not_unexpected_bytes(tmp_path: Path) -> None:
    root = trustme.CA()
    root.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    root.issue_cert("localhost").configure_cert(context)
    with ScriptedUpstream(SERVE, context=context) as server:
        pool = BlockingPool(server.endpoint, upstream(tls=Tls(ca=str(tmp_path / "ca.pem"))))
        connection = pool._connect()
        assert select.select([connection._sock], [], [], PATIENCE)[0], "no ticket came"
        assert connection.alive()
        connection.close()


def test_asyncio_and_ssl_stay_out() -> None:
    code = "import sys, strangle_mw.transports.thread_pool; print({'asyncio', 'ssl'} & set(sys.modules))"
    assert python(code) == "set()"


def test_gevent() -> None:
    code = """
import gevent.monkey; gevent.monkey.patch_all()
import gevent, threading
from strangle_mw.transports.thread_pool import BlockingPool
from tests.transports.clients import BlockingClient, fetch, upstream
from tests.transports.upstream import *
OK = b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok"
answered = threading.Event()
def endless():
    yield b"x"
    assert answered.wait(20)
    while True:
        yield b"x" * 10_000
early = [head(), send(OK.replace(b"200", b"413")), tell(answered), until_gone()]
ended = threading.Event()
with ScriptedUpstream(early, [head(), body(6), send(OK), close(), tell(ended)], [forever(head(), send(OK))]) as server:
    client = BlockingClient(server.endpoint, upstream())
    print(fetch(client, endless(), method="POST"))
    print(fetch(client, [b"abc", b"def"], method="POST", chunked=False))
    assert ended.wait(20)
    jobs = [gevent.spawn(fetch, client) for _ in range(20)]
    print({job.get(timeout=20) for job in jobs}, client.pool.in_flight)
    client.close()
"""
    assert python(code).splitlines() == ["(413, b'ok')", "(200, b'ok')", "{(200, b'ok')} 0"]


def python(code: str) -> str:
    """Run code in a fresh interpreter, warnings being errors, and return what it prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 2, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
