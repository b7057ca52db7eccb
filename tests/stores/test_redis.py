"""A store on a real Redis: away, back, hanging, full, guarded, encrypted, and full of other people's keys."""

import socket
import subprocess
import sys
import threading
from contextlib import closing

import pytest
import redis
import trustme

from stores.kinds import document
from stores.redis_servers import RedisServer
from strangle_mw.core.overrides import MAX_DOCUMENT
from strangle_mw.stores import open_store
from strangle_mw.stores.base import StoreError

FIRST, SECOND = document(1), document(2)
PASSWORD = "pa55:w@rd/?#%"
ENCODED = "pa55%3Aw%40rd%2F%3F%23%25"
CALLS = {
    "read": lambda store: store.read(0),
    "edit": lambda store: store.edit(lambda raw: SECOND),
    "restore": lambda store: store.restore(SECOND, 2),
    "add_counts": lambda store: store.add_counts({"a": 1}),
    "counts": lambda store: store.counts(),
    "reset_counts": lambda store: store.reset_counts("a"),
    "add_events": lambda store: store.add_events([{"n": 1}]),
    "events": lambda store: store.events(5),
    "beat": lambda store: store.beat("w", {}, 60),
    "workers": lambda store: store.workers(),
    "publish_table": lambda store: store.publish_table("r", b"{}"),
    "table": lambda store: store.table("r"),
    "tables": lambda store: store.tables(),
}


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def guarded(authority):
    """A server with TLS and a password."""
    server = RedisServer("--requirepass", PASSWORD, tls=authority)
    yield server
    server.close()


@pytest.fixture
def mortal():
    """A server that a test may kill, or fill."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def raw(redis_server):
    """Somebody else's client, on a database that is empty."""
    with closing(redis.Redis(port=redis_server.port, db=1)) as client:
        client.flushdb()
        yield client


@pytest.fixture
def store(redis_server, raw):
    with closing(open_store(redis_server.url(database=1))) as store:
        yield store


def refuses(call, store, reason):
    with pytest.raises(StoreError, match=reason) as caught:
        call(store)
    told = caught.value.reason
    assert told.startswith(f"the store {store.url} ")
    assert "pa55" not in told
    assert "\n" not in told
    assert len(told) < 400


def refusal(call, store):
    try:
        call(store)
    except StoreError as exc:
        return exc.reason
    return None


# --- away and back


def test_a_server_that_dies_and_comes_back(mortal):
    with closing(open_store(mortal.url())) as store:
        store.edit(lambda raw: FIRST)
        assert store.wait(20)
        mortal.kill()
        for call in CALLS.values():
            refuses(call, store, "cannot be reached")
        assert not store.wait(0.01)
        mortal.start()
        assert store.read(1) == b""
        assert store.restore(FIRST, 1)
        assert store.wait(20)  # a new subscription
        assert store.read(0) == FIRST


def test_a_server_that_was_away_between_two_calls_is_not_noticed(mortal):
    with closing(open_store(mortal.url())) as store:
        for call in CALLS.values():
            call(store)
            mortal.kill()
            mortal.start()
        assert store.read(0) == b""


def test_a_server_that_hangs(mortal):
    with closing(open_store(mortal.url(socket_timeout=0.25))) as store:
        with mortal.stopped():
            for name in ("read", "edit", "add_counts"):
                refuses(CALLS[name], store, "does not answer in time|cannot be reached")
            assert not store.wait(0.01)
        mortal.kill()
        mortal.start()
        assert store.read(0) == b""


def test_a_server_that_is_no_redis():
    answers = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"

    def serve():
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.recv(1000)
                client.sendall(answers)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        with closing(open_store(f"redis://:pa55@127.0.0.1:{listener.getsockname()[1]}")) as store:
            refuses(CALLS["read"], store, "cannot be reached")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)


def test_a_server_that_is_full_is_read_from(mortal):
    with closing(open_store(mortal.url())) as store, closing(redis.Redis(port=mortal.port)) as client:
        store.edit(lambda raw: FIRST)
        client.config_set("maxmemory", 1)
        for name in ("edit", "restore", "add_counts", "add_events", "beat", "publish_table"):
            refuses(CALLS[name], store, "has refused: .*OOM|has refused: .*memory")
        assert store.read(0) == FIRST
        client.config_set("maxmemory", 0)
        assert store.edit(lambda raw: SECOND) == SECOND


# --- passwords, TLS, sockets


@pytest.mark.parametrize(
    ("user", "options"),
    [(f":{ENCODED}@", {}), (f"default:{ENCODED}@", {}), ("", {"password": ENCODED})],
)
def test_a_password_and_an_authority(guarded, user, options):
    url = guarded.url(user=user, ssl_ca_certs=guarded.folder / "ca.pem", **options)
    with closing(open_store(url.replace("redis:", "rediss:").replace("127.0.0.1", "localhost"))) as store:
        assert store.edit(lambda raw: FIRST) == FIRST
        assert store.wait(20)
        assert "pa55" not in store.url + repr(store)


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ("", "has refused: .*Authentication required"),
        (":pa55@", "has refused: .*invalid"),
        ("pa55:x@", "has refused"),
    ],
)
def test_a_wrong_password_is_not_shown(guarded, user, reason):
    url = f"unix://{user}{guarded.socket}"
    with closing(open_store(url)) as store:
        for call in CALLS.values():
            refuses(call, store, reason)


UNTRUSTED = {
    "no authority": ("localhost", {}),
    "another name": ("127.0.0.1", {"ssl_ca_certs": "ca.pem"}),
    "another authority": ("localhost", {"ssl_ca_certs": "other.pem"}),
    "a file that is not there": ("localhost", {"ssl_ca_certs": "nothing.pem"}),
    "a file that is no certificate": ("localhost", {"ssl_ca_certs": "log"}),
    "an authority in plain text": ("localhost", None),
}


@pytest.mark.parametrize(("host", "options"), UNTRUSTED.values(), ids=UNTRUSTED)
def test_a_server_that_cannot_be_verified_is_told_nothing(guarded, host, options):
    trustme.CA().cert_pem.write_to_path(guarded.folder / "other.pem")
    files = {name: guarded.folder / file for name, file in (options or {}).items()}
    url = guarded.url(user=f":{ENCODED}@", **files).replace("127.0.0.1", host)
    with closing(open_store(url if options is None else url.replace("redis:", "rediss:"))) as store:
        refuses(CALLS["edit"], store, "cannot be reached")
    with closing(redis.Redis(unix_socket_path=str(guarded.socket), password=PASSWORD)) as client:
        assert client.exists("strangle:overrides") == 0 or client.get("strangle:overrides") == FIRST


def test_a_server_that_quotes_its_commands_does_not_give_a_password_away():
    """`rename-command` was the way to guard commands before there were rules for users."""
    server = RedisServer("--rename-command", "AUTH", "")
    for user in ("pa55:pa55word@", ":pa55word@"):
        with closing(open_store(server.url(user=user))) as store:
            refuses(CALLS["read"], store, "unknown command 'AUTH'")
    server.close()


def test_a_socket(redis_server):
    with closing(open_store(f"unix://{redis_server.socket}?db=2&prefix=sock")) as store:
        assert store.edit(lambda raw: FIRST) == FIRST
    with closing(redis.Redis(port=redis_server.port, db=2)) as client:
        assert client.get("sock:overrides") == FIRST


def test_prefixes_and_databases_do_not_meet(redis_server):
    urls = [redis_server.url(database=d, prefix=p) for d in (3, 4) for p in ("a", "a:b")]
    stores = [open_store(url) for url in urls]
    for number, store in enumerate(stores, 1):
        assert store.read(0) == b""
        store.edit(lambda raw, number=number: document(number))
        store.add_counts({"a": number})
        store.beat("w", {"n": number}, 60)
    for number, store in enumerate(stores, 1):
        assert (store.read(0), store.counts()) == (document(number), {"a": number})
        assert store.workers() == {"w": {"n": number}}
        store.close()


# --- other people's keys

KEYS = ["overrides", "revision", "counts", "events", "workers", "worker:w", "tables", "table:r"]
TYPES = {
    "string": lambda client, key: client.set(key, "text"),
    "hash": lambda client, key: client.hset(key, "a", "text"),
    "list": lambda client, key: client.rpush(key, b"\xff", "a"),
    "set": lambda client, key: client.sadd(key, "w", b"\xff"),
    "stream": lambda client, key: client.xadd(key, {"a": "b"}),
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_something_else_is_told_and_nothing_else_is_raised(store, raw, key, kind):
    TYPES[kind](raw, f"strangle:{key}")
    told = [reason for call in CALLS.values() if (reason := refusal(call, store)) is not None]
    assert all("WRONGTYPE" in reason or "not an integer" in reason for reason in told)
    assert not any("pipeline" in reason for reason in told)
    raw.flushdb()
    for call in CALLS.values():
        call(store)
    assert store.read(0) == SECOND


@pytest.mark.parametrize(
    ("key", "refused"),
    [
        ("overrides", {"read", "edit", "restore"}),
        ("counts", {"add_counts", "counts", "reset_counts"}),
        ("events", {"add_events", "events"}),
        ("workers", {"beat", "workers"}),
        ("tables", {"publish_table", "tables"}),
    ],
)
def test_what_a_wrong_key_stops(store, raw, key, refused):
    raw.xadd(f"strangle:{key}", {"a": "b"})
    for name, call in CALLS.items():
        if name in refused:
            refuses(call, store, "has refused: WRONGTYPE")
        else:
            call(store)


@pytest.mark.parametrize("revision", [b"", b"x", b"-1", b"1.0", b" 1", b"9" * 100, b"\xff", None])
def test_a_revision_that_is_none_costs_only_time(store, raw, revision):
    store.edit(lambda _: FIRST)
    if revision is None:
        raw.delete("strangle:revision")
    else:
        raw.set("strangle:revision", revision)
    assert store.read(1) == FIRST
    store.restore(document(5), 5)
    assert store.read(0) in (FIRST, document(5))
    assert store.edit(lambda _: SECOND) == SECOND
    assert store.read(2) is None


def test_of_an_endless_document_nothing_is_read(store, raw):
    raw.setrange("strangle:overrides", 200 << 20, b"}")
    before = raw.info("stats")["total_net_output_bytes"]
    for name in ("read", "edit"):
        refuses(CALLS[name], store, "holds a document of 209715201 bytes.*delete the key strangle:overrides")
    assert raw.info("stats")["total_net_output_bytes"] - before < 3 * MAX_DOCUMENT


def test_counters_that_somebody_made_no_numbers_of_do_not_stop_the_others(store, raw):
    store.add_counts({"a": 1, "b": 1})
    raw.hset("strangle:counts", mapping={"a": "many", b"\xff": 3, "c": "-1", "d": ""})
    store.add_counts({"a": 1, "b": 1})
    assert store.counts() == {"b": 2, "\ufffd": 3}
    refuses(lambda s: s.add_counts({"a": 1}), store, "not an integer")


def test_facts_of_somebody_else_are_left_out(store, raw):
    store.add_events([{"n": 1}])
    store.beat("w", {"n": 1}, 60)
    for text in ("{", "[]", "7", "[" * 50_000, b"\xff", '{"a":"' + "x" * 70_000 + '"}'):
        raw.rpush("strangle:events", text)
        raw.sadd("strangle:workers", "x")
        raw.set("strangle:worker:x", text)
        assert store.events(50) == [{"n": 1}]
        assert store.workers() == {"w": {"n": 1}}


def test_a_worker_whose_words_have_run_out_is_forgotten(store, raw):
    store.beat("w", {}, 60)
    raw.delete("strangle:worker:w")
    assert store.workers() == {}
    assert raw.exists("strangle:workers") == 0


# --- waiting


def test_a_change_by_another_process_ends_a_wait(redis_server, store):
    assert store.wait(20)  # the subscription itself: what came before was not heard
    assert not store.wait(0)
    with closing(open_store(redis_server.url(database=1))) as other:
        other.edit(lambda raw: FIRST)
        other.edit(lambda raw: SECOND)
        assert store.wait(20)
        while store.wait(0.05):  # the second one, if it came later
            pass
        other.restore(document(3), 3)
    assert store.wait(20)


def test_a_wait_outlives_its_connection(store, raw):
    store.wait(20)
    assert raw.execute_command("CLIENT", "KILL", "TYPE", "PUBSUB") >= 1
    assert not store.wait(0.01)  # waited out
    assert store.wait(20)  # subscribed again
    store.edit(lambda _: FIRST)
    assert store.wait(20)


def test_nothing_is_connected_before_it_is_used(mortal):
    mortal.kill()
    with closing(open_store(mortal.url())) as store:
        mortal.start()
        assert store.edit(lambda raw: FIRST) == FIRST


def test_without_redis_py_the_extra_is_named():
    script = (
        "import sys; sys.modules['redis'] = None\n"
        "from strangle_mw.stores import check_store_url\n"
        "print(check_store_url('redis://h'))\nprint(check_store_url('memory:'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "a store on Redis needs redis-py: pip install 'strangle-mw[redis]'\nNone\n"
