"""Servers in threads for the traps: one of each kind for the whole session, with a new app for each test."""

import pytest
from faulty_fronts import FRONTS


@pytest.fixture(scope="session")
def fronts():
    """Start a front of some kind on first use."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = FRONTS[kind]()
        return made[kind]

    yield get
    for front in made.values():
        front.close()


@pytest.fixture(params=["asgi", "wsgi"])
def front(request, fronts):
    """Both drivers, each under a real server."""
    return fronts(request.param)


@pytest.fixture
def asgi(fronts):
    return fronts("asgi")
