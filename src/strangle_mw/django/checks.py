"""System checks: what is wrong with `settings.STRANGLE` and where the library stands in the project.

Ids are stable, and listed in docs/django.md. Nothing is started here: the table is loaded and thrown away.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.core.checks import Error, Tags, Warning, register  # noqa: A004 - Django's name
from django.utils.module_loading import import_string

from strangle_mw.core.compiled import ForwardTo
from strangle_mw.django.conf import place, read_table
from strangle_mw.django.middleware import StrangleMiddleware
from strangle_mw.engine import MEMORY
from strangle_mw.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strangle_mw.core.compiled import CompiledRoute
    from strangle_mw.core.decision import Snapshot

_AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
_SECURITY = "django.middleware.security.SecurityMiddleware"
_COMMON = "django.middleware.common.CommonMiddleware"
_CSRF = "django.middleware.csrf.CsrfViewMiddleware"
_UNVERIFIED = "tls-unverified"


def register_checks() -> None:
    """Register all checks with Django."""
    register(check_table)
    register(check_places)
    register(check_deployment, Tags.security, deploy=True)


class Place(NamedTuple):
    """Where the library stands: around the application, and at which index of MIDDLEWARE."""

    wrapped: bool
    middleware: int | None


def check_table(**_: Any) -> list[Any]:
    """Tell every problem of the settings and the table (E001, E002, E003, E005), and its warnings (W002)."""
    try:
        snapshot = read_table()
    except ConfigError as exc:
        return [_error(problem) for problem in exc.problems]
    source = settings.STRANGLE["ROUTES"]
    warnings = [w for w in snapshot.warnings if w.id != _UNVERIFIED]
    return [Warning(f"{place(w.where, source)}: {w.what} ({w.id})", id="strangle.W002") for w in warnings]


def _error(problem: Problem) -> Error:
    if problem.id == "settings":
        number, hint = "E001", "docs/django.md has an example."
    elif problem.id == "import":
        number, hint = "E005", "Give the function itself, or its dotted path."
    elif problem.where.startswith("STRANGLE[") and not problem.where.startswith('STRANGLE["ROUTES"]'):
        number, hint = "E002", None
    else:
        number, hint = "E003", None
    return Error(str(problem), hint=hint, id=f"strangle.{number}")


def check_places(**_: Any) -> list[Any]:
    """Tell whether the library stands where it can work (E004, W001, W003)."""
    try:
        snapshot = read_table()
    except ConfigError:
        return []
    stands = _places()
    if stands.middleware is not None:
        return [*_misplaced(snapshot, stands.middleware)]
    if stands.wrapped:
        return []
    what = "STRANGLE is set, but nothing acts on it."
    hint = f"Wrap the application in wsgi.py or asgi.py, or add {_path()!r} to MIDDLEWARE."
    return [Warning(what, hint=hint, id="strangle.W001")]


def _misplaced(snapshot: Snapshot, at: int) -> Iterator[Any]:
    before = settings.MIDDLEWARE[:at]
    behind = [m for m in (_SECURITY, _COMMON) if m in settings.MIDDLEWARE and m not in before]
    if behind:
        yield Warning(
            f"StrangleMiddleware stands before {', '.join(behind)}: forwarded requests do not pass there.",
            hint="Put it behind, after AuthenticationMiddleware.",
            id="strangle.W003",
        )
    if "IDENTIFY" not in settings.STRANGLE and _AUTHENTICATION not in before:
        asking = [r.name for r in snapshot.table.routes if _asks(r)]
        if asking:
            yield Error(
                f"The routes {', '.join(map(repr, asking))} ask for the user, "
                "whom AuthenticationMiddleware has not found where StrangleMiddleware stands.",
                hint=f"Put it after {_AUTHENTICATION!r}, or say who the user is: STRANGLE['IDENTIFY'].",
                id="strangle.E004",
            )


def _asks(route: CompiledRoute) -> bool:
    """Tell whether a route needs to know the user, beyond the canary's default of `user` if there is one."""
    declared = route.declared
    named = "user" in declared.sticky and tuple(declared.sticky) != type(declared)().sticky
    return declared.identity or named


# --- deployment


def check_deployment(**_: Any) -> list[Any]:
    """Tell what is dangerous or useless in production (W010 to W014)."""
    try:
        snapshot = read_table()
    except ConfigError:
        return []
    found = (check(snapshot) for check in _DEPLOYMENT)
    return [warning for warning in found if warning is not None]


def _forwarding(snapshot: Snapshot) -> bool:
    return any(isinstance(r.action, ForwardTo) for r in snapshot.table.routes)


def _outermost(snapshot: Snapshot) -> Any:
    if not _places().wrapped or not _forwarding(snapshot):
        return None
    bypassed = ["ALLOWED_HOSTS"] if settings.ALLOWED_HOSTS != ["*"] else []
    if _CSRF in settings.MIDDLEWARE:
        bypassed.append("CSRF protection")
    if _SECURITY in settings.MIDDLEWARE:
        bypassed.append("SecurityMiddleware")
        bypassed += [n for n in ("SECURE_HSTS_SECONDS", "SECURE_SSL_REDIRECT") if getattr(settings, n)]
    bypassed.append("every other middleware")
    return Warning(
        f"The application is wrapped: forwarded requests bypass {', '.join(bypassed)}.",
        hint="See that the server in front or the upstreams do what is needed; then silence this check.",
        id="strangle.W010",
    )


def _proxies(snapshot: Snapshot) -> Any:
    names = ("SECURE_PROXY_SSL_HEADER", "USE_X_FORWARDED_HOST", "USE_X_FORWARDED_PORT")
    trusting = [name for name in names if getattr(settings, name)]
    if not trusting or snapshot.settings.trusted_proxies:
        return None
    return Warning(
        f"{' and '.join(trusting)} trust a proxy, STRANGLE['TRUSTED_PROXIES'] names none: "
        "upstreams are told the address and the scheme of the proxy, not of the client.",
        hint="Set STRANGLE['TRUSTED_PROXIES'] to the addresses of your proxies.",
        id="strangle.W011",
    )


def _unverified(snapshot: Snapshot) -> Any:
    names = [u.name for u in snapshot.upstreams.values() if not u.declared.verify]
    if not names:
        return None
    return Warning(
        f"TLS certificates of {', '.join(map(repr, names))} are not verified: anybody may read along.",
        hint="Remove verify=False; name a private authority by tls={'ca': ...}.",
        id="strangle.W012",
    )


def _memory(snapshot: Snapshot) -> Any:
    if (snapshot.settings.store or MEMORY) != MEMORY:
        return None
    return Warning(
        "There is no store: `manage.py strangle rollback` and the kill switch cannot reach running workers.",
        hint="Set STRANGLE['STORE'] to 'sqlite:///path.db' for one host, or 'redis://host' for many.",
        id="strangle.W013",
    )


def _session(snapshot: Snapshot) -> Any:
    kept = snapshot.settings.session_cookies
    if kept is None or settings.SESSION_COOKIE_NAME in kept or not _forwarding(snapshot):
        return None
    return Warning(
        f"Upstreams get the cookie {settings.SESSION_COOKIE_NAME!r}, and with it can act as its user here.",
        hint="Add it to the session_cookies, and give `identity = true` to routes that need the user.",
        id="strangle.W014",
    )


_DEPLOYMENT: tuple[Callable[[Snapshot], Any], ...] = (_outermost, _proxies, _unverified, _memory, _session)


# --- where the library stands


def _path() -> str:
    return f"strangle_mw.django.{StrangleMiddleware.__name__}"


def _places() -> Place:
    ours = (i for i, path in enumerate(settings.MIDDLEWARE) if _is_ours(path))
    return Place(any(map(_wraps, _modules())), next(ours, None))


def _is_ours(path: str) -> bool:
    if path == _path():
        return True
    try:
        found = import_string(path)
    except ImportError:  # Django says so itself
        return False
    return isinstance(found, type) and issubclass(found, StrangleMiddleware)


def _modules() -> set[str]:
    """Name the modules that servers load: those of the settings, and those that `startproject` makes."""
    named = (getattr(settings, f"{kind}_APPLICATION", None) for kind in ("WSGI", "ASGI"))
    package = str(getattr(settings, "ROOT_URLCONF", "")).rpartition(".")[0]
    made = {f"{package}.{kind}" for kind in ("wsgi", "asgi")} if package else {"wsgi", "asgi"}
    return {name.rpartition(".")[0] for name in named if name} | made


def _wraps(module: str) -> bool:
    """Tell whether a module's text wraps its application; to import it would start half a server."""
    try:
        spec = find_spec(module)
        text = Path(spec.origin).read_text("utf-8") if spec is not None and spec.origin else ""
    except (ImportError, ValueError, OSError):
        return False
    return "strangle_mw" in text and "wrap(" in text
