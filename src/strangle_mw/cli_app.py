"""The commands about an app's own table: check, routes, explain, inventory, and the live ones.

Built once, for `flask strangle`, `manage.py strangle` and, as far as they are about a table alone, for
`strangle`. Words and exit codes live here; what there is to say is found by `inspection` and `rollout`.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from strangle_mw.cli_inventory import days_option, json_option, markdown_option, print_inventory
from strangle_mw.cli_live import bound, live_commands
from strangle_mw.cli_status import count
from strangle_mw.engine import MEMORY, Engine
from strangle_mw.errors import ConfigError, Problem
from strangle_mw.inspection import as_table, explain, rows
from strangle_mw.reach import IN_PROCESS, Known, RolloutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from strangle_mw.core.decision import Snapshot
    from strangle_mw.core.model import Pin
    from strangle_mw.stores.base import Store

strict_option = click.option("--strict", is_flag=True, help="Count warnings as problems.")
"""The option `--strict` of `check`: `strict`."""


@dataclass(frozen=True, slots=True)
class AppContext:
    """What the commands of an app are about.

    `app` is what the inventory reads the URL map of, `store_setting` says where an operator names a store, as
    in "set ... to change the table live".
    """

    engine: Engine
    app: Any
    store_setting: str


def app_commands(find: Callable[[], AppContext]) -> list[click.Command]:
    """Build the commands of an app.

    `find` is called by each command when it runs; it raises `ConfigError` if the table or a setting cannot be
    used, which every command tells, and exits with 1.
    """
    return [
        bound("check", _check, lambda: find, ()),
        *table_commands(lambda: find().engine.snapshot),
        bound("inventory", _inventory, find, ()),
        *live_commands(lambda: _AppTarget(find())),
    ]


def table_commands(
    find: Callable[..., Snapshot], params: Sequence[click.Parameter] = ()
) -> list[click.Command]:
    """Build `routes` and `explain`; `find` is called with the values of `params`, as by `live_commands`."""
    return [bound("routes", _routes, find, params), bound("explain", _explain, find, params)]


def honour_no_color() -> None:
    """Leave colours out if NO_COLOR is set (no-color.org); for the function of a group of commands."""
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False


# --- the commands


@strict_option
@json_option
def _check(find: Callable[[], AppContext], *, strict: bool, as_json: bool) -> None:
    """Check the app's settings and its route table, and tell every problem at once."""
    try:
        snapshot = find().engine.snapshot
    except ConfigError as exc:
        tell_check("the app", exc.problems, (), "", strict=strict, as_json=as_json)
    else:
        tell_check("the app", (), snapshot.warnings, summary(snapshot), strict=strict, as_json=as_json)


@json_option
def _routes(snapshot: Snapshot, *, as_json: bool) -> None:
    """List the routes."""
    found = rows(snapshot)
    click.echo(json.dumps([asdict(r) for r in found], indent=2) if as_json else "\n".join(as_table(found)))


@click.argument("method")
@click.argument("url")
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header of the request."
)
@json_option
def _explain(snapshot: Snapshot, method: str, url: str, headers: Sequence[str], *, as_json: bool) -> None:
    """Say where a request with METHOD and URL would go, and why."""
    try:
        found = explain(snapshot, method, url, headers)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else found.text())


@json_option
@markdown_option
@days_option
def _inventory(context: AppContext, days: int, *, as_json: bool, as_markdown: bool) -> None:
    """List the app's endpoints: which routes cover each, and how often the app itself is still asked."""
    engine = context.engine
    print_inventory(
        context.app, engine.snapshot, engine.store, as_json=as_json, as_markdown=as_markdown, days=days
    )


# --- what `check` has found


def summary(snapshot: Snapshot) -> str:
    """Say in a few words what a table holds."""
    return f"{count(len(snapshot.table.routes), 'route')}, {count(len(snapshot.upstreams), 'upstream')}"


def tell_check(
    name: str,
    problems: Sequence[Problem],
    warnings: Sequence[Problem],
    found: str,
    *,
    strict: bool,
    as_json: bool,
) -> None:
    """Print what a check of `name` has found, and exit with 1 if that is a problem."""
    if as_json:
        told = {"ok": not problems, "problems": _plain(problems), "warnings": _plain(warnings)}
        click.echo(json.dumps(told, indent=2))
    else:
        _tell(name, problems, warnings, found)
    if problems or (strict and warnings):
        sys.exit(1)


def _plain(problems: Iterable[Problem]) -> list[dict[str, str]]:
    return [asdict(p) for p in problems]


def _tell(name: str, problems: Sequence[Problem], warnings: Sequence[Problem], found: str) -> None:
    for problem in problems:
        click.echo(click.style("problem ", fg="red") + str(problem))
    for warning in warnings:
        click.echo(click.style("warning ", fg="yellow") + str(warning))
    if problems:
        click.echo(f"{name}: {count(len(problems), 'problem')}", err=True)
    else:
        click.echo(click.style("ok ", fg="green") + f"{name}: {found}")


class _AppTarget:
    """What the live commands are about: the app's own store and table."""

    def __init__(self, context: AppContext) -> None:
        self._engine = context.engine
        self._store_setting = context.store_setting

    @contextmanager
    def opened(self) -> Iterator[Store]:
        """Lend the engine's own store, as `reach.Target.opened`."""
        url = self._engine.settings.store
        if not url:
            raise RolloutError(f"there is no store to change: set {self._store_setting}")
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
