"""The request body as a WSGI app reads it on a thread: complete, in order, as it comes, and never cut short quietly."""

import asyncio
import io
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.harness import LEAVES, PATIENCE, Exchange, body, call, end, scope, until
from strangle_mw.bridges import handover
from strangle_mw.bridges.threads import ThreadedWSGI

CHUNKED = (b"transfer-encoding", b"chunked")


def length(size):
    return (b"content-length", str(size).encode())


def post(*headers, **more):
    return scope(*headers, method="POST", **more)


def reading(read, results):
    def app(environ, start_response):
        results.append(read(environ["wsgi.input"]))
        start_response("200 OK", [])
        return [b"ok"]

    return app


def attempt(read, messages, given):
    """Read in this way; return what was read, or the exception."""
    results = []

    def tried(source):
        try:
            return read(source)
        except OSError as exc:
            return exc

    call(ThreadedWSGI(reading(tried, results), 1), lambda: Exchange(*messages), given)
    return results[0]


SIZES = st.integers(-1, 12)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), SIZES),
        st.tuples(st.just("readline"), SIZES),
        st.tuples(st.just("readlines"), SIZES),
        st.tuples(st.just("next"), st.just(0)),
    ),
    max_size=8,
)


def perform(source, operations):
    found = []
    for name, size in operations:
        found.append(next(source, None) if name == "next" else getattr(source, name)(size))
    return [*found, source.read()]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("ab\n", max_size=9).map(str.encode), max_size=6),
    OPERATIONS,
    st.booleans(),
    st.booleans(),
)
def test_it_reads_as_a_file_would(chunks, operations, declared, last_is_empty):
    data = b"".join(chunks)
    messages = body(*chunks, *([b""] if last_is_empty else []))
    found = attempt(
        lambda source: perform(source, operations), messages, post(length(len(data)) if declared else CHUNKED)
    )
    assert found == perform(io.BufferedReader(io.BytesIO(data)), operations)


READS = {
    "read": lambda s: s.read(),
    "read(n)": lambda s: s.read(10) + s.read(10),
    "readline": lambda s: s.readline() + s.readline(),
    "readlines": lambda s: b"".join(s.readlines()),
    "iterate": b"".join,
    "read1": lambda s: s.read1(10) + s.read1(10) + s.read1(10),
    "readinto": lambda s: bytes(s.readinto(bytearray(20))),
}
CUT = {
    "the client leaves": ([*body(b"abc", whole=False), LEAVES], CHUNKED),
    "the client leaves, declared": ([*body(b"abc", whole=False), LEAVES], length(6)),
    "at once": ([LEAVES], length(6)),
    "short": (body(b"ab", b"c"), length(6)),
    "empty": (body(), length(6)),
    "too long": (body(b"abcd", b"efg"), length(6)),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize(("messages", "header"), CUT.values(), ids=CUT)
def test_a_body_that_is_not_whole_is_an_error(read, messages, header):
    """Promise P6; a server under WSGI that returned what there is would make half an upload a whole one."""
    found = attempt(read, messages, post(header))
    assert isinstance(found, OSError)


@pytest.mark.parametrize(("messages", "header"), CUT.values(), ids=CUT)
def test_once_cut_it_stays_cut(messages, header):
    def read(source):
        errors = 0
        for _ in range(3):
            try:
                source.read(10)
            except OSError:
                errors += 1
        return errors

    assert attempt(read, messages, post(header)) == 3


@pytest.mark.parametrize("version", ["1.0", "1.1", "2"])
@pytest.mark.parametrize("header", [(), (length(0),)])
def test_a_request_without_a_body_reads_as_empty(version, header):
    found = attempt(READS["read(n)"], body(), post(*header, http_version=version))
    assert found == b""


def test_a_body_that_only_its_first_event_tells_of():
    assert attempt(READS["read"], body(b"a", b"b"), post(http_version="2")) == b"ab"


def test_nothing_is_taken_before_the_app_asks():
    asked = []

    def app(environ, start_response):
        source = environ["wsgi.input"]
        asked.append(exchange.asked)
        for size in (1, 3, 1, 3, 5):
            source.read(size)
            asked.append(exchange.asked)
        start_response("200 OK", [])
        return []

    exchange = None

    def made():
        nonlocal exchange
        exchange = Exchange(*body(b"abcd", b"efgh", b"ijklmnop"))
        return exchange

    call(ThreadedWSGI(app, 1), made, post(length(16)))
    assert asked == [0, 1, 1, 2, 2, 3]


def test_the_app_waits_for_what_comes_and_the_loop_goes_on():
    results = []

    async def main():
        exchange, app = Exchange(), ThreadedWSGI(reading(READS["read"], results), 1)
        task = asyncio.create_task(app(post(CHUNKED), exchange.receive, exchange.send))
        for number in (1, 2, 3):
            await until(lambda n=number: exchange.asked == n)
            await until(lambda: exchange.receiving)
            exchange.arrive({"type": "http.request", "body": b"%d" % number, "more_body": number < 3})
        await task
        await app.aclose()

    asyncio.run(main())
    assert results == [b"123"]


def test_a_body_may_be_left_alone():
    found = call(
        ThreadedWSGI(reading(lambda _: b"", []), 1), lambda: Exchange(*body(b"a", b"b")), post(length(2))
    )
    assert (found.body, found.asked) == (b"ok", 0)


def test_body_and_answer_may_go_both_ways_at_once():
    """An app that answers while it reads: the client is watched meanwhile, by no second receive."""
    chunks = [b"%04d" % n for n in range(200)]

    def app(environ, start_response):
        start_response("200 OK", [])
        source = environ["wsgi.input"]
        yield b"begins"
        assert seen.wait(PATIENCE)
        while chunk := source.read(4):
            yield chunk

    seen = threading.Event()

    async def main():
        exchange, threaded = Exchange(), ThreadedWSGI(app, 1)
        task = asyncio.create_task(threaded(post(CHUNKED), exchange.receive, exchange.send))
        await until(lambda: exchange.receiving)  # by now the client is watched
        exchange.arrive(*body(*chunks[:100], whole=False))
        seen.set()
        await until(lambda: len(exchange.sent) == 102)
        await until(lambda: exchange.receiving)
        exchange.arrive(*body(*chunks[100:]))
        await task
        await threaded.aclose()
        return exchange

    exchange = asyncio.run(main())
    assert exchange.body == b"begins" + b"".join(chunks)
    assert exchange.ended


@pytest.mark.parametrize("watched", [True, False])
def test_while_it_answers_one_message_is_kept_at_most(watched):
    go = threading.Event()

    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"begins"
        assert go.wait(PATIENCE)
        yield environ["wsgi.input"].read()

    async def main():
        exchange, threaded = Exchange(*body(b"a", b"b", b"c", b"d")), ThreadedWSGI(app, 1)
        task = asyncio.create_task(threaded(post(CHUNKED), exchange.receive, exchange.send))
        if watched:
            await until(lambda: exchange.asked)
            for _ in range(20):
                await asyncio.sleep(0)
            assert exchange.asked == 1
        go.set()
        await task
        await threaded.aclose()
        return exchange

    assert asyncio.run(main()).body == b"beginsabcd"


def both_ways(behind):
    """Make an app that has begun its answer, and reads when it is told to."""
    go = threading.Event()

    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"begins"
        assert go.wait(PATIENCE)
        yield from behind(environ["wsgi.input"])

    return app, go


def test_a_client_that_is_read_from_again_is_watched_again():
    def behind(source):
        yield source.read(1)
        while True:
            yield b"x"

    app, go = both_ways(behind)

    async def main():
        exchange, threaded = Exchange(*body(b"a", whole=False)), ThreadedWSGI(app, 1)
        task = asyncio.create_task(threaded(post(CHUNKED), exchange.receive, exchange.send))
        await until(lambda: exchange.asked)  # one message is kept for the app, none is asked for
        assert not exchange.receiving
        go.set()
        await until(lambda: len(exchange.sent) > 5)
        exchange.arrive(LEAVES)
        await task
        await threaded.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("arrives", ["the rest", "nothing"])
def test_while_the_app_reads_nobody_else_receives(arrives):
    """It waits for its client when the time to watch that has come; then the body, or the client's leaving, comes."""
    app, go = both_ways(lambda source: [source.read()])
    go.set()

    async def main():
        exchange, threaded = Exchange(), ThreadedWSGI(app, 1)
        task = asyncio.create_task(threaded(post(CHUNKED), exchange.receive, exchange.send))
        await until(lambda: exchange.receiving)
        await asyncio.sleep(handover._WATCH_AFTER)  # the bridge's own timer was set before this one
        if arrives == "the rest":
            exchange.arrive(*body(b"abc"))
        else:
            exchange.arrive(LEAVES)
        await task
        await threaded.aclose()
        return exchange

    exchange = asyncio.run(main())
    assert exchange.body == (b"beginsabc" if arrives == "the rest" else b"begins")
    assert exchange.ended is (arrives == "the rest")


def test_nothing_is_received_when_the_answer_is_out(monkeypatch):
    monkeypatch.setattr(handover, "_WATCH_AFTER", 0.0)
    app, go = both_ways(lambda _: [])

    async def main():
        exchange, threaded = Exchange(*body()), ThreadedWSGI(app, 1)
        task = asyncio.create_task(threaded(post(length(0)), exchange.receive, exchange.send))
        await until(lambda: exchange.receiving)
        go.set()
        await task
        await asyncio.sleep(0)
        assert (exchange.ended, exchange.receiving) == (True, 0)
        await threaded.aclose()

    asyncio.run(main())


def test_who_reads_when_the_call_is_over_is_refused():
    kept = []

    def app(environ, start_response):
        kept.append(environ["wsgi.input"])
        start_response("200 OK", [])
        return [b"x"]

    async def main():
        exchange, threaded = Exchange(*body(b"abc")), ThreadedWSGI(app, 1)
        await threaded(post(CHUNKED), exchange.receive, exchange.send)
        with pytest.raises(OSError, match="left"):
            await asyncio.to_thread(kept[0].read)
        await threaded.aclose()
        assert exchange.asked == 0

    asyncio.run(main())


def test_a_client_that_leaves_in_mid_upload_frees_the_thread():
    """An app that lets the error pass has not failed: there is nobody to tell."""

    def app(environ, start_response):
        environ["wsgi.input"].read()
        raise AssertionError

    async def main():
        exchange, threaded = Exchange(*body(b"abc", whole=False)), ThreadedWSGI(app, 1)
        task = asyncio.create_task(threaded(post(length(6)), exchange.receive, exchange.send))
        await until(lambda: exchange.asked == 2)
        assert threaded.running == 1
        exchange.arrive(LEAVES)
        assert await task is None
        await until(lambda: not threaded.running)
        await threaded.aclose()
        assert exchange.sent == []

    asyncio.run(main())


def test_a_server_whose_receive_fails_frees_the_thread():
    errors = []

    def read(source):
        try:
            source.read()
        except OSError as exc:
            errors.append(exc)

    async def receive():
        raise ZeroDivisionError

    async def main():
        exchange, threaded = Exchange(), ThreadedWSGI(reading(read, []), 1)
        with pytest.raises(ZeroDivisionError):
            await threaded(post(CHUNKED), receive, exchange.send)
        await until(lambda: not threaded.running)
        await threaded.aclose()

    asyncio.run(main())
    assert len(errors) == 1


def test_a_call_that_is_given_up_while_it_reads_frees_the_thread():
    errors = []

    def read(source):
        try:
            source.read()
        except OSError as exc:
            errors.append(exc)
            raise

    async def main():
        exchange, threaded = Exchange(), ThreadedWSGI(reading(read, []), 1)
        task = asyncio.create_task(threaded(post(CHUNKED), exchange.receive, exchange.send))
        await until(lambda: exchange.receiving)
        await end(task)
        await until(lambda: not threaded.running)
        await threaded.aclose()
        assert exchange.sent == []

    asyncio.run(main())
    assert len(errors) == 1
