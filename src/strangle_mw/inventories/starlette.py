"""Reads the routes of Starlette and FastAPI; counted by the mounts' prefixes and the route's own path.

Parameters of a mount's path stand in a rule without their convertors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Host, Mount, WebSocketRoute, compile_path

from strangle_mw import inventories
from strangle_mw.core.inventory import ANYTHING, WEBSOCKET, AppEndpoint, Param, join
from strangle_mw.inventories.views import class_methods, view_name, without_noise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HTTP = ("get", "head", "post", "put", "patch", "delete", "options")


def read(app: Any) -> tuple[AppEndpoint, ...]:
    """Return the endpoints in the order in which they are tried."""
    return tuple(_walk(app.routes, "", ()))


def _walk(routes: Iterable[Any], prefix: str, hosts: tuple[str, ...]) -> Iterator[AppEndpoint]:
    for route in _flat(routes):
        if isinstance(route, Mount):
            yield from _mounted(route, prefix + compile_path(route.path)[1], hosts)
        elif isinstance(route, Host):
            yield from _inner(route.app, route.name, prefix, _hosts(route), route.routes)
        elif (path := getattr(route, "path", None)) is not None:
            yield _endpoint(route, prefix + path, hosts)
        else:
            yield _opaque(prefix, view_name(route), "", hosts)


def _flat(routes: Iterable[Any]) -> Iterator[Any]:
    """Yield routes; FastAPI keeps an included router's by themselves, and makes the whole ones of them."""
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            yield route
        else:
            yield from (getattr(c, "starlette_route", None) or c for c in contexts())


def _mounted(route: Mount, prefix: str, hosts: tuple[str, ...]) -> Iterator[AppEndpoint]:
    if route.routes:
        yield from _walk(route.routes, prefix, hosts)
    else:
        yield from _inner(route.app, route.name, prefix, hosts, ())


def _inner(
    app: Any, name: str | None, prefix: str, hosts: tuple[str, ...], routes: Iterable[Any] | None
) -> Iterator[AppEndpoint]:
    """Yield the endpoints of a mounted app; of one that is not understood the whole subtree."""
    if routes:
        yield from _walk(routes, prefix, hosts)
        return
    found = inventories.framework_of(app)
    if found is not None and found[1] == "starlette":
        yield from _walk(found[0].routes, prefix, hosts)
    else:
        yield _opaque(prefix, view_name(app), name or "", hosts)


def _opaque(prefix: str, view: str, name: str, hosts: tuple[str, ...]) -> AppEndpoint:
    path = join(*_parts(prefix), "/", Param("path", ANYTHING))
    return AppEndpoint(prefix + "/{path:path}", path, name, view, hosts=hosts, rules=(prefix,), opaque=True)


def _endpoint(route: Any, rule: str, hosts: tuple[str, ...]) -> AppEndpoint:
    endpoint = getattr(route, "endpoint", None)
    return AppEndpoint(
        rule,
        _parts(rule),
        getattr(route, "name", None) or "",
        view_name(endpoint if endpoint is not None else route),
        _methods(route, endpoint),
        hosts,
    )


def _methods(route: Any, endpoint: Any) -> frozenset[str]:
    if isinstance(route, WebSocketRoute):
        return frozenset((WEBSOCKET,))
    if getattr(route, "methods", None):
        return without_noise(route.methods)
    return class_methods(endpoint, _HTTP) if isinstance(endpoint, type) else frozenset()


def _parts(path: str) -> tuple[str | Param, ...]:
    """Take a path apart as Starlette does; `{name:convertor}`."""
    _, shown, convertors = compile_path(path)
    parts: list[str | Param] = []
    for name, convertor in convertors.items():
        before, _, shown = shown.partition(f"{{{name}}}")
        parts += [before, Param(name, convertor.regex)]
    return join(*parts, shown)


def _hosts(route: Host) -> tuple[str, ...]:
    """Return the host that is routed by; of `{name}.example.com` the wildcard."""
    host = route.host.partition(":")[0].lower()
    if "{" not in host:
        return (host,)
    fixed = host.rpartition("}")[2].partition(".")[2]  # what is surely there, by whole labels
    return (f"*.{fixed}",) if fixed else ()
