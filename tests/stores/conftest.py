import pytest

from stores.kinds import InMemory, InRedis, InSqlite
from stores.redis_servers import RedisServer


@pytest.fixture(scope="session")
def redis_server():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def kept(request, tmp_path):
    """The data of a store, one kind after the other."""
    if request.param == "redis":
        data = InRedis(request.getfixturevalue("redis_server"))
    else:
        data = InMemory() if request.param == "memory" else InSqlite(tmp_path)
    yield data
    data.close()


@pytest.fixture
def store(kept):
    return kept.open()
