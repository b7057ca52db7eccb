import pytest

from echo import Echo


@pytest.fixture
def modern():
    echo = Echo()
    yield echo
    echo.close()
