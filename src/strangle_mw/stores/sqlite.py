"""The store of one host: a file that all its processes share, in SQLite's write-ahead log.

One connection per process, made on first use, remade after any error and when the file was replaced under
it; one transaction per call. Only SQL lives here.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Any

from strangle_mw.core.events import safe_text
from strangle_mw.core.overrides import MAX_DOCUMENT
from strangle_mw.stores.base import (
    MAX_EVENTS,
    MAX_FACT,
    MAX_TABLE,
    MAX_TABLES,
    PerProcess,
    StoreError,
    Waker,
    check_size,
    check_table,
    read_fact,
    read_facts,
    revision_of,
    to_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_SCHEMA = {
    "strangle_overrides": "(id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER, document BLOB)",
    "strangle_counts": "(field TEXT PRIMARY KEY, number INTEGER)",
    "strangle_events": "(id INTEGER PRIMARY KEY, event TEXT)",
    "strangle_workers": "(id TEXT PRIMARY KEY, info TEXT, until REAL)",
    "strangle_tables": "(id INTEGER PRIMARY KEY, revision TEXT UNIQUE, text BLOB)",
}

# Primary result codes: https://sqlite.org/rescode.html
_WORDS = {
    sqlite3.SQLITE_BUSY: "is locked by another process",
    sqlite3.SQLITE_LOCKED: "is locked by another process",
    sqlite3.SQLITE_READONLY: "may not be written to",
    sqlite3.SQLITE_PERM: "may not be opened",
    sqlite3.SQLITE_FULL: "has no room left",
    sqlite3.SQLITE_IOERR: "cannot be read or written",
    sqlite3.SQLITE_CORRUPT: "is damaged",
    sqlite3.SQLITE_NOTADB: "is not a SQLite database",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
}


@dataclass(slots=True)
class _File:
    """One process's view of the file; `identity` tells whether another one has its name by now."""

    lock: Lock = field(default_factory=Lock)
    connection: sqlite3.Connection | None = None
    identity: tuple[int, int] | None = None

    def drop(self) -> None:
        """Close, which rolls back what was begun."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class SqliteStore:
    """`sqlite:///path.db`; `timeout` is the seconds to wait for a lock. See `base.Store` for the methods."""

    def __init__(self, path: str, timeout: float) -> None:
        self.url = safe_text(f"sqlite:///{path}", 500)
        self._path = path
        self._timeout = timeout
        self._files = PerProcess(_File)
        self._waker = Waker()

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Lend this process's connection; after any error the next call gets a new one."""
        file = self._files.get()
        with file.lock:
            try:
                if file.connection is None or _identity(self._path) != file.identity:
                    file.drop()
                    self._open(file)
                assert file.connection is not None  # noqa: S101 - `_open` has made one
                yield file.connection
            except sqlite3.Error as exc:
                file.drop()
                raise StoreError(self._sentence(exc)) from None
            except BaseException:
                file.drop()
                raise

    @contextmanager
    def _writing(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """Lend the connection for one transaction; a `durable` one outlives a power failure at once."""
        with self._connected() as connection:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def _open(self, file: _File) -> None:
        """Connect and see to the schema; SQLite does not always wait when several set up the log at once."""
        end = monotonic() + self._timeout
        while True:
            connection = sqlite3.connect(
                self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
            file.connection = connection
            try:
                connection.execute("PRAGMA trusted_schema = OFF")
                if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
                    connection.execute("PRAGMA journal_mode = WAL")
                self._create(connection)
            except sqlite3.OperationalError as exc:
                file.drop()
                if _primary(exc) != sqlite3.SQLITE_BUSY or monotonic() > end:
                    raise
                sleep(0.02)
            else:
                file.identity = _identity(self._path)
                return

    def _create(self, connection: sqlite3.Connection) -> None:
        if not self._has_schema(connection):
            connection.execute("BEGIN IMMEDIATE")
            if not self._has_schema(connection):  # another process may have been faster
                for name, columns in _SCHEMA.items():
                    connection.execute(f"CREATE TABLE {name} {columns}")
            connection.execute("COMMIT")

    def _has_schema(self, connection: sqlite3.Connection) -> bool:
        """Tell whether the tables are there, to the letter: no view, trigger or column of somebody else's."""
        found = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name IN (?, ?, ?, ?, ?)",
            tuple(_SCHEMA),
        ).fetchall()
        wanted = {name: f"CREATE TABLE {name} {columns}" for name, columns in _SCHEMA.items()}
        if found and dict(found) != wanted:
            raise StoreError(f"the store {self.url} has tables of another version under our names")
        return bool(found)

    def _sentence(self, exc: sqlite3.Error) -> str:
        code = _primary(exc)
        if code == sqlite3.SQLITE_CANTOPEN and not Path(self._path).parent.is_dir():
            return f"the store {self.url} cannot be opened: there is no such folder"
        return f"the store {self.url} {_WORDS.get(code, 'has failed')} ({safe_text(str(exc), 200)})"

    def read(self, since: int) -> bytes | None:
        """Return the document, as `Store.read`."""
        with self._connected() as connection:
            return self._document(connection, since)

    def _document(self, connection: sqlite3.Connection, since: int | None) -> bytes | None:
        # One statement, so that the revision is that of the document; the length is in the row's head.
        row = connection.execute(
            "SELECT length(document), revision IS ?,"
            " CASE WHEN revision IS NOT ? AND length(document) <= ? THEN document END"
            " FROM strangle_overrides WHERE typeof(document) = 'blob'",
            (since, since, MAX_DOCUMENT),
        ).fetchone()
        size, known, document = row or (0, False, b"")
        if known and size:
            return None
        check_size(size, self.url, "delete the row of strangle_overrides")
        return bytes(document or b"")

    def edit(self, change: Callable[[bytes], bytes]) -> bytes:
        """Change the document, as `Store.edit`."""
        with self._writing(durable=True) as connection:
            document = change(self._document(connection, None) or b"")
            _keep(connection, document, revision_of(document))
        self._waker.wake()
        return document

    def restore(self, document: bytes, revision: int) -> bool:
        """Put a document back, as `Store.restore`."""
        revision_of(document)
        with self._writing(durable=True) as connection:
            newer = connection.execute(
                "SELECT 1 FROM strangle_overrides WHERE length(document) > 0 AND revision >= ?", (revision,)
            ).fetchone()
            if newer is None:
                _keep(connection, document, revision)
        return newer is None

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Add to counters, as `Store.add_counts`."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT INTO strangle_counts VALUES (?, ?)"
                " ON CONFLICT (field) DO UPDATE SET number = number + excluded.number",
                list(counts.items()),
            )

    def counts(self) -> dict[str, int]:
        """Return the counters, as `Store.counts`."""
        with self._connected() as connection:
            return dict(
                connection.execute(
                    "SELECT field, number FROM strangle_counts"
                    " WHERE typeof(field) = 'text' AND typeof(number) = 'integer'"
                ).fetchall()
            )

    def reset_counts(self, prefix: str) -> None:
        """Forget counters, as `Store.reset_counts`."""
        with self._writing() as connection:
            connection.execute(
                "DELETE FROM strangle_counts WHERE substr(field, 1, length(?)) = ?", (prefix, prefix)
            )

    def add_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Append events, as `Store.add_events`."""
        rows = [(to_json(event),) for event in events]
        with self._writing() as connection:
            connection.executemany("INSERT INTO strangle_events (event) VALUES (?)", rows)
            connection.execute(
                "DELETE FROM strangle_events WHERE id <= (SELECT max(id) FROM strangle_events) - ?",
                (MAX_EVENTS,),
            )

    def events(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest events, as `Store.events`."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT event FROM strangle_events WHERE length(event) <= ? ORDER BY id DESC LIMIT ?",
                (MAX_FACT, max(limit, 0)),
            ).fetchall()
        return read_facts(text for (text,) in reversed(rows))

    def beat(self, worker_id: str, info: Mapping[str, Any], ttl: float) -> None:
        """Keep a worker's words, as `Store.beat`."""
        row = (worker_id, to_json(info), time() + ttl)
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO strangle_workers VALUES (?, ?, ?)", row)
            connection.execute("DELETE FROM strangle_workers WHERE until < ?", (time(),))

    def workers(self) -> dict[str, dict[str, Any]]:
        """Return the workers, as `Store.workers`."""
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT id, info FROM strangle_workers WHERE until > ? AND length(info) <= ?",
                (time(), MAX_FACT),
            ).fetchall()
        return {str(worker): info for worker, text in rows if (info := read_fact(text)) is not None}

    def publish_table(self, revision: str, text: bytes) -> None:
        """Keep a table's description, as `Store.publish_table`."""
        check_table(text, self.url)
        if self.tables()[:1] == [revision]:  # every worker says the same at its start
            return
        with self._writing() as connection:
            connection.execute("DELETE FROM strangle_tables WHERE revision = ?", (revision,))
            connection.execute("INSERT INTO strangle_tables (revision, text) VALUES (?, ?)", (revision, text))
            connection.execute(
                "DELETE FROM strangle_tables WHERE id NOT IN"
                " (SELECT id FROM strangle_tables ORDER BY id DESC LIMIT ?)",
                (MAX_TABLES,),
            )

    def table(self, revision: str) -> bytes | None:
        """Return a table's description, as `Store.table`."""
        with self._connected() as connection:
            row = connection.execute(
                "SELECT text FROM strangle_tables"
                " WHERE revision = ? AND typeof(text) = 'blob' AND length(text) <= ?",
                (revision, MAX_TABLE),
            ).fetchone()
        return bytes(row[0]) if row is not None else None

    def tables(self) -> list[str]:
        """Return the tables' revisions, as `Store.tables`."""
        with self._connected() as connection:
            rows = connection.execute("SELECT revision FROM strangle_tables ORDER BY id DESC").fetchall()
        return [str(revision) for (revision,) in rows]

    def wait(self, timeout: float) -> bool:
        """Wait for a change by this process, as `Store.wait`; other processes' are found by `read`."""
        return self._waker.wait(timeout)

    def close(self) -> None:
        """Close this process's connection, as `Store.close`."""
        self._waker.close()
        file = self._files.get()
        with file.lock:
            file.drop()


def _keep(connection: sqlite3.Connection, document: bytes, revision: int) -> None:
    connection.execute("INSERT OR REPLACE INTO strangle_overrides VALUES (1, ?, ?)", (revision, document))


def _primary(exc: sqlite3.Error) -> int:
    return (getattr(exc, "sqlite_errorcode", None) or 0) & 0xFF
