"""The Flask extension: translates `STRANGLE_*` settings, wraps `app.wsgi_app`, adds `flask strangle`.

No decisions live here; the wrapped `wsgi_app` is the WSGI driver. Who the user is, is `flask_identify`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from flask import current_app, has_app_context, request, request_started
from flask.cli import ScriptInfo

from strangle_mw.engine import Engine
from strangle_mw.errors import ConfigError, Problem
from strangle_mw.flask_identify import find_identify, framework_cookies, nobody, session_user
from strangle_mw.wsgi import WSGIStrangler

if TYPE_CHECKING:
    from flask import Flask

    from strangle_mw.cli_app import AppContext
    from strangle_mw.core.decision import Snapshot

ROUTES: Final = "STRANGLE_ROUTES"
"""The key of the route table."""

SETTINGS: Final = {
    "STRANGLE_TRUSTED_PROXIES": "trusted_proxies",
    "STRANGLE_ALLOW_HEADERS": "allow_headers",
    "STRANGLE_MAX_BODY": "max_body",
    "STRANGLE_REPLAY_LIMIT": "replay_limit",
    "STRANGLE_IDENTIFY": "identify",
    "STRANGLE_IDENTITY": "identity",
    "STRANGLE_SESSION_COOKIES": "session_cookies",
    "STRANGLE_STORE": "store",
    "STRANGLE_PIN": "pin",
}
"""The other keys, with the settings that they stand for."""

_REMEDIES = {
    "identity-identify": "nobody names the user: set STRANGLE_IDENTIFY, or set Flask-Login up before",
    "identity-keys": "needs keys: give `secrets` or `keys` in STRANGLE_IDENTITY (docs/identity.md)",
}


class Strangle:
    """Strangle a Flask app: `Strangle(app)`, or `Strangle().init_app(app)` in a factory.

    `STRANGLE_ROUTES` is the path of a table file (relative to the app's root) or a list of `Route`. Wraps
    `app.wsgi_app`, so that `app` stays the Flask object and its test client goes through the routes, too.
    Raises `ConfigError` with every problem of the table and the settings.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Wrap one app; an extension object may serve several."""
        if "strangle" in app.extensions:
            raise RuntimeError("this app is wrapped already; call Strangle(app) or init_app(app) once")
        strangler = _wrapped(app)
        app.extensions["strangle"] = strangler.engine
        app.wsgi_app = strangler  # type: ignore[method-assign]
        request_started.connect(strangler.started, app)
        app.cli.add_command(commands)


class _Strangler(WSGIStrangler):
    def started(self, _app: Flask, **_: object) -> None:
        """Count what Flask is about to answer, by its own match; signals hold on to no receiver."""
        rule = request.url_rule
        if rule is not None:
            self.engine.states.endpoint_hit(request.method, rule.rule)


def _wrapped(app: Flask) -> _Strangler:
    """Make the driver around an app; every problem is told at once, with the keys of the app's config."""
    problems = [*_misspelt(app)]
    settings = {name: app.config.get(key) for key, name in SETTINGS.items()}
    try:
        settings["identify"] = find_identify(app, settings["identify"])
    except ConfigError as exc:
        problems += exc.problems
        settings["identify"] = nobody
    source = _source(app)
    try:
        engine = Engine(source, framework_cookies=framework_cookies(app), **settings)
    except ConfigError as exc:
        raise ConfigError([*problems, *(_named(p, app, source) for p in exc.problems)]) from None
    problems += _impossible(engine.snapshot)
    if problems:
        engine.close()
        raise ConfigError(problems)
    return _Strangler(app.wsgi_app, engine)


def _misspelt(app: Flask) -> list[Problem]:
    known = (ROUTES, *SETTINGS)
    what = f"there is no such setting; known are {', '.join(known)}"
    unknown = [k for k in app.config if k.startswith("STRANGLE_") and k not in known]
    return [Problem(key, what, "unknown-key") for key in unknown]


def _source(app: Flask) -> Any:
    source = app.config.get(ROUTES)
    return Path(app.root_path) / source if isinstance(source, str | PathLike) else source


def _named(problem: Problem, app: Flask, source: Any) -> Problem:
    """Name the key of the app's config that is wrong, and its remedy."""
    where, what = problem.where, _REMEDIES.get(problem.id, problem.what)
    setting = re.fullmatch(r"strangle(?:\(\))?\.(\w+)(.*)", where)
    if setting is not None:
        key = f"STRANGLE_{setting[1].upper()}"
        where = key + setting[2] if app.config.get(key) is not None else where
    elif where == str(source):
        where = f"{ROUTES}: {where}"
    elif not isinstance(source, Path | Mapping):
        where = re.sub(r"^routes\b", ROUTES, where)
        if source is None and where == ROUTES:
            what = "is not set; give the path of a table file or a list of routes"
    return Problem(where, what, problem.id)


def _impossible(snapshot: Snapshot) -> list[Problem]:
    found = []
    if snapshot.settings.interface == "asgi":
        found.append(Problem("strangle.interface", "a Flask app is WSGI; remove it", "interface"))
    if snapshot.settings.serve is not None:
        what = "the app object stays WSGI here; write asgi_app = strangle(app, ..., serve='asgi')"
        found.append(Problem("strangle.serve", what, "serve"))
    return found


# --- the commands


class _Commands(click.Group):
    """Loads its commands when one is asked for: no server needs them, and they are half of the import."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._load()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        self._load()
        return super().get_command(ctx, cmd_name)

    def _load(self) -> None:
        if not self.commands:
            from strangle_mw.cli_app import app_commands

            for command in app_commands(_find):
                self.add_command(command)


@click.group("strangle", cls=_Commands)
def commands() -> None:
    """Look at the app's route table, and move its routes while it runs."""
    from strangle_mw.cli_app import honour_no_color

    honour_no_color()


def _find() -> AppContext:
    """Find the app that `flask` is about, as `flask.cli.with_appcontext` does."""
    from strangle_mw.cli_app import AppContext

    if not has_app_context():
        context = click.get_current_context()
        context.with_resource(context.ensure_object(ScriptInfo).load_app().app_context())
    app = current_app._get_current_object()  # type: ignore[attr-defined] # noqa: SLF001 - documented by Flask
    engine = app.extensions.get("strangle")
    if engine is None:
        raise ConfigError([Problem("the app", "is not strangled: call Strangle(app)", "not-wrapped")])
    return AppContext(engine, app, "STRANGLE_STORE in the app's config")


__all__ = ["Strangle", "session_user"]
