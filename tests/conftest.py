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


@pytest.fixture(scope="session", params=SERVERS)
def server(request, echo):
    """A server with the strangled app, one kind after the other."""
    with serve(request.param, MODULE, STRANGLE_TEST_UPSTREAM=echo.address) as port:
        served = Served(port)
        served.name = request.param
        yield served
