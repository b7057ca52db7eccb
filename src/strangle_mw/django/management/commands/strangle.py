"""`manage.py strangle`: the commands about the project's table and its running workers.

They are those of `strangle_mw.cli_app`; here they find the project, and Django's ways to call a command.
"""

from __future__ import annotations

import sys
from argparse import REMAINDER
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections
from django.urls import get_resolver

from strangle_mw.cli_app import AppContext, app_commands, honour_no_color
from strangle_mw.django.conf import engine

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.group("strangle", context_settings={"help_option_names": ["-h", "--help"]})
def strangle() -> None:
    """Look at the project's route table, and move its routes while it runs."""
    honour_no_color()


for _command in app_commands(lambda: AppContext(engine(), get_resolver(), 'STRANGLE["STORE"]')):
    strangle.add_command(_command)


class Command(BaseCommand):  # type: ignore[misc] # Django has no types
    """Hands what is typed to the commands, and Django's own options to Django."""

    help = strangle.help
    requires_system_checks: Sequence[str] = ()  # in an incident; a table that is wrong is told all the same

    def add_arguments(self, parser: CommandParser) -> None:
        """Take whatever comes (`call_command`)."""
        parser.add_argument("args", nargs=REMAINDER, help="see `manage.py strangle --help`")

    def print_help(self, prog_name: str, subcommand: str) -> None:
        """Show the commands (`manage.py help strangle`)."""
        self._run(["--help"], f"{prog_name} {subcommand}")

    def run_from_argv(self, argv: list[str]) -> None:
        """Run a command that was typed; its exit code is the process's."""
        # On some of these `manage.py` has acted already, wherever they stand.
        django = CommandParser(add_help=False, allow_abbrev=False)
        django.add_argument("--settings")
        django.add_argument("--pythonpath")
        django.add_argument("--traceback", action="store_true")
        django.add_argument("--no-color", dest="color", action="store_false", default=None)
        django.add_argument("--force-color", dest="color", action="store_true", default=None)
        found, arguments = django.parse_known_args(argv[2:])
        try:
            self._run(arguments, f"{Path(argv[0]).name} {argv[1]}", found.color)
        finally:
            connections.close_all()

    def handle(self, *args: str, **_: Any) -> None:
        """Run a command for `call_command`; raise `CommandError` if it fails."""
        told, errors = StringIO(), StringIO()
        with redirect_stdout(told), redirect_stderr(errors):
            code = self._code([*args])
        self.stdout.write(told.getvalue(), ending="")
        if code:
            raise CommandError(errors.getvalue().strip() or f"exit code {code}", returncode=code)
        self.stderr.write(errors.getvalue(), ending="")

    def _code(self, arguments: list[str]) -> int:
        try:
            self._run(arguments, "manage.py strangle")
        except SystemExit as done:
            return done.code if isinstance(done.code, int) else int(done.code is not None)
        return 0

    @staticmethod
    def _run(arguments: list[str], name: str, color: bool | None = None) -> None:
        sys.exit(strangle.main(arguments, name, color=color))
