"""Answers that take their time: each part goes on as it comes, and whoever leaves takes the upstream along."""

import asyncio
import threading

import pytest

from djangos.ways import MIDDLEWARE_WAYS, VIEWS, project
from echo import Echo
from strangle_mw import Route

PATIENCE = 20.0


@pytest.fixture
def upstream():
    echo = Echo()
    yield echo
    echo.close()


@pytest.mark.parametrize("way", MIDDLEWARE_WAYS)
def test_a_client_that_leaves_ends_the_stream(way, upstream):
    with project(way, [Route("/m/*", to=upstream.address)]) as app:
        seen = app.ask("/m/events", leaves="when asked")
        assert seen.body == b"data: 1\n\n"
        assert upstream.client_left.wait(PATIENCE)


@pytest.mark.parametrize("way", MIDDLEWARE_WAYS)
def test_an_answer_that_a_middleware_throws_away_ends(way, upstream):
    with project(way, [Route("/m/*", to=upstream.address)], before=[VIEWS + "discarding"]) as app:
        assert app.ask("/m/events").body == b"another"
        assert upstream.client_left.wait(PATIENCE)


def test_events_arrive_one_by_one_under_asgi(upstream):
    first, done = threading.Event(), []

    async def ask(app):
        async def receive():
            if not done:
                done.append("asked")
                return {"type": "http.request", "body": b"", "more_body": False}
            return await asyncio.Event().wait()

        async def send(message):
            done.append(message)
            if message.get("body"):
                first.set()

        await app.app(app._scope(_asked("/m/gated")), receive, send)

    with project("asgi middleware", [Route("/m/*", to=upstream.address)]) as app:
        found = asyncio.run_coroutine_threadsafe(ask(app), app.loop)
        assert first.wait(PATIENCE)
        assert not upstream.gate.is_set()
        upstream.gate.set()
        found.result(PATIENCE)
    assert b"".join(m.get("body", b"") for m in done[1:]) == b"data: 1\n\ndata: 2\n\n"


def test_a_client_that_does_not_read_holds_the_upstream_back_under_asgi(upstream):
    """No more is taken from the upstream than fits into the buffers on the way: far less than its 3 MB."""
    taken, held = [], threading.Event()

    async def ask(app):
        go = asyncio.Event()
        asked = []

        async def receive():
            if not asked:
                asked.append(1)
                return {"type": "http.request", "body": b"", "more_body": False}
            return await asyncio.Event().wait()

        async def send(message):
            taken.append(len(message.get("body", b"")))
            if message.get("body") and not go.is_set():
                held.set()
                await go.wait()

        task = asyncio.ensure_future(app.app(app._scope(_asked("/m/big")), receive, send))
        await asyncio.to_thread(held.wait, PATIENCE)
        for _ in range(20):  # whatever would still come without being asked for
            await asyncio.sleep(0)
        pending = sum(taken)
        go.set()
        await task
        return pending

    with project("asgi middleware", [Route("/m/*", to=upstream.address)]) as app:
        pending = asyncio.run_coroutine_threadsafe(ask(app), app.loop).result(PATIENCE)
    assert pending < 1_000_000
    assert sum(taken) == 3_000_000


def _asked(target):
    from promises.drive import Asked

    return Asked.make(target)
