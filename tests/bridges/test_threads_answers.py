"""What a WSGI app answers on a thread, message by message (PEP 3333), and what is made of its mistakes."""

import asyncio
import threading
from wsgiref.validate import validator

import pytest

from bridges.harness import PATIENCE, SCOPE, Closing, Exchange, answering, body, call, scope, until
from strangle_mw.bridges.threads import ThreadedWSGI


def ask(app, **changes):
    return call(ThreadedWSGI(app, 1), scope=scope(**changes))


def written(environ, start_response):
    write = start_response("200 OK", [("X-A", "1")])
    write(b"one")
    write(b"two")
    return []


def written_and_returned(environ, start_response):
    start_response("200 OK", [("X-A", "1")])(b"one")
    return [b"two"]


def lazy(environ, start_response):
    start_response("200 OK", [("X-A", "1")])
    yield b"one"
    yield b"two"


def replaced(environ, start_response):
    start_response("200 OK", [("Content-Length", "99")])
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        import sys

        start_response("500 Oops", [("X-A", "1")], sys.exc_info())
    return [b"one", b"two"]


def replaced_in_time(environ, start_response):
    """An empty chunk sends no head (PEP 3333, "The start_response() Callable")."""
    start_response("200 OK", [("X-B", "1")])
    yield b""
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        import sys

        start_response("500 Oops", [("X-A", "1")], sys.exc_info())
    yield b"onetwo"


A = [("X-A", "1")]
LENGTH = [("X-A", "1"), ("Content-Length", "6")]
WHOLE = {
    "list": (answering([b"onetwo"], headers=A), 200, [b"onetwo"]),
    "tuple": (answering((b"onetwo",), headers=A), 200, [b"onetwo"]),
    "two chunks": (answering([b"one", b"two"], headers=A), 200, [b"one", b"two"]),
    "two chunks, length": (answering([b"one", b"two"], headers=LENGTH), 200, [b"one", b"two"]),
    "iterator": (answering(lambda _: iter([b"onetwo"]), headers=A), 200, [b"onetwo", b""]),
    "iterator, length": (answering(lambda _: iter([b"onetwo"]), headers=LENGTH), 200, [b"onetwo"]),
    "empty chunks": (answering([b"", b"one", b"", b"two", b""], headers=A), 200, [b"one", b"two", b""]),
    "an empty body is left out": (answering([b"onetwo", b""], headers=LENGTH), 200, [b"onetwo"]),
    "lazy": (lazy, 200, [b"one", b"two", b""]),
    "write": (written, 200, [b"one", b"two", b""]),
    "write and a list": (written_and_returned, 200, [b"one", b"two"]),
    "replaced": (replaced, 500, [b"one", b"two"]),
    "replaced in time": (replaced_in_time, 500, [b"onetwo", b""]),
    "too much": (answering([b"onetwo+", b"more"], headers=LENGTH), 200, [b"onetwo"]),
    "far too much": (
        answering(lambda _: iter([b"one", b"two", b"x"]), headers=LENGTH),
        200,
        [b"one", b"two"],
    ),
}


@pytest.mark.parametrize(("app", "status", "chunks"), WHOLE.values(), ids=WHOLE)
def test_messages(app, status, chunks, request, caplog):
    found = ask(app)
    start, *messages = found.sent
    assert (start["type"], start["status"]) == ("http.response.start", status)
    assert (b"x-a", b"1") in start["headers"]
    assert [m["body"] for m in messages] == chunks
    assert [m["more_body"] for m in messages] == [True] * (len(chunks) - 1) + [False]
    assert found.body == b"onetwo"
    assert found.asked == 0
    assert len(caplog.records) == ("too much" in request.node.callspec.id)


EMPTY = {
    "empty list": answering([]),
    "empty chunk": answering([b""]),
    "nothing": answering(lambda _: iter(())),
    "HEAD": answering([b"x"]),
}


@pytest.mark.parametrize("app", EMPTY.values(), ids=EMPTY)
def test_an_answer_may_be_empty(app):
    found = ask(app, method="HEAD" if app is EMPTY["HEAD"] else "GET")
    assert (found.status, found.headers, found.body, len(found.sent)) == (200, [], b"", 2)
    assert found.ended


@pytest.mark.parametrize(
    ("method", "status", "length"),
    [("HEAD", "200 OK", b"999"), ("GET", "304 Not Modified", b"999"), ("GET", "204 No Content", None)],
)
@pytest.mark.parametrize("listed", [True, False])
def test_no_body_where_none_may_be(method, status, length, listed, caplog):
    """The length of what a GET would bring may stay (RFC 9110 section 8.6); the app is not asked for ever."""
    result = [b"x", b"y"] if listed else Closing(*[b"x"] * 3)
    found = ask(answering(result, status, [("Content-Length", "999")]), method=method)
    assert (found.body, len(found.sent), found.ended) == (b"", 2, True)
    assert dict(found.headers).get(b"content-length") == length
    assert listed or len(result.closed) == 1
    assert caplog.records == []  # the app has done nothing wrong


def test_what_follows_the_last_chunk_runs():
    """An app may tidy up behind its last `yield`; it is not cut off there because its length is reached."""
    seen = []

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "3")])
        yield b"abc"
        seen.append("done")

    assert ask(app).body == b"abc"
    assert seen == ["done"]


def test_the_head_waits_for_the_first_chunk_and_each_chunk_goes_out_before_the_next():
    steps = []

    def app(environ, start_response):
        start_response("200 OK", [])
        steps.append("started")
        yield b""
        for chunk in (b"1", b"2"):
            steps.append(f"yields {chunk.decode()}")
            yield chunk
        steps.append("ends")

    async def taking():
        steps.append("server takes")

    found = call(ThreadedWSGI(app, 1), lambda: Exchange(taking=taking))
    taken = "server takes"
    assert steps == ["started", "yields 1", taken, taken, "yields 2", taken, "ends", taken]
    assert found.body == b"12"


def test_an_empty_write_sends_the_head():
    steps = []

    def app(environ, start_response):
        write = start_response("200 OK", [])
        for data in (b"", b"", b"x"):
            write(data)
            steps.append("written")
        return []

    async def taking():
        steps.append("server takes")

    found = call(ThreadedWSGI(app, 1), lambda: Exchange(taking=taking))
    assert steps[:4] == ["server takes", "server takes", "written", "written"]
    assert [m["body"] for m in found.sent[1:]] == [b"", b"x", b""]


# --- mistakes


def raising(error):
    def app(environ, start_response):
        raise error

    return app


def no_start(environ, start_response):
    return [b"x"]


def no_start_nothing(environ, start_response):
    return []


def twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])


def nothing(environ, start_response):
    start_response("200 OK", [])


def started(status="200 OK", headers=()):
    return answering([b"abc"], status, headers)


BEFORE = {
    "raises": (raising(ZeroDivisionError()), ZeroDivisionError),
    "raises in the first chunk": (answering(lambda _: Closing(ZeroDivisionError())), ZeroDivisionError),
    "raises behind an empty chunk": (answering(lambda _: Closing(b"", ZeroDivisionError())), ZeroDivisionError),
    "SystemExit": (raising(SystemExit(1)), RuntimeError),
    "KeyboardInterrupt": (raising(KeyboardInterrupt()), RuntimeError),
    "cancelled": (raising(asyncio.CancelledError()), RuntimeError),
    "StopIteration": (raising(StopIteration()), RuntimeError),
    "no start_response": (no_start, RuntimeError),
    "no start_response, no body": (no_start_nothing, RuntimeError),
    "start_response twice": (twice, AssertionError),
    "no iterable": (nothing, TypeError),
    "text": (answering(["text"]), TypeError),
    "bytes": (answering(b"abc"), TypeError),
    "a buffer": (answering([bytearray(b"abc")]), TypeError),
    "status: bytes": (started(b"200 OK"), TypeError),
    "status: number": (started(200), TypeError),
    "status: no number": (started("OK"), ValueError),
    "status: two digits": (started("20 OK"), ValueError),
    "status: interim": (started("103 Early Hints"), ValueError),
    "status: no blank": (started("200OK"), ValueError),
    "status: two lines": (started("200 OK\r\nX: y"), ValueError),
    "header: no pair": (started(headers=["abc"]), ValueError),
    "header: bytes": (started(headers=[(b"a", b"b")]), TypeError),
    "header: value None": (started(headers=[("a", None)]), TypeError),
    "header: value a number": (started(headers=[("Content-Length", 3)]), TypeError),
    "header: no name": (started(headers=[("", "b")]), ValueError),
    "header: name with a blank": (started(headers=[("a b", "b")]), ValueError),
    "header: name with a colon": (started(headers=[("a:", "b")]), ValueError),
    "header: two lines": (started(headers=[("a", "b\r\nc: d")]), ValueError),
    "header: line feed": (started(headers=[("a", "b\nc")]), ValueError),
    "header: NUL": (started(headers=[("a", "b\0")]), ValueError),
    "header: beyond latin-1": (started(headers=[("a", "\u20ac")]), ValueError),
    "header: name beyond ASCII": (started(headers=[("\xe4", "b")]), ValueError),
    "length: no number": (started(headers=[("Content-Length", "x")]), ValueError),
    "length: signed": (started(headers=[("Content-Length", "+3")]), ValueError),
    "length: other digits": (started(headers=[("Content-Length", "\xb2")]), ValueError),
    "length: two of them": (started(headers=[("Content-Length", "3"), ("content-length", "4")]), ValueError),
    "too little": (started(headers=[("Content-Length", "4")]), RuntimeError),
    "nothing at all": (answering([], headers=[("Content-Length", "4")]), RuntimeError),
}  # fmt: skip


@pytest.mark.parametrize(("app", "error"), BEFORE.values(), ids=BEFORE)
def test_what_fails_before_the_head_raises_and_sends_nothing(app, error):
    """The server answers 500 then, which it could not behind a head."""

    async def main():
        exchange = Exchange(*body())
        with pytest.raises(error):
            await asyncio.wait_for(ThreadedWSGI(app, 1)(SCOPE, exchange.receive, exchange.send), PATIENCE)
        assert exchange.sent == []

    asyncio.run(main())


def late(environ, start_response):
    """PEP 3333: an exception that comes too late is raised again, to end the answer."""
    start_response("200 OK", [])
    yield b"abc"
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        import sys

        start_response("500 Oops", [], sys.exc_info())
    yield b"never"


def write_and_raise(environ, start_response):
    start_response("200 OK", [])(b"abc")
    raise ZeroDivisionError


AFTER = {
    "raises": (answering(lambda _: Closing(b"abc", ZeroDivisionError())), ZeroDivisionError),
    "raises at the end": (answering(lambda _: Closing(b"abc", b"", ZeroDivisionError())), ZeroDivisionError),
    "SystemExit": (answering(lambda _: Closing(b"abc", SystemExit())), RuntimeError),
    "written": (write_and_raise, ZeroDivisionError),
    "exc_info": (late, ZeroDivisionError),
    "text": (answering(["abc"[:0].encode() + b"abc", "text"]), TypeError),
    "too little": (answering(lambda _: iter([b"abc"]), headers=[("Content-Length", "4")]), RuntimeError),
    "too little, listed": (answering([b"ab", b"c"], headers=[("Content-Length", "4")]), RuntimeError),
}


@pytest.mark.parametrize(("app", "error"), AFTER.values(), ids=AFTER)
def test_what_fails_after_the_head_raises_and_never_ends_cleanly(app, error):
    """Promise P6: the server then cuts the connection."""

    async def main():
        exchange = Exchange(*body())
        with pytest.raises(error):
            await asyncio.wait_for(ThreadedWSGI(app, 1)(SCOPE, exchange.receive, exchange.send), PATIENCE)
        assert (exchange.body, exchange.ended) == (b"abc", False)

    asyncio.run(main())


def test_an_error_of_close_is_raised_behind_the_whole_answer():
    class Broken(list):
        def close(self):
            raise ZeroDivisionError

    async def main():
        exchange = Exchange()
        with pytest.raises(ZeroDivisionError):
            await ThreadedWSGI(answering(Broken([b"abc"])), 1)(SCOPE, exchange.receive, exchange.send)
        assert (exchange.body, exchange.ended) == (b"abc", True)

    asyncio.run(main())


def test_the_answer_does_not_wait_for_what_close_does():
    """What an app does when it is closed may take long; its client has the whole answer by then."""
    go = threading.Event()

    class Slow(Closing):
        def close(self):
            super().close()
            assert go.wait(PATIENCE)

    slow = Slow(b"abc")

    async def main():
        exchange, app = Exchange(), ThreadedWSGI(answering(slow, headers=[("Content-Length", "3")]), 1)
        task = asyncio.create_task(app(SCOPE, exchange.receive, exchange.send))
        await until(lambda: exchange.ended)
        assert (task.done(), app.running) == (False, 1)
        go.set()
        await asyncio.wait_for(task, PATIENCE)
        assert exchange.body == b"abc"

    asyncio.run(main())


# --- headers


@pytest.mark.parametrize(
    "name",
    ["Connection", "keep-alive", "Proxy-Authenticate", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Date", "SERVER"],
)  # fmt: skip
def test_what_is_the_servers_is_left_to_it(name):
    found = ask(answering([b"x"], headers=[("X-A", "1"), (name, "chunked"), ("X-A", "2")]))
    assert found.headers == [(b"x-a", b"1"), (b"x-a", b"2")]


def test_headers_keep_order_duplicates_and_bytes():
    headers = [("Set-Cookie", "a=1, b"), ("X-E", ""), ("set-cookie", "b=2"), ("X-\x7e", " \t\xe9 x\t")]
    assert ask(answering([b"x"], headers=headers)).headers == [
        (b"set-cookie", b"a=1, b"),
        (b"x-e", b""),
        (b"set-cookie", b"b=2"),
        (b"x-~", b"\xe9 x"),
    ]


def test_the_same_length_twice_is_one_length():
    found = ask(answering([b"abc"], headers=[("Content-Length", "3"), ("Content-Length", "3")]))
    assert (found.body, found.ended) == (b"abc", True)


@pytest.mark.parametrize(
    "status", ["200 OK", "200", "200 ", "299 Something of its own \xe9", "599 x", "999 y"]
)
def test_statuses(status):
    assert ask(answering([b"x"], status)).status == int(status[:3])


# --- the validator of the standard library

VALIDATED = [
    scope(),
    scope(method="HEAD"),
    scope(path="/", raw_path=b"/", query_string=b"a=%20"),
    scope(path="/r", raw_path=b"/r", root_path="/r"),
    scope(server=("/run/socket", None), client=None),
    scope(scheme="https", http_version="2", server=None, client=None),
    scope((b"content-length", b"6"), (b"content-type", b"text/plain"), method="POST"),
    scope((b"transfer-encoding", b"chunked"), method="POST"),
]


@pytest.mark.parametrize("given", VALIDATED)
@pytest.mark.parametrize("reads", ["read", "readline", "readlines", "iterate", "nothing"])
def test_the_validator_has_nothing_to_say(given, reads):
    seen = []

    def app(environ, start_response):
        source = environ["wsgi.input"]
        ways = {
            "read": lambda: source.read(100),
            "readline": lambda: source.readline() + source.readline(),
            "readlines": lambda: b"".join(source.readlines()),
            "iterate": lambda: b"".join(source),
            "nothing": lambda: b"a\nbcde",
        }
        seen.append(ways[reads]())
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [b"one", b"two"]

    found = call(ThreadedWSGI(validator(app), 1), lambda: Exchange(*body(b"a\nb", b"cde")), given)
    expected = given["method"] == "POST" or given["http_version"] == "2" or reads == "nothing"
    assert seen == [b"a\nbcde" if expected else b""]
    assert (found.status, found.ended) == (200, True)
    assert found.body == (b"" if given["method"] == "HEAD" else b"onetwo")
