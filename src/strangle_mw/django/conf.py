"""From `settings.STRANGLE` to the engine of this process.

A problem names its place as it stands in the settings: `STRANGLE["ROUTES"][3].weight`. What a setting means
is `strangle_mw.config`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from os import PathLike, fspath
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.core.signals import setting_changed
from django.db import close_old_connections
from django.http import HttpRequest
from django.utils.module_loading import import_string

from strangle_mw.asking import is_awaited
from strangle_mw.config import load
from strangle_mw.core.identity import Identity, read_identity
from strangle_mw.core.settings import Settings
from strangle_mw.engine import Engine
from strangle_mw.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from strangle_mw.config import Source
    from strangle_mw.core.decision import Snapshot
    from strangle_mw.core.messages import RequestHead

# Django says which interface there is, and its endpoints need not be learned.
_NOT_HERE = frozenset(("interface", "serve", "threads", "learn", "admin"))
_SETTINGS = {f.name.upper(): f.name for f in fields(Settings) if f.name not in _NOT_HERE}
KEYS = ("ROUTES", *_SETTINGS, "CLAIMS")
"""What `STRANGLE` may hold."""

_FUNCTIONS = ("IDENTIFY", "CLAIMS")
_RESETTING = ("STRANGLE", "BASE_DIR", "INSTALLED_APPS", "SESSION_COOKIE_NAME", "CSRF_COOKIE_NAME")


@dataclass(frozen=True, slots=True)
class Configured:
    """What `STRANGLE` says: the routes, the settings by the names that `Engine` takes, and what is wrong."""

    source: Source
    settings: Mapping[str, Any]
    problems: Sequence[Problem]


def configured() -> Configured:
    """Read `settings.STRANGLE`; raises `ConfigError` if it is no dict."""
    given = getattr(settings, "STRANGLE", None)
    if not isinstance(given, Mapping):
        what = "is not set" if given is None else f"must be a dict, not {type(given).__name__}"
        raise ConfigError([Problem("STRANGLE", f'{what}; write STRANGLE = {{"ROUTES": [...]}}', "settings")])
    problems = [*_strangers(given)]
    claims = _function("CLAIMS", given.get("CLAIMS"), problems)
    own = None if "IDENTIFY" in given else _own_identify()
    identify = _both(_function("IDENTIFY", given.get("IDENTIFY", own), problems))
    made = {name: given.get(key) for key, name in _SETTINGS.items()}
    made["identify"] = identify if identify is None or claims is None else _WithClaims(identify, claims)
    made["framework_cookies"] = (settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME)
    routes = given.get("ROUTES")
    if routes is None:
        what = "is missing; give the path of a table file or a list of routes"
        problems.append(Problem('STRANGLE["ROUTES"]', what, "routes-missing"))
    return Configured(_source(() if routes is None else routes), made, problems)


def _strangers(given: Mapping[Any, Any]) -> Iterator[Problem]:
    for key in given:
        if key not in KEYS:
            what = f"there is no such setting; known are {', '.join(KEYS)}"
            yield Problem(f'STRANGLE["{key}"]', what, "unknown-key")


def _function(key: str, value: object, problems: list[Problem]) -> Any:
    """Return a function of the user's that is given by itself or by its dotted path."""
    where = f'STRANGLE["{key}"]'
    if isinstance(value, str):
        try:
            value = import_string(value)
        except Exception as exc:  # noqa: BLE001 - whatever the module does when it is imported
            problems.append(Problem(where, f"cannot be imported: {type(exc).__name__}: {exc}", "import"))
            return _nobody
    if value is not None and not callable(value):
        problems.append(Problem(where, "must be a function, or its dotted path as text", "import"))
        return _nobody
    if key == "CLAIMS" and is_awaited(value):
        problems.append(Problem(where, "must be a plain function: a thread calls it under ASGI", "import"))
        return _nobody
    return value


def _nobody(_: object) -> None:
    """Stand in for a function that is told as a problem."""


def _own_identify() -> Any:
    from django.apps import apps

    if not apps.is_installed("django.contrib.auth"):
        return None
    from strangle_mw.django.identify import identify

    return identify


class _Both:
    """An `identify` of the user's for both worlds: Django's ORM may not be asked on an event loop."""

    def __init__(self, plain: Callable[..., Any], awaited: Callable[..., Awaitable[Any]]) -> None:
        self._plain = plain
        self._awaited = awaited

    def __call__(self, head: RequestHead) -> Any:
        return self._plain(head)

    async def aidentify(self, head: RequestHead) -> Any:
        return await self._awaited(head)


def _both(function: Any) -> Any:
    if function is None or hasattr(function, "aidentify"):
        return function
    if is_awaited(function):
        return _Both(async_to_sync(function), function)

    def lent(head: RequestHead) -> Any:
        with _connections(head):
            return function(head)

    return _Both(lent, sync_to_async(lent))


@contextmanager
def _connections(head: RequestHead) -> Iterator[None]:
    """Give connections to databases back, where no request of Django's has begun (`wrap`) and would do so."""
    if isinstance(head.source, HttpRequest):
        yield
        return
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


class _WithClaims:
    """An `identify` whose user is described by CLAIMS; that may ask the database, too."""

    def __init__(self, identify: _Both, claims: Callable[[Identity], Mapping[str, Any]]) -> None:
        self._identify = identify
        self._claims = claims

    def __call__(self, head: RequestHead) -> Identity | None:
        return self._described(self._identify(head), head)

    async def aidentify(self, head: RequestHead) -> Identity | None:
        found = await self._identify.aidentify(head)
        return None if found is None else await sync_to_async(self._described)(found, head)

    def _described(self, found: Any, head: RequestHead) -> Identity | None:
        identity = read_identity(found, head)
        if identity is None:
            return None
        with _connections(head):
            return replace(identity, claims={**identity.claims, **self._claims(identity)})


def _source(routes: Any) -> Any:
    if not isinstance(routes, str | PathLike):
        return routes
    base = getattr(settings, "BASE_DIR", None)
    return Path(routes) if base is None else Path(base) / routes


# --- the table and the engine


def read_table() -> Snapshot:
    """Load the table without starting anything; raise `ConfigError` with every problem."""
    from strangle_mw.identity.minting import make_minter

    return _every_problem(lambda source, given: load(source, mint=make_minter, **given))


def _make() -> Engine:
    return _every_problem(lambda source, given: Engine(source, **given))


T = TypeVar("T", "Snapshot", Engine)

_REMEDIES: Mapping[str, str] = {
    "identity-identify": "nobody names the user: add django.contrib.auth to INSTALLED_APPS, or set IDENTIFY",
    "identity-keys": 'needs keys: give `secrets` or `keys` in STRANGLE["IDENTITY"] (docs/identity.md)',
}


def _every_problem(make: Callable[[Any, Mapping[str, Any]], T]) -> T:
    """Make something of the settings, or raise `ConfigError` with all that is wrong with them."""
    found: Configured = configured()
    problems = [*found.problems]
    try:
        made = make(found.source, found.settings)
    except ConfigError as exc:
        problems += [
            replace(p, where=place(p.where, found.source), what=_REMEDIES.get(p.id, p.what))
            for p in exc.problems
        ]
    else:
        what = "has no place in Django's table: wsgi.py and asgi.py say which interface there is"
        odd = [name for name in ("interface", "serve", "learn") if getattr(made.settings, name)]
        problems += [Problem(place(f"strangle.{name}", found.source), what, "not-in-django") for name in odd]
        if not problems:
            return made
        if isinstance(made, Engine):
            made.close()
    raise ConfigError(problems)


class _Process:
    """What this process has."""

    engine: Engine | None = None
    lock = Lock()


def engine() -> Engine:
    """Return the engine of this process, made when it is first asked for; raises `ConfigError`."""
    if _Process.engine is None:
        with _Process.lock:
            if _Process.engine is None:
                _Process.engine = _make()
    return _Process.engine


def _forget(*, setting: str, **_: Any) -> None:
    """Read the settings anew after a test has changed them (`override_settings`)."""
    if setting in _RESETTING:
        with _Process.lock:
            before, _Process.engine = _Process.engine, None
        if before is not None:
            before.close()


setting_changed.connect(_forget, dispatch_uid="strangle_mw.django")


_SETTING = re.compile(r"strangle(?:\(\))?\.(\w+)(.*)", re.DOTALL)
_PARTS = ("routes", "upstreams", "strangle", "trailing_slash", "ambiguous")


def place(where: str, source: Source) -> str:
    """Say where in the settings a problem of the table is."""
    match = _SETTING.fullmatch(where)
    given = settings.STRANGLE
    if match and (key := match[1].upper()) in given:
        return f'STRANGLE["{key}"]{match[2]}'
    if not where.startswith(_PARTS):
        return where
    if isinstance(source, str | PathLike):
        return f"{fspath(source)}: {where}"
    if isinstance(source, Mapping):
        return f'STRANGLE["ROUTES"].{where}'
    return f'STRANGLE["ROUTES"]{where.removeprefix("routes")}' if where.startswith("routes") else where
