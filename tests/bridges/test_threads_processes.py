"""Threads and processes: what a fork starts anew, and what the end of a process waits for."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bridges.harness import PATIENCE

PRELUDE = """
    import asyncio, os, sys, threading
    from bridges.harness import SCOPE, Exchange, answering
    from strangle_mw.bridges import pool
    from strangle_mw.bridges.threads import ThreadedWSGI

    def ask(app):
        async def main():
            exchange = Exchange()
            await app(SCOPE, exchange.receive, exchange.send)
            return exchange.body
        return asyncio.run(main())
"""


def run(program):
    """Run a program of its own; returns what it has printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_idle_threads_do_not_keep_a_process_alive():
    assert run(
        """
        print(ask(ThreadedWSGI(answering([b"x"]), 4)).decode())
        print(any(t.name.startswith("strangle-wsgi") and t.daemon for t in threading.enumerate()))
        """
    ) == ["x", "True"]


def test_a_forked_process_has_threads_of_its_own():
    assert run(
        """
        app = ThreadedWSGI(answering(lambda _: [str(os.getpid()).encode()]), 4)
        assert int(ask(app)) == os.getpid()
        sys.stdout.flush()
        child = os.fork()
        if not child:
            held = ask(app)
            print(int(held) == os.getpid(), flush=True)
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(ask(app)) == os.getpid())
        """
    ) == ["True", "0", "True"]


def test_a_fork_while_threads_work():
    """The child has none of them, and does not wait for what its parent's do."""
    assert run(
        """
        pool.PATIENCE = 1000  # the child would wait that long
        reached, go = threading.Event(), threading.Event()

        def work(environ):
            if not reached.is_set():
                reached.set()
                go.wait()
            return [b"x"]

        app = ThreadedWSGI(answering(work), 1)
        busy = threading.Thread(target=lambda: print(ask(app).decode(), flush=True))
        busy.start()
        reached.wait()
        assert app.running == 1
        child = os.fork()
        if not child:
            print(app.running, app.waiting, ask(app).decode(), flush=True)
            sys.exit()
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        go.set()
        busy.join()
        """
    ) == ["0", "0", "x", "0", "x"]


@pytest.mark.parametrize(("patience", "printed"), [("", ["finished"]), ("pool.PATIENCE = 0.05", [])])
def test_the_end_of_a_process_waits_for_running_calls_but_not_for_ever(patience, printed):
    """Without a lifespan nobody tells us that the server stops."""
    program = f"""
        {patience}
        reached, exits = threading.Event(), threading.Event()
        import atexit
        atexit.register(exits.set)  # called before that of the pool, which was registered first

        def work(environ):
            reached.set()
            exits.wait()
            threading.Event().wait({0.5 if printed else ""})  # hard work
            print("finished", flush=True)
            return [b"x"]

        async def main(app):
            task = asyncio.create_task(app(SCOPE, None, None))
            while not reached.is_set():
                await asyncio.sleep(0)

        asyncio.run(main(ThreadedWSGI(answering(work), 1)))
        """
    assert run(program) == printed
