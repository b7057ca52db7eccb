"""A store in a file: what can become of files, and of the room on a disk."""

import re
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from stores.kinds import document
from strangle_mw.stores import open_store
from strangle_mw.stores.base import StoreError

EDITS = str(Path(__file__).parent / "edits.py")
FIRST, SECOND = document(1), document(2)
CALLS = {
    "read": lambda store: store.read(0),
    "edit": lambda store: store.edit(lambda raw: SECOND),
    "restore": lambda store: store.restore(SECOND, 2),
    "add_counts": lambda store: store.add_counts({"a": 1}),
    "counts": lambda store: store.counts(),
    "reset_counts": lambda store: store.reset_counts("a"),
    "add_events": lambda store: store.add_events([{"what": "x" * 5000}] * 100),
    "events": lambda store: store.events(5),
    "beat": lambda store: store.beat("w", {}, 60),
    "workers": lambda store: store.workers(),
    "publish_table": lambda store: store.publish_table("r", b"x" * 100_000),
    "table": lambda store: store.table("r"),
    "tables": lambda store: store.tables(),
}
WRITES = ["edit", "restore", "add_counts", "reset_counts", "add_events", "beat", "publish_table"]
every_write = pytest.mark.parametrize("call", [CALLS[w] for w in WRITES], ids=WRITES)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.db"


@pytest.fixture
def store(path):
    store = open_store(f"sqlite:///{path}?timeout=0.05")
    yield store
    store.close()


@pytest.fixture
def other(path, store):
    """Somebody else's connection to the file, which is there and holds a document."""
    store.edit(lambda raw: FIRST)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def refuses(call, store, reason):
    with pytest.raises(StoreError, match=reason) as caught:
        call(store)
    assert caught.value.reason == str(caught.value)
    assert "\n" not in caught.value.reason


# --- locked


@every_write
def test_a_locked_file_takes_no_writes(store, other, call):
    other.execute("BEGIN IMMEDIATE")
    refuses(call, store, "is locked by another process")
    assert store.read(0) == FIRST
    other.execute("COMMIT")
    call(store)


def test_a_reader_holds_up_nobody(store, other):
    other.execute("BEGIN")
    other.execute("SELECT * FROM strangle_overrides").fetchall()
    assert store.edit(lambda raw: SECOND) == SECOND
    assert store.read(1) == SECOND
    assert other.execute("SELECT revision FROM strangle_overrides").fetchall() == [(1,)]


def test_a_file_that_somebody_keeps_for_himself(path, store):
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("COMMIT")
        for call in (CALLS["read"], CALLS["edit"], CALLS["add_counts"]):
            refuses(call, store, "is locked by another process")
    assert store.edit(lambda raw: FIRST) == FIRST


# --- full


@pytest.mark.parametrize("call", [CALLS["add_events"], CALLS["publish_table"]])
def test_a_full_disk(store, call):
    store.edit(lambda raw: FIRST)
    connection = store._files.get().connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    refuses(call, store, "has no room left")
    assert store.read(0) == FIRST
    call(store)  # by a new connection, that has room


def test_nothing_is_half_written_to_a_full_disk(store):
    store.add_counts({"a": 1})
    connection = store._files.get().connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    refuses(lambda s: s.add_counts({"a": 1, **{f"{n} {'x' * 500}": 1 for n in range(100)}}), store, "no room")
    assert store.counts() == {"a": 1}


# --- damaged, replaced, gone

DAMAGE = {
    "text": b"store = 'redis://'\n" * 500,
    "noise": bytes(range(256)) * 64,
    "a head and noise": b"SQLite format 3\0" + b"\xff" * 8192,
    "half a page": b"SQLite format 3\0" + b"\x10\x00\x01\x01",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_file_that_is_no_store(path, store, damage):
    path.write_bytes(damage)
    for call in CALLS.values():
        refuses(call, store, "is not a SQLite database|is damaged|cannot be (read|opened)|may not be written")
    assert path.read_bytes() == damage
    path.unlink()
    for call in CALLS.values():
        call(store)


def test_a_file_that_is_damaged_while_it_is_used(path, store, other):
    other.close()
    store.close()
    assert store.read(0) == FIRST
    damaged = path.with_suffix(".new")
    damaged.write_bytes(DAMAGE["noise"])
    damaged.rename(path)
    refuses(CALLS["read"], store, "is not a SQLite database")
    for file in path.parent.iterdir():
        file.unlink()
    assert store.read(0) == b""
    assert store.restore(FIRST, 1)


def test_a_file_that_is_removed_while_it_is_used(path, store, other):
    other.close()
    assert store.read(0) == FIRST
    for file in path.parent.iterdir():
        file.unlink()
    assert store.read(0) == b""
    with closing(open_store(f"sqlite:///{path}")) as second:
        second.edit(lambda raw: SECOND)
    assert store.read(1) == SECOND


def test_a_folder_that_is_not_there_yet(tmp_path):
    with closing(open_store(f"sqlite:///{tmp_path}/later/store.db")) as store:
        for call in CALLS.values():
            refuses(call, store, "there is no such folder")
        (tmp_path / "later").mkdir()
        assert store.read(0) == b""


def test_a_folder_in_the_place_of_the_file(path, store):
    path.mkdir()
    refuses(CALLS["read"], store, "cannot be opened")


def test_a_file_in_the_place_of_the_folder(path):
    path.write_bytes(b"")
    with closing(open_store(f"sqlite:///{path}/store.db")) as store:
        refuses(CALLS["read"], store, "there is no such folder")


# --- not ours to write


@pytest.mark.parametrize("folder_too", [False, True])
def test_a_file_that_may_only_be_read(folder_too):
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name) / "store.db"
        with closing(open_store(f"sqlite:///{path}")) as store:
            store.edit(lambda raw: FIRST)
        path.chmod(0o444)
        folder.chmod(0o555 if folder_too else 0o777)
        # By a program that gives up root's rights, which no permission holds up.
        command = [sys.executable, EDITS, "as_nobody", f"sqlite:///{path}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        folder.chmod(0o700)
        assert done.stderr == ""
        assert re.fullmatch(
            rf"the store sqlite:///{path} (may not be written to|cannot be opened) \(.*\)\n", done.stdout
        )


# --- somebody else's content


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE strangle_overrides (id INTEGER)",
        "CREATE VIEW strangle_overrides AS SELECT 1 AS id, 9 AS revision, x'7b7d' AS document",
        "CREATE TABLE strangle_counts (field TEXT PRIMARY KEY, number INTEGER)",
    ],
)
def test_tables_of_another_make_are_not_used(path, store, statement):
    with closing(sqlite3.connect(path)) as other:
        other.execute(statement)
    for call in CALLS.values():
        refuses(call, store, "tables of another version")


def test_a_trigger_of_somebody_else_is_not_run(path, store):
    store.add_counts({"a": 1})
    store.close()
    with closing(sqlite3.connect(path)) as other:
        other.execute(
            "CREATE TRIGGER t AFTER INSERT ON strangle_overrides BEGIN DELETE FROM strangle_counts; END"
        )
    refuses(CALLS["edit"], store, "tables of another version")
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM strangle_counts").fetchall() == [(1,)]


def test_a_database_of_the_monolith_may_hold_the_store(path, store):
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE strangled (id INTEGER)")
        other.execute("PRAGMA user_version = 7")
        store.edit(lambda raw: FIRST)
        assert other.execute("PRAGMA user_version").fetchall() == [(7,)]
    assert store.read(0) == FIRST


@pytest.mark.parametrize(
    ("revision", "raw", "since", "found"),
    [
        ("text", FIRST, 1, FIRST),
        (None, FIRST, 1, FIRST),
        (1.5, FIRST, 1, FIRST),
        (-1, FIRST, 1, FIRST),
        (1, "text", 1, b""),
        (1, 7, 1, b""),
        (1, None, 1, b""),
        (1, b"", 1, b""),
    ],
)
def test_rows_of_other_types_do_no_harm(store, other, revision, raw, since, found):
    other.execute("INSERT OR REPLACE INTO strangle_overrides VALUES (1, ?, ?)", (revision, raw))
    assert store.read(since) == found
    assert store.edit(lambda raw: SECOND) == SECOND
    assert store.read(2) is None


def test_facts_of_other_types_are_left_out(store, other):
    store.add_events([{"n": 1}])
    store.add_counts({"a": 1})
    store.beat("w", {"n": 1}, 60)
    store.publish_table("r", b"{}")
    for raw in ("{", "[]", "7", "[" * 50_000, b"\xff", None, 7, '{"a":"' + "x" * 70_000 + '"}'):
        other.execute("INSERT INTO strangle_events (event) VALUES (?)", (raw,))
        other.execute("INSERT OR REPLACE INTO strangle_workers VALUES ('x', ?, 1e12)", (raw,))
        other.execute("INSERT OR REPLACE INTO strangle_counts VALUES ('x', ?)", (str(raw),))
        assert store.events(50) == [{"n": 1}]
        assert store.workers() == {"w": {"n": 1}}
        assert store.counts() == {"a": 1, **({"x": 7} if raw in (7, "7") else {})}
    other.execute("UPDATE strangle_tables SET text = 'text'")
    assert store.table("r") is None


# --- where the file is, and how it is written


def test_a_relative_path_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with closing(open_store("sqlite:///a%20b.db")) as store:
        monkeypatch.chdir("/")
        store.edit(lambda raw: FIRST)
        assert (tmp_path / "a b.db").is_file()
        assert store.url == f"sqlite:///{tmp_path}/a b.db"


def test_the_file_is_in_write_ahead_mode(store, other):
    assert other.execute("PRAGMA journal_mode").fetchall() == [("wal",)]


def test_an_opened_store_is_no_file_yet(path, store):
    assert store.url == f"sqlite:///{path}"
    assert not path.exists()


def test_nothing_is_left_open(path):
    before = sorted(Path("/proc/self/fd").iterdir())
    for call in CALLS.values():
        with closing(open_store(f"sqlite:///{path}")) as store:
            call(store)
    assert sorted(Path("/proc/self/fd").iterdir()) == before
