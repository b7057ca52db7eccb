"""What stages, stores and health meet in production: no threads to be had, stores half broken, late patches."""

import asyncio
import random
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
import redis
from tests.transports.upstream import ScriptedUpstream, head, send, until_gone

from calls import call as ask
from promises.drive import Asgi, Wsgi, address
from servers import DEADLINE
from stores.redis_servers import RedisServer
from strangle_mw import ConfigError, Health, Route, Upstream, engine, follower, live, strangle
from strangle_mw.config import load
from strangle_mw.core.events import CounterKey
from strangle_mw.core.model import Breaker, Stage
from strangle_mw.core.overrides import MAX_NAME, MAX_REVISION, Override, Overrides, encode_overrides
from strangle_mw.reach import Known, published_table, read_workers
from strangle_mw.rollout import Rollout, Who
from strangle_mw.stores import StoreError, open_store
from strangle_mw.transports.probe import Probe

HALF = {"stage": "canary", "weight": 50}
NOWHERE = "http://127.0.0.1:1"


def legacy(environ, start_response):
    start_response("299 Legacy", [])
    return [b"legacy"]


def routes(stage="legacy", **upstream):
    return [Route("/m/*", name="m", to=Upstream(url=NOWHERE, **upstream), stage=stage)]


def document(revision=1, **overridden):
    made = {n: Override(Stage(stage), None, "ann", 1.0, "") for n, stage in overridden.items()}
    return encode_overrides(Overrides(revision, None, made))


def plant(app, raw, revision=1):
    app.engine.store._document, app.engine.store._revision = raw, revision


def dial(app, name="m"):
    return app.engine.snapshot.dials[name].stage.value


@pytest.fixture
def no_threads(monkeypatch):
    """Let no thread be started, as where a container's limit of processes is reached."""
    with monkeypatch.context() as patch:

        def start(self):
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", start)
        yield patch


# --- looking for changes, on the way of a request


def test_a_thread_that_cannot_be_started_fails_no_request(no_threads, caplog):
    app = strangle(legacy, routes("legacy", health=Health(path="/h")))
    assert ask(app) == b"legacy"
    assert "looking for changes has failed" in caplog.text
    no_threads.undo()
    assert app.engine.due < float("inf")
    app.engine.look()
    assert app.engine.probers._running
    app.engine.close()


def test_a_look_that_is_broken_off_is_not_the_last_one(monkeypatch):
    class TimeoutOfGevent(BaseException):
        """Raised wherever the greenlet happens to be."""

    def watch(*_):
        raise TimeoutOfGevent

    app = strangle(legacy, routes("legacy", health=Health(path="/h")))
    monkeypatch.setattr(app.engine.probers, "watch", watch)
    with pytest.raises(TimeoutOfGevent):
        ask(app)
    assert app.engine.due < float("inf")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "strangle.json"
    path.write_text('{"routes": [{"path": "/m/*", "name": "m", "respond": {}}]}')
    return path


def change(path):
    """Change a file so that it looks as if it had been left alone for a while."""
    path.write_text(path.read_text().replace("respond", 'stage": "legacy", "respond'))
    path.touch()
    engine.os.utime(path, (1e9, 1e9))


def stage(app):
    return app.engine.snapshot.table.routes[0].staging.dial.stage.value


def look(app):
    app.engine.look()
    for thread in threading.enumerate():
        if thread.name == "strangle-reload":
            thread.join(DEADLINE)


def test_a_file_is_read_later_if_there_is_no_thread_for_it_now(file, no_threads):
    app = strangle(legacy, file)
    change(file)
    look(app)
    no_threads.undo()
    look(app)
    assert stage(app) == "legacy"
    app.engine.close()


def test_a_child_of_a_fork_in_the_middle_of_a_reload_reads_the_file_itself(file):
    app = strangle(legacy, file)
    change(file)
    app.engine.live._reloading = True  # as `look` has left it, and the thread `_reload`, in the parent
    app.engine.live.watch.accept(app.engine.live.watch.fingerprint())
    app.engine.reset_after_fork()
    look(app)
    assert stage(app) == "legacy"
    app.engine.close()


# --- functions and apps of the user's


class Lazy:
    """A user that is looked up when it is used, in a database that is away."""

    def __str__(self):
        raise OSError("no database")

    def __bool__(self):
        raise OSError("no database")


@pytest.mark.parametrize(
    ("route", "settings"), [({}, {"identify": lambda _: Lazy()}), ({"when": lambda _: Lazy()}, {})]
)
def test_what_is_lazy_and_fails_late_fails_no_request(route, settings, caplog):
    app = strangle(legacy, [Route("/m/*", respond={"status": 410}, **HALF, **route)], **settings)
    for _ in range(3):
        ask(app)
    assert len([r for r in caplog.records if "told once" in r.message]) == 1


def test_the_wrapped_app_may_name_exc_info():
    def naming(environ, start_response):
        start_response("299 Legacy", [], exc_info=None)
        return [b"legacy"]

    app = strangle(naming, [Route("/m/*", to=NOWHERE, stage="canary", weight=0)])
    assert ask(app) == b"legacy"


def test_an_app_that_seeds_its_chance_does_not_choose_ours():
    ids = []
    for _ in range(2):
        random.seed(42)
        ids.append(engine._new_id())
    assert len(set(ids)) == 2


@pytest.mark.parametrize("made", [OSError, asyncio.CancelledError])
def test_a_client_that_leaves_in_its_answer_is_no_failure_of_the_modern_side(made):
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"

    async def run(app):
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def leave(message):
            if message["type"] == "http.response.body":
                raise made

        scope = {
            "type": "http", "method": "GET", "path": "/m/x", "raw_path": b"/m/x", "query_string": b"",
            "headers": [(b"host", b"h")], "scheme": "http", "http_version": "1.1", "client": ("192.0.2.1", 1),
        }  # fmt: skip
        with suppress(made):
            await app(scope, receive, leave)
        await app.engine.aclose(asyncio.get_running_loop())

    async def nobody(scope, receive, send):
        raise AssertionError("never asked")

    with ScriptedUpstream([head(), send(data), until_gone()]) as server:
        app = strangle(nobody, [Route("/m/*", name="m", to=address(server))])
        asyncio.run(run(app))
    assert [k.outcome for k in app.engine.states.take_counts()] == ["gone"]


@pytest.mark.parametrize("kind", [Asgi, Wsgi])
def test_a_request_that_is_at_fault_is_no_failure_of_the_modern_side(kind):
    with ScriptedUpstream([until_gone()]) as server:
        side = kind([Route("/m/*", name="m", to=address(server))], max_body=10)
        refused = side.ask(chunked=True, body=[b"x" * 8, b"y" * 8], headers=())
        (key,) = side.app.engine.states.take_counts()
        side.close()
    assert refused.status == 413
    assert (key.side, key.outcome) == ("modern", "4xx")


# --- names


def test_one_long_name_does_not_stop_the_rollback_of_all(tmp_path):
    deep = "/x/" + "a" * MAX_NAME
    table = [
        *routes("modern"),
        Route(deep, to=NOWHERE),
        Route(deep + "b", to=NOWHERE),
        Route(regex="/\t", to=NOWHERE),
    ]
    app = strangle(legacy, table, store=f"sqlite:///{tmp_path}/store.db")
    known = Known("r", "the app", app.engine.live.table.table)
    done = Rollout(app.engine.store, lambda: known).rollback(None, Who("ann"))
    assert len({c.route for c in done.changes}) == len(table)
    app.engine.follower.read()
    assert {d.stage for d in app.engine.snapshot.dials.values()} == {Stage.LEGACY}
    app.engine.follower.flush()
    assert [r.name for r in published_table(app.engine.store).table.routes] == [
        r.name for r in known.table.routes
    ]
    app.engine.close()


def test_a_name_that_no_override_could_name_is_refused():
    with pytest.raises(ConfigError, match="route-name"):
        load([Route("/m/*", name="n" * (MAX_NAME + 1), respond={})])


def test_a_change_of_thousands_of_overrides_is_not_thousands_of_lines(caplog):
    caplog.set_level("INFO")
    many = {f"m{n}": "legacy" for n in range(500)}
    app = strangle(legacy, [Route(f"/{n}", name=n, respond={}) for n in many])
    plant(app, document(**many))
    app.engine.follower.read()
    assert len(app.engine.snapshot.dials) == 500
    assert sum(r.message.startswith("route 'm") for r in caplog.records) == live.MAX_TOLD


# --- following


def test_a_document_that_is_refused_is_not_parsed_again_and_again(monkeypatch):
    app = strangle(legacy, routes())
    plant(app, b'{"format": 2}')
    parsed = []

    def parse(raw, *more):
        parsed.append(raw)
        return real(raw, *more)

    real = follower.parse_overrides
    monkeypatch.setattr(follower, "parse_overrides", parse)
    for _ in range(5):
        app.engine.follower.read()
    assert len(parsed) == 1
    assert app.engine.follower.refused
    plant(app, document(m="modern"))
    app.engine.follower.read()
    assert (dial(app), app.engine.follower.refused) == ("modern", "")


def test_a_document_that_was_refused_and_is_mine_again_is_refused_no_more():
    app = strangle(legacy, routes())
    plant(app, document(m="modern"))
    app.engine.follower.read()
    plant(app, b"{", 2)
    app.engine.follower.read()
    assert app.engine.follower.refused
    plant(app, document(m="modern"))
    app.engine.follower.read()
    assert (dial(app), app.engine.follower.refused) == ("modern", "")


def test_no_revision_is_so_high_that_the_kill_switch_cannot_be_turned_any_more():
    app = strangle(legacy, routes("modern"))
    plant(app, document(MAX_REVISION, m="modern"), MAX_REVISION)
    app.engine.follower.read()
    assert "a time to come" in app.engine.follower.refused
    Rollout(app.engine.store, lambda: Known("r", "the app", app.engine.live.table.table)).kill(Who("ann"))
    app.engine.follower.read()
    assert (dial(app), app.engine.follower.refused) == ("legacy", "")


def test_what_was_broken_off_is_followed_the_next_time(monkeypatch):
    app = strangle(legacy, routes("modern"))
    plant(app, document(m="legacy"))
    with monkeypatch.context() as patch:
        patch.setattr(app.engine, "snapshot", app.engine.snapshot)
        patch.setattr(app.engine.live, "_install", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            app.engine.follower.read()
    app.engine.follower.read()
    assert dial(app) == "legacy"


def test_a_child_of_a_fork_in_the_middle_of_a_change_follows_it():
    app = strangle(legacy, routes("modern"))
    plant(app, document(m="legacy"))
    app.engine.live.overrides = Overrides(1, None, {"m": Override(Stage.LEGACY, None, "ann", 1.0, "")})
    app.engine.reset_after_fork()
    app.engine.follower.read()
    assert dial(app) == "legacy"


def test_overrides_that_are_taken_away_while_they_are_applied(monkeypatch):
    app = strangle(legacy, routes("legacy", health=Health(path="/h")))
    plant(app, document(m="modern"))
    app.engine.follower.read()
    assert app.engine.live.waiting == {"m"}

    def apply(table, overrides):
        found = real(table, overrides)
        app.engine.live.overrides = Overrides(2)  # what `follow` does first, in the follower's thread
        return found

    real = live.apply_overrides
    with monkeypatch.context() as patch:
        patch.setattr(live, "apply_overrides", apply)
        app.engine.live.refresh()  # in a prober's thread
    app.engine.live.refresh()
    assert not app.engine.live.waiting
    app.engine.close()


def test_a_worker_with_much_to_say_is_still_seen(tmp_path):
    number = 1500
    table = [
        Route(f"/{n}", to=Upstream(url=f"http://127.0.0.1:{n + 1}", breaker=Breaker(failures=1)))
        for n in range(number)
    ]
    app = strangle(legacy, table, store=f"sqlite:///{tmp_path}/store.db")
    for upstream in app.engine.snapshot.upstreams.values():
        app.engine.states.upstream(upstream)
    bad = app.engine.states.upstream(next(iter(app.engine.snapshot.upstreams.values())))
    with bad.lock:
        bad.breakers[0].record(bad.breakers[0].admit(1e9), "connect", 1e9)
    app.engine.live.waiting = frozenset(f"w{n}" for n in range(number))
    app.engine.follower.flush()
    (worker,) = read_workers(app.engine.store)
    assert worker.upstreams == {bad.upstream.name: (("open", "unknown"),)}
    assert len(worker.waiting) == number
    app.engine.live.waiting = frozenset(f"{n:0500}" for n in range(number))
    app.engine.follower.flush()
    (worker,) = read_workers(app.engine.store)
    assert not worker.waiting
    app.engine.close()


# --- Redis


@pytest.fixture(scope="module")
def redis_server():
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def server(redis_server):
    server = redis_server
    with redis.Redis(port=server.port) as server.client:
        server.client.flushall()
        yield server


@pytest.fixture
def followed(server):
    app = strangle(legacy, routes(), store=server.url())
    app.engine.states.count("m", app.engine.snapshot.table.routes[0].staging.dial, "legacy", "passed")
    yield app
    app.engine.close()


def test_a_store_that_can_be_read_and_not_written_is_told_of_once(server, followed, caplog):
    """One that is full, or a replica: reading goes well four times a second, and says nothing of writing."""
    server.client.config_set("maxmemory", 1)
    try:
        for _ in range(5):
            followed.engine.follower.read()
            followed.engine.follower.flush()
    finally:
        server.client.config_set("maxmemory", 0)
    assert len([r for r in caplog.records if "the store can" in r.message]) == 1
    assert "maxmemory" in followed.engine.follower.error
    followed.engine.follower.flush()
    assert followed.engine.follower.error == ""
    assert [e["kind"] for e in followed.engine.store.events(9)] == ["store-lost"]
    found = {CounterKey.parse(f): n for f, n in followed.engine.store.counts().items()}
    assert [n for key, n in found.items() if key is not None] == [1]
    assert list(found.values()) == [1, 1]  # and the hit of the day


def test_counters_that_cannot_be_written_hide_no_worker(server, followed):
    server.client.set("strangle:counts", "of somebody else")
    followed.engine.follower.flush()
    assert [w.id for w in read_workers(followed.engine.store)] == [followed.engine.follower.worker]


def test_a_store_that_has_lost_everything_gets_the_table_again(server, followed):
    server.client.set("strangle:overrides", document())
    server.client.set("strangle:revision", 1)
    followed.engine.follower.read()
    followed.engine.follower.flush()
    server.client.flushall()
    followed.engine.follower.read()
    followed.engine.follower.flush()
    assert published_table(followed.engine.store).revision == followed.engine.snapshot.revision
    assert server.client.get("strangle:overrides") == document()


def test_a_number_without_end_is_no_counter(server, followed):
    key = CounterKey("m", "legacy", 0, "legacy", "passed").field()
    server.client.hset("strangle:counts", mapping={key: 3, f"{key}x": "9" * 5000})
    assert followed.engine.store.counts() == {key: 3}


def test_a_master_that_is_one_no_more_is_left(server):
    """After a failover that changes where a name leads to, connections that are open would stay behind."""
    store = open_store(server.url(client_name="mine"))

    def connections():
        return {c["id"] for c in server.client.client_list() if c["name"] == "mine"}

    store.add_counts({"a": 1})
    before = connections()
    server.client.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(StoreError, match="read only"):
            store.add_counts({"a": 1})
    finally:
        server.client.replicaof("NO", "ONE")
    store.add_counts({"a": 1})
    assert connections().isdisjoint(before)
    store.close()


# --- health


def test_a_health_answer_without_an_end_is_no_good_one():
    def drip(peer):
        with suppress(OSError):
            while True:
                send(b"1\r\nx\r\n")(peer)

    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with ScriptedUpstream([head(), send(answer), drip]) as server:
        upstream = Upstream(url=address(server), health=Health(path="/h", interval=0.2))
        snapshot = load([Route("/m/*", to=upstream)])
        probe = Probe(next(iter(snapshot.upstreams.values())), "/h", 0.2)
        assert probe.ask(0) is False
        probe.close()


# --- gevent that patches after the import: gunicorn -k gevent --preload

LATE = """
import io, strangle_mw, strangle_mw.wsgi, strangle_mw.transports.addresses as addresses
app = strangle_mw.strangle(lambda environ, start: [], [{{"path": "/m/*", "respond": {{}}}}], store="sqlite:///{path}")
from gevent import monkey
monkey.patch_all()
import gevent
found = addresses.BlockingAddresses("localhost", 80)
many = [gevent.spawn(found.find, 20.0) for _ in range(5)]
gevent.joinall(many, raise_error=True)
assert all(g.value for g in many), many
follower = app.engine.follower
app.engine.look()
thread = follower._thread
assert thread.is_alive()
follower.stop()
assert not thread.is_alive(), "its end was not seen"
print("well")
"""


def test_threads_end_where_gevent_has_patched_late(tmp_path):
    script = LATE.format(path=tmp_path / "store.db")
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "well\n"), ended.stderr
