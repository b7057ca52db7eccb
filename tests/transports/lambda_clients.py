"""One blocking face for both Lambda pools, and requests for them as the table makes them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, Self
from urllib.parse import unquote

from tests.transports.upstream import PATIENCE

from strangle_mw.config import load
from strangle_mw.core.decision import Forward, prepare
from strangle_mw.core.messages import RequestHead
from strangle_mw.transports.aws_lambda import AsyncLambdaPool, BlockingLambdaPool
from strangle_mw.transports.bulkhead import AsyncBulkhead, BlockingBulkhead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.core.messages import Header
    from strangle_mw.transports.aws_lambda import AsyncLambdaAnswer

Body = "bytes | Iterable[bytes]"


class _Reader:
    encoding = "utf-8"

    @staticmethod
    def head(source: Any, path: bytes, authority: bytes) -> RequestHead:
        return RequestHead(path=path, authority=authority, **source)


class Table:
    """A table with one function behind every path, and the requests that it forwards."""

    def __init__(self, url: str, *, function: str = "events", path: str = "/*", **settings: Any) -> None:
        times = {"connect_timeout": PATIENCE, "idle_timeout": PATIENCE, "keepalive": PATIENCE}
        declared = {"lambda": function, "endpoint_url": url, **times, **settings}
        self._snapshot = load({"upstreams": {"f": declared}, "routes": [{"path": path, "to": "f"}]})

    @property
    def upstream(self) -> CompiledUpstream:
        return self._snapshot.upstreams["f"]

    def forward(
        self, target: str = "/", method: str = "GET", headers: Iterable[Header] = (), **head: Any
    ) -> Forward:
        path, _, query = target.partition("?")
        fields = [(b"host", b"shop.example"), *headers]
        source = {"method": method, "query": query.encode(), "headers": fields, "peer": "192.0.2.7", **head}
        found = prepare(self._snapshot, method, path.encode(), unquote(path), source, _Reader())
        assert isinstance(found, Forward)
        return found


class Answer(Protocol):
    status: int
    reason: bytes
    headers: list[Header]
    complete: bool

    def take(self) -> bytes: ...
    def read(self) -> bytes: ...
    def close(self) -> None: ...


class Client(Protocol):
    table: Table
    versions: list[str]

    @property
    def pool(self) -> AsyncLambdaPool | BlockingLambdaPool: ...
    def send(self, forward: Forward, body: bytes | Iterable[bytes] = b"", **options: Any) -> Answer: ...
    def close(self) -> None: ...


class _Awaited:
    complete = True

    def __init__(self, runner: asyncio.Runner, answer: AsyncLambdaAnswer) -> None:
        self._runner = runner
        self._answer = answer
        self.status, self.reason, self.headers = answer.status, answer.reason, answer.headers
        self.take, self.close = answer.take, answer.close

    def read(self) -> bytes:
        return self._runner.run(self._answer.read())


async def each(items: Iterable[bytes]) -> AsyncIterator[bytes]:
    for item in items:
        yield item
        await asyncio.sleep(0)


class AsyncClient:
    def __init__(self, table: Table) -> None:
        self.table = table
        self.versions: list[str] = []
        gate = AsyncBulkhead(table.upstream.declared)
        self.pool = AsyncLambdaPool(table.upstream, gate, self.versions.append)
        self.runner = asyncio.Runner()

    def send(self, forward: Forward, body: bytes | Iterable[bytes] = b"", **options: Any) -> Answer:
        async def send() -> AsyncLambdaAnswer:
            given = body if isinstance(body, bytes) else each(body)
            return await self.pool.send(forward, given, **_options(forward, options))

        return _Awaited(self.runner, self.runner.run(send()))

    def close(self) -> None:
        self.runner.run(self.pool.aclose())
        assert not asyncio.all_tasks(self.runner.get_loop()), "a task was left behind"
        self.runner.close()


class BlockingClient:
    def __init__(self, table: Table) -> None:
        self.table = table
        self.versions: list[str] = []
        gate = BlockingBulkhead(table.upstream.declared)
        self.pool = BlockingLambdaPool(table.upstream, gate, self.versions.append)

    def send(self, forward: Forward, body: bytes | Iterable[bytes] = b"", **options: Any) -> Answer:
        given: bytes | Iterator[bytes] = body if isinstance(body, bytes) else iter(body)
        return self.pool.send(forward, given, **_options(forward, options))

    def close(self) -> None:
        self.pool.close()


def _options(forward: Forward, given: dict[str, Any]) -> dict[str, Any]:
    return {"method": forward.head.method, "chunked": False, "timeout": PATIENCE, **given}


CLIENTS: dict[str, Callable[[Table], Client]] = {"asyncio": AsyncClient, "threads": BlockingClient}


class Clients:
    """Makes clients of one kind, and closes them all."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._made: list[Client] = []

    def __call__(self, url: str, **settings: Any) -> Client:
        client = CLIENTS[self.kind](Table(url, **settings))
        self._made.append(client)
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._made:
            client.close()
            assert client.pool.in_flight == 0, "an exchange was left behind"
            assert client.pool.gate.taken == 0, "a place was left taken"
            assert client.pool.idle == 0, "a connection was left open"


def fetch(
    client: Client,
    target: str = "/",
    method: str = "GET",
    body: bytes | Iterable[bytes] = b"",
    **options: Any,
) -> tuple[int, bytes]:
    answer = client.send(client.table.forward(target, method), body, **options)
    try:
        return answer.status, answer.take()
    finally:
        answer.close()
