"""WSGI apps on threads: who leaves when, what a thread waits for, and that it always comes back."""

import asyncio
import contextvars
import logging
import threading

import pytest

from bridges.harness import LEAVES, PATIENCE, SCOPE, Closing, Exchange, answering, body, end, until
from strangle_mw.bridges import pool
from strangle_mw.bridges.threads import ThreadedWSGI


def endless(_=None):
    return Closing(*[b"x"] * 1_000_000)


class Held:
    """A chunk that an app works on until it is let go."""

    def __init__(self):
        self.reached = threading.Event()
        self.go = threading.Event()

    def __call__(self):
        self.reached.set()
        assert self.go.wait(PATIENCE)
        return b"late"


@pytest.fixture
def errors(caplog):
    """What was logged as an error of an app."""
    return lambda: [r.exc_info[0] for r in caplog.records if r.levelno == logging.ERROR]


def begin(app, exchange, scope=SCOPE):
    return asyncio.create_task(app(scope, exchange.receive, exchange.send))


async def settle(app):
    """See that all threads are free, and end them."""
    await until(lambda: app.running == app.waiting == 0)
    await app.aclose()


# --- a client that leaves


@pytest.mark.parametrize("announced", ["send raises", "receive tells", "receive tells, nothing before"])
def test_a_client_that_leaves_frees_the_thread(announced):
    """uvicorn's `send` goes on without a word; others raise `OSError`."""
    result = endless()

    def fails(_):
        if announced == "send raises" and len(exchange.sent) > 3:
            raise OSError

    async def main():
        nonlocal exchange
        exchange = Exchange(*([] if "nothing" in announced else body()), fails=fails)
        app = ThreadedWSGI(answering(result), 1)
        task = begin(app, exchange)
        await until(lambda: len(exchange.sent) > 3)
        if announced != "send raises":
            exchange.arrive(LEAVES)
        assert await asyncio.wait_for(task, PATIENCE) is None
        await settle(app)

    exchange = None
    asyncio.run(main())
    assert len(result.closed) == 1
    assert result.closed[0].startswith("strangle-wsgi")


def test_a_client_that_leaves_while_the_app_works_is_noticed_before_its_next_chunk_is_sent():
    held = Held()
    result = Closing(b"first", held, b"never")

    async def main():
        exchange, app = Exchange(*body()), ThreadedWSGI(answering(result), 1)
        task = begin(app, exchange)
        await until(held.reached.is_set)
        await until(lambda: exchange.receiving)  # the client is watched by now
        exchange.arrive(LEAVES)
        await until(lambda: not exchange.receiving)
        assert (task.done(), app.running) == (False, 1)  # an app cannot be interrupted
        held.go.set()
        await task
        assert exchange.body == b"first"
        await settle(app)

    asyncio.run(main())
    assert len(result.closed) == 1


def test_a_client_that_left_before_the_first_chunk_is_noticed_by_it(monkeypatch):
    monkeypatch.setattr("strangle_mw.bridges.handover._WATCH_AFTER", 0.0)
    held = Held()
    result = Closing(held, b"more", *[b"x"] * 100)

    async def main():
        exchange, app = Exchange(*body()), ThreadedWSGI(answering(result), 1)
        task = begin(app, exchange)
        await until(held.reached.is_set)
        exchange.arrive(LEAVES)
        held.go.set()
        await task
        assert exchange.sent == []
        await settle(app)

    asyncio.run(main())
    assert len(result.closed) == 1


def test_write_tells_the_app_that_its_client_has_left():
    seen = []

    def app(environ, start_response):
        write = start_response("200 OK", [])
        try:
            while True:
                write(b"x")
        except OSError as exc:
            seen.append(exc)
        with pytest.raises(OSError, match="left"):
            write(b"y")
        return [b"z"]

    async def main():
        exchange, threaded = Exchange(*body()), ThreadedWSGI(app, 1)
        task = begin(threaded, exchange)
        await until(lambda: len(exchange.sent) > 3)
        exchange.arrive(LEAVES)
        await task
        assert {*exchange.body} == {*b"x"}
        await settle(threaded)

    asyncio.run(main())
    assert len(seen) == 1


def test_an_error_of_the_app_is_an_error_even_if_nobody_is_left():
    def app(environ, start_response):
        try:
            yield from answering(endless)(environ, start_response)
        finally:
            raise ZeroDivisionError

    async def main():
        exchange, threaded = Exchange(*body()), ThreadedWSGI(app, 1)
        task = begin(threaded, exchange)
        await until(lambda: len(exchange.sent) > 3)
        exchange.arrive(LEAVES)
        with pytest.raises(ZeroDivisionError):
            await task
        await settle(threaded)

    asyncio.run(main())


def test_a_server_whose_send_fails_is_told_so_and_the_thread_comes_back():
    result = endless()

    def fails(_):
        raise ZeroDivisionError

    async def main():
        exchange, app = Exchange(*body(), fails=fails), ThreadedWSGI(answering(result), 1)
        with pytest.raises(ZeroDivisionError):
            await begin(app, exchange)
        await settle(app)

    asyncio.run(main())
    assert len(result.closed) == 1


def test_a_server_that_says_it_again_and_again_does_not_stop_the_loop():
    """Some servers answer `receive` at once, with the same message, for as long as they are asked."""
    gone = False

    async def receive():
        return LEAVES if gone else body()[0]

    async def main():
        nonlocal gone
        exchange, app = Exchange(), ThreadedWSGI(answering(endless), 1)
        task = asyncio.create_task(app(SCOPE, receive, exchange.send))
        await until(lambda: len(exchange.sent) > 100)
        gone = True
        await task
        await settle(app)

    asyncio.run(main())


# --- who asks gives up


GIVEN_UP = {
    "it works": Closing,
    "it works behind the head": lambda held: Closing(b"x", held),
    "it yields": endless,
}


@pytest.mark.parametrize("makes", GIVEN_UP.values(), ids=GIVEN_UP)
@pytest.mark.parametrize("cut", ["cancelled", "timed out", "loop ends"])
def test_a_call_that_is_given_up_frees_the_thread(makes, cut, errors):
    held = Held()
    result, app, seen = makes(held), ThreadedWSGI(answering(lambda _: result), 1), []

    async def main():
        seen.append(exchange := Exchange(*body()))
        task = begin(app, exchange)
        await until(lambda: held.reached.is_set() or len(exchange.sent) > 3)
        if cut == "cancelled":
            await end(task)
        elif cut == "timed out":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(task, 0)

    asyncio.run(main())
    held.go.set()
    asyncio.run(settle(app))
    assert len(result.closed) == 1
    assert not seen[0].ended
    assert errors() == []


@pytest.mark.parametrize("cut", ["cancelled", "loop ends"])
def test_a_thread_does_not_wait_for_a_server_that_takes_nothing(cut):
    result = endless()
    app = ThreadedWSGI(answering(result), 1)

    async def main():
        waits = asyncio.Event()

        async def taking():
            waits.set()
            await asyncio.Event().wait()

        task = begin(app, Exchange(*body(), taking=taking))
        await waits.wait()
        assert app.running == 1
        if cut == "cancelled":
            await end(task)
            await until(lambda: not app.running)

    asyncio.run(main())
    asyncio.run(settle(app))
    assert len(result.closed) == 1


def test_a_thread_does_not_wait_for_a_loop_that_is_gone():
    """Not even cancelled: the loop was closed under the call."""
    held = Held()
    result, app = Closing(held, b"x"), ThreadedWSGI(answering(lambda _: result), 1)
    loop = asyncio.new_event_loop()
    exchange = Exchange(*body())
    task = loop.create_task(app(SCOPE, exchange.receive, exchange.send))
    loop.run_until_complete(until(held.reached.is_set))
    loop.close()
    held.go.set()
    asyncio.run(settle(app))
    assert len(result.closed) == 1
    task._log_destroy_pending = False


def test_an_error_that_nobody_waits_for_is_logged(errors):
    held = Held()
    app = ThreadedWSGI(answering(lambda _: Closing(held, ZeroDivisionError())), 1)
    broken = Held()

    def raises(environ, start_response):
        broken()
        raise ZeroDivisionError

    async def main():
        for threaded, chunk in ((ThreadedWSGI(raises, 1), broken), (app, held)):
            task = begin(threaded, Exchange(*body()))
            await until(chunk.reached.is_set)
            await end(task)
            chunk.go.set()
            await settle(threaded)

    asyncio.run(main())
    assert errors() == [ZeroDivisionError]  # the other one was closed before it could raise


def test_an_error_that_came_in_the_moment_of_giving_up_is_logged(errors):
    held = Held()

    def app(environ, start_response):
        held()
        raise ZeroDivisionError

    async def main():
        threaded = ThreadedWSGI(app, 1)
        task = begin(threaded, Exchange())
        await until(held.reached.is_set)
        held.go.set()
        while threaded.running:  # the loop sees nothing of it yet
            threading.Event().wait(0.001)
        await end(task)
        await threaded.aclose()

    asyncio.run(main())
    assert errors() == [ZeroDivisionError]


@pytest.mark.parametrize("steps", range(12))
@pytest.mark.parametrize("size", [0, 3])
def test_cancelled_at_every_step(steps, size, errors):
    """Whenever it happens, the thread comes back and what the app has returned is closed once."""
    results = []

    def app(environ, start_response):
        results.append(Closing(b"1", b"2", b"3"))
        environ["wsgi.input"].read()
        start_response("200 OK", [])
        return results[-1]

    async def main():
        threaded = ThreadedWSGI(app, 1)
        for _ in range(5):
            exchange = Exchange(*body(b"abc"))
            scope = {**SCOPE, "method": "POST", "headers": [(b"content-length", b"%d" % size)]}
            task = begin(threaded, exchange, scope)
            for _ in range(steps):
                await asyncio.sleep(0.0002 if steps > 6 else 0)
            await end(task)
        await until(lambda: threaded.running == threaded.waiting == 0)
        whole = Exchange(*body())
        await threaded(SCOPE, whole.receive, whole.send)
        assert whole.body == b"123"
        await settle(threaded)

    asyncio.run(main())
    closed = [len(r.closed) for r in results]
    # One that was given up while it read has returned nothing to close.
    assert set(closed) <= ({0, 1} if size else {1})
    assert closed[-1] == 1
    assert errors() == []


# --- context


def test_the_app_sees_the_callers_context_to_its_end():
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    class Seeing(Closing):
        def close(self):
            seen.append(variable.get())

    def app(environ, start_response):
        seen.append(variable.get())
        start_response("200 OK", [])
        return Seeing(lambda: seen.append(variable.get()) or b"x", lambda: variable.set("inside") and b"y")

    async def main():
        variable.set("caller")
        exchange, threaded = Exchange(), ThreadedWSGI(app, 1)
        await threaded(SCOPE, exchange.receive, exchange.send)
        assert variable.get() == "caller"
        variable.set("next")
        await threaded(SCOPE, exchange.receive, exchange.send)
        await threaded.aclose()

    asyncio.run(main())
    assert seen == ["caller", "caller", "inside", "next", "next", "inside"]


# --- the threads


def test_so_many_at_a_time_and_the_others_in_their_order():
    held, order, lock = [Held() for _ in range(3)], [], threading.Lock()

    def app(environ, start_response):
        number = int(environ["QUERY_STRING"])
        with lock:
            order.append(number)
        if number < 3:
            held[number]()
        start_response("200 OK", [])
        return [b"%d" % number]

    async def main():
        threaded = ThreadedWSGI(app, 3)
        exchanges = [Exchange() for _ in range(200)]
        tasks = [begin(threaded, e, {**SCOPE, "query_string": b"%d" % n}) for n, e in enumerate(exchanges)]
        for chunk in held:
            await until(chunk.reached.is_set)
        assert (threaded.running, threaded.waiting) == (3, 197)
        assert sorted(order) == [0, 1, 2]
        held[1].go.set()  # from now on one thread does all the others
        await asyncio.gather(tasks[1], *tasks[3:])
        assert order[3:] == [*range(3, 200)]
        await until(lambda: (threaded.running, threaded.waiting) == (2, 0))
        for chunk in held:
            chunk.go.set()
        await asyncio.gather(*tasks)
        assert [e.body for e in exchanges] == [b"%d" % n for n in range(200)]
        await settle(threaded)

    asyncio.run(main())


def test_a_call_that_is_given_up_before_its_turn_never_begins():
    held, asked = Held(), []

    def app(environ, start_response):
        asked.append(environ["QUERY_STRING"])
        held()
        start_response("200 OK", [])
        return []

    async def main():
        threaded, exchange = ThreadedWSGI(app, 1), Exchange()
        first = begin(threaded, exchange, {**SCOPE, "query_string": b"first"})
        await until(held.reached.is_set)
        waiting = begin(threaded, exchange, {**SCOPE, "query_string": b"given up"})
        await until(lambda: threaded.waiting == 1)
        await end(waiting)
        held.go.set()
        await first
        await settle(threaded)

    asyncio.run(main())
    assert asked == ["first"]


def test_threads_are_started_as_they_are_needed_and_used_again():
    names = set()

    def app(environ, start_response):
        names.add(threading.current_thread().name)
        start_response("200 OK", [])
        return []

    async def main():
        threaded = ThreadedWSGI(app, 40)
        assert (threaded.running, threaded.waiting) == (0, 0)
        for _ in range(50):
            exchange = Exchange()
            await threaded(SCOPE, exchange.receive, exchange.send)
            await until(lambda: not threaded.running)
        await threaded.aclose()

    asyncio.run(main())
    assert len(names) == 1


def test_a_system_without_more_threads(monkeypatch):
    """Those there are go on; without any the call fails, and is not counted for ever."""
    real = pool.Thread

    class NoMore(real):
        def start(self):
            raise RuntimeError("can't start new thread")

    async def main():
        threaded, exchange, held = ThreadedWSGI(answering(lambda _: Closing(held)), 2), Exchange(), Held()
        monkeypatch.setattr(pool, "Thread", NoMore)
        with pytest.raises(RuntimeError, match="new thread"):
            await begin(threaded, exchange)
        assert (threaded.running, threaded.waiting) == (0, 0)
        monkeypatch.setattr(pool, "Thread", real)
        first = begin(threaded, exchange)
        await until(held.reached.is_set)
        monkeypatch.setattr(pool, "Thread", NoMore)
        second = begin(threaded, Exchange())
        await asyncio.sleep(0)
        held.go.set()
        await asyncio.gather(first, second)
        await settle(threaded)

    asyncio.run(main())


@pytest.mark.parametrize("threads", [0, -1])
def test_there_is_at_least_one_thread(threads):
    with pytest.raises(ValueError, match="threads"):
        ThreadedWSGI(answering([]), threads)


# --- other scopes


def lifespan(app, *messages):
    """Run a lifespan, and what is given between; returns what was sent."""

    async def main():
        exchange = Exchange(*({"type": f"lifespan.{m}"} for m in messages))
        await asyncio.wait_for(app({"type": "lifespan"}, exchange.receive, exchange.send), PATIENCE)
        return [m["type"] for m in exchange.sent]

    return asyncio.run(main())


def test_a_lifespan_is_answered():
    app = ThreadedWSGI(answering([]), 1)
    for _ in range(2):
        sent = lifespan(app, "startup", "shutdown")
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_the_end_waits_for_running_calls_and_ends_the_threads():
    held, before = Held(), {*threading.enumerate()}
    app = ThreadedWSGI(answering(lambda _: Closing(held)), 3)

    async def main():
        exchange = Exchange({"type": "lifespan.startup"})
        life = asyncio.create_task(app({"type": "lifespan"}, exchange.receive, exchange.send))
        request = Exchange()
        task = begin(app, request)
        await until(held.reached.is_set)
        threads = {*threading.enumerate()} - before
        assert len(threads) == 1
        exchange.arrive({"type": "lifespan.shutdown"})
        await until(lambda: not exchange.receiving)
        assert len(exchange.sent) == 1
        held.go.set()
        await life
        await task
        assert request.body == b"late"
        assert not any(t.is_alive() for t in threads)
        assert len(exchange.sent) == 2

    asyncio.run(main())


def test_the_end_waits_no_longer_than_it_should():
    held, result = Held(), None
    app = ThreadedWSGI(answering(lambda _: result), 1)
    result = Closing(held)

    async def main():
        task = begin(app, Exchange())
        await until(held.reached.is_set)
        await app.aclose(0.01)
        assert not task.done()
        exchange = Exchange()
        held.go.set()
        await task
        await app(SCOPE, exchange.receive, exchange.send)  # it starts anew
        assert exchange.status == 200
        await settle(app)

    asyncio.run(main())
    assert len(result.closed) == 2


def test_a_websocket_is_denied():
    async def main():
        exchange = Exchange({"type": "websocket.connect"})
        await ThreadedWSGI(answering([]))({"type": "websocket"}, exchange.receive, exchange.send)
        assert exchange.sent == [{"type": "websocket.close", "code": 1000}]
        exchange = Exchange({"type": "websocket.disconnect", "code": 1006})
        await ThreadedWSGI(answering([]))({"type": "websocket"}, exchange.receive, exchange.send)
        assert exchange.sent == []

    asyncio.run(main())


def test_another_scope_is_refused():
    async def main():
        exchange = Exchange()
        with pytest.raises(ValueError, match="'tea'"):
            await ThreadedWSGI(answering([]))({"type": "tea"}, exchange.receive, exchange.send)

    asyncio.run(main())


# --- what it costs


class Sized(Closing):
    """What frameworks return: an iterator that says nothing of its length, and must be closed."""


HOPS = {
    "list": (lambda: [b"abc"], (), {1}),
    "list with its length": (lambda: [b"abc"], [("Content-Length", "3")], {1}),
    "nothing": (list, (), {1}),
    # The answer goes out before the app is closed; whether the loop is faster than that is chance.
    "iterator with its length": (lambda: Sized(b"abc"), [("Content-Length", "3")], {1, 2}),
}


@pytest.mark.parametrize(("result", "headers", "hops"), HOPS.values(), ids=HOPS)
def test_a_small_answer_wakes_the_loop_once(monkeypatch, result, headers, hops):
    woken = []

    async def main():
        loop, app = (
            asyncio.get_running_loop(),
            ThreadedWSGI(answering(lambda _: result(), headers=headers), 1),
        )
        real = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: woken.append(args) or real(*args))
        exchange = Exchange()
        await app(SCOPE, exchange.receive, exchange.send)
        monkeypatch.undo()
        assert (exchange.ended, exchange.asked) == (True, 0)
        await app.aclose()

    asyncio.run(main())
    assert len(woken) in hops
