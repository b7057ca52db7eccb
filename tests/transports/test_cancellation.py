"""A forwarded request is cancelled at every point where it waits, for k = 1, 2, 3 and so on.

Servers cancel a request when its client leaves or their own time is up. After each run no task, descriptor
or place in the bulkhead is lost, the upstream was asked at most once, no cut message looks complete (P6), no
connection in an undefined state is used again (P7: the next requests get what is theirs).

Each wait is cut in two ways: before what is waited for has happened, and in the very moment that it has, when
a result is there already that nobody will take.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from tests.transports.clients import request_head, upstream
from tests.transports.upstream import (
    PATIENCE,
    Peer,
    ScriptedUpstream,
    chunked_body,
    forever,
    head,
    send,
    wait,
)

from strangle_mw import Route, Tls, Upstream, strangle
from strangle_mw.errors import ForwardError
from strangle_mw.transports import asyncio_connection
from strangle_mw.transports.asyncio_pool import AsyncPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence

    from tests.transports.upstream import Step

    Message = dict[str, Any]

TOO_MANY = 200
BODY = b"x" * 1000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BIG = 80_000
"""More than is read before sending: a body of this length is streamed."""


def answer_of(target: bytes) -> bytes:
    """Say what was asked for, so that a mixed-up answer shows."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target)


# --- cancelling at the k-th wait


@dataclass
class Cut:
    """Cancels the task that runs `through` at its k-th wait: at once, or when the wait is over."""

    at: int
    when_done: bool
    waits: int = 0
    made: bool = False

    @types.coroutine
    def through(self, inner: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        """Run a coroutine; what it yields is what it waits for."""
        task = asyncio.current_task()
        assert task is not None
        error: BaseException | None = None
        while True:
            try:
                future = inner.send(None) if error is None else inner.throw(error)
            except StopIteration:
                return
            error = None
            self.waits += 1
            if self.waits == self.at:
                self._cancel(task, future)
            try:
                yield future
            except BaseException as exc:  # is handed on
                error = exc

    def _cancel(self, task: asyncio.Task[Any], future: asyncio.Future[Any] | None) -> None:
        self.made = True
        if future is None or not self.when_done:
            task.cancel()
        else:
            # Registered before the task's own callback: the result is there, and so is the cancellation.
            future.add_done_callback(lambda _: task.cancel())


# --- the client of one request


@dataclass
class Client:
    """An ASGI server's side of one request; `events` are set when something happens to it."""

    pieces: list[bytes] = field(default_factory=list)
    status: int = 0
    body: bytes = b""
    ended: bool = False
    started: threading.Event = field(default_factory=threading.Event)
    watched: threading.Event = field(default_factory=threading.Event)

    async def receive(self) -> Message:
        await asyncio.sleep(0)
        if self.pieces:
            piece = self.pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}
        self.watched.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0)
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")
            self.ended = not message.get("more_body", False)
        self.started.set()


@dataclass(frozen=True)
class Scenario:
    """One kind of request, and how the upstream answers it; `least` is how often it waits at the least."""

    least: int
    answer: Callable[[Client], Sequence[Step]] = lambda _: [send(OK)]
    pieces: Sequence[bytes] = ()
    chunked: bool = False
    body: bytes = b"ok"
    warm: bool = False
    full: bool = False
    tls: bool = False


def slowly(client: Client) -> list[Step]:
    return [wait(client.watched), send(OK)]


def in_parts(client: Client) -> list[Step]:
    start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
    return [send(start), wait(client.started), send(b"4\r\nlast\r\n0\r\n\r\n")]


def in_parts_by_length(client: Client) -> list[Step]:
    return [send(OK[:-2]), wait(client.started), send(b"ok")]


def after_interim(client: Client) -> list[Step]:
    return [send(b"HTTP/1.1 103 Early Hints\r\n\r\n"), wait(client.watched), send(OK)]


PIECES = [BODY[:400], b"", BODY[400:]]
SCENARIOS = {
    "get": Scenario(3),
    "get, connection used before": Scenario(3, warm=True),
    "post with length": Scenario(5, pieces=PIECES),
    "post with length, connection used before": Scenario(5, pieces=PIECES, warm=True),
    "streamed chunks": Scenario(4, pieces=PIECES, chunked=True),
    "streamed chunks, connection used before": Scenario(4, pieces=PIECES, chunked=True, warm=True),
    "streamed length": Scenario(4, pieces=[b"x" * (BIG // 2)] * 2),
    "slow answer": Scenario(4, slowly),
    "slow answer to streamed chunks": Scenario(4, slowly, PIECES, chunked=True),
    "answer in parts": Scenario(5, in_parts, body=b"firstlast"),
    "answer in parts by length": Scenario(5, in_parts_by_length),
    "answer in parts to streamed chunks": Scenario(5, in_parts, PIECES, chunked=True, body=b"firstlast"),
    "after an interim answer": Scenario(4, after_interim),
    "bulkhead full": Scenario(4, full=True),
    "bulkhead full, post": Scenario(6, pieces=PIECES, full=True),
    "tls": Scenario(3, tls=True),
    "tls, answer in parts": Scenario(5, in_parts, body=b"firstlast", tls=True),
    "tls, streamed chunks": Scenario(4, pieces=PIECES, chunked=True, tls=True),
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    root = trustme.CA()
    root.cert_pem.write_to_path(str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    root.issue_cert("localhost").configure_cert(context)
    return context, str(file)


class Run:
    """One request that is cut, with all that is looked at afterwards."""

    def __init__(self, scenario: Scenario, cut: Cut, tls: tuple[ssl.SSLContext, str]) -> None:
        self.scenario = scenario
        self.cut = cut
        self.client = Client([*scenario.pieces])
        context, self.ca = tls
        self.server = ScriptedUpstream(
            [forever(head(), self.serve)], context=context if scenario.tls else None
        )

    def serve(self, peer: Peer) -> None:
        wire = peer.heads[-1]
        if b"transfer-encoding" in wire:
            chunked_body()(peer)
        elif b"content-length" in wire:
            peer.bodies.append(peer.read(sum(map(len, self.scenario.pieces))))
        target = wire.split(b" ")[1]
        steps = self.scenario.answer(self.client) if target == b"/m/cut" else [send(answer_of(target))]
        for step in steps:
            step(peer)

    async def main(self) -> None:
        declared = Upstream(
            url=self.url(),
            timeout=PATIENCE,
            connect_timeout=PATIENCE,
            idle_timeout=PATIENCE,
            keepalive=PATIENCE,
            max_in_flight=1 if self.scenario.full else 8,
            pool_timeout=PATIENCE,
            tls=Tls(ca=self.ca if self.scenario.tls else ""),
        )
        self.app: Any = strangle(legacy, [Route("/m/*", to=declared, fallback="off")])
        (compiled,) = self.app.engine.snapshot.upstreams.values()
        self.pool: Any = self.app.engine.async_pools(compiled, asyncio.get_running_loop())[0]
        async with asyncio.timeout(PATIENCE):
            if self.scenario.warm:
                await self.ask("/m/warm")
            await self.run()
            assert self.pool.in_flight == 0
            assert self.pool.gate.taken == 0
            for path in ("/m/next", "/m/last"):
                await self.ask(path)
            await self.app.engine.aclose(asyncio.get_running_loop())
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"

    def url(self) -> str:
        endpoint = self.server.endpoint
        return f"{endpoint.scheme}://{endpoint.host}:{endpoint.port}"

    async def run(self) -> None:
        occupant = await self.occupy() if self.scenario.full else None
        call = self.app(self.scope("/m/cut"), self.client.receive, self.client.send)
        task = asyncio.create_task(as_coroutine(self.cut.through(call)))
        if occupant is not None:
            await asyncio.sleep(0)
            occupant.close()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self.client.started.set()
        self.client.watched.set()
        assert task.cancelled() == self.cut.made, "the cancellation was swallowed"
        if not self.cut.made:
            assert (self.client.status, self.client.body, self.client.ended) == (
                200,
                self.scenario.body,
                True,
            )
        elif self.client.ended:
            assert self.client.body == self.scenario.body, "a cut answer looked complete (P6)"

    async def occupy(self) -> Any:
        """Take the only place."""
        wire = b"GET /m/first HTTP/1.1\r\nhost: h\r\n\r\n"
        return await self.pool.send(wire, b"", method="GET", chunked=False, timeout=PATIENCE)

    async def ask(self, path: str) -> None:
        client = Client()
        await self.app(self.scope(path, plain=True), client.receive, client.send)
        assert (client.status, client.body, client.ended) == (200, path.encode(), True), "not its answer (P7)"

    def scope(self, path: str, *, plain: bool = False) -> Message:
        headers = [(b"host", b"h")]
        if self.scenario.pieces and not plain:
            length = sum(map(len, self.scenario.pieces))
            framing = (b"transfer-encoding", b"chunked"), (b"content-length", b"%d" % length)
            headers.append(framing[0 if self.scenario.chunked else 1])
        return {
            "type": "http",
            "http_version": "1.1",
            "method": "POST" if len(headers) > 1 else "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "scheme": "http",
            "client": ("192.0.2.1", 5),
        }

    def judge(self) -> None:
        """Look at what the upstream received."""
        sent = b"".join(self.scenario.pieces)
        targets = [wire.split(b" ")[1] for wire in self.server.heads]
        assert targets.count(b"/m/cut") <= 1, "sent more than once (P14)"
        for content in self.server.bodies:
            plain = content
            if self.scenario.chunked:
                plain = b"".join(content.split(b"\r\n")[1:-3:2])
            assert plain == sent, "a cut request looked complete (P6)"


async def as_coroutine(waits: Awaitable[None]) -> None:
    await waits


async def legacy(_scope: Message, _receive: object, _send: object) -> None:
    raise AssertionError("legacy was asked")


def test_closing_the_pool_ends_who_waits_for_a_place() -> None:
    """Nothing is dialled for a pool that is closed; its own sockets are all that `aclose` waits for."""
    wire = request_head(b"", "GET", chunked=False)
    server = ScriptedUpstream([forever(head(), send(OK))])

    async def main() -> None:
        pool = AsyncPool(server.endpoint, upstream(max_in_flight=1, pool_timeout=PATIENCE))
        first = await pool.send(wire, b"", method="GET", chunked=False, timeout=PATIENCE)
        waits = asyncio.create_task(pool.send(wire, b"", method="GET", chunked=False, timeout=PATIENCE))
        await asyncio.sleep(0)
        await pool.aclose()
        first.close()
        with pytest.raises(ForwardError, match="closed"):
            await waits
        assert (pool.in_flight, pool.gate.taken) == (0, 0)

    with server:
        asyncio.run(main())
        assert server.connections == 1


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("when_done", [False, True], ids=["while waiting", "when it is there"])
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_cancelled_at_every_wait(
    scenario: Scenario,
    authority: tuple[ssl.SSLContext, str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    when_done: bool,
) -> None:
    monkeypatch.setattr(asyncio_connection, "SLOW", 0.0)  # every exchange is watched
    for k in range(1, TOO_MANY):
        before = open_descriptors()
        run = Run(scenario, Cut(k, when_done), authority)
        with run.server:
            asyncio.run(run.main())
        run.judge()
        assert open_descriptors() <= before, "a descriptor was left open"
        if not run.cut.made:
            break
    assert scenario.least < k < TOO_MANY - 1, f"cancelled at {k - 1} places"
