"""The store of one process: dictionaries behind a lock. Nothing outlives the process or leaves it.

What goes in and out is the same text as in the other stores, so that nobody can rely on more here.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from strangle_mw.stores.base import (
    MAX_EVENTS,
    MAX_TABLES,
    Waker,
    check_table,
    new_lock,
    read_fact,
    read_facts,
    revision_of,
    to_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class MemoryStore:
    """`memory:`, the default: live changes end with the process. See `base.Store` for the methods."""

    url: Final = "memory:"

    def __init__(self) -> None:
        self._lock = new_lock()
        self._waker = Waker()
        self._document = b""
        self._revision = 0
        self._counts: dict[str, int] = {}
        self._events: list[str] = []
        self._workers: dict[str, tuple[float, str]] = {}
        self._tables: dict[str, bytes] = {}

    def read(self, since: int) -> bytes | None:
        """Return the document, as `Store.read`."""
        with self._lock.get():
            return None if self._document and self._revision == since else self._document

    def edit(self, change: Callable[[bytes], bytes]) -> bytes:
        """Change the document, as `Store.edit`."""
        with self._lock.get():
            document = change(self._document)
            self._keep(document, revision_of(document))
        return document

    def restore(self, document: bytes, revision: int) -> bool:
        """Put a document back, as `Store.restore`."""
        revision_of(document)
        with self._lock.get():
            older = self._revision < revision
            if older:
                self._keep(document, revision)
        return older

    def _keep(self, document: bytes, revision: int) -> None:
        self._document, self._revision = document, revision
        self._waker.wake()

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Add to counters, as `Store.add_counts`."""
        with self._lock.get():
            for field, number in counts.items():
                self._counts[field] = self._counts.get(field, 0) + number

    def counts(self) -> dict[str, int]:
        """Return the counters, as `Store.counts`."""
        with self._lock.get():
            return dict(self._counts)

    def reset_counts(self, prefix: str) -> None:
        """Forget counters, as `Store.reset_counts`."""
        with self._lock.get():
            self._counts = {f: n for f, n in self._counts.items() if not f.startswith(prefix)}

    def add_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Append events, as `Store.add_events`."""
        with self._lock.get():
            self._events = [*self._events, *map(to_json, events)][-MAX_EVENTS:]

    def events(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest events, as `Store.events`."""
        with self._lock.get():
            return read_facts(self._events[-limit:] if limit > 0 else ())

    def beat(self, worker_id: str, info: Mapping[str, Any], ttl: float) -> None:
        """Keep a worker's words, as `Store.beat`."""
        with self._lock.get():
            self._workers[worker_id] = (monotonic() + ttl, to_json(info))

    def workers(self) -> dict[str, dict[str, Any]]:
        """Return the workers, as `Store.workers`."""
        with self._lock.get():
            self._workers = {w: kept for w, kept in self._workers.items() if kept[0] > monotonic()}
            return {w: read_fact(text) or {} for w, (_, text) in self._workers.items()}

    def publish_table(self, revision: str, text: bytes) -> None:
        """Keep a table's description, as `Store.publish_table`."""
        check_table(text, self.url)
        with self._lock.get():
            older = {r: t for r, t in self._tables.items() if r != revision}
            self._tables = dict([(revision, text), *older.items()][:MAX_TABLES])

    def table(self, revision: str) -> bytes | None:
        """Return a table's description, as `Store.table`."""
        with self._lock.get():
            return self._tables.get(revision)

    def tables(self) -> list[str]:
        """Return the tables' revisions, as `Store.tables`."""
        with self._lock.get():
            return list(self._tables)

    def wait(self, timeout: float) -> bool:
        """Wait for a change by this process, as `Store.wait`."""
        return self._waker.wait(timeout)

    def close(self) -> None:
        """End `wait`, as `Store.close`."""
        self._waker.close()
