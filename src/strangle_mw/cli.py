"""The command `strangle`: prints what `config` and `inspection` find out, and has the live commands.

No decisions live here; what acts on a running app is `cli_live`.

Exit codes: 0 all is well, 1 the table (or the app) has problems, 2 the command was used wrongly.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

import strangle_mw
from strangle_mw.cli_app import (
    honour_no_color,
    strict_option,
    summary,
    table_commands,
    tell_check,
)
from strangle_mw.cli_import import import_commands
from strangle_mw.cli_inventory import here_first, import_app, inventory_command, json_option
from strangle_mw.cli_lambda import lambda_commands
from strangle_mw.cli_live import live_commands
from strangle_mw.config import load, told_upstreams
from strangle_mw.core.interface import detect_interface
from strangle_mw.errors import ConfigError, Problem
from strangle_mw.identity.minting import make_minter
from strangle_mw.reach import FileTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.core.decision import Snapshot

_FILE = click.Argument(["file"], type=click.Path())
_PLACES = (
    click.Option(
        ["--file"],
        envvar="STRANGLE_FILE",
        show_envvar=True,
        type=click.Path(),
        metavar="PATH",
        help="The table file.  [default: strangle.toml, if there is one]",
    ),
    click.Option(
        ["--store"],
        envvar="STRANGLE_STORE",
        show_envvar=True,
        metavar="URL",
        help="Where live changes are kept.  [default: the file's]",
    ),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(strangle_mw.__version__, prog_name="strangle")
def main() -> None:
    """Look at a strangle-mw route table, and move its routes while the app runs."""
    honour_no_color()


@main.command()
@click.argument("file", type=click.Path())
@click.option(
    "--app",
    metavar="MODULE:ATTR",
    help="Also check that this is a WSGI or ASGI app, and do what a start does: import the apps "
    "that the table names, look for AWS credentials and for the keys of identity tokens.",
)
@strict_option
@json_option
def check(file: str, app: str | None, *, strict: bool, as_json: bool) -> None:
    """Check the route table FILE and tell every problem at once."""
    problems, warnings, found = _check(file, app)
    tell_check(file, problems, warnings, found, strict=strict, as_json=as_json)


def _check(file: str, app: str | None) -> tuple[list[Problem], list[Problem], str]:
    problems: list[Problem] = []
    warnings: list[Problem] = []
    upstreams: Sequence[CompiledUpstream] = ()
    found = ""
    try:
        snapshot = load(file)
        upstreams = [*snapshot.upstreams.values()]
        tokens = snapshot.settings.identity
        if app is not None and tokens is not None:
            problems += make_minter(tokens, told_upstreams(snapshot.table.routes)).problems
        warnings += snapshot.warnings
        found = summary(snapshot)
    except ConfigError as exc:
        problems += exc.problems
    if app is not None:
        from strangle_mw.engine import missing

        with here_first():
            try:
                found += f"; {app} is {_interface(app).upper()}"
            except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever the app does when it is imported
                problems.append(Problem(f"--app {app}", f"{type(exc).__name__}: {exc}", "app"))
            problems += missing(upstreams)
    return problems, warnings, found


def _interface(name: str) -> str:
    return detect_interface(import_app(name))


@main.command()
def schema() -> None:
    """Print the JSON Schema of a table file, for editors."""
    from strangle_mw.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def _target(file: str | None, store: str | None) -> FileTarget:
    """Find what a live command is about."""
    path = Path(file or "strangle.toml")
    return FileTarget(path if file or path.is_file() else None, store)


def _snapshot(file: str) -> Snapshot:
    return load(file)


for command in (
    *table_commands(_snapshot, (_FILE,)),
    inventory_command,
    *live_commands(_target, _PLACES),
    *lambda_commands,
    *import_commands,
):
    main.add_command(command)


if __name__ == "__main__":
    main()
