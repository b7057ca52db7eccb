"""Which pools there are: per process, and per event loop; made on first use, closed when nobody needs them.

They survive neither a fork nor their loop. What a pool does is elsewhere; asyncio is not imported here.
"""

from __future__ import annotations

from functools import partial
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from strangle_mw.transports.make import make_async_pools, make_blocking_pools

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterable, Sequence

    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.transports.make import AnyAsyncPool, BlockingPool

    LoopPools = dict[CompiledUpstream, Sequence[AnyAsyncPool]]

GRACE = 5.0
"""Seconds after a new table until the pools of upstreams that it does not have are closed."""


class PoolRegistry:
    """The pools to the endpoints of every upstream, in one process.

    `note(upstream, version)` is told which version of a Lambda function has answered.
    """

    def __init__(self, note: Callable[[str, str], None] = lambda _upstream, _version: None) -> None:
        self._note = note
        self._lock = Lock()
        self._loops: dict[int, tuple[AbstractEventLoop, LoopPools]] = {}
        self._pools: dict[CompiledUpstream, Sequence[BlockingPool]] = {}
        self._gone: WeakSet[CompiledUpstream] = WeakSet()
        self._since = 0.0
        self._closing: set[Any] = set()

    def of_loop(self, upstream: CompiledUpstream, loop: AbstractEventLoop) -> Sequence[AnyAsyncPool]:
        """Return the pools to an upstream's endpoints for one event loop."""
        entry = self._loops.get(id(loop))
        if entry is None:
            with self._lock:
                self._forget_closed_loops()
                entry = self._loops.setdefault(id(loop), (loop, {}))
        pools = entry[1].get(upstream)
        if pools is None:
            pools = entry[1].setdefault(
                upstream, make_async_pools(upstream, partial(self._note, upstream.name))
            )
        return pools

    def of_threads(self, upstream: CompiledUpstream) -> Sequence[BlockingPool]:
        """Return the pools to an upstream's endpoints for this process's threads."""
        pools = self._pools.get(upstream)
        if pools is None:
            with self._lock:
                pools = self._pools.get(upstream)
                if pools is None:
                    pools = make_blocking_pools(upstream, partial(self._note, upstream.name))
                self._pools[upstream] = pools
        return pools

    def retire(self, upstreams: Iterable[CompiledUpstream]) -> None:
        """Note upstreams that the table has no more; requests that began before may still use them."""
        self._gone.update(upstreams)
        self._since = monotonic()

    def sweep(self) -> None:
        """Close the pools of retired upstreams that have nothing in flight."""
        if not self._gone or monotonic() < self._since + GRACE:
            return
        with self._lock:
            unused = [u for u, pools in self._pools.items() if u in self._gone and _at_rest(pools)]
            taken = [self._pools.pop(u) for u in unused]
            loops = [*self._loops.values()]
        for pools in taken:
            for pool in pools:
                pool.close()
        for loop, entry in loops:
            if not loop.is_closed() and any(u in self._gone for u in tuple(entry)):
                loop.call_soon_threadsafe(self._sweep_loop, loop, entry)

    def _sweep_loop(self, loop: AbstractEventLoop, entry: LoopPools) -> None:
        for upstream in [u for u, pools in entry.items() if u in self._gone and _at_rest(pools)]:
            for pool in entry.pop(upstream):
                task = loop.create_task(pool.aclose())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    async def aclose(self, loop: AbstractEventLoop) -> None:
        """Close the pools of one event loop, at the end of its lifespan; all at once: apps take time."""
        entry = self._loops.pop(id(loop), None)
        found = entry[1].values() if entry is not None else ()
        closing = [loop.create_task(pool.aclose()) for pools in found for pool in pools]
        for task in closing:
            await task

    def close(self) -> None:
        """Close the idle connections of this process's threads."""
        taken, self._pools = self._pools, {}
        for pools in taken.values():
            for pool in pools:
                pool.close()

    def _forget_closed_loops(self) -> None:
        for key, (loop, _) in tuple(self._loops.items()):
            if loop.is_closed():
                del self._loops[key]


def _at_rest(pools: Sequence[AnyAsyncPool | BlockingPool]) -> bool:
    return not any(p.in_flight for p in pools)
