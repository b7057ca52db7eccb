"""Fair waiting for a place, in both kinds: first come first served, bounded, and nothing is lost."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.transports.clients import upstream
from tests.transports.upstream import PATIENCE

from strangle_mw.core.model import Endpoint
from strangle_mw.errors import ForwardError
from strangle_mw.transports.asyncio_pool import AsyncPool
from strangle_mw.transports.bulkhead import AsyncBulkhead, BlockingBulkhead
from strangle_mw.transports.httpx_async import AsyncHttpxPool
from strangle_mw.transports.httpx_blocking import BlockingHttpxPool
from strangle_mw.transports.thread_pool import BlockingPool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

FOR_EVER = 86_400.0  # for whom may not wait: a test of it that waits, hangs
NOBODY = Endpoint(scheme="http", host="127.0.0.1", port=1, authority=b"nobody")


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not done():  # noqa: ASYNC110 - other tasks tell
            await asyncio.sleep(0)


def waiting(gate: AsyncBulkhead | BlockingBulkhead) -> int:
    return gate.places.waiting


def test_tasks_go_in_the_order_in_which_they_came() -> None:
    async def run() -> list[int]:
        gate = AsyncBulkhead(upstream(max_in_flight=3, pool_timeout=PATIENCE))
        order: list[int] = []

        async def use(number: int) -> None:
            await gate.enter()
            order.append(number)

        first = [asyncio.create_task(use(n)) for n in range(3)]
        await asyncio.gather(*first)
        later = []
        for number in range(3, 6):
            later.append(asyncio.create_task(use(number)))
            await until(lambda n=number: waiting(gate) == n - 2)  # type: ignore[misc]
        for _ in range(3):
            gate.leave()
        await asyncio.gather(*later)
        assert (gate.taken, waiting(gate)) == (3, 0)
        for _ in range(3):
            gate.leave()
        assert gate.taken == 0
        return order

    assert asyncio.run(run()) == [0, 1, 2, 3, 4, 5]


def test_threads_go_in_the_order_in_which_they_came() -> None:
    gate = BlockingBulkhead(upstream(max_in_flight=3, pool_timeout=PATIENCE))
    for _ in range(3):
        gate.enter()
    order: list[int] = []
    came = threading.Semaphore(0)

    def use(number: int) -> None:
        gate.enter()
        order.append(number)
        came.release()

    threads = [threading.Thread(target=use, args=(n,)) for n in range(3)]
    for number, thread in enumerate(threads, start=1):
        thread.start()
        while waiting(gate) < number:
            assert thread.is_alive()
    for _ in range(3):
        gate.leave()
        assert came.acquire(timeout=PATIENCE)
    for thread in threads:
        thread.join(PATIENCE)
    assert order == [0, 1, 2]
    assert (gate.taken, waiting(gate)) == (3, 0)


def test_whoever_waits_too_long_is_told_so() -> None:
    async def run() -> None:
        gate = AsyncBulkhead(upstream(max_in_flight=1, pool_timeout=0.001))
        await gate.enter()
        with pytest.raises(ForwardError) as caught:
            await gate.enter()
        assert (caught.value.stage, caught.value.status) == ("pool", 503)
        assert (gate.taken, waiting(gate)) == (1, 0)
        gate.leave()
        await gate.enter()

    asyncio.run(run())
    gate = BlockingBulkhead(upstream(max_in_flight=1, pool_timeout=0.001))
    gate.enter()
    with pytest.raises(ForwardError) as caught:
        gate.enter()
    assert (caught.value.stage, caught.value.status) == ("pool", 503)
    assert (gate.taken, waiting(gate)) == (1, 0)


def test_without_a_pool_timeout_nobody_waits() -> None:
    gate = BlockingBulkhead(upstream(max_in_flight=1, pool_timeout=0))
    gate.enter()
    with pytest.raises(ForwardError):
        gate.enter()


def ended(call: Callable[[], object]) -> Exception | None:
    """Return what a call raised; fail if it does not end."""
    told: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            call()
        except ForwardError as exc:
            told.put(exc)
        else:
            told.put(None)

    threading.Thread(target=run, daemon=True).start()
    return told.get(timeout=PATIENCE)


def ended_at_once(work: Coroutine[Any, Any, object]) -> Exception | None:
    """Return what a coroutine raised; fail if it waits for anything."""
    try:
        work.send(None)
    except StopIteration:
        return None
    except ForwardError as exc:
        return exc
    work.close()
    pytest.fail("it waited")


def is_full(found: Exception | None) -> bool:
    return isinstance(found, ForwardError) and (found.stage, found.status) == ("pool", 503)


def test_the_impatient_take_a_free_place_and_do_not_wait_for_one() -> None:
    settings = upstream(max_in_flight=1, pool_timeout=FOR_EVER)
    gate = AsyncBulkhead(settings)
    assert ended_at_once(gate.enter(patient=False)) is None
    assert is_full(ended_at_once(gate.enter(patient=False)))
    assert (gate.taken, waiting(gate)) == (1, 0)
    other = BlockingBulkhead(settings)
    assert ended(lambda: other.enter(patient=False)) is None
    assert is_full(ended(lambda: other.enter(patient=False)))
    assert (other.taken, waiting(other)) == (1, 0)


def test_the_impatient_change_nothing_for_the_patient() -> None:
    async def run() -> None:
        gate = AsyncBulkhead(upstream(max_in_flight=1, pool_timeout=PATIENCE))
        await gate.enter()
        patient = asyncio.create_task(gate.enter())
        await until(lambda: waiting(gate) == 1)
        with pytest.raises(ForwardError):
            await gate.enter(patient=False)
        assert (gate.taken, waiting(gate)) == (1, 1)
        gate.leave()
        await patient
        assert (gate.taken, waiting(gate)) == (1, 0)

    asyncio.run(run())


ASYNC_POOLS = [AsyncPool, AsyncHttpxPool]
BLOCKING_POOLS = [BlockingPool, BlockingHttpxPool]
REQUEST: dict[str, Any] = {"method": "GET", "chunked": False, "timeout": PATIENCE}
HEAD = b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n"


@pytest.mark.parametrize("kind", ASYNC_POOLS)
def test_an_async_pool_passes_the_patience_on(kind: type[AsyncPool | AsyncHttpxPool]) -> None:
    async def run() -> None:
        pool = kind(NOBODY, upstream(http="2", max_in_flight=1, pool_timeout=FOR_EVER))
        with pytest.raises(ForwardError) as caught:
            await pool.send(HEAD, b"", patient=False, **REQUEST)
        assert caught.value.stage == "connect"  # there was a place
        await pool.gate.enter()
        assert is_full(ended_at_once(pool.send(HEAD, b"", patient=False, **REQUEST)))
        assert (pool.in_flight, pool.gate.taken, waiting(pool.gate)) == (0, 1, 0)
        await pool.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("kind", BLOCKING_POOLS)
def test_a_blocking_pool_passes_the_patience_on(kind: type[BlockingPool | BlockingHttpxPool]) -> None:
    pool = kind(NOBODY, upstream(http="2", max_in_flight=1, pool_timeout=FOR_EVER))
    with pytest.raises(ForwardError) as caught:
        pool.send(HEAD, b"", patient=False, **REQUEST)
    assert caught.value.stage == "connect"  # there was a place
    pool.gate.enter()
    assert is_full(ended(lambda: pool.send(HEAD, b"", patient=False, **REQUEST)))
    assert (pool.in_flight, pool.gate.taken, waiting(pool.gate)) == (0, 1, 0)
    pool.close()


def test_threads_lose_no_place_and_never_are_too_many() -> None:
    """Many threads through few places, some of which give up."""
    gate = BlockingBulkhead(upstream(max_in_flight=3, pool_timeout=0.0005))
    lock, never, inside, most = threading.Lock(), threading.Event(), 0, 0
    outcomes: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def use() -> None:
        nonlocal inside, most
        for turn in range(100):
            try:
                gate.enter(patient=turn % 3 > 0)
            except ForwardError:
                outcomes.put(False)
                continue
            with lock:
                inside += 1
                most = max(most, inside)
            never.wait(0.0002)  # others come meanwhile
            with lock:
                inside -= 1
            gate.leave()
            outcomes.put(True)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert outcomes.qsize() == 800
    assert 1 <= most <= 3
    assert (gate.taken, waiting(gate)) == (0, 0)


def test_no_more_wait_than_there_are_places() -> None:
    async def run() -> None:
        gate = AsyncBulkhead(upstream(max_in_flight=2, pool_timeout=PATIENCE))
        tasks = [asyncio.create_task(gate.enter()) for _ in range(4)]
        await until(lambda: waiting(gate) == 2)
        with pytest.raises(ForwardError):
            await gate.enter()
        for _ in range(2):
            gate.leave()
        await asyncio.gather(*tasks)

    asyncio.run(run())


def test_a_place_that_was_handed_over_in_the_moment_of_a_cancellation_goes_on() -> None:
    async def run() -> None:
        gate = AsyncBulkhead(upstream(max_in_flight=2, pool_timeout=PATIENCE))
        await gate.enter()
        await gate.enter()
        first = asyncio.create_task(gate.enter())
        second = asyncio.create_task(gate.enter())
        await until(lambda: waiting(gate) == 2)
        gate.leave()  # hands over to `first`, which has not run yet
        first.cancel()
        await second
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (gate.taken, waiting(gate)) == (2, 0)

    asyncio.run(run())


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from(["enter", "leave", "cancel", "step"]), max_size=40), st.integers(1, 3))
def test_no_place_is_lost_or_made(steps: list[str], limit: int) -> None:
    async def run() -> None:
        gate = AsyncBulkhead(upstream(max_in_flight=limit, pool_timeout=PATIENCE))
        tasks: list[asyncio.Task[None]] = []
        inside = 0

        async def enter() -> None:
            nonlocal inside
            await gate.enter()
            inside += 1

        for step in steps:
            if step == "enter":
                tasks.append(asyncio.create_task(enter()))
            elif step == "leave" and inside:
                inside -= 1
                gate.leave()
            elif step == "cancel" and tasks:
                tasks.pop().cancel()
            else:
                await asyncio.sleep(0)
            assert inside <= gate.taken <= limit
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)
        assert (gate.taken, waiting(gate)) == (inside, 0)

    asyncio.run(run())
