"""A process that calls an ASGI app on its loop, for the tests of forks, exits and gevent: `loop_process.py NAME`.

What it finds goes to standard output; whatever else is printed fails the test.
"""

import sys

if "gevent" in sys.argv:
    import gevent.monkey

    gevent.monkey.patch_all()

import asyncio
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from bridges.loop_apps import PATIENCE, SCOPE, body, echo, forever, read_all, start  # noqa: E402
from strangle_mw.bridges.loop import LoopApp  # noqa: E402


def say(text):
    os.write(1, f"{text}\n".encode())


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        say("start")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        say("end")
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/background":
        await send(start())
        await send(body(b"ok"))
        await asyncio.sleep(0.05)
        say("work done")
    elif scope["path"] == "/stream":
        await send(start())
        await send(body(b"ok", True))
        await forever()
    elif scope["path"] == "/thread":
        await asyncio.to_thread(time.sleep, 0.001)
        await echo(scope, receive, send)
    else:
        await echo(scope, receive, send)


loop_app = LoopApp(app, connect_timeout=PATIENCE, idle_timeout=PATIENCE)


def send(path="/", content=b"ok"):
    return loop_app.send({**SCOPE, "path": path}, content, method="POST", timeout=PATIENCE)


def ask(path="/", content=b"ok"):
    say(read_all(send(path, content)).decode())


def unused():
    """Nothing is called, nothing starts."""
    say(threading.active_count())


def used():
    """One call; the lifespan ends with the process."""
    ask()


def threads():
    """The app has used threads, too."""
    ask("/thread")


def closed():
    """The app is closed before the process ends."""
    ask()
    loop_app.close()


def background():
    """Work behind a finished answer is done before the end."""
    ask("/background")


def stream():
    """An open answer does not keep the process alive."""
    say(send("/stream").read().decode())


def waiting():
    """A thread that waits for an answer does not, either."""

    def wait(answer):
        try:
            answer.read()
        except Exception as exc:
            say(exc)

    answer = send("/stream")
    say(answer.read().decode())
    thread = threading.Thread(target=wait, args=(answer,), daemon=True)
    thread.start()


def blocked():
    """A loop that is blocked at the end does not keep the process for ever."""
    from strangle_mw.bridges import loop_thread

    ask()
    loop_thread.PATIENCE = loop_thread._GRACE = 0.1
    loop_thread.loop_thread().loop.call_soon_threadsafe(time.sleep, 600)


def stubborn():
    """Neither do tasks that refuse to be cancelled."""
    from strangle_mw.bridges import exchange, loop_thread

    async def refuses():
        while True:
            with suppress(asyncio.CancelledError):
                await forever()

    ask()
    loop_thread._GRACE = exchange.GRACE = 0.05
    loop = loop_thread.loop_thread().loop
    loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(refuses())))


tasks = []


def forks():
    """A child has its own loop and lifespan, and leaves those of its parent alone."""
    ask()
    answer = send("/stream")
    answer.read()
    for _ in range(2):
        child = os.fork()
        if child == 0:
            ask(content=b"child")
            ask("/thread", b"child")
            sys.exit()
        assert os.waitpid(child, 0)[1] == 0
    child = os.fork()
    if child == 0:
        sys.exit()  # without any call
    assert os.waitpid(child, 0)[1] == 0
    answer.close()
    ask(content=b"parent")
    ask("/thread", b"parent")


def legacy():
    """Under gevent: legacy's greenlets go on while one waits, and to asyncio none of them is on the loop."""
    import gevent
    from gevent.lock import Semaphore

    go = Semaphore(0)
    found = []

    def content():
        yield b"first "
        go.acquire()
        yield b"second"

    async def one():
        await asyncio.sleep(0.001)
        return asyncio.get_running_loop()

    def other():
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            found.append("no loop here")
        found.append("own loops: " + str(len({asyncio.run(one()) for _ in range(3)})))
        go.release()

    waiting = gevent.spawn(lambda: read_all(send(content=content())))
    gevent.spawn(other).join()
    say(waiting.get().decode())
    say(", ".join(found))
    calls = [gevent.spawn(lambda: read_all(send("/thread"))) for _ in range(50)]
    gevent.joinall(calls)
    say({c.value for c in calls})


def killed():
    """Under gevent: a greenlet that is killed, or times out, takes the call with it."""
    import gevent

    caller = gevent.spawn(
        lambda: send("/stream").read() and send("/stream", iter(lambda: gevent.sleep(9), 1)).read()
    )
    gevent.sleep(0.01)
    caller.kill()
    answer = send("/stream")
    answer.read()
    with gevent.Timeout(0.02, False):
        answer.read()
        say("not here")
    answer.close()
    ask()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
