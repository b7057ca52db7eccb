"""The ASGI apps that uvicorn serves, one process each: `BENCH_PEER` names the one called `app` here.

`BENCH_UPSTREAM` is the port of the modern side, `BENCH_ROUTES` the size of the table whose default route is
measured (0: one route that forwards), `BENCH_STORE` a store of live changes, `BENCH_TABLE` the file of `live`,
`BENCH_THREADS` the threads of a WSGI app.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bench import asgi_clients, asgi_direct, bridges, library, minimal_asgi, wsgi_direct
from bench.paths import patterns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]

direct = asgi_direct.at_once


def strangled(port: int) -> App:
    """Wrap `direct` with the library."""
    count = int(os.environ["BENCH_ROUTES"])
    store = os.environ.get("BENCH_STORE", "")
    app: App = (
        library.wrap(direct, patterns(count), port, store) if count else library.forwarder(direct, port)
    )
    return app


def live(_port: int) -> App:
    """Wrap an app that names its process with a table that is changed while it runs."""
    app: App = library.live(asgi_direct.named, os.environ["BENCH_TABLE"], os.environ["BENCH_STORE"])
    return app


def served_as_asgi(port: int) -> App:
    """Serve the WSGI app of the other servers from this one, and forward as `strangled` does."""
    app: App = library.served_as_asgi(wsgi_direct.at_once, port, int(os.environ["BENCH_THREADS"]))
    return app


def function(port: int) -> App:
    """Wrap `direct` so that a Lambda function answers what would be forwarded."""
    app: App = library.to_function(direct, f"http://127.0.0.1:{port}")
    return app


def _alone(make: Callable[[], App]) -> Callable[[int], App]:
    return lambda _port: make()


PEERS: dict[str, Callable[[int], App]] = {
    "direct": lambda _port: direct,
    "direct-bodies": lambda _port: asgi_direct.bodies,
    "strangle-mw": strangled,
    "live": live,
    "function": function,
    "served-as-asgi": served_as_asgi,
    "minimal": minimal_asgi.forwarder,
    "aiohttp": asgi_clients.with_aiohttp,
    "httpx2": asgi_clients.with_httpx2,
    "asgi-proxy-lib": asgi_clients.with_asgi_proxy_lib,
    "fastapi-proxy-lib": asgi_clients.with_fastapi_proxy_lib,
    "websockets": asgi_clients.with_websockets,
    **{name: _alone(make) for name, make in bridges.ASGI.items()},
}
app = (
    PEERS[os.environ["BENCH_PEER"]](int(os.environ["BENCH_UPSTREAM"]))
    if "BENCH_PEER" in os.environ
    else direct
)
