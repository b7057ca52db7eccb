"""Which of several endpoints gets the next request. Pure: loads and chance come in as values."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence


def choose(loads: Sequence[int], tried: Collection[int], draw: Callable[[int], int]) -> int:
    """Choose the one with less in flight of two taken by chance (design section 3.2).

    `loads` are the requests in flight at each endpoint, `tried` the endpoints that are out of the question,
    `draw(n)` a number of 0..n-1. Two choices even out load about as well as a look at all of them, and do not
    send every process to the same idle endpoint at once.
    """
    left = [at for at in range(len(loads)) if at not in tried]
    first = left.pop(draw(len(left)))
    if not left:
        return first
    second = left[draw(len(left))]
    return second if loads[second] < loads[first] else first
