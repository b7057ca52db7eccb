"""Forwarders under WSGI that others made: HTTP clients with as little around them as forwards, and libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.wsgi_direct import at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    App = Callable[[dict[str, Any], Any], Iterable[bytes]]

CHUNK = 65_536
THREADS = 256
"""Connections that a pool may keep, more than there are threads."""


def with_urllib3(port: int) -> App:
    """Forward through a urllib3 pool that follows, retries and decodes nothing."""
    import urllib3

    pool = urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=THREADS)

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


def with_werkzeug(port: int) -> App:
    """Let Werkzeug's `ProxyMiddleware` forward; it makes a connection for each request."""
    from werkzeug.middleware.http_proxy import ProxyMiddleware

    app: App = ProxyMiddleware(at_once, {"/modern/": {"target": f"http://127.0.0.1:{port}/"}})
    return app


def with_django_revproxy(port: int) -> App:
    """Let a view of django-revproxy forward, in a Django without middleware, its pool as large as needed."""
    import django
    from django.conf import settings

    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATA_UPLOAD_MAX_MEMORY_SIZE=None,
        INSTALLED_APPS=["revproxy"],
        LOGGING_CONFIG=None,
        MIDDLEWARE=[],
        ROOT_URLCONF=f"{__name__}_urls",
    )
    django.setup()
    _urls(port)
    from django.core.handlers.wsgi import WSGIHandler

    app: App = WSGIHandler()
    return app


def _urls(port: int) -> None:
    """Make the module that Django looks the view up in."""
    import sys
    from types import ModuleType

    import urllib3
    from django.urls import re_path
    from revproxy.views import ProxyView  # type: ignore[import-untyped]

    pool = urllib3.PoolManager(maxsize=THREADS)

    class View(ProxyView):  # type: ignore[misc]
        upstream = f"http://127.0.0.1:{port}/"

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.http = pool

    urls = ModuleType(f"{__name__}_urls")
    urls.urlpatterns = [re_path(r"^(?P<path>.*)$", View.as_view())]  # type: ignore[attr-defined]
    sys.modules[urls.__name__] = urls
