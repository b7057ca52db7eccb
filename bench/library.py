"""The only place that knows the names of strangle-mw; everything else here measures callables."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from strangle_mw.core.decision import Snapshot

MOST = 2_048
"""Exchanges at a time: nobody shall meet the bulkhead."""
PATIENCE = 600.0
"""Seconds."""


def problem() -> str:
    """Say why the library cannot be measured, or return an empty string."""
    try:
        from strangle_mw import Route, strangle  # noqa: F401
    except ImportError as exc:
        return f"strangle-mw cannot be imported: {exc}"
    return ""


def wrap(app: Any, patterns: list[str], port: int) -> Any:
    """Wrap a WSGI or ASGI app with one forwarding route for each pattern, all to one local upstream."""
    from strangle_mw import strangle

    return strangle(app, _routes(patterns, port))


def forwarder(app: Any, port: int) -> Any:
    """Wrap a WSGI or ASGI app so that everything below `/modern` goes to one local upstream.

    As many requests at a time and as long a silence as any measurement asks for.
    """
    from strangle_mw import Route, Upstream, strangle

    modern = Upstream(url=f"http://127.0.0.1:{port}", max_in_flight=MOST, idle_timeout=PATIENCE)
    return strangle(app, {"upstreams": {"modern": modern}, "routes": [Route("/modern/*", to="modern")]})


@contextmanager
def blocking_exchange(port: int, path: str) -> Iterator[Callable[[], bytes]]:
    """Give a call that asks a local port once through one pool of blocking sockets; the body comes back."""
    from strangle_mw.transports.thread_pool import BlockingPool

    endpoint, upstream, head = _exchange(port, path)
    pool = BlockingPool(endpoint, upstream)

    def call() -> bytes:
        answer = pool.send(head, b"", method="GET", chunked=False, timeout=PATIENCE)
        try:
            body = answer.take()
            while not answer.complete:
                body += answer.read()
        finally:
            answer.close()
        return body

    try:
        yield call
    finally:
        pool.close()


@asynccontextmanager
async def async_exchange(port: int, path: str) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """Give a coroutine function that asks a local port once through one asyncio pool."""
    from strangle_mw.transports.asyncio_pool import AsyncPool

    endpoint, upstream, head = _exchange(port, path)
    pool = AsyncPool(endpoint, upstream)

    async def call() -> bytes:
        answer = await pool.send(head, b"", method="GET", chunked=False, timeout=PATIENCE)
        try:
            body = answer.take()
            while not answer.complete:
                body += await answer.read()
        finally:
            answer.close()
        return body

    try:
        yield call
    finally:
        await pool.aclose()


def _exchange(port: int, path: str) -> tuple[Any, Any, bytes]:
    from strangle_mw import Upstream
    from strangle_mw.core.targets import parse_endpoint
    from strangle_mw.transports.h1 import serialize_head

    url = f"http://127.0.0.1:{port}"
    endpoint = parse_endpoint(url)
    head = serialize_head(b"GET", endpoint.base, path.encode(), endpoint.authority, b"\r\n")
    return endpoint, Upstream(url=url, max_in_flight=MOST), head


def matcher(patterns: list[str]) -> Callable[[bytes], bool]:
    """Return the match of a raw path as `decision.prepare` makes it, and nothing else of it."""
    from strangle_mw.core.paths import is_plain

    find = _snapshot(tuple(patterns)).table.match_plain

    def decide(path: bytes) -> bool:
        if not is_plain(path):
            raise ValueError("the paths of this measurement are plain")
        return find(path.decode("ascii"), "GET") is not None

    return decide


def preparer(patterns: list[str]) -> Callable[[dict[str, Any]], bool]:
    """Return all that happens to an ASGI scope before it is handed over or sent: `decision.prepare`."""
    from strangle_mw.core.decision import LEGACY, prepare

    snapshot, reader = _snapshot(tuple(patterns)), _Reader()

    def decide(scope: dict[str, Any]) -> bool:
        found = prepare(snapshot, scope["method"], scope["raw_path"], scope["path"], scope, reader)
        return found is not LEGACY

    return decide


class _Reader:
    """Reads a scope as the ASGI driver does."""

    encoding = "utf-8"

    @staticmethod
    def head(source: Any, path: bytes, authority: bytes) -> Any:
        from strangle_mw import RequestHead

        return RequestHead(
            source["method"],
            path,
            source["query_string"],
            source["headers"],
            source["scheme"],
            source["client"][0],
            authority,
            source["http_version"],
        )


@lru_cache(maxsize=1)  # two routers ask for the same table, and a large one takes its time
def _snapshot(patterns: tuple[str, ...]) -> Snapshot:
    from strangle_mw.config import load

    return load(_routes(patterns, 9))


def _routes(patterns: list[str] | tuple[str, ...], port: int) -> Any:
    from strangle_mw import Route

    return [Route(f"GET {pattern}", to=f"http://127.0.0.1:{port}") for pattern in patterns]
