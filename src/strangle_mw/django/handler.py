"""`wrap`: the outermost layer, around the application that a server loads from `wsgi.py` or `asgi.py`."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from django.core.handlers.base import BaseHandler

from strangle_mw.core.interface import detect_interface
from strangle_mw.django.conf import engine
from strangle_mw.engine import FALLBACK_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

    from strangle_mw.asgi import ASGIStrangler
    from strangle_mw.wsgi import WSGIStrangler

inside: ContextVar[bool] = ContextVar("strangle_mw.django.inside", default=False)
"""Whether this request has come through `wrap`: then the middleware leaves it alone."""

_COUNTED = "_strangle_counted"
_INNER = ("application", "app", "wrapped", "__wrapped__")


def wrap(application: Any) -> ASGIStrangler | WSGIStrangler:
    """Wrap the application of `wsgi.py` or `asgi.py`; one that is wrapped already is returned as it is.

    Raises `ConfigError` with every problem of `settings.STRANGLE`, since system checks do not run under a
    server, and `TypeError` if that is no application.
    """
    from strangle_mw.asgi import ASGIStrangler
    from strangle_mw.wsgi import WSGIStrangler

    if isinstance(application, ASGIStrangler | WSGIStrangler):
        return application
    asgi = detect_interface(application) == "asgi"
    found = engine()
    _count(application)
    return ASGIStrangler(_asgi(application), found) if asgi else WSGIStrangler(_wsgi(application), found)


def _wsgi(application: Callable[..., Any]) -> Callable[..., Any]:
    def within(environ: Any, start_response: Any) -> Any:
        token = inside.set(True)
        try:
            return application(environ, start_response)
        finally:
            inside.reset(token)

    within.app = application  # type: ignore[attr-defined] # for those who look for the handler
    return within


def _asgi(application: Callable[..., Any]) -> Callable[..., Any]:
    async def within(scope: Any, receive: Any, send: Any) -> None:
        token = inside.set(True)
        try:
            await application(scope, receive, send)
        finally:
            inside.reset(token)

    within.app = application  # type: ignore[attr-defined] # as above
    return within


# --- endpoints that the legacy app answers, for the inventory


def count_endpoint(request: HttpRequest) -> None:
    """Count the endpoint that Django has found for a request, once."""
    match = request.resolver_match
    if match is not None and not hasattr(request, _COUNTED):
        setattr(request, _COUNTED, True)
        engine().states.endpoint_hit(request.method, match.route)


def _count(application: Any) -> None:
    """Have the handler count what it resolves; one that cannot be found is left to our middleware."""
    handler = application
    while not isinstance(handler, BaseHandler):
        handler = next((h for name in _INNER if (h := getattr(handler, name, None)) is not None), None)
        if handler is None:
            return
    resolve = handler.resolve_request

    def resolve_request(request: HttpRequest) -> Any:
        scope = getattr(request, "scope", {})
        if FALLBACK_KEY in scope:  # views find it in one place, whatever the server
            request.META[FALLBACK_KEY] = scope[FALLBACK_KEY]
        match = resolve(request)
        count_endpoint(request)
        return match

    handler.resolve_request = resolve_request
