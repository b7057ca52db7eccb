"""Apps that hand requests to another app in this process, made by their names: ours, and those of others.

The other app is `modern` of `asgi_direct` or `wsgi_direct`. None of them sends anything anywhere.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from bench import asgi_direct, library, wsgi_direct

if TYPE_CHECKING:
    from collections.abc import Callable

THREADS = 40
"""Threads of every bridge that has some and can be told how many; anyio's default, which Starlette uses."""


def _mounted_by_starlette() -> Any:
    """Mount an ASGI app in a router."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    app: Any = asgi_direct.modern
    return Starlette(routes=[Mount("/modern", app=app)])


def _a2wsgi() -> Any:
    from a2wsgi import WSGIMiddleware

    app: Any = wsgi_direct.modern
    return WSGIMiddleware(app, workers=THREADS)


def _starlette() -> Any:
    """Use Starlette's bridge, which is deprecated and says so at its import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from starlette.middleware.wsgi import WSGIMiddleware

    return WSGIMiddleware(wsgi_direct.modern)


def _asgiref() -> Any:
    """Use the bridge of asgiref as it comes: all calls in one thread."""
    from asgiref.wsgi import WsgiToAsgi

    return WsgiToAsgi(wsgi_direct.modern)  # type: ignore[no-untyped-call]


def _mounted_by_werkzeug() -> Any:
    """Mount a WSGI app beside another one."""
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    return DispatcherMiddleware(wsgi_direct.at_once, {"/modern": wsgi_direct.modern})


def _a2wsgi_loop() -> Any:
    from a2wsgi import ASGIMiddleware

    app: Any = asgi_direct.modern
    return ASGIMiddleware(app)


ASGI: dict[str, Callable[[], Any]] = {
    "asgi-asgi": lambda: library.to_app(asgi_direct.at_once, asgi_direct.modern, "asgi"),
    "asgi-starlette": _mounted_by_starlette,
    "threads-asgi": lambda: library.to_app(asgi_direct.at_once, wsgi_direct.modern, "wsgi"),
    "threads-asgi-bridge": lambda: library.in_threads(wsgi_direct.modern, THREADS),
    "threads-asgi-a2wsgi": _a2wsgi,
    "threads-asgi-starlette": _starlette,
    "threads-asgi-asgiref": _asgiref,
}
WSGI: dict[str, Callable[[], Any]] = {
    "wsgi-wsgi": lambda: library.to_app(wsgi_direct.at_once, wsgi_direct.modern, "wsgi"),
    "wsgi-werkzeug": _mounted_by_werkzeug,
    "loop-wsgi": lambda: library.to_app(wsgi_direct.at_once, asgi_direct.modern, "asgi"),
    "loop-wsgi-a2wsgi": _a2wsgi_loop,
}
