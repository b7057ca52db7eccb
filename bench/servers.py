"""The Python servers measured: uvicorn and gunicorn with one of our apps; and the upstream of long exchanges."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.payload import MODERN
from bench.processes import LOAD_CPUS, SERVER_CPUS, Running, await_answer, child, free_port, only_child

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNHURRIED = "600"
"""Seconds for pings of WebSockets and kept connections: no peer shall be cut in the middle."""


@contextmanager
def uvicorn(folder: Path, peer: str, path: str, expect: bytes, env: dict[str, str]) -> Iterator[Running]:
    """Run an app of `bench.asgi_apps` under uvicorn: httptools, asyncio, one process, no access log."""
    port = free_port()
    log = folder / f"uvicorn-{port}.log"
    command = [sys.executable, "-m", "uvicorn", "bench.asgi_apps:app", "--port", str(port)]
    command += ["--http", "httptools", "--loop", "asyncio", "--no-access-log", "--log-level", "warning"]
    command += ["--timeout-keep-alive", UNHURRIED, "--ws-ping-interval", UNHURRIED]
    with child(command, cpus=SERVER_CPUS, log=log, env={**env, "BENCH_PEER": peer}) as process:
        await_answer(process, port, path, expect, log)
        yield Running(port, process.pid)


@contextmanager
def gunicorn(
    folder: Path, peer: str, path: str, expect: bytes, env: dict[str, str], *, threads: int, workers: int = 1
) -> Iterator[Running]:
    """Run an app of `bench.wsgi_apps` under gunicorn: gthread, `threads` threads each.

    What runs is its only worker, or its master if there are several.
    """
    port = free_port()
    log = folder / f"gunicorn-{port}.log"
    command = [sys.executable, "-m", "gunicorn", "bench.wsgi_apps:app", "--bind", f"127.0.0.1:{port}"]
    command += ["--worker-class", "gthread", "--workers", str(workers), "--threads", str(threads)]
    command += ["--keep-alive", UNHURRIED, "--log-level", "warning", "--no-control-socket"]
    with child(command, cpus=SERVER_CPUS, log=log, env={**env, "BENCH_PEER": peer}) as process:
        await_answer(process, port, path, expect, log)
        yield Running(port, only_child(process.pid) if workers == 1 else process.pid)


@contextmanager
def origin(folder: Path) -> Iterator[Running]:
    """Run the modern side of `big`, `idle` and `serveasgi`: plain sockets, a thread for each connection."""
    port = free_port()
    log = folder / f"origin-{port}.log"
    command = [sys.executable, "-m", "bench.origin", str(port)]
    with child(command, cpus=LOAD_CPUS, log=log) as process:
        await_answer(process, port, "/modern", MODERN, log)
        yield Running(port, process.pid)
