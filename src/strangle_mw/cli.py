"""The command `strangle`: prints what `config` and `inspection` find out, and has the live commands.

No decisions live here; what acts on a running app is `cli_live`.

Exit codes: 0 all is well, 1 the table (or the app) has problems, 2 the command was used wrongly.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import strangle_mw
from strangle_mw.cli_import import import_commands
from strangle_mw.cli_lambda import lambda_commands
from strangle_mw.cli_live import live_commands
from strangle_mw.cli_status import count
from strangle_mw.config import load
from strangle_mw.core.interface import detect_interface
from strangle_mw.errors import ConfigError, Problem
from strangle_mw.inspection import as_table, explain, rows
from strangle_mw.reach import FileTarget

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.core.decision import Snapshot

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_FILE = click.argument("file", type=click.Path())
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
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False


@main.command()
@_FILE
@click.option(
    "--app",
    metavar="MODULE:ATTR",
    help="Also check that this is a WSGI or ASGI app, and do what a start does: import the apps "
    "that the table names, look for AWS credentials.",
)
@click.option("--strict", is_flag=True, help="Count warnings as problems.")
@_JSON
def check(file: str, app: str | None, *, strict: bool, as_json: bool) -> None:
    """Check the route table FILE and tell every problem at once."""
    problems, warnings, summary = _check(file, app)
    if as_json:
        found = {"ok": not problems, "problems": _plain(problems), "warnings": _plain(warnings)}
        click.echo(json.dumps(found, indent=2))
    else:
        _tell(file, problems, warnings, summary)
    if problems or (strict and warnings):
        sys.exit(1)


def _check(file: str, app: str | None) -> tuple[list[Problem], list[Problem], str]:
    problems: list[Problem] = []
    warnings: list[Problem] = []
    upstreams: Sequence[CompiledUpstream] = ()
    summary = ""
    try:
        snapshot = load(file)
        upstreams = [*snapshot.upstreams.values()]
        warnings += snapshot.warnings
        summary = (
            f"{count(len(snapshot.table.routes), 'route')}, {count(len(snapshot.upstreams), 'upstream')}"
        )
    except ConfigError as exc:
        problems += exc.problems
    if app is not None:
        from strangle_mw.engine import missing

        with _here_first():
            try:
                summary += f"; {app} is {_interface(app).upper()}"
            except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever the app does when it is imported
                problems.append(Problem(f"--app {app}", f"{type(exc).__name__}: {exc}", "app"))
            problems += missing(upstreams)
    return problems, warnings, summary


@contextmanager
def _here_first() -> Iterator[None]:
    """Find modules in the working directory, as servers do."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")


def _interface(name: str) -> str:
    module, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise ValueError("must be MODULE:ATTR, as in shop.wsgi:application")
    app: Any = importlib.import_module(module)
    for part in attribute.split("."):
        app = getattr(app, part)
    return detect_interface(app)


def _plain(problems: Iterable[Problem]) -> list[dict[str, str]]:
    return [asdict(p) for p in problems]


def _tell(file: str, problems: Sequence[Problem], warnings: Sequence[Problem], summary: str) -> None:
    for problem in problems:
        click.echo(click.style("problem ", fg="red") + str(problem))
    for warning in warnings:
        click.echo(click.style("warning ", fg="yellow") + str(warning))
    if problems:
        click.echo(f"{file}: {count(len(problems), 'problem')}", err=True)
    else:
        click.echo(click.style("ok ", fg="green") + f"{file}: {summary}")


@main.command()
@_FILE
@_JSON
def routes(file: str, *, as_json: bool) -> None:
    """List the routes of FILE."""
    found = rows(_load(file))
    if as_json:
        click.echo(json.dumps([asdict(r) for r in found], indent=2))
    else:
        click.echo("\n".join(as_table(found)))


@main.command("explain", short_help="Say where a request would go, and why.")
@_FILE
@click.argument("method")
@click.argument("url")
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header of the request."
)
@_JSON
def explain_command(file: str, method: str, url: str, headers: Sequence[str], *, as_json: bool) -> None:
    """Say where a request with METHOD and URL would go under the table FILE, and why."""
    snapshot = _load(file)
    try:
        found = explain(snapshot, method, url, headers)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    click.echo(json.dumps(found.as_dict(), indent=2) if as_json else found.text())


@main.command()
def schema() -> None:
    """Print the JSON Schema of a table file, for editors."""
    from strangle_mw.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def _target(file: str | None, store: str | None) -> FileTarget:
    """Find what a live command is about."""
    path = Path(file or "strangle.toml")
    return FileTarget(path if file or path.is_file() else None, store)


for command in (*live_commands(_target, _PLACES), *lambda_commands, *import_commands):
    main.add_command(command)


def _load(file: str) -> Snapshot:
    try:
        return load(file)
    except ConfigError as exc:
        _refuse(exc)


def _refuse(error: ConfigError) -> NoReturn:
    click.echo(str(error), err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
