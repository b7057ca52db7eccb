"""What keeps live changes while something is measured: a file of SQLite, a Redis of its own."""

from __future__ import annotations

import shutil
import socket
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from bench.processes import LOAD_CPUS, START_SECONDS, BenchError, child, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REDIS = "redis-server"
NOT_MEASURED = "not measured"
"""What a reason starts with if something optional is missing: that is no failure."""


def sqlite(folder: Path, name: str) -> str:
    """Return a store in a file."""
    return f"sqlite:///{folder.absolute()}/{name}.db"


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run a Redis that keeps nothing, on the load's CPU; give the store in it."""
    program = shutil.which(REDIS)
    if program is None:
        raise BenchError(f"{NOT_MEASURED}: {REDIS} is not installed (apt-get install {REDIS})")
    port = free_port()
    log = folder / f"redis-{port}.log"
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    command += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning"]
    with child(command, cpus=LOAD_CPUS, log=log) as process:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{REDIS} did not start: {log.read_text(errors='replace').strip()[-200:]}")
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"PING\r\n")
        return client.recv(64).startswith(b"+PONG")  # and not -LOADING
    return False
