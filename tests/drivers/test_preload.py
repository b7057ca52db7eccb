"""Forking after the pools were used (gunicorn --preload): no worker writes to its parent's connections."""

import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from echo import Echo
from servers import free_port, request, talk, wait_for

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_workers_do_not_share_the_connections_of_the_master(kind):
    port, echo = free_port(), Echo()
    command = [sys.executable, "-W", "ignore", "-m", "gunicorn", "--preload", "-w", "2", "-k", kind]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "STRANGLE_TEST_UPSTREAM": echo.address}
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(
            [*command, "-b", f"127.0.0.1:{port}", "drivers.preloaded:wsgi"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            wait_for(port, child, log)
            assert echo.connections == 1, "the master has forwarded a request"

            def ask(number):
                reply = talk(port, request("GET", f"/m/{number}"))
                return reply.status, reply.json()["line"]

            with ThreadPoolExecutor(8) as threads:
                found = list(threads.map(ask, range(64)))
            assert found == [(200, f"GET /m/{n} HTTP/1.1") for n in range(64)]
            assert echo.connections >= 2
            assert echo.requests == 65
        finally:
            # gevent's hub of the master, used before the fork, keeps it from ending quietly.
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(10)
            echo.close()
