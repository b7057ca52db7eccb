from contextlib import ExitStack
from functools import cache

import pytest

from echo import Echo
from servers import SERVERS, serve

MODULE = "drivers.strangled"


@pytest.fixture(scope="session")
def echo():
    upstream = Echo()
    yield upstream
    upstream.close()


class Served(int):
    """A server's port, and which server it is."""

    name: str


@pytest.fixture(scope="session")
def started(echo):
    """Start a server of a kind with the strangled app, when it is asked for first; it runs until the end."""
    with ExitStack() as stack:

        @cache
        def start(name):
            served = Served(stack.enter_context(serve(name, MODULE, STRANGLE_TEST_UPSTREAM=echo.address)))
            served.name = name
            return served

        yield start


@pytest.fixture(scope="session", params=SERVERS)
def server(request, started):
    """A server with the strangled app, one kind after the other."""
    return started(request.param)
