"""The commands `strangle import ...`: make a table of what another system says of its routes.

Words and exit codes live here: 0 a table, perhaps with notes; 1 something could not be mapped, and no file is
written; 2 wrong use. What is mapped how is `imports`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from strangle_mw.cli_status import count
from strangle_mw.core.events import UNSAFE
from strangle_mw.core.targets import is_target
from strangle_mw.errors import ConfigError, StrangleError
from strangle_mw.imports.documents import read_document
from strangle_mw.imports.openapi import import_openapi
from strangle_mw.imports.plan import Plan
from strangle_mw.imports.refactor_spaces import SeveralApplicationsError, import_refactor_spaces
from strangle_mw.imports.writing import write_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Function = Callable[..., Any]

_STAGES: Final = ("legacy", "shadow", "modern", "retired")
_OPTIONS = (
    click.option("--output", metavar="PATH", help="Write this new file.  [default: standard output]"),
    click.option("--force", is_flag=True, help="Write over a file that is there."),
    click.option("--json", "as_json", is_flag=True, help="Print table, notes and problems as JSON."),
)


def _output(function: Function) -> Function:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.group("import")
def _import() -> None:
    """Make a route table of what another system knows."""


@_import.command("refactor-spaces")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--application", metavar="ID", help="Take this application, if the files hold several.")
@click.option(
    "--value",
    "values",
    multiple=True,
    metavar="NAME=VALUE",
    help="What a template's reference stands for: a parameter's name, or Resource.Attribute.",
)
@_output
def _refactor_spaces(
    files: Sequence[str],
    application: str | None,
    values: Sequence[str],
    output: str | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Make a table of AWS Migration Hub Refactor Spaces.

    FILE is what `aws migration-hub-refactor-spaces list-routes` and `list-services` print, or a
    CloudFormation template, in JSON or YAML; `-` is standard input.
    """
    _check_output(output, force=force)
    known = dict(_pair(v) for v in values)
    plan, documents = _read(files)
    if not plan.problems:
        try:
            plan = import_refactor_spaces(documents, application=application, values=known)
        except SeveralApplicationsError as exc:
            raise click.UsageError(str(exc)) from None
        except ConfigError as exc:  # a template inside a file
            plan.problems.update(dict.fromkeys(exc.problems))
    _deliver(plan, output, force=force, as_json=as_json)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--value {text!r} is not understood: write NAME=VALUE")
    return name, value


@_import.command("openapi")
@click.argument("file", metavar="FILE")
@click.option(
    "--to", required=True, metavar="UPSTREAM", help="Where the routes lead: an address, or a name with --url."
)
@click.option("--url", default="", metavar="URL", help="The address of the upstream named by --to.")
@click.option(
    "--stage",
    type=click.Choice(_STAGES),
    default="legacy",
    show_default=True,
    help="The stage of every route.",
)
@click.option("--prefix", default="", metavar="PATH", help="Put this in front of every path.")
@_output
def _openapi(
    file: str,
    to: str,
    url: str,
    stage: str,
    prefix: str,
    output: str | None,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Make a table of an OpenAPI 3 or Swagger 2 document: a route for each path and method.

    In stage legacy, which is the default, nothing moves until you move it.
    """
    _check_output(output, force=force)
    if to == "legacy":
        raise click.UsageError("--to legacy: the wrapped app has these paths already; name a modern side")
    if is_target(to) == bool(url):
        what = "is an address already" if url else "is no address: give the address of that upstream"
        raise click.UsageError(f"--to {to} {what}; --url belongs to a name")
    if prefix and not prefix.startswith("/"):
        raise click.UsageError("--prefix must start with a slash")
    plan, documents = _read([file])
    for name, data in documents:
        plan = import_openapi(name, data, to=to, url=url, stage=stage, prefix=prefix)
    _deliver(plan, output, force=force, as_json=as_json)


def _read(files: Sequence[str]) -> tuple[Plan, list[tuple[str, object]]]:
    """Read all files; what cannot be read is a problem of the plan."""
    plan, documents = Plan(), []
    for name in dict.fromkeys(files):
        try:
            documents.append((name, read_document(name)))
        except ConfigError as exc:
            plan.problems.update(dict.fromkeys(exc.problems))
    return plan, documents


def _check_output(output: str | None, *, force: bool) -> None:
    if output is None or output == "-":
        if force:
            raise click.UsageError("--force needs --output")
    elif not output.endswith(".toml"):
        raise click.UsageError(f"--output {output}: a table in TOML must end in .toml")


def _deliver(plan: Plan, output: str | None, *, force: bool, as_json: bool) -> None:
    """Check the table, write it, and tell notes and problems."""
    read = bool(plan.title)
    text = plan.finish() if read else ""
    to_file = output if output not in (None, "-") else None
    if to_file is not None and not plan.problems:
        _write(to_file, text, force=force)
    if as_json:
        click.echo(json.dumps(_as_json(plan, text, to_file), indent=2))
    elif to_file is None:
        click.echo(text, nl=False)
    if not as_json:
        _tell(plan, to_file, text)
    if plan.problems:
        sys.exit(1)


def _write(output: str, text: str, *, force: bool) -> None:
    try:
        write_table(output, text, force=force)
    except FileExistsError:
        raise click.UsageError(f"{output} is there already; --force writes over it") from None
    except StrangleError as exc:
        click.echo(click.style("error ", fg="red") + str(exc), err=True)
        sys.exit(1)


def _as_json(plan: Plan, text: str, to_file: str | None) -> dict[str, object]:
    return {
        "ok": not plan.problems,
        "problems": [asdict(p) for p in plan.problems],
        "notes": [asdict(n) for n in plan.notes],
        "table": text,
        "written": None if plan.problems else to_file,
    }


def _tell(plan: Plan, to_file: str | None, text: str) -> None:
    """Tell notes and problems; names of others must not move a terminal's cursor."""
    for kind, colour, found in (("note", "cyan", plan.notes), ("problem", "red", plan.problems)):
        for item in found:
            shown = UNSAFE.sub(lambda m: m[0].encode("unicode_escape").decode(), str(item))
            click.echo(click.style(f"{kind} ", fg=colour) + shown, err=True)
    if plan.problems:
        wrote = "what is printed does not load" if text and to_file is None else "nothing is written"
        click.echo(f"{count(len(plan.problems), 'problem')}: {wrote}", err=True)
    elif to_file is not None:
        routes = sum(b.active for b in plan.routes)
        upstreams = sum(b.active for b in plan.upstreams)
        what = f"{count(routes, 'route')}, {count(upstreams, 'upstream')}"
        click.echo(click.style("ok ", fg="green") + f"{to_file}: {what}")


import_commands: Final[list[click.Command]] = [_import]
"""What `strangle` adds to its own commands."""
