"""The command `lambda-dev`: runs AWS Lambda functions on this machine; how, is `lambda_dev`'s business.

Exit codes as in `cli`: 0 ended by Ctrl-C or SIGTERM, 1 cannot start or print, 2 the command was used wrongly.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SECONDS: Final = 900
"""The longest time that Lambda lets a function run."""


@click.command("lambda-dev", short_help="Run AWS Lambda functions on this machine.")
@click.argument("handlers", nargs=-1, required=True, metavar="[NAME=]MODULE:HANDLER...")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=9001, show_default=True, help="0 takes a free one."
)
@click.option(
    "--workers", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="K",
    help="Processes of each function: how many invocations run at once.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(0, MAX_SECONDS, min_open=True), default=3.0, show_default=True,
    metavar="SECONDS", help="How long one invocation may take.",
)  # fmt: skip
@click.option(
    "--memory", type=click.IntRange(128, 10_240), default=128, show_default=True, metavar="MB",
    help="What functions are told of their memory; it is not limited.",
)  # fmt: skip
@click.option("--env", "settings", multiple=True, metavar="KEY=VALUE", help="A variable for them.")
@click.option("--no-reload", is_flag=True, help="Do not load the code anew when a file changes.")
def lambda_dev(
    handlers: Sequence[str],
    host: str,
    port: int,
    workers: int,
    timeout: float,
    memory: int,
    settings: Sequence[str],
    *,
    no_reload: bool,
) -> None:
    """Run AWS Lambda functions on this machine, behind the Invoke API.

    Each HANDLER is loaded from the working directory by AWS's own runtime client (awslambdaric), in K
    processes. Without NAME= a function answers to any name.
    """
    from strangle_mw.lambda_dev.names import LambdaDevError, parse_handlers
    from strangle_mw.lambda_dev.server import Options, check, serve
    from strangle_mw.lambda_dev.terminal import Terminal

    try:
        found = parse_handlers(handlers)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from None
    environment = _environment(settings)
    options = Options(host, port, workers, timeout, memory, environment, not no_reload, Path.cwd())
    try:
        listener = check(options, found)
    except LambdaDevError as exc:
        for problem in exc.problems:
            click.echo(click.style("error ", fg="red") + problem, err=True)
        sys.exit(1)
    colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    terminal = Terminal(colours=colours)
    asyncio.run(serve(options, found, listener, terminal))
    if terminal.closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush at the exit
        sys.exit(1)


def _environment(settings: Sequence[str]) -> dict[str, str]:
    """Read KEY=VALUE, as often as given."""
    from strangle_mw.lambda_dev.server import OWN_VARIABLES

    pairs = [setting.partition("=") for setting in settings]
    for setting, (name, equals, _) in zip(settings, pairs, strict=True):
        if not name or not equals:
            raise click.UsageError(f"{setting!r} is not understood: write --env KEY=VALUE")
        if name in OWN_VARIABLES:
            raise click.UsageError(f"{name} is set by lambda-dev itself")
    return {name: value for name, _, value in pairs}


lambda_commands: Final[list[click.Command]] = [lambda_dev]
"""What `strangle` is given of this."""
