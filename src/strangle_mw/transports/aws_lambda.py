"""Pools of invocations of one Lambda function, with the face of `asyncio_pool` and `thread_pool`.

An invocation is one POST over the own HTTP/1.1 client, signed by `aws_signing`; what is in it is
`aws_invocation`. Nothing is sent twice here. asyncio is imported by the pool of its own kind alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strangle_mw.errors import ForwardError
from strangle_mw.transports.aws_invocation import (
    AsyncLambdaAnswer,
    BlockingLambdaAnswer,
    Invocations,
    Whole,
    refuse_payload,
)
from strangle_mw.transports.aws_signing import late
from strangle_mw.transports.base import pool_closed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.core.decision import Forward
    from strangle_mw.transports.asyncio_connection import OnSlow
    from strangle_mw.transports.asyncio_pool import AsyncPool
    from strangle_mw.transports.bulkhead import AsyncBulkhead, BlockingBulkhead
    from strangle_mw.transports.thread_pool import BlockingPool


class AsyncLambdaPool:
    """Invocations from one running event loop; making a pool does no I/O.

    An exchange has its place behind `gate` from before its body is read until its answer is closed, so that
    what is held in memory is bounded. The connections behind have a bulkhead of their own, never full.
    """

    def __init__(
        self, upstream: CompiledUpstream, gate: AsyncBulkhead, note_version: Callable[[str], None]
    ) -> None:
        self.gate = gate
        self._upstream = upstream.declared
        self._invocations = Invocations(upstream, note_version)
        self._inner: AsyncPool | None = None
        self._in_flight = 0
        self._closed = False

    @property
    def idle(self) -> int:
        """Connections to the Invoke API that wait for the next request."""
        return 0 if self._inner is None else self._inner.idle

    @property
    def in_flight(self) -> int:
        """Exchanges between `send` and `close` of their answer."""
        return self._in_flight

    async def send(
        self,
        forward: Forward,
        body: bytes | AsyncIterator[bytes],
        *,
        method: str,
        chunked: bool,  # noqa: ARG002 - an event holds the whole body, however it came
        timeout: float,  # noqa: ASYNC109 - kept by the inner pool
        fresh: bool = False,
        patient: bool = True,
        on_slow: OnSlow | None = None,
    ) -> AsyncLambdaAnswer:
        """Invoke the function with one request, and wait for its whole answer.

        The body is read first, to its end; each wait for it is limited by `idle_timeout`. `timeout` is in
        seconds from then on until the function has returned, and also limits the wait for credentials. The
        rest is as in `AsyncPool.send`. Raises `ForwardError`, and whatever `body` raises.
        """
        if self._closed:
            raise pool_closed()
        await self.gate.enter(patient=patient)
        self._in_flight += 1
        try:
            event = self._invocations.event(forward, await self._collect(forward, body))
            head = self._invocations.signer.sign(event, await self._keys(timeout))
            inner = self._pool()
            answer = await inner.send(
                head, event, method="POST", chunked=False, timeout=timeout, fresh=fresh, on_slow=on_slow
            )
            try:
                whole = Whole(refuse_payload)
                while data := await answer.read():
                    whole.add(data)
            finally:
                answer.close()
            made = self._invocations.answer(answer.status, answer.headers, whole.all(), method)
        except BaseException:
            self._leave()
            raise
        return AsyncLambdaAnswer(made, self._leave)

    async def aclose(self) -> None:
        """Abort everything and wait until every socket is closed."""
        self._closed = True
        if self._inner is not None:
            await self._inner.aclose()

    def abort(self) -> None:
        """Abort everything without waiting; exchanges that go on fail."""
        self._closed = True
        if self._inner is not None:
            self._inner.abort()

    def _leave(self) -> None:
        self._in_flight -= 1
        self.gate.leave()

    def _pool(self) -> AsyncPool:
        if self._closed:
            raise pool_closed()
        if self._inner is None:
            from strangle_mw.transports.asyncio_pool import AsyncPool

            self._inner = AsyncPool(self._invocations.signer.endpoint, self._upstream)
        return self._inner

    async def _collect(self, forward: Forward, body: bytes | AsyncIterator[bytes]) -> bytes:
        if isinstance(body, bytes):
            return body
        import asyncio

        self._invocations.admit(max(forward.length, 0))
        whole, loop, idle = (
            Whole(self._invocations.admit),
            asyncio.get_running_loop(),
            self._upstream.idle_timeout,
        )
        clock = asyncio.timeout(idle)
        try:
            async with clock:
                async for data in body:
                    whole.add(data)
                    clock.reschedule(loop.time() + idle)
        except TimeoutError:
            if not clock.expired():
                raise
            raise ForwardError("send", "the body of the request stalled", status=408) from None
        return whole.all()

    async def _keys(self, seconds: float) -> Any:
        signer = self._invocations.signer
        keys = signer.keys()
        if keys is not None:
            return keys
        import asyncio

        waited = asyncio.wrap_future(signer.prepare())
        try:
            done, _ = await asyncio.wait((waited,), timeout=seconds)
            if not done:
                raise late()
            return waited.result()
        finally:
            waited.cancel()  # if it is not done: the thread goes on, for whoever asks next


class BlockingLambdaPool:
    """Invocations from any thread of one process; see `AsyncLambdaPool`."""

    def __init__(
        self, upstream: CompiledUpstream, gate: BlockingBulkhead, note_version: Callable[[str], None]
    ) -> None:
        self.gate = gate
        self._upstream = upstream.declared
        self._invocations = Invocations(upstream, note_version)
        self._inner: BlockingPool | None = None
        self._in_flight = 0
        self._closed = False
        self._lock = gate.lock

    @property
    def idle(self) -> int:
        """Connections to the Invoke API that wait for the next request."""
        return 0 if self._inner is None else self._inner.idle

    @property
    def in_flight(self) -> int:
        """Exchanges between `send` and `close` of their answer."""
        return self._in_flight

    def send(
        self,
        forward: Forward,
        body: bytes | Iterator[bytes],
        *,
        method: str,
        chunked: bool,  # noqa: ARG002 - an event holds the whole body, however it came
        timeout: float,
        fresh: bool = False,
        patient: bool = True,
    ) -> BlockingLambdaAnswer:
        """Invoke the function with one request, and wait for its whole answer.

        `timeout` is in seconds from the end of the body until the function's answer begins, and limits also
        the wait for credentials. The rest is as in `BlockingPool.send`. Raises `ForwardError`, and whatever
        `body` raises.
        """
        self._enter(patient=patient)
        try:
            event = self._invocations.event(forward, self._collect(forward, body))
            head = self._invocations.signer.sign(event, self._keys(timeout))
            answer = self._pool().send(
                head, event, method="POST", chunked=False, timeout=timeout, fresh=fresh
            )
            try:
                whole = Whole(refuse_payload)
                while data := answer.read():
                    whole.add(data)
            finally:
                answer.close()
            made = self._invocations.answer(answer.status, answer.headers, whole.all(), method)
        except BaseException:
            self._leave()
            raise
        return BlockingLambdaAnswer(made, self._leave)

    def close(self) -> None:
        """Close what is idle, and from now on whatever an exchange gives back."""
        with self._lock:
            self._closed = True
            inner = self._inner
        if inner is not None:
            inner.close()

    def _enter(self, *, patient: bool) -> None:
        self.gate.enter(patient=patient)
        with self._lock:
            self._in_flight += 1
            if not self._closed:
                return
        self._leave()
        raise pool_closed()

    def _leave(self) -> None:
        with self._lock:
            self._in_flight -= 1
            self.gate.leave_locked()

    def _pool(self) -> BlockingPool:
        from strangle_mw.transports.thread_pool import BlockingPool

        with self._lock:
            if self._closed:
                raise pool_closed()
            if self._inner is None:
                self._inner = BlockingPool(self._invocations.signer.endpoint, self._upstream)
            return self._inner

    def _collect(self, forward: Forward, body: bytes | Iterator[bytes]) -> bytes:
        if isinstance(body, bytes):
            return body
        self._invocations.admit(max(forward.length, 0))
        whole = Whole(self._invocations.admit)
        for data in body:
            whole.add(data)
        return whole.all()

    def _keys(self, seconds: float) -> Any:
        signer = self._invocations.signer
        keys = signer.keys()
        if keys is not None:
            return keys
        work = signer.prepare()
        try:
            return work.result(seconds)
        except TimeoutError:
            raise late() from None


__all__ = ["AsyncLambdaAnswer", "AsyncLambdaPool", "BlockingLambdaAnswer", "BlockingLambdaPool"]
