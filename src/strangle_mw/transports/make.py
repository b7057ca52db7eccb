"""Which client speaks to which kind of upstream; each is imported when its first pool is made.

The drivers see only `AsyncPool` and `BlockingPool`, whatever is behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strangle_mw.core.model import HttpxUpstream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.core.model import Upstream
    from strangle_mw.transports import asyncio_pool, httpx_async, httpx_blocking, thread_pool

    AsyncAnswer = asyncio_pool.AsyncAnswer | httpx_async.AsyncHttpxAnswer
    BlockingAnswer = thread_pool.BlockingAnswer | httpx_blocking.BlockingHttpxAnswer
    AsyncPool = asyncio_pool.AsyncPool | httpx_async.AsyncHttpxPool
    BlockingPool = thread_pool.BlockingPool | httpx_blocking.BlockingHttpxPool


def make_async_pools(upstream: CompiledUpstream) -> Sequence[AsyncPool]:
    """Make a pool for each endpoint, all behind one bulkhead, for the running event loop."""
    from strangle_mw.transports.bulkhead import AsyncBulkhead

    gate = AsyncBulkhead(upstream.declared)
    make = _async_kind(upstream.declared)
    return [make(endpoint, upstream.declared, gate) for endpoint in upstream.endpoints]


def make_blocking_pools(upstream: CompiledUpstream) -> Sequence[BlockingPool]:
    """Make a pool for each endpoint, all behind one bulkhead, for the threads of this process."""
    from strangle_mw.transports.bulkhead import BlockingBulkhead

    gate = BlockingBulkhead(upstream.declared)
    make = _blocking_kind(upstream.declared)
    return [make(endpoint, upstream.declared, gate) for endpoint in upstream.endpoints]


def _by_httpx(upstream: Upstream) -> bool:
    return isinstance(upstream, HttpxUpstream) or upstream.http == "2"


def _async_kind(upstream: Upstream) -> type[AsyncPool]:
    if _by_httpx(upstream):
        from strangle_mw.transports.httpx_async import AsyncHttpxPool

        return AsyncHttpxPool
    from strangle_mw.transports.asyncio_pool import AsyncPool

    return AsyncPool


def _blocking_kind(upstream: Upstream) -> type[BlockingPool]:
    if _by_httpx(upstream):
        from strangle_mw.transports.httpx_blocking import BlockingHttpxPool

        return BlockingHttpxPool
    from strangle_mw.transports.thread_pool import BlockingPool

    return BlockingPool
