"""Two choices: the less loaded of two random endpoints, never one that was tried."""

import random

import pytest

from strangle_mw.core.balance import choose


def drawn(*numbers):
    left = list(numbers)
    return lambda n: left.pop(0) % n


@pytest.mark.parametrize(
    ("loads", "draws", "chosen"),
    [([0, 0], (0, 0), 0), ([0, 0], (1, 0), 1), ([5, 1], (0, 0), 1), ([1, 5], (1, 0), 0), ([3, 2, 1], (0, 0), 1),
     ([3, 2, 1], (0, 1), 2), ([3], (0,), 0)],
)  # fmt: skip
def test_the_less_loaded_of_two(loads, draws, chosen):
    assert choose(loads, (), drawn(*draws)) == chosen


def test_what_was_tried_is_out():
    assert {choose([0, 0, 0], [1], random.randrange) for _ in range(50)} == {0, 2}
    assert choose([9, 0, 0], [1, 2], random.randrange) == 0


def test_load_evens_out():
    loads = [0] * 5
    for _ in range(1000):
        loads[choose(loads, (), random.randrange)] += 1
    assert max(loads) - min(loads) <= 10
