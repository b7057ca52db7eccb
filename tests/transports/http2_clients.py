"""The blocking face of `clients` for `http = "2"`, with a target and headers of the test's choice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, Self

from tests.transports.clients import Answer, _each, _SettledAnswer, request_head, upstream
from tests.transports.upstream import PATIENCE

from strangle_mw.transports.httpx_async import AsyncHttpxPool
from strangle_mw.transports.httpx_blocking import BlockingHttpxPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from strangle_mw.core.model import Endpoint, Upstream


class OwnClient(Protocol):
    @property
    def pool(self) -> Any: ...
    def send(self, body: bytes | Iterable[bytes] = b"", **options: Any) -> Answer: ...
    def settle(self, done: Callable[[], bool]) -> None: ...
    def close(self) -> None: ...


def _head(body: object, method: str, target: str, fields: Sequence[tuple[str, str]], chunked: bool) -> bytes:
    start, _, rest = request_head(body, method, chunked=chunked).partition(b"\r\nhost: scripted\r\n")
    more = b"".join(f"{n}: {v}\r\n".encode() for n, v in fields)
    return start.replace(b" / ", f" {target} ".encode()) + b"\r\nhost: leads.internal\r\n" + more + rest


class _Client:
    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def send(
        self,
        body: bytes | Iterable[bytes] = b"",
        *,
        method: str = "GET",
        chunked: bool = True,
        target: str = "",
        fields: Sequence[tuple[str, str]] = (),
        **options: Any,
    ) -> Answer:
        chunked = chunked and not isinstance(body, bytes)
        made = request_head(body, method, chunked=chunked)
        if target or fields:
            made = _head(body, method, target or "/", fields, chunked)
        given = {"timeout": PATIENCE, **options}
        return self._send(made, body, method=method, chunked=chunked, **given)

    def _send(self, head: bytes, body: bytes | Iterable[bytes], **given: Any) -> Answer:
        raise NotImplementedError

    def settle(self, done: Callable[[], bool]) -> None:
        """Nothing happens by itself here."""


class _Async(_Client):
    def __init__(self, endpoint: Endpoint, settings: Upstream) -> None:
        super().__init__(AsyncHttpxPool(endpoint, settings))
        self._runner = asyncio.Runner()
        self._closed = False

    def _send(self, head: bytes, body: bytes | Iterable[bytes], **given: Any) -> Answer:
        async def send() -> Any:
            return await self.pool.send(head, body if isinstance(body, bytes) else _each(body), **given)

        return _SettledAnswer(self._runner, self._runner.run(send()))

    def close(self) -> None:
        if not self._closed:
            self._runner.run(self.pool.aclose())
        self._closed = True

    def end(self) -> None:
        self.close()
        self._runner.close()


class _Blocking(_Client):
    def __init__(self, endpoint: Endpoint, settings: Upstream) -> None:
        super().__init__(BlockingHttpxPool(endpoint, settings))

    def _send(self, head: bytes, body: bytes | Iterable[bytes], **given: Any) -> Answer:
        answer: Answer = self.pool.send(head, body if isinstance(body, bytes) else iter(body), **given)
        return answer

    def close(self) -> None:
        self.pool.close()

    def end(self) -> None:
        self.close()


class Http2Clients:
    """Makes clients of one kind, "async" or "sync", and closes them all."""

    def __init__(self, kind: str) -> None:
        self._make = _Async if kind == "async" else _Blocking
        self._made: list[_Async | _Blocking] = []

    def __call__(self, endpoint: Endpoint, **settings: Any) -> OwnClient:
        client = self._make(endpoint, upstream(http="2", **settings))
        self._made.append(client)
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._made:
            client.end()
            assert client.pool.in_flight == 0, "an exchange was left behind"
            assert client.pool.idle == 0
