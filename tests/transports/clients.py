"""One blocking face for all pools, so that one test says what must hold for each."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self

from tests.transports.upstream import PATIENCE

from strangle_mw.core.model import Endpoint, HttpxUpstream, Upstream
from strangle_mw.transports.asyncio_pool import AsyncAnswer, AsyncPool
from strangle_mw.transports.base import tls_context
from strangle_mw.transports.h1 import serialize_head
from strangle_mw.transports.httpx_async import AsyncHttpxPool
from strangle_mw.transports.httpx_blocking import BlockingHttpxPool
from strangle_mw.transports.thread_pool import BlockingPool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from strangle_mw.transports.h1 import Header
    from strangle_mw.transports.httpx_async import AsyncHttpxAnswer


def upstream(**changes: Any) -> Upstream:
    """An upstream's settings, with times that no passing test ever waits for."""
    times = {"connect_timeout": PATIENCE, "idle_timeout": PATIENCE, "keepalive": PATIENCE}
    return Upstream(**{"url": "http://scripted", **times, **changes})


class Answer(Protocol):
    status: int
    reason: bytes
    headers: list[Header]

    @property
    def complete(self) -> bool: ...
    def take(self) -> bytes: ...
    def read(self) -> bytes: ...
    def close(self) -> None: ...


class Client(Protocol):
    @property
    def pool(self) -> AsyncPool | BlockingPool | HttpxPool: ...

    def send(
        self,
        body: bytes | Iterable[bytes] = b"",
        *,
        method: str = "GET",
        chunked: bool = True,
        timeout: float = PATIENCE,
        fresh: bool = False,
    ) -> Answer: ...

    def settle(self, done: Callable[[], bool]) -> None:
        """Let the pool notice what happened, until `done`."""

    def close(self) -> None: ...


def request_head(body: object, method: str, *, chunked: bool) -> bytes:
    fields = b""
    if isinstance(body, bytes):
        if body:
            fields = b"Content-Length: %d\r\n" % len(body)
    elif isinstance(body, list) and not chunked:
        fields = b"Content-Length: %d\r\n" % sum(map(len, body))
    elif chunked:
        fields = b"Transfer-Encoding: chunked\r\n"
    return serialize_head(method.encode(), b"", b"/", b"scripted", fields + b"\r\n")


def read_all(answer: Answer) -> bytes:
    body = answer.take()
    while data := answer.read():
        body += data
    return body


def fetch(client: Client, body: bytes | Iterable[bytes] = b"", **options: Any) -> tuple[int, bytes]:
    answer = client.send(body, **options)
    try:
        return answer.status, read_all(answer)
    finally:
        answer.close()


class _AwaitedAnswer:
    def __init__(self, runner: asyncio.Runner, answer: AsyncAnswer | AsyncHttpxAnswer) -> None:
        self._runner = runner
        self._answer = answer
        self.status, self.reason, self.headers = answer.status, answer.reason, answer.headers

    @property
    def complete(self) -> bool:
        return self._answer.complete

    def take(self) -> bytes:
        return self._answer.take()

    def read(self) -> bytes:
        return self._runner.run(self._answer.read())

    def close(self) -> None:
        self._answer.close()


async def _each(items: Iterable[bytes]) -> AsyncIterator[bytes]:
    for item in items:
        yield item
        await asyncio.sleep(0)


class _FirstTaken:
    """An answer over a transport of httpx, whose first piece is waited for by the first `take`.

    The adapters buffer nothing: what a test of the own pools finds buffered is still to be read here.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._taken = False
        self.status, self.reason, self.headers = answer.status, answer.reason, answer.headers

    @property
    def complete(self) -> bool:
        return self._answer.complete

    def take(self) -> bytes:
        assert self._answer.take() == b""
        if self._taken:
            return b""
        self._taken = True
        return self._answer.read()

    def read(self) -> bytes:
        self._taken = True
        return self._answer.read()

    def close(self) -> None:
        self._answer.close()


class _SettledAnswer(_AwaitedAnswer):
    """Over a transport of httpx, closing takes a loop."""

    def close(self) -> None:
        async def close() -> None:
            self._answer.close()
            await self._answer.settle()

        self._runner.run(close())


class AsyncClient:
    """A pool of asyncio's and its own event loop, which runs only while something is waited for."""

    pool: Any

    def __init__(self, endpoint: Endpoint, settings: Upstream) -> None:
        self._run(AsyncPool(endpoint, settings))
        self.pool = self._pool

    def _run(self, pool: AsyncPool | AsyncHttpxPool) -> None:
        self._pool = pool
        self._runner = asyncio.Runner()
        self._closed = False

    def send(
        self,
        body: bytes | Iterable[bytes] = b"",
        *,
        method: str = "GET",
        chunked: bool = True,
        timeout: float = PATIENCE,
        fresh: bool = False,
    ) -> Answer:
        chunked = chunked and not isinstance(body, bytes)

        async def send() -> AsyncAnswer | AsyncHttpxAnswer:
            return await self._pool.send(
                request_head(body, method, chunked=chunked),
                body if isinstance(body, bytes) else _each(body),
                method=method,
                chunked=chunked,
                timeout=timeout,
                fresh=fresh,
            )

        return self._face(self._runner.run(send()))

    def _face(self, answer: Any) -> Answer:
        return _AwaitedAnswer(self._runner, answer)

    def settle(self, done: Callable[[], bool]) -> None:
        async def wait() -> None:
            async with asyncio.timeout(PATIENCE):
                while not done():  # noqa: ASYNC110 - threads tell, too
                    await asyncio.sleep(0)

        self._runner.run(wait())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._runner.run(self._close())
        assert not asyncio.all_tasks(self._runner.get_loop()), "a task was left behind"
        self._runner.close()

    async def _close(self) -> None:
        await self._pool.aclose()


class BlockingClient:
    """A blocking pool used from this thread."""

    pool: Any

    def __init__(self, endpoint: Endpoint, settings: Upstream) -> None:
        self._pool: BlockingPool | BlockingHttpxPool = BlockingPool(endpoint, settings)
        self.pool = self._pool

    def send(
        self,
        body: bytes | Iterable[bytes] = b"",
        *,
        method: str = "GET",
        chunked: bool = True,
        timeout: float = PATIENCE,
        fresh: bool = False,
    ) -> Answer:
        chunked = chunked and not isinstance(body, bytes)
        items: bytes | Iterator[bytes] = body if isinstance(body, bytes) else iter(body)
        head = request_head(body, method, chunked=chunked)
        return self._face(
            self._pool.send(head, items, method=method, chunked=chunked, timeout=timeout, fresh=fresh)
        )

    def _face(self, answer: Answer) -> Answer:
        return answer

    def settle(self, done: Callable[[], bool]) -> None:
        """Nothing happens by itself here: a blocking pool looks when it is asked."""

    def close(self) -> None:
        self._pool.close()


class HttpxPool:
    """A pool over a user's transport, and what can be seen of the connections inside that."""

    def __init__(self, pool: AsyncHttpxPool | BlockingHttpxPool, transport: Any) -> None:
        self.inner = pool
        self.transport = transport

    @property
    def idle(self) -> int:
        return sum(c.is_idle() and not c.has_expired() for c in self.transport._pool.connections)

    @property
    def in_flight(self) -> int:
        return self.inner.in_flight

    def abort(self) -> None:
        """What `AsyncPool` has; the connections are the user's to close."""
        self.inner.close() if isinstance(self.inner, BlockingHttpxPool) else self.inner.abort()


def _with_transport(kind: str, endpoint: Endpoint, settings: Upstream) -> HttpxUpstream:
    """The settings with a transport, as a user would make it: "AsyncHTTPTransport" or "HTTPTransport"."""
    package, _, name = kind.partition(".")
    module = import_module(package)
    transport = getattr(module, name)(
        verify=tls_context(settings) if endpoint.scheme == "https" else False,  # for speed
        trust_env=False,
        uds=endpoint.socket or None,
        limits=module.Limits(keepalive_expiry=settings.keepalive),
    )
    common = {f.name: getattr(settings, f.name) for f in fields(settings)}
    return HttpxUpstream(transport, **common)


class AsyncHttpxClient(AsyncClient):
    """An `AsyncHttpxPool` over a user's transport."""

    def __init__(self, kind: str, endpoint: Endpoint, settings: Upstream) -> None:
        given = _with_transport(f"{kind}.AsyncHTTPTransport", endpoint, settings)
        pool = AsyncHttpxPool(endpoint, given)
        self._run(pool)
        self.pool = HttpxPool(pool, given.transport)

    def _face(self, answer: Any) -> Answer:
        return _FirstTaken(_SettledAnswer(self._runner, answer))

    def settle(self, done: Callable[[], bool]) -> None:
        """Nothing happens by itself here: a transport looks when it is asked."""

    async def _close(self) -> None:
        await super()._close()
        await self.pool.transport.aclose()
        await asyncio.sleep(0)  # httpcore leaves generators to the loop


class BlockingHttpxClient(BlockingClient):
    """A `BlockingHttpxPool` over a user's transport."""

    def __init__(self, kind: str, endpoint: Endpoint, settings: Upstream) -> None:
        given = _with_transport(f"{kind}.HTTPTransport", endpoint, settings)
        self._pool = BlockingHttpxPool(endpoint, given)
        self.pool = HttpxPool(self._pool, given.transport)

    def _face(self, answer: Answer) -> Answer:
        return _FirstTaken(answer)

    def close(self) -> None:
        super().close()
        self.pool.transport.close()


CLIENTS: dict[str, Callable[[Endpoint, Upstream], Client]] = {
    "asyncio": AsyncClient,
    "threads": BlockingClient,
    "httpx2-async": partial(AsyncHttpxClient, "httpx2"),
    "httpx-async": partial(AsyncHttpxClient, "httpx"),
    "httpx2-sync": partial(BlockingHttpxClient, "httpx2"),
    "httpx-sync": partial(BlockingHttpxClient, "httpx"),
}


class Clients:
    """Makes clients of one kind, and closes them all."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._made: list[Client] = []

    def __call__(self, endpoint: Endpoint, **settings: Any) -> Client:
        client = CLIENTS[self.kind](endpoint, upstream(**settings))
        self._made.append(client)
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._made:
            client.close()
            assert client.pool.in_flight == 0, "an exchange was left behind"
            assert client.pool.idle == 0
