"""The kinds of stores under one roof: how tests open one again, and write behind its back."""

import itertools
import sqlite3

import redis

from strangle_mw.core.overrides import Overrides, encode_overrides
from strangle_mw.stores import open_store

_numbers = itertools.count()


def document(revision, kill=None, **routes):
    return encode_overrides(Overrides(revision, kill, routes))


class Kept:
    """The data of one store; `open` gives one more store on it."""

    url: str

    def __init__(self):
        self.opened = []

    def open(self):
        store = open_store(self.url)
        self.opened.append(store)
        return store

    def settle(self, store):
        """Let a store begin to listen, which in itself is a hint."""

    def plant(self, raw, revision):
        """Put bytes where the document is, as somebody with access to the data could."""
        raise NotImplementedError

    def close(self):
        for store in self.opened:
            store.close()


class InMemory(Kept):
    url = "memory:"

    def open(self):
        return self.opened[0] if self.opened else super().open()

    def plant(self, raw, revision):
        store = self.open()
        store._document, store._revision = raw, revision


class InSqlite(Kept):
    def __init__(self, folder):
        super().__init__()
        self.path = folder / "store.db"
        self.url = f"sqlite:///{self.path}?timeout=20"

    def do(self, statement, *values):
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(statement, values).fetchall()
        finally:
            connection.close()

    def plant(self, raw, revision):
        if not self.path.exists():
            self.open().tables()
        self.do("INSERT OR REPLACE INTO strangle_overrides VALUES (1, ?, ?)", revision, raw)


class InRedis(Kept):
    def __init__(self, server):
        super().__init__()
        self.prefix = f"test{next(_numbers)}"
        self.url = server.url(prefix=self.prefix)
        self.client = redis.Redis(port=server.port)

    def settle(self, store):
        assert store.wait(20)

    def plant(self, raw, revision):
        self.client.mset({f"{self.prefix}:overrides": raw, f"{self.prefix}:revision": revision})

    def close(self):
        super().close()
        self.client.close()
