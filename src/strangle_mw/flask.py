"""The Flask extension: translates `STRANGLE_*` settings, wraps `app.wsgi_app`, adds `flask strangle`.

No decisions live here; the wrapped `wsgi_app` is the WSGI driver.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask.cli import AppGroup, with_appcontext

from strangle_mw.cli_live import live_commands
from strangle_mw.engine import MEMORY, Engine
from strangle_mw.errors import ConfigError, Problem
from strangle_mw.inspection import as_table, explain, rows
from strangle_mw.reach import IN_PROCESS, Known, RolloutError
from strangle_mw.wsgi import WSGIStrangler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flask import Flask

    from strangle_mw.core.decision import Snapshot
    from strangle_mw.core.model import Pin
    from strangle_mw.stores.base import Store

SETTINGS = {
    "STRANGLE_TRUSTED_PROXIES": "trusted_proxies",
    "STRANGLE_ALLOW_HEADERS": "allow_headers",
    "STRANGLE_MAX_BODY": "max_body",
    "STRANGLE_REPLAY_LIMIT": "replay_limit",
    "STRANGLE_IDENTIFY": "identify",
    "STRANGLE_STORE": "store",
    "STRANGLE_PIN": "pin",
}


class Strangle:
    """Strangle a Flask app: `Strangle(app)`, or `Strangle().init_app(app)` in a factory.

    `STRANGLE_ROUTES` is the path of a table file (relative to the app's root) or a list of `Route`. Wraps
    `app.wsgi_app`, so that `app` stays the Flask object and its test client goes through the routes, too.
    Raises `ConfigError` with every problem of the table.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Wrap one app; an extension object may serve several."""
        if "strangle" in app.extensions:
            raise RuntimeError("this app is wrapped already; call Strangle(app) or init_app(app) once")
        unknown = [
            k for k in app.config if k.startswith("STRANGLE_") and k not in (*SETTINGS, "STRANGLE_ROUTES")
        ]
        if unknown:
            known = ", ".join(("STRANGLE_ROUTES", *SETTINGS))
            raise ConfigError(
                Problem(k, f"there is no such setting; known are {known}", "unknown-key") for k in unknown
            )
        engine = Engine(_source(app), **{name: app.config.get(key) for key, name in SETTINGS.items()})
        if engine.settings.interface == "asgi":
            raise ConfigError([Problem("strangle.interface", "a Flask app is WSGI; remove it", "interface")])
        if engine.settings.serve is not None:
            what = "the app object stays WSGI here; write asgi_app = strangle(app, ..., serve='asgi')"
            raise ConfigError([Problem("strangle.serve", what, "serve")])
        app.extensions["strangle"] = engine
        app.wsgi_app = WSGIStrangler(app.wsgi_app, engine)  # type: ignore[method-assign]
        app.cli.add_command(_commands())


def _source(app: Flask) -> Any:
    source = app.config.get("STRANGLE_ROUTES")
    if source is None:
        what = "is not set; give the path of a table file or a list of routes"
        raise ConfigError([Problem("STRANGLE_ROUTES", what, "routes-missing")])
    return Path(app.root_path) / source if isinstance(source, str | Path) else source


def _commands() -> AppGroup:
    group = AppGroup("strangle", help="Look at the app's route table, and move its routes while it runs.")

    @group.command("routes")
    @with_appcontext
    def routes() -> None:
        """List the routes."""
        click.echo("\n".join(as_table(rows(_snapshot()))))

    @group.command("explain")
    @click.argument("method")
    @click.argument("url")
    @click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header.")
    @with_appcontext
    def explain_command(method: str, url: str, headers: Sequence[str]) -> None:
        """Say where a request with METHOD and URL would go, and why."""
        try:
            click.echo(explain(_snapshot(), method, url, headers).text())
        except ValueError as exc:
            raise click.UsageError(str(exc)) from None

    for command in live_commands(lambda: _AppTarget(_engine())):
        command.callback = with_appcontext(command.callback)  # type: ignore[type-var]
        group.add_command(command)
    return group


def _engine() -> Engine:
    from flask import current_app

    engine: Engine = current_app.extensions["strangle"]
    return engine


def _snapshot() -> Snapshot:
    return _engine().snapshot


class _AppTarget:
    """What the live commands are about: the app's own store and table."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def opened(self) -> Iterator[Store]:
        """Lend the engine's own store, as `reach.Target.opened`."""
        url = self._engine.settings.store
        if not url:
            raise RolloutError("there is no store to change: set STRANGLE_STORE in the app's config")
        if url == MEMORY:
            raise RolloutError(IN_PROCESS)
        yield self._engine.store

    def table(self, store: Store) -> Known:  # noqa: ARG002 - the app's own holds, whatever others say
        """Return the app's table, as `reach.Target.table`."""
        snapshot = self._engine.live.table
        return Known(snapshot.revision, "the app", snapshot.table)

    def pin(self) -> Pin | None:
        """Return the app's pin, as `reach.Target.pin`."""
        return self._engine.settings.pin


__all__ = ["Strangle"]
