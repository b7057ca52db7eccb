"""Where live changes, counters and events are kept: memory, SQLite (one host), Redis (many).

RULE: only `engine` and the command line open a store. All of them block, so they are used from a background
thread or a command, never from a request. A kind of store is imported when the first of its kind is opened.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from strangle_mw.stores.base import StoreError
from strangle_mw.stores.urls import redis_address, sqlite_path

if TYPE_CHECKING:
    from strangle_mw.stores.base import Store

_FORMS = "'memory:', 'sqlite:///path.db' or 'redis://host:6379/0'"


def open_store(url: str) -> Store:
    """Open the store that a URL names; nothing is connected yet, so a store that is away opens as well.

    Raises `StoreError` for a URL that names none. Forms (design section 6): `memory:`;
    `sqlite:///relative.db` and `sqlite:////absolute.db`, `?timeout=` seconds; `redis://`, `rediss://` and
    `unix://` with redis-py's own options, and `?prefix=` of the keys' names.
    """
    scheme = url.partition(":")[0]
    if url == "memory:":
        from strangle_mw.stores.memory import MemoryStore

        return MemoryStore()
    if scheme == "sqlite":
        path, timeout = sqlite_path(url)
        from strangle_mw.stores.sqlite import SqliteStore

        return SqliteStore(path, timeout)
    if scheme in ("redis", "rediss", "unix"):
        address = redis_address(url)
        if find_spec("redis") is None:
            raise StoreError("a store on Redis needs redis-py: pip install 'strangle-mw[redis]'")
        from strangle_mw.stores.redis import RedisStore

        return RedisStore(address)
    raise StoreError(f"a store must be {_FORMS}")


def check_store_url(url: str) -> str | None:
    """Say what is wrong with a store's URL, or None; nothing is opened."""
    try:
        open_store(url).close()
    except StoreError as exc:
        return exc.reason
    return None


__all__ = ["StoreError", "check_store_url", "open_store"]
