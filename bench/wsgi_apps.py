"""The WSGI apps that gunicorn serves, one process each: `BENCH_PEER` names the one called `app` here.

`BENCH_UPSTREAM` is the port of the modern side, `BENCH_ROUTES` the size of the table whose default route is
measured (0: one route that forwards).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bench import library, minimal_wsgi
from bench.paths import patterns
from bench.payload import CONTENT_TYPE, LEGACY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    App = Callable[[dict[str, Any], Any], Iterable[bytes]]

HEADERS = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(LEGACY)))]
CHUNK = 65_536


def direct(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer at once: the wrapped app, and the baseline of every row."""
    start_response("200 OK", HEADERS)
    return [LEGACY]


def strangled(port: int) -> App:
    """Wrap `direct` with the library."""
    count = int(os.environ["BENCH_ROUTES"])
    app: App = library.wrap(direct, patterns(count) if count else ["/modern/*"], port)
    return app


def with_urllib3(port: int) -> App:
    """Forward through a urllib3 pool that follows, retries and decodes nothing."""
    import urllib3

    pool = urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=256)

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        got = pool.urlopen(
            environ["REQUEST_METHOD"],
            environ["RAW_URI"],
            body=_input(environ),
            headers=dict(_fields(environ)),
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )
        start_response(f"{got.status} {got.reason}", list(got.headers.iteritems()))
        return got.stream(CHUNK, decode_content=False)

    return app


def with_httpx2(port: int) -> App:
    """Forward through the transport of httpx2, not its client; the raw target goes as an extension."""
    import httpx2

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    transport = httpx2.HTTPTransport(limits=limits, trust_env=False)
    url = httpx2.URL(f"http://127.0.0.1:{port}/")

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = httpx2.Request(
            environ["REQUEST_METHOD"],
            url,
            headers=list(_fields(environ)),
            content=_input(environ),
            extensions={"target": environ["RAW_URI"].encode("latin-1")},
        )
        got = transport.handle_request(request)
        start_response(f"{got.status_code} {got.reason_phrase}", got.headers.multi_items())
        return got.iter_raw()

    return app


def _fields(environ: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            yield key[5:].replace("_", "-"), value
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(key):
            yield key.replace("_", "-"), environ[key]


def _input(environ: dict[str, Any]) -> Any:
    return environ["wsgi.input"] if environ.get("CONTENT_LENGTH") else None


PEERS: dict[str, Callable[[int], App]] = {
    "direct": lambda _port: direct,
    "strangle-mw": strangled,
    "minimal": minimal_wsgi.forwarder,
    "urllib3": with_urllib3,
    "httpx2": with_httpx2,
}
app = (
    PEERS[os.environ["BENCH_PEER"]](int(os.environ["BENCH_UPSTREAM"]))
    if "BENCH_PEER" in os.environ
    else direct
)
