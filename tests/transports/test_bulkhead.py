"""Fair waiting for a place, in both kinds: first come first served, bounded, and nothing is lost."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.transports.clients import upstream
from tests.transports.upstream import PATIENCE

from strangle_mw.errors import ForwardError
from strangle_mw.transports.bulkhead import AsyncBulkhead, BlockingBulkhead

if TYPE_CHECKING:
    from collections.abc import Callable


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not done():  # noqa: ASYNC110 - other tasks tell
            await asyncio.sleep(0)


def waiting(gate: AsyncBulkhead | BlockingBulkhead) -> int:
    return len(gate._waiting)


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
