"""Which client speaks to which kind of upstream; each is imported when its first pool is made.

The drivers see only `AsyncPool` and `BlockingPool`, whatever is behind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strangle_mw.core.model import HttpxUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.core.model import Upstream
    from strangle_mw.transports import asyncio_pool, aws_lambda, httpx_async, httpx_blocking, thread_pool
    from strangle_mw.transports import in_process as apps

    AsyncHttpPool = asyncio_pool.AsyncPool | httpx_async.AsyncHttpxPool
    BlockingHttpPool = thread_pool.BlockingPool | httpx_blocking.BlockingHttpxPool
    AsyncAnswer = asyncio_pool.AsyncAnswer | httpx_async.AsyncHttpxAnswer | aws_lambda.AsyncLambdaAnswer
    BlockingAnswer = (
        thread_pool.BlockingAnswer
        | httpx_blocking.BlockingHttpxAnswer
        | aws_lambda.BlockingLambdaAnswer
        | apps.AppAnswer
        | apps.PlacedAnswer
    )
    AsyncPool = AsyncHttpPool | aws_lambda.AsyncLambdaPool
    AnyAsyncPool = AsyncPool | apps.AsyncAppPool
    BlockingPool = (
        BlockingHttpPool | aws_lambda.BlockingLambdaPool | apps.BlockingAppPool | apps.BlockingLoopPool
    )
    NoteVersion = Callable[[str], None]


def make_async_pools(upstream: CompiledUpstream, note: NoteVersion) -> Sequence[AnyAsyncPool]:
    """Make a pool for each endpoint, all behind one bulkhead, for the running event loop.

    `note` is told which version of a Lambda function has answered.
    """
    from strangle_mw.transports.bulkhead import AsyncBulkhead

    gate = AsyncBulkhead(upstream.declared)
    if upstream.in_process:
        from strangle_mw.transports.in_process import AsyncAppPool

        return [AsyncAppPool(upstream, gate)]
    if upstream.kind == "lambda":
        from strangle_mw.transports.aws_lambda import AsyncLambdaPool

        return [AsyncLambdaPool(upstream, gate, note)]
    make = _async_kind(upstream.declared)
    return [make(endpoint, upstream.declared, gate) for endpoint in upstream.endpoints]


def make_blocking_pools(upstream: CompiledUpstream, note: NoteVersion) -> Sequence[BlockingPool]:
    """Make a pool for each endpoint, all behind one bulkhead, for the threads of this process."""
    from strangle_mw.transports.bulkhead import BlockingBulkhead

    gate = BlockingBulkhead(upstream.declared)
    if upstream.in_process:
        from strangle_mw.transports.in_process import BlockingAppPool, BlockingLoopPool

        return [(BlockingAppPool if upstream.kind == "wsgi" else BlockingLoopPool)(upstream, gate)]
    if upstream.kind == "lambda":
        from strangle_mw.transports.aws_lambda import BlockingLambdaPool

        return [BlockingLambdaPool(upstream, gate, note)]
    make = _blocking_kind(upstream.declared)
    return [make(endpoint, upstream.declared, gate) for endpoint in upstream.endpoints]


def start_problems(
    upstreams: Sequence[CompiledUpstream],
) -> Iterator[tuple[CompiledUpstream, tuple[str, str, str]]]:
    """Say what keeps upstreams from working in this process, as (field, what to do, id); may block.

    Asked once, before a table is put in force: apps are imported here, AWS credentials looked for.
    """
    functions = [u for u in upstreams if u.kind == "lambda"]
    if functions:
        from strangle_mw.transports.aws_signing import check_lambdas

        yield from check_lambdas(functions)
    apps = [u for u in upstreams if u.in_process]
    if apps:
        from strangle_mw.transports.in_process import load_app

        for upstream in apps:
            try:
                load_app(upstream)
            except LookupError as exc:
                yield upstream, (upstream.kind, str(exc.args[0]), "app-missing")


def _by_httpx(upstream: Upstream) -> bool:
    return isinstance(upstream, HttpxUpstream) or upstream.http == "2"


def _async_kind(upstream: Upstream) -> type[AsyncHttpPool]:
    if _by_httpx(upstream):
        from strangle_mw.transports.httpx_async import AsyncHttpxPool

        return AsyncHttpxPool
    from strangle_mw.transports.asyncio_pool import AsyncPool

    return AsyncPool


def _blocking_kind(upstream: Upstream) -> type[BlockingHttpPool]:
    if _by_httpx(upstream):
        from strangle_mw.transports.httpx_blocking import BlockingHttpxPool

        return BlockingHttpxPool
    from strangle_mw.transports.thread_pool import BlockingPool

    return BlockingPool
