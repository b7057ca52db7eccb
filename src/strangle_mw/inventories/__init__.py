"""Reads the URL map of an app that a framework has made: Flask, Django, Starlette, FastAPI.

An app is recognized by its class's name, so that no framework is imported that the app does not use; each
has its reader in a module of its own. Nothing is decided here, and the app is only looked at.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from strangle_mw.core.events import safe_text
from strangle_mw.core.inventory import UrlMap
from strangle_mw.inventories.views import view_name

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAMEWORKS: Final = {
    "flask.app.Flask": "flask",
    "flask.sansio.app.App": "flask",
    "django.core.handlers.base.BaseHandler": "django",
    "django.urls.resolvers.URLResolver": "django",
    "starlette.applications.Starlette": "starlette",
    "starlette.routing.Router": "starlette",
}

INSIDE: Final = ("app", "application", "wsgi_app", "asgi_app", "_app", "__wrapped__", "__self__")
"""Where middlewares keep what they wrap."""

MAX_DEPTH: Final = 30
"""Middlewares around an app; more are a circle."""


def read_url_map(app: Any) -> UrlMap:
    """Read the endpoints of an app, also of one inside middlewares; a map with a `problem` if they cannot be.

    Never raises: reading runs code of the app's (a Django app imports its URLs), whatever that does.
    """
    try:
        found = framework_of(app)
        if found is None:
            while type(app).__module__.startswith("strangle_mw."):
                app = app.app  # one's own name is what one knows
            what = f"{view_name(app)} is no app of Flask, Django, Starlette or FastAPI, nor does it wrap one"
            return UrlMap(problem=safe_text(what, 500))
        inner, module = found
        endpoints = import_module(f"strangle_mw.inventories.{module}").read(inner)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever code of the app's does
        return UrlMap(problem=safe_text(f"its URLs cannot be read: {type(exc).__name__}: {exc}", 500))
    return UrlMap(endpoints, module)


def framework_of(app: Any) -> tuple[Any, str] | None:
    """Find the framework's own object in an app and its middlewares, and the module here that reads it."""
    layer, seen = [app], {id(app)}
    for _ in range(MAX_DEPTH):
        for candidate in layer:
            for cls in type(candidate).__mro__:
                if module := FRAMEWORKS.get(f"{cls.__module__}.{cls.__qualname__}"):
                    return candidate, module
        layer = [inner for outer in layer for inner in _inside(outer) if id(inner) not in seen]
        seen.update(map(id, layer))
    return None


def _inside(app: Any) -> Iterator[Any]:
    """Yield what a middleware may wrap: by the usual names, or in a closure."""
    found = [getattr(app, name, None) for name in INSIDE]
    for cell in getattr(app, "__closure__", None) or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not filled yet
            continue
    yield from (f for f in found if callable(f))
