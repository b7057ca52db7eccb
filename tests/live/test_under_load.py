"""Live changes under load, with real servers, workers, SQLite and Redis: nothing fails, everybody follows."""

import json
import os
import time
from contextlib import ExitStack, contextmanager

import pytest
from load import Load, ask, until
from test_reload import TABLE

from servers import serve
from stores.redis_servers import RedisServer
from strangle_mw.core.dials import Dial
from strangle_mw.core.model import Stage
from strangle_mw.core.overrides import (
    Kill,
    Override,
    encode_overrides,
    parse_overrides,
    with_kill,
    with_override,
    without,
)
from strangle_mw.stores import open_store

RELOADS = 200
ROUTE = "/m/*"


@pytest.fixture
def table(tmp_path, modern):
    path = tmp_path / "strangle.toml"

    def write(stage="legacy", more="", port=modern.port):
        new = tmp_path / "new"
        new.write_text(TABLE.format(port=port, stage=stage) + more)
        stamp = time.time_ns() - 5 * 10**9
        os.utime(new, ns=(stamp, stamp))
        new.replace(path)
        return stamp

    write.path = path
    write()
    return write


@contextmanager
def workers(table, store, number, name="gunicorn-gthread"):
    """Run one server with several workers; yields its port."""
    more = ["--workers", str(number)] if number > 1 else []
    environment = {"LIVE_TABLE": str(table.path), "LIVE_STORE": store}
    with serve(name, "live.live_app", more=more, judge=no_traceback, **environment) as port:
        yield port


def no_traceback(log):
    assert "Traceback" not in log


def edit(store, change):
    """Change the overrides as the command line does; return their revision."""
    written = store.edit(lambda raw: encode_overrides(change(parse_overrides(raw), time.time())))
    return parse_overrides(written).revision


def override(stage, points=None):
    return Override(Stage(stage), points, "ann", time.time(), "test", declared=Dial(Stage.LEGACY, 0))


def turn(store, stage, points=None):
    return edit(store, lambda o, now: with_override(o, ROUTE, override(stage, points), now))


def everybody_follows(store, revision, number):
    """Wait until this many workers have said that they follow; return the seconds that took."""
    return until(lambda: sum(w["overrides"] == revision for w in store.workers().values()) >= number)


def everybody_serves(store, port, number):
    """Ask until each worker has been asked once: before that, it does not follow a store."""

    def asked():
        ask(port, "/other")
        return len(store.workers()) == number

    until(asked)


# --- the file


@pytest.mark.parametrize("server", ["uvicorn-httptools", "gunicorn-gthread"])
def test_200_reloads_under_load(table, server, monkeypatch):
    with serve(server, "live.live_app", LIVE_TABLE=str(table.path), LIVE_FAST="1") as port:
        with Load(port, "/m/x") as load:
            for number in range(RELOADS):
                stage = "modern" if number % 2 else "legacy"
                table(stage, more=f'[[routes]]\npath = "/n{number}"\nto = "one"\n')
                answers = load.answers
                until(lambda wanted=stage: ask(port)[1] == wanted)
                until(lambda before=answers: load.answers > before)
        assert load.failures == []
        assert load.sides == {"legacy", "modern"}


# --- the store: 4 workers of one host


def test_four_workers_follow_sqlite(table, tmp_path, record_property):
    store = open_store(f"sqlite:///{tmp_path}/live.db")
    with workers(table, f"sqlite:///{tmp_path}/live.db", 4) as port, Load(port, "/m/x", 4) as load:
        everybody_serves(store, port, 4)
        times = []
        for stage in ("modern", "legacy", "modern", "legacy"):
            revision = turn(store, stage)
            times.append(everybody_follows(store, revision, 4))
            assert {ask(port)[1] for _ in range(20)} == {stage}
        revision = turn(store, "modern")
        everybody_follows(store, revision, 4)
        revision = edit(store, lambda o, now: with_kill(o, Kill("ann", now, "fire"), now))
        times.append(everybody_follows(store, revision, 4))
        assert {ask(port)[1] for _ in range(20)} == {"legacy"}
        revision = edit(store, lambda o, now: with_kill(o, None, now))
        times.append(everybody_follows(store, revision, 4))
        assert {ask(port)[1] for _ in range(20)} == {"modern"}
        revision = edit(store, lambda o, now: without(o, None, now))
        times.append(everybody_follows(store, revision, 4))
        assert {ask(port)[1] for _ in range(20)} == {"legacy"}
    print("sqlite, 4 workers:", [round(t, 3) for t in times])
    assert load.failures == []
    until(lambda: sum(store.counts().values()) > 0)
    store.close()


def test_a_worker_that_starts_later_follows_from_its_first_request(table, tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/live.db")
    turn(store, "modern")
    with workers(table, f"sqlite:///{tmp_path}/live.db", 1) as port:
        assert ask(port) == (200, "modern")
    store.close()


@pytest.mark.parametrize(
    "document", [b"{", b'{"format":1}', b"\x80\x04\x95", b"x" * 5_000_000, b'{"format":1,"revision":9}']
)
def test_a_document_of_no_use_is_refused_and_reported(table, tmp_path, document):
    import sqlite3

    path = tmp_path / "live.db"
    store = open_store(f"sqlite:///{path}")
    revision = turn(store, "modern")
    with workers(table, f"sqlite:///{path}", 1) as port:
        assert ask(port) == (200, "modern")
        with sqlite3.connect(path) as raw:
            raw.execute("UPDATE strangle_overrides SET document = ?, revision = ?", (document, revision + 1))
        raw.close()
        until(lambda: any(e["kind"] in ("store-refused", "store-lost") for e in store.events(10)))
        assert ask(port) == (200, "modern")  # the last good ones stay
    store.close()


def test_sqlite_that_is_locked_delays_no_request(table, tmp_path):
    import sqlite3

    path = tmp_path / "live.db"
    store = open_store(f"sqlite:///{path}")
    turn(store, "modern")
    with workers(table, f"sqlite:///{path}", 1) as port, Load(port, "/m/x", 2) as load:
        until(store.workers)
        raw = sqlite3.connect(path, isolation_level=None)
        raw.execute("BEGIN EXCLUSIVE")
        answers = load.answers
        until(lambda: load.answers > answers + 200)
        raw.execute("COMMIT")
        raw.close()
        revision = turn(store, "legacy")
        everybody_follows(store, revision, 1)
    assert load.failures == []
    store.close()


# --- the store: 3 processes, as on three hosts


@pytest.fixture
def redis():
    server = RedisServer()
    yield server
    server.close()


def test_three_processes_follow_redis(table, redis):
    store = open_store(redis.url())
    with ExitStack() as stack:
        names = ["gunicorn-gthread", "uvicorn-httptools", "gunicorn-gevent"]
        ports = [stack.enter_context(workers(table, redis.url(), 1, name)) for name in names]
        loads = [stack.enter_context(Load(port, "/m/x", 1)) for port in ports]
        until(lambda: len(store.workers()) == 3)
        times = []
        for stage in ("modern", "legacy", "canary"):
            revision = turn(store, stage, 10_000 if stage == "canary" else None)
            times.append(everybody_follows(store, revision, 3))
            side = "legacy" if stage == "legacy" else "modern"
            assert {ask(port)[1] for port in ports} == {side}
    print("redis, 3 processes:", [round(t, 3) for t in times])
    assert [load.failures for load in loads] == [[], [], []]
    store.close()


def test_redis_killed_and_started_again_under_load(table, redis):
    store = open_store(redis.url())
    with ExitStack() as stack:
        ports = [
            stack.enter_context(workers(table, redis.url(), 1, name))
            for name in ("gunicorn-gthread", "uvicorn-httptools")
        ]
        loads = [stack.enter_context(Load(port, "/m/x", 1)) for port in ports]
        until(lambda: len(store.workers()) == 2)
        revision = turn(store, "modern")
        everybody_follows(store, revision, 2)
        redis.kill()  # and all that it held is gone
        answers = [load.answers for load in loads]
        until(lambda: all(load.answers > a + 300 for load, a in zip(loads, answers, strict=True)))
        assert {ask(port)[1] for port in ports} == {"modern"}  # the last known overrides stay
        redis.start()
        until(lambda: store.read(0) not in (None, b""))  # a worker has put them back
        assert parse_overrides(store.read(0)).revision == revision
        assert {ask(port)[1] for port in ports} == {"modern"}
        revision = turn(store, "legacy")
        everybody_follows(store, revision, 2)
        assert {ask(port)[1] for port in ports} == {"legacy"}
        until(lambda: "store-back" in {e["kind"] for e in store.events(100)})
    assert [load.failures for load in loads] == [[], []]
    store.close()


def test_redis_that_hangs_delays_no_request(table, redis):
    store = open_store(redis.url())
    with workers(table, redis.url(), 1, "uvicorn-httptools") as port, Load(port, "/m/x", 2) as load:
        until(store.workers)
        revision = turn(store, "modern")
        everybody_follows(store, revision, 1)
        with redis.stopped():
            answers = load.answers
            until(lambda: load.answers > answers + 300)
            assert ask(port) == (200, "modern")
        revision = turn(store, "legacy")
        everybody_follows(store, revision, 1)
    assert load.failures == []
    store.close()


def test_what_workers_say(table, tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/live.db")
    with workers(table, f"sqlite:///{tmp_path}/live.db", 2) as port, Load(port, "/m/x", 2):
        everybody_serves(store, port, 2)
        [revision] = store.tables()
        described = json.loads(store.table(revision))
        assert [(r["name"], r["stage"]) for r in described["routes"]] == [(ROUTE, "legacy")]
        assert all(w["table"] == revision for w in store.workers().values())
    store.close()
