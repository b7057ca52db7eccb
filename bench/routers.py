"""The routers that decide: each builds a table of patterns and answers whether it knows a path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import library
from bench.heads import scope
from bench.options import HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable

    Decide = Callable[[Any], bool]

OURS = "strangle-mw"
PREPARE = "strangle-mw prepare"


@dataclass(frozen=True, slots=True)
class Router:
    """One way to decide: how its table is built, and what it is asked with for one path."""

    name: str
    build: Callable[[list[str]], Decide]
    question: Callable[[str], Any] = str


def werkzeug(patterns: list[str]) -> Decide:
    """Bind the map and match, as Flask does for every request."""
    from werkzeug.exceptions import NotFound
    from werkzeug.routing import Map, Rule

    rules = (pattern.replace("{id}", "<id>") for pattern in patterns)
    table = Map([Rule(rule, endpoint=rule, methods=["GET"]) for rule in rules])

    def decide(path: str) -> bool:
        try:
            table.bind("localhost").match(path, "GET")
        except NotFound:
            return False
        return True

    decide("/")  # sorts the rules
    return decide


def starlette(patterns: list[str]) -> Decide:
    """Run the loop of `Router.app` over its routes, without calling the endpoint."""
    from starlette.routing import Match, Route, Router

    async def endpoint(request: Any) -> Any:
        raise NotImplementedError

    router = Router([Route(pattern, endpoint, methods=["GET"]) for pattern in patterns])

    def decide(scope: dict[str, Any]) -> bool:
        for route in router.routes:
            match, _child_scope = route.matches(scope)
            if match is Match.FULL:
                return True
        return False

    return decide


def starlette_question(path: str) -> dict[str, Any]:
    """Return the scope that Starlette matches."""
    return {"type": "http", "method": "GET", "path": path, "root_path": ""}


def django(patterns: list[str]) -> Decide:
    """Resolve as Django's handler does; the patterns are compiled on their first use, which is not timed."""
    from django.conf import settings
    from django.urls import path as url
    from django.urls.exceptions import Resolver404
    from django.urls.resolvers import RegexPattern, URLResolver

    if not settings.configured:
        settings.configure()

    def view(request: Any) -> Any:
        raise NotImplementedError

    table = [url(pattern[1:].replace("{id}", "<str:id>"), view) for pattern in patterns]
    resolver = URLResolver(RegexPattern(r"^/"), table)

    def decide(path: str) -> bool:
        try:
            resolver.resolve(path)
        except Resolver404:
            return False
        return True

    decide("/")  # compiles every pattern
    return decide


ROUTERS = [
    Router(OURS, library.matcher, str.encode),
    Router(PREPARE, library.preparer, lambda path: scope(path, HEADERS["browser"])),
    Router("werkzeug", werkzeug),
    Router("starlette", starlette, starlette_question),
    Router("django", django),
]
