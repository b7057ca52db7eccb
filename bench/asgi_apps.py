"""The ASGI apps that uvicorn serves, one process each: `BENCH_PEER` names the one called `app` here.

`BENCH_UPSTREAM` is the port of the modern side, `BENCH_ROUTES` the size of the table whose default route is
measured (0: one route that forwards).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bench import asgi_clients, asgi_direct, library, minimal_asgi
from bench.paths import patterns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]

direct = asgi_direct.at_once


def strangled(port: int) -> App:
    """Wrap `direct` with the library."""
    count = int(os.environ["BENCH_ROUTES"])
    app: App = library.wrap(direct, patterns(count), port) if count else library.forwarder(direct, port)
    return app


PEERS: dict[str, Callable[[int], App]] = {
    "direct": lambda _port: direct,
    "direct-bodies": lambda _port: asgi_direct.bodies,
    "strangle-mw": strangled,
    "minimal": minimal_asgi.forwarder,
    "aiohttp": asgi_clients.with_aiohttp,
    "httpx2": asgi_clients.with_httpx2,
    "asgi-proxy-lib": asgi_clients.with_asgi_proxy_lib,
    "fastapi-proxy-lib": asgi_clients.with_fastapi_proxy_lib,
    "websockets": asgi_clients.with_websockets,
}
app = (
    PEERS[os.environ["BENCH_PEER"]](int(os.environ["BENCH_UPSTREAM"]))
    if "BENCH_PEER" in os.environ
    else direct
)
