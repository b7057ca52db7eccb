"""The lifespan of an app in this process: what counts as started, what fails, how it ends."""

import asyncio
import logging
from contextvars import ContextVar

import pytest

from bridges.loop_apps import PATIENCE, Lived, forever
from strangle_mw.bridges.lifespan import Lifespan
from strangle_mw.errors import ForwardError

STARTUP, COMPLETE = "lifespan.startup", {"type": "lifespan.startup.complete"}
FAILED = {"type": "lifespan.startup.failed", "message": "Traceback\n  x\nOSError: no database\n"}
ENDED = {"type": "lifespan.shutdown.complete"}


def test_an_app_is_started_once_and_told_to_end():
    app = Lived()

    async def run():
        life = Lifespan(app)
        assert not life.started
        life.begin()
        life.begin()
        await asyncio.gather(*(life.ready(PATIENCE) for _ in range(5)))
        assert life.started
        assert app.notes == ["start"]
        assert list(life.state) == ["pid"]
        await life.aclose(PATIENCE)
        assert not life.started
        await life.aclose(PATIENCE)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
    assert app.notes == ["start", "end"]


async def raises_at_once(scope, receive, send):
    raise AssertionError(f"only http, not {scope['type']}")


async def returns(scope, receive, send):
    return


async def raises_later(scope, receive, send):
    await receive()
    raise ValueError("no such type")


@pytest.mark.parametrize("app", [raises_at_once, returns, raises_later])
def test_an_app_without_lifespan_counts_as_started(app, caplog):
    async def run():
        life = Lifespan(app)
        await life.ready(PATIENCE)
        assert life.started
        await life.ready(PATIENCE)
        await life.aclose(PATIENCE)

    asyncio.run(run())
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []


async def fails_and_raises(scope, receive, send):
    await receive()
    await send(FAILED)
    raise OSError("no database")


async def fails_and_returns(scope, receive, send):
    await receive()
    await send(FAILED)


async def fails_and_lingers(scope, receive, send):
    await receive()
    await send(FAILED)
    await forever()


@pytest.mark.parametrize("app", [fails_and_raises, fails_and_returns, fails_and_lingers])
def test_a_failed_start_is_told_and_tried_again(app, caplog):
    starts = []

    async def counted(scope, receive, send):
        starts.append(scope["state"])
        scope["state"]["mark"] = len(starts)
        await app(scope, receive, send)

    async def run():
        life = Lifespan(counted)
        for _ in range(2):
            with pytest.raises(ForwardError) as caught:
                await life.ready(PATIENCE)
            error = caught.value
            assert (error.stage, error.status, error.request_sent) == ("connect", 502, False)
            assert error.reason == "its startup failed: OSError: no database"
            assert not life.started
            await asyncio.sleep(0)
        await life.aclose(PATIENCE)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
    assert starts == [{"mark": 1}, {"mark": 2}]
    if app is not fails_and_lingers:
        told = [r for r in caplog.records if r.levelno == logging.ERROR]
        assert len(told) == 2
        assert all(bool(r.exc_info) == (app is fails_and_raises) for r in told)


def test_a_start_that_takes_longer_goes_on():
    async def run():
        go = asyncio.Event()
        starts = []

        async def slow(scope, receive, send):
            await receive()
            starts.append(1)
            await go.wait()
            await send(COMPLETE)
            await receive()

        life = Lifespan(slow)
        for _ in range(2):
            with pytest.raises(ForwardError) as caught:
                await life.ready(0.01)
            assert (caught.value.stage, caught.value.status) == ("connect", 504)
            assert caught.value.reason == "its startup is not complete"
        waiting = asyncio.create_task(life.ready(PATIENCE))
        given_up = asyncio.create_task(life.ready(PATIENCE))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait((given_up,))
        go.set()
        await waiting
        assert life.started
        assert starts == [1]
        await life.aclose(PATIENCE)

    asyncio.run(run())


async def ends_badly(scope, receive, send):
    await receive()
    await send(COMPLETE)
    await receive()
    raise OSError("cannot flush")


async def fails_to_end(scope, receive, send):
    await receive()
    await send(COMPLETE)
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "cannot flush"})


async def dies(scope, receive, send):
    await receive()
    await send(COMPLETE)
    raise OSError("died")


async def exits(scope, receive, send):
    await receive()
    await send(COMPLETE)
    raise SystemExit(3)


async def strange(scope, receive, send):
    await receive()
    await send(COMPLETE)
    await send({"type": "lifespan.startup.strange"})


@pytest.mark.parametrize("app", [ends_badly, fails_to_end, dies, exits, strange])
def test_what_goes_wrong_later_is_logged_once(app, caplog):
    async def run():
        life = Lifespan(app)
        await life.ready(PATIENCE)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert life.started
        await life.aclose(PATIENCE)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


async def stuck_at_start(scope, receive, send):
    await receive()
    await forever()


async def stuck_at_end(scope, receive, send):
    await receive()
    await send(COMPLETE)
    await receive()
    await forever()


async def asks_for_more(scope, receive, send):
    for message in (COMPLETE, ENDED):
        await receive()
        await send(message)
    await receive()


@pytest.mark.parametrize("app", [stuck_at_start, stuck_at_end, asks_for_more])
def test_what_does_not_end_is_cancelled(app, caplog):
    async def run():
        life = Lifespan(app)
        if app is stuck_at_start:
            with pytest.raises(ForwardError):
                await life.ready(0.01)
        else:
            await life.ready(PATIENCE)
        await life.aclose(0.01)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
    assert caplog.records == []


def test_a_closing_that_is_cancelled_cancels_the_app():
    async def run():
        life = Lifespan(stuck_at_end)
        await life.ready(PATIENCE)
        closing = asyncio.create_task(life.aclose(PATIENCE))
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait((closing,))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_a_lifespan_does_not_live_in_the_context_of_a_request():
    user = ContextVar("user", default=None)
    seen = []

    async def app(scope, receive, send):
        seen.append(user.get())

    async def run():
        user.set("ann")
        life = Lifespan(app)
        await life.ready(PATIENCE)

    asyncio.run(run())
    assert seen == [None]
