"""Strangled apps of both kinds; after each test nothing of them may be left."""

from pathlib import Path

import pytest

from promises.drive import SIDES

DESCRIPTORS = Path("/proc/self/fd")


def open_descriptors():
    return len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0


@pytest.fixture(params=SIDES)
def strangled(request):
    """Make strangled apps: `strangled(routes, **settings)`."""
    before, made = open_descriptors(), []

    def make(routes, **settings):
        side = SIDES[request.param](routes, **settings)
        made.append(side)
        return side

    make.kind = request.param
    yield make
    for side in made:
        in_flight = sum(pool.in_flight for pool in side.pools())
        side.close()
        assert in_flight == 0, "an exchange was left behind"
    assert open_descriptors() <= before, "a descriptor was left open"
