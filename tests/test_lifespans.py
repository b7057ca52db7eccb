"""Lifespans: apps in this process start and end with the server, and never keep it from starting."""

import asyncio
import logging

import pytest

from servers import DEADLINE, request, serve, talk
from strangle_mw import Breaker, Route, Upstream, strangle
from test_asgi import Client, http

NEVER = Breaker(failures=0, ratio=0)


class App:
    """An app that writes down what happens to it; `fails`, `hangs` or `ignores` its start."""

    def __init__(self, name, book, how=""):
        self.name, self.book, self.how = name, book, how
        self.state = None

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
            return
        self.state = scope.get("state")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.name.encode()})

    async def _live(self, scope, receive, send):
        if self.how == "refuses":
            raise ValueError("HTTP only")
        assert await receive() == {"type": "lifespan.startup"}
        self.book.append(f"{self.name} starts")
        if self.how == "fails":
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            return
        if self.how == "raises":
            raise ZeroDivisionError
        if self.how == "hangs":
            await asyncio.Event().wait()
        if "state" in scope:
            scope["state"][self.name] = ["one"]
        await send({"type": "lifespan.startup.complete"})
        assert await receive() == {"type": "lifespan.shutdown"}
        self.book.append(f"{self.name} ends")
        await send({"type": f"lifespan.shutdown.{'failed' if self.how == 'ends badly' else 'complete'}"})


class Server:
    """A server's side of a lifespan, without sockets."""

    def __init__(self, app, book):
        self.app, self.book = app, book
        self.said = asyncio.Queue()
        self._events = asyncio.Queue()
        self.state = {}

    async def __aenter__(self):
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
        self._events.put_nowait({"type": "lifespan.startup"})
        self.task = asyncio.ensure_future(self.app(scope, self._events.get, self._send))
        self.started = await self._next()
        return self

    async def _send(self, message):
        self.book.append(message["type"])
        self.said.put_nowait(message["type"])

    async def _next(self):
        said = asyncio.ensure_future(self.said.get())
        await asyncio.wait((said, self.task), return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE)
        return said.result() if said.done() else said.cancel()

    async def __aexit__(self, *_):
        self._events.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait((self.task,), timeout=DEADLINE)
        assert self.task.done()

    async def ask(self, path="/m/x"):
        client = Client()
        await self.app(http(path), client.receive, client.send)
        return client


def run(legacy_how, app_how, act, **more):
    """Serve a wrapped app with one app in this process beside it; return the book."""
    book = []
    legacy, app = App("legacy", book, legacy_how), App("modern", book, app_how)

    async def main():
        times = {"timeout": 0.1, "connect_timeout": 0.05, "breaker": NEVER}
        middle = strangle(legacy, [Route("/m/*", to=Upstream(asgi=app, **times), **more)])
        async with Server(middle, book) as server:
            await act(server, app)
        return server

    return asyncio.run(main()), book, app


async def nothing(server, app):
    pass


def test_it_starts_before_the_server_does_and_ends_with_it():
    _, book, _ = run("", "", nothing)
    started, ended = book.index("lifespan.startup.complete"), book.index("lifespan.shutdown.complete")
    assert {"legacy starts", "modern starts"} == set(book[:started])
    assert {"legacy ends", "modern ends"} == set(book[started + 1 : ended])
    assert book[-1] == "lifespan.shutdown.complete"


def test_each_request_gets_a_copy_of_its_own_state():
    states = []

    async def act(server, app):
        for _ in range(2):
            assert (await server.ask()).body == b"modern"
            states.append(app.state)
            app.state["mine"] = True

    server, _, _ = run("", "", act)
    assert states == [{"modern": ["one"], "mine": True}] * 2
    assert states[0] is not states[1]
    assert states[0]["modern"] is states[1]["modern"]
    assert server.state == {"legacy": ["one"]}


@pytest.mark.parametrize("legacy", ["", "refuses"])
@pytest.mark.parametrize(
    ("how", "status", "stage"), [("fails", 502, "connect"), ("hangs", 504, "connect-timeout")]
)
def test_one_that_does_not_start_does_not_keep_the_server_from_starting(legacy, how, status, stage):
    answers = []

    async def act(server, app):
        assert server.started == "lifespan.startup.complete"
        answers.append((await server.ask()).status)
        app.how = ""

    _, book, _ = run(legacy, how, act, fallback="off")
    assert answers == [status]
    assert "modern starts" in book

    async def falls_back(server, app):
        client = await server.ask()
        assert (client.status, client.body) == (200, b"legacy")

    run(legacy, how, falls_back)


def test_the_next_request_tries_again():
    async def act(server, app):
        assert (await server.ask()).body == b"legacy"
        app.how = ""
        assert (await server.ask()).body == b"modern"

    _, book, _ = run("", "fails", act)
    assert book.count("modern starts") == 3
    assert "modern ends" in book


@pytest.mark.parametrize("how", ["refuses", "raises"])
def test_one_without_a_lifespan_is_called_all_the_same(how):
    async def act(server, app):
        assert (await server.ask()).body == b"modern"

    run("", how, act)


def test_the_library_stands_in_for_a_wrapped_app_without_a_lifespan(caplog):
    async def act(server, app):
        assert server.started == "lifespan.startup.complete"
        assert (await server.ask("/x")).body == b"legacy"
        assert (await server.ask()).body == b"modern"

    with caplog.at_level(logging.INFO, "strangle_mw"):
        _, book, _ = run("refuses", "", act)
    assert book == ["modern starts", "lifespan.startup.complete", "modern ends", "lifespan.shutdown.complete"]
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


def test_a_start_that_the_wrapped_app_fails_is_told_as_it_is():
    async def act(server, app):
        assert server.started == "lifespan.startup.failed"

    _, book, _ = run("fails", "", act)
    assert [b for b in book if b.startswith("lifespan")] == ["lifespan.startup.failed"]
    assert book.count("modern starts") == book.count("modern ends")


def test_a_start_in_which_the_wrapped_app_raises_is_told_as_it_is():
    async def act(server, app):
        assert server.started is True  # no word: the task has ended
        assert isinstance(server.task.exception(), ZeroDivisionError)

    _, book, _ = run("raises", "", act)
    assert [b for b in book if b.startswith("lifespan")] == []


def test_an_end_that_the_wrapped_app_fails_is_an_end():
    _, book, _ = run("ends badly", "", nothing)
    assert book.index("modern ends") < book.index("lifespan.shutdown.failed")


def test_a_hanging_one_is_not_waited_for_at_the_end():
    async def act(server, app):
        assert server.started == "lifespan.startup.complete"

    _, book, _ = run("", "hangs", act)
    assert book[-1] == "lifespan.shutdown.complete"
    assert "modern ends" not in book


def test_one_that_a_reload_adds_starts_with_its_first_request_and_ends_with_the_server(tmp_path):
    book = []
    legacy, first, second = (App(n, book) for n in ("legacy", "first", "second"))

    async def main():
        middle = strangle(legacy, [Route("/m/*", to=Upstream(asgi=first))])
        async with Server(middle, book) as server:
            assert (await server.ask()).body == b"first"
            other = strangle(legacy, [Route("/m/*", to=Upstream(asgi=second))]).engine.snapshot
            middle.engine._install(other)
            assert "second starts" not in book
            assert (await server.ask()).body == b"second"
            middle.engine.pools._since -= 60.0  # the grace is over
            middle.engine.pools.sweep()
            while "first ends" not in book:  # noqa: ASYNC110 - a task of the library's ends it
                await asyncio.sleep(0.001)
            assert "second ends" not in book

    asyncio.run(asyncio.wait_for(main(), DEADLINE))
    assert "second ends" in book


@pytest.mark.parametrize("name", ["uvicorn-httptools", "hypercorn", "granian-asgi", "gunicorn-asgi"])
def test_it_has_started_under_every_server(name):
    with serve(name, "drivers.in_process_apps") as port:
        told = talk(port, request("GET", "/asgi/plain/a")).json()
        assert told["state"] == {"started": "yes"}
        assert told["keys"] == sorted({"asgi", "client", "headers", "http_version", "method", "path", "query_string", "raw_path", "root_path", "scheme", "server", "state", "type"})  # fmt: skip
