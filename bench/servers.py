"""The servers measured: uvicorn and gunicorn with one of our apps, nginx as upstream and as hop."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.payload import CONTENT_TYPE, LEGACY, MODERN
from bench.processes import LOAD_CPUS, SERVER_CPUS, Running, await_answer, child, free_port, only_child

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or "nginx"
FOREVER = 1_000_000_000
"""Requests a kept connection may live: no peer shall meet a closing one in the middle."""


@contextmanager
def uvicorn(folder: Path, peer: str, path: str, expect: bytes, env: dict[str, str]) -> Iterator[Running]:
    """Run an app of `bench.asgi_apps` under uvicorn: httptools, asyncio, one process, no access log."""
    port = free_port()
    log = folder / f"uvicorn-{port}.log"
    command = [sys.executable, "-m", "uvicorn", "bench.asgi_apps:app", "--port", str(port)]
    command += ["--http", "httptools", "--loop", "asyncio", "--no-access-log", "--log-level", "warning"]
    with child(command, cpus=SERVER_CPUS, log=log, env={**env, "BENCH_PEER": peer}) as process:
        await_answer(process, port, path, expect, log)
        yield Running(port, process.pid)


@contextmanager
def gunicorn(
    folder: Path, peer: str, path: str, expect: bytes, env: dict[str, str], *, threads: int
) -> Iterator[Running]:
    """Run an app of `bench.wsgi_apps` under gunicorn: gthread, one worker, `threads` threads."""
    port = free_port()
    log = folder / f"gunicorn-{port}.log"
    command = [sys.executable, "-m", "gunicorn", "bench.wsgi_apps:app", "--bind", f"127.0.0.1:{port}"]
    command += ["--worker-class", "gthread", "--workers", "1", "--threads", str(threads)]
    command += ["--log-level", "warning", "--no-control-socket"]
    with child(command, cpus=SERVER_CPUS, log=log, env={**env, "BENCH_PEER": peer}) as process:
        await_answer(process, port, path, expect, log)
        yield Running(port, only_child(process.pid))


@contextmanager
def upstream(folder: Path) -> Iterator[Running]:
    """Run the modern side: nginx answering every request from its configuration."""
    answer = f"default_type {CONTENT_TYPE}; return 200 '{MODERN.decode()}';"
    with _nginx(folder, "upstream", answer, "", MODERN) as running:
        yield running


@contextmanager
def hop(folder: Path, app: Running) -> Iterator[Running]:
    """Run nginx as the facade in front of an app: kept connections both ways, no access log."""
    pool = f"upstream app {{ server 127.0.0.1:{app.port}; keepalive 256; keepalive_requests {FOREVER}; }}"
    answer = 'proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";'
    with _nginx(folder, f"hop-{app.port}", answer, pool, LEGACY) as running:
        yield replace(running, app=app.pid)


@contextmanager
def _nginx(folder: Path, name: str, location: str, extra: str, expect: bytes) -> Iterator[Running]:
    home = folder / name
    home.mkdir(exist_ok=True)
    port = free_port()
    (home / "nginx.conf").write_text(_configuration(port, location, extra))
    log = home / "error.log"
    command = [NGINX, "-p", str(home), "-c", "nginx.conf", "-e", "error.log"]
    with child(command, cpus=LOAD_CPUS, log=log) as process:
        await_answer(process, port, "/", expect, log)
        yield Running(port, only_child(process.pid))


def _configuration(port: int, location: str, extra: str) -> str:
    user = "user root;" if os.geteuid() == 0 else ""  # the worker's temporary folders belong to us
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "\n    ".join(f"{kind}_temp_path {kind};" for kind in kinds)
    return f"""
daemon off; worker_processes 1; pid nginx.pid; error_log error.log; {user}
events {{ worker_connections 2048; }}
http {{
    access_log off;
    keepalive_timeout 300s;
    keepalive_requests {FOREVER};
    {folders}
    {extra}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{ {location} }}
    }}
}}
"""
