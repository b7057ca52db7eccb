"""Which client speaks to which kind of upstream; each is imported when its first pool is made.

The drivers see only `AsyncPool` and `BlockingPool`, whatever is behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.transports.asyncio_pool import AsyncPool
    from strangle_mw.transports.thread_pool import BlockingPool


def make_async_pools(upstream: CompiledUpstream) -> Sequence[AsyncPool]:
    """Make a pool for each endpoint, all behind one bulkhead, for the running event loop."""
    from strangle_mw.transports.asyncio_pool import AsyncPool
    from strangle_mw.transports.bulkhead import AsyncBulkhead

    gate = AsyncBulkhead(upstream.declared)
    return [AsyncPool(endpoint, upstream.declared, gate) for endpoint in upstream.endpoints]


def make_blocking_pools(upstream: CompiledUpstream) -> Sequence[BlockingPool]:
    """Make a pool for each endpoint, all behind one bulkhead, for the threads of this process."""
    from strangle_mw.transports.bulkhead import BlockingBulkhead
    from strangle_mw.transports.thread_pool import BlockingPool

    gate = BlockingBulkhead(upstream.declared)
    return [BlockingPool(endpoint, upstream.declared, gate) for endpoint in upstream.endpoints]
