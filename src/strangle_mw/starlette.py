"""The middleware for Starlette and FastAPI: `app.add_middleware(StrangleMiddleware, routes=...)`.

Names the user that the middlewares around it have found, and counts the framework's endpoints. No decisions
live here; the ASGI driver forwards. Nothing of Starlette is imported.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from strangle_mw.asgi import ASGIStrangler, Receive, Scope, Send
from strangle_mw.core.identity import Identity
from strangle_mw.core.inventory import WEBSOCKET
from strangle_mw.engine import Engine, log
from strangle_mw.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from strangle_mw.config import Source
    from strangle_mw.core.messages import RequestHead

    # As loose as Starlette's own, or `add_middleware` would not take the class.
    _Receive = Callable[[], Awaitable[Any]]
    _Send = Callable[[Any], Awaitable[None]]
    App = Callable[[Any, _Receive, _Send], Awaitable[None]]

SESSION_COOKIE: Final = "session"
"""The cookie of Starlette's `SessionMiddleware`, unless it is told another."""

_BY_THEMSELVES = ("", "basic", "digest", "negotiate", "ntlm")
"""What of `Authorization` browsers send without being told to; "" is none, and then a cookie."""


class StrangleMiddleware:
    """Strangle a Starlette or FastAPI app: `app.add_middleware(StrangleMiddleware, routes="strangle.toml")`.

    `routes` is what `strangle` takes, or what `load` has made of it; `settings` are those of `strangle` and
    `session_user`, the key under which the session holds the user's id. Otherwise the user is whoever stands
    in `scope["user"]`. A table that cannot be used keeps the server from starting, with every problem.
    """

    engine: Engine

    def __init__(self, app: App, /, routes: Source | Engine | None = None, **settings: Any) -> None:
        self.app = app
        self._strangled: ASGIStrangler | None = None
        try:
            self.engine = _engine(app, routes, settings)
            self._strangled = ASGIStrangler(_counting(app, self.engine), self.engine)
        except Exception as exc:  # noqa: BLE001 - raised by `_refuse`
            # Starlette makes its middlewares while the server starts, and of what is raised there servers
            # conclude that the app has no lifespan: they would go on, and fail request by request.
            self._refusal = exc

    @staticmethod
    def load(routes: Source, *, session_user: str | None = None, **settings: Any) -> Engine:
        """Load a table for `routes=`, to fail at the import already, or to share it between apps.

        Raises `ConfigError` with every problem.
        """
        given = settings.pop("identify", None)
        if given is not None and session_user is not None:
            raise ConfigError([Problem("session_user", "give it or `identify`, not both", "session-user")])
        found = None if given is not None else _FrameworkUser(session_user)
        engine = Engine(routes, identify=given or found, framework_cookies=(SESSION_COOKIE,), **settings)
        told = engine.settings
        vain = {"interface": told.interface == "wsgi", "serve": told.serve is not None, "learn": told.learn}
        if any(vain.values()):
            what = "is not for an app of Starlette's; remove it"
            raise ConfigError([Problem(f"strangle.{n}", what, n) for n, is_set in vain.items() if is_set])
        if found is not None:
            found.engine = engine
        return engine

    async def __call__(self, scope: Any, receive: _Receive, send: _Send) -> None:
        """Answer one scope."""
        if self._strangled is None:
            await self._refuse(scope, receive, send)
        else:
            if scope["type"] == "lifespan":
                _tell_of_outer(scope.get("app"))
                _tell_of_cookie(scope.get("app"), self.engine.settings.session_cookies)
            await self._strangled(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"StrangleMiddleware: {self._refusal}"})
        raise self._refusal.with_traceback(None)


# --- the engine


def _engine(app: App, routes: Source | Engine | None, settings: dict[str, Any]) -> Engine:
    """Return the engine; if Starlette has built the same middlewares before, the same."""
    if routes is None:
        what = "is missing; give the path of a table file or a list of routes"
        raise ConfigError([Problem("routes", what, "routes-missing")])
    inside = tuple(_inward(app))
    if any(isinstance(a, ASGIStrangler | StrangleMiddleware) for a in inside):
        raise RuntimeError("this app is wrapped already; add StrangleMiddleware once, with all routes")
    if isinstance(routes, Engine):
        if settings:
            what = "these settings belong to `load`, which has made the table"
            raise ConfigError([Problem(name, what, "settings-late") for name in settings])
        return routes
    kept = getattr(inside[-1], "__dict__", {})  # the router lives as long as the app
    if kept.get("strangle_mw", ())[:2] != (routes, settings):
        kept["strangle_mw"] = (routes, settings, StrangleMiddleware.load(routes, **settings))
    engine: Engine = kept["strangle_mw"][2]
    return engine


def _tell_of_outer(app: Any) -> None:
    """Warn of what ends an answer cleanly that was cut (promise P6), if it stands around this middleware."""
    for entry in getattr(app, "user_middleware", ()):
        names = [c.__name__ for c in getattr(entry.cls, "__mro__", ())]
        if "StrangleMiddleware" in names:
            return
        if "BaseHTTPMiddleware" in names:
            what = "behind %r, an answer of no known length that the upstream cuts off looks whole: %s"
            log.warning(what, entry, "add StrangleMiddleware after it, so that it stands outside")


def _tell_of_cookie(app: Any, withheld: Sequence[str] | None) -> None:
    """Warn of a session's cookie that nobody has named: upstreams would get it."""
    for entry in getattr(app, "user_middleware", ()):
        name = getattr(entry, "kwargs", {}).get("session_cookie", SESSION_COOKIE)
        if withheld and name not in withheld:
            log.warning("upstreams get the cookie of the session: name it, session_cookies=[%r]", name)


def _inward(app: Any) -> Iterator[Any]:
    """Yield an app and those in it; the last is the router, if all name theirs `app` as Starlette's do."""
    inner = getattr(app, "__self__", app)  # `Router.app` is a method of the router
    while inner is not None:
        app = inner
        yield app
        inner = getattr(app, "app", None)
        inner = None if getattr(inner, "__self__", None) is app else inner


# --- the user


class _FrameworkUser:
    """Names the user that a middleware around this one has found: in `scope["user"]`, or in the session."""

    engine: Engine | None = None
    _told = False

    def __init__(self, session_key: str | None) -> None:
        self._key = session_key

    def __call__(self, head: RequestHead) -> Identity | None:
        scope = head.source
        if self._key is not None:
            return _identity(self._found(scope, "session", "SessionMiddleware", {}).get(self._key))
        user = self._found(scope, "user", "AuthenticationMiddleware", None)
        if user is None or not user.is_authenticated:
            return None
        scheme = (head.header("authorization") or "").partition(" ")[0].lower()
        return _identity(_id_of(user), user=user, from_cookie=scheme in _BY_THEMSELVES)

    def _found(self, scope: Scope, key: str, middleware: str, default: Any) -> Any:
        if key not in scope and not self._told and self._wanted():
            self._told = True
            what = "there is no scope[%r], so nobody is the user: add StrangleMiddleware before %s, %s"
            log.warning(what, key, middleware, "since the last one added is the outermost")
        return scope.get(key, default)

    def _wanted(self) -> bool:
        """Tell whether somebody counts on the user: `sticky` goes on to the next key."""
        if self._key is not None or self.engine is None:
            return self._key is not None
        routes = (route.declared for route in self.engine.snapshot.table.routes)
        return any(r.identity or r.when is not None or list(r.sticky) == ["user"] for r in routes)


def _id_of(user: Any) -> Any:
    try:
        return user.identity
    except NotImplementedError:  # Starlette's `BaseUser`; a display name may be that of two users
        return user.username


def _identity(id_: Any, **more: Any) -> Identity | None:
    return None if id_ is None else Identity(str(id_), **more)


# --- the app's own endpoints


def _counting(app: App, engine: Engine) -> App:
    """Count what the app answers by the framework's own match."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        before = scope.get("endpoint")
        try:
            await app(scope, receive, send)
        finally:
            if scope["type"] != "lifespan":
                method = scope.get("method", WEBSOCKET)
                engine.states.endpoint_hit(method, _rule(scope, method, before))

    return counted


def _rule(scope: Scope, method: str, before: Any) -> str:
    """Return the path of the endpoint that has answered, as the app declares it, behind those of its mounts.

    "" if none has, or none that knows the method; `before` is what stood for the endpoint in the scope.
    """
    endpoint = scope.get("endpoint")
    if endpoint is before:
        return ""
    context = scope.get("fastapi", {}).get("effective_route_context")  # of FastAPI's `include_router`
    included = getattr(context, "starlette_route", None) or context
    # Starlette tells the route from 1.7 on; it and FastAPI always tell the endpoint, or the app of a mount.
    told = chain((included, scope.get("route")), getattr(scope.get("app"), "routes", ()))
    route = next((r for r in told if getattr(r, "endpoint", getattr(r, "app", None)) is endpoint), None)
    known = getattr(route, "methods", None) or (method,)
    if route is None or getattr(route, "routes", None) or method not in known:
        return ""
    root: str = scope.get("root_path", "")
    prefix = root.removeprefix(scope.get("app_root_path", root))
    for name, value in scope.get("path_params", {}).items():
        if name not in getattr(route, "param_convertors", ()):  # but of a mount
            prefix = prefix.replace(f"/{value}", f"/{{{name}}}", 1)
    return prefix + (getattr(route, "path", "") if hasattr(route, "endpoint") else "/{path:path}")


__all__ = ["StrangleMiddleware"]
