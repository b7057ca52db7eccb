"""The WSGI apps that gunicorn serves, one process each: `BENCH_PEER` names the one called `app` here.

`BENCH_UPSTREAM` is the port of the modern side, `BENCH_ROUTES` the size of the table whose default route is
measured (0: one route that forwards).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bench import library, minimal_wsgi, wsgi_clients, wsgi_direct
from bench.paths import patterns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    App = Callable[[dict[str, Any], Any], Iterable[bytes]]

direct = wsgi_direct.at_once


def strangled(port: int) -> App:
    """Wrap `direct` with the library."""
    count = int(os.environ["BENCH_ROUTES"])
    app: App = library.wrap(direct, patterns(count), port) if count else library.forwarder(direct, port)
    return app


PEERS: dict[str, Callable[[int], App]] = {
    "direct": lambda _port: direct,
    "direct-bodies": lambda _port: wsgi_direct.bodies,
    "strangle-mw": strangled,
    "minimal": minimal_wsgi.forwarder,
    "urllib3": wsgi_clients.with_urllib3,
    "httpx2": wsgi_clients.with_httpx2,
    "werkzeug": wsgi_clients.with_werkzeug,
    "django-revproxy": wsgi_clients.with_django_revproxy,
}
app = (
    PEERS[os.environ["BENCH_PEER"]](int(os.environ["BENCH_UPSTREAM"]))
    if "BENCH_PEER" in os.environ
    else direct
)
