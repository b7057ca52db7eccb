"""What every store does, whatever it is made of."""

import threading

import pytest
from hostile_overrides import HOSTILE

from stores.kinds import document
from strangle_mw.core.model import Stage
from strangle_mw.core.overrides import MAX_DOCUMENT, Override, OverridesError, parse_overrides, with_override
from strangle_mw.core.overrides import encode_overrides as encode
from strangle_mw.stores.base import MAX_EVENTS, MAX_TABLE, MAX_TABLES, StoreError

FIRST, SECOND = document(1), document(2)


def turn(route):
    """An edit that adds an override of one route."""

    def change(raw):
        override = Override(Stage.MODERN, None, "ann", 1.0, "")
        return encode(with_override(parse_overrides(raw), route, override, 0.0))

    return change


# --- the document


@pytest.mark.parametrize("since", [-1, 0, 1])
def test_an_empty_store_has_no_document(store, since):
    assert store.read(since) == b""


def test_a_document_is_read_unless_it_is_known(kept, store):
    asked = []
    assert store.edit(lambda raw: asked.append(raw) or FIRST) == FIRST
    assert store.edit(lambda raw: asked.append(raw) or SECOND) == SECOND
    assert asked == [b"", FIRST]
    other = kept.open()
    assert [other.read(s) for s in (0, 1, 2, 3)] == [SECOND, SECOND, None, SECOND]


def test_an_edit_that_raises_changes_nothing(store):
    store.edit(lambda raw: FIRST)

    def change(raw):
        raise ValueError(raw)

    with pytest.raises(ValueError, match="revision"):
        store.edit(change)
    assert store.read(0) == FIRST
    assert store.edit(lambda raw: SECOND) == SECOND


@pytest.mark.parametrize("made", [b"", b"{}", b"\x80\x04", FIRST[:-1]])
def test_only_documents_are_stored(store, made):
    store.edit(lambda raw: FIRST)
    with pytest.raises(StoreError, match="only a document of overrides is stored"):
        store.edit(lambda raw: made)
    with pytest.raises(StoreError, match="only a document of overrides is stored"):
        store.restore(made, 9)
    assert store.read(0) == FIRST


def test_a_document_is_put_back_only_over_an_older_one(store):
    assert store.restore(FIRST, 1)
    assert not store.restore(FIRST, 1)
    assert store.restore(SECOND, 2)
    assert not store.restore(FIRST, 1)
    assert store.read(0) == SECOND
    assert store.read(2) is None


def test_hostile_documents_are_handed_over_as_text_and_nothing_is_done_to_them(kept, store):
    for name, hostile in HOSTILE.items():
        if len(hostile) > MAX_DOCUMENT:
            continue  # the next test's
        kept.plant(hostile, 7)
        assert store.read(0) == hostile, name
        assert store.read(7) is None, name
        with pytest.raises(OverridesError):
            store.edit(turn("a"))
        assert not store.restore(FIRST, 1)
        assert store.read(0) == hostile, name
    assert store.restore(document(8), 8)
    assert store.edit(turn("a")) == store.read(0)


@pytest.mark.parametrize("kept", ["sqlite", "redis"], indirect=True)
def test_a_document_too_large_is_not_read(kept, store):
    kept.plant(HOSTILE["over 4 MiB"], 7)
    for act in (lambda: store.read(0), lambda: store.edit(turn("a"))):
        with pytest.raises(StoreError, match=f"holds a document of {len(HOSTILE['over 4 MiB'])} bytes"):
            act()
    assert store.read(7) is None
    assert not store.restore(FIRST, 1)
    assert store.restore(document(8), 8)
    assert store.edit(turn("a")) == store.read(0)


def test_the_largest_document_is_kept(store):
    override = Override(Stage.MODERN, None, "", 0.0, "x" * 1000)
    largest = document(1, **{f"{n:08}": override for n in range(3844)})
    assert MAX_DOCUMENT * 0.97 < len(largest) <= MAX_DOCUMENT
    assert store.edit(lambda raw: largest) == largest
    assert store.read(0) == largest


def test_no_edit_is_lost(kept):
    """Eight threads, each with a store of its own, change one document at the same time."""
    begin = threading.Barrier(8)

    def work(name):
        store = kept.open()
        begin.wait(20)
        for number in range(10):
            store.edit(turn(f"{name} {number}"))

    kept.open()
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = parse_overrides(kept.open().read(0))
    assert found.routes.keys() == {f"{t} {n}" for t in range(8) for n in range(10)}
    assert found.revision == 80


# --- counters


def test_counters_add_up(kept, store):
    store.add_counts({"a\tx": 2, "é\n世": 1})
    kept.open().add_counts({"a\tx": 3, "b": 1})
    store.add_counts({})
    assert store.counts() == {"a\tx": 5, "é\n世": 1, "b": 1}


def test_counters_of_a_prefix_are_forgotten(store):
    names = ["a\t1", "a\t2", "aa\t1", "A\t1", "a%\t1", "a*\t1", "é\t1", "é\t2"]
    store.add_counts(dict.fromkeys(names, 1))
    store.reset_counts("a\t")
    assert store.counts().keys() == set(names[2:])
    store.reset_counts("é\t")
    store.reset_counts("a*\t")
    store.reset_counts("nobody")
    assert store.counts().keys() == {"aa\t1", "A\t1", "a%\t1"}
    store.reset_counts("")
    assert store.counts() == {}


# --- events, workers, tables


def test_the_newest_events_are_kept_in_their_order(kept, store):
    assert store.events(5) == []
    store.add_events([{"n": n, "what": "世\n"} for n in range(3)])
    kept.open().add_events([{"n": 3}])
    store.add_events([])
    assert [e["n"] for e in store.events(10)] == [0, 1, 2, 3]
    assert [e["n"] for e in store.events(2)] == [2, 3]
    assert store.events(0) == store.events(-1) == []
    assert store.events(10)[0] == {"n": 0, "what": "世\n"}
    store.add_events([{"n": n} for n in range(4, MAX_EVENTS + 10)])
    assert [e["n"] for e in store.events(MAX_EVENTS * 2)] == list(range(10, MAX_EVENTS + 10))


def test_workers_are_known_by_their_last_words(kept, store):
    assert store.workers() == {}
    store.beat("h:1", {"pid": 1, "problems": ["é"]}, 60)
    kept.open().beat("h:2", {"pid": 2}, 60)
    store.beat("h:1", {"pid": 1}, 60)
    assert store.workers() == {"h:1": {"pid": 1}, "h:2": {"pid": 2}}


def test_workers_are_forgotten(store):
    store.beat("old", {"pid": 1}, 0.001)
    store.beat("new", {"pid": 2}, 60)
    waited = threading.Event()
    for _ in range(1000):
        if store.workers() == {"new": {"pid": 2}}:
            break
        waited.wait(0.005)
    assert store.workers() == {"new": {"pid": 2}}


def test_the_newest_tables_are_kept(kept, store):
    assert store.tables() == []
    assert store.table("r0") is None
    for number in range(MAX_TABLES + 2):
        kept.open().publish_table(f"r{number}", b"table %d" % number)
    store.publish_table("r5", b"table 5")
    store.publish_table("r5", b"table 5")
    assert store.tables() == ["r5", "r9", "r8", "r7", "r6", "r4", "r3", "r2"]
    assert [store.table(r) for r in ("r5", "r2", "r1", "r0")] == [b"table 5", b"table 2", None, None]


def test_a_table_too_large_is_not_kept(store):
    store.publish_table("r1", b" " * MAX_TABLE)
    with pytest.raises(StoreError, match="no description of a table"):
        store.publish_table("r2", b" " * (MAX_TABLE + 1))
    assert store.tables() == ["r1"]
    assert len(store.table("r1")) == MAX_TABLE


# --- waiting


def test_a_change_by_the_same_store_ends_a_wait(kept, store):
    kept.settle(store)
    assert not store.wait(0)
    store.edit(turn("a"))
    assert store.wait(20)
    assert not store.wait(0)


def test_a_closed_store_does_not_wait(kept, store):
    kept.settle(store)
    waiting = threading.Thread(target=lambda: ended.append(store.wait(1000)))
    ended = []
    waiting.start()
    store.close()
    waiting.join(20)
    assert ended == [False]
    assert not store.wait(1000)
    store.edit(turn("a"))
    assert not store.wait(1000)
    store.close()


def test_two_may_wait_at_once(kept, store):
    kept.settle(store)
    ended = []
    threads = [threading.Thread(target=lambda: ended.append(store.wait(1000))) for _ in range(2)]
    for thread in threads:
        thread.start()
    store.close()
    for thread in threads:
        thread.join(20)
    assert ended == [False, False]
