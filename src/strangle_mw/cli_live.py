"""The commands that act on a running app: set, promote, rollback, kill, unkill, status, events, pin.

Built once, for `strangle` and for frameworks' own commands: `live_commands` is told how to find the store and
the table. Words and exit codes live here; what is done is `rollout`, how things stand `status`.
"""

from __future__ import annotations

import getpass
import json
import sys
from contextlib import contextmanager
from decimal import Decimal
from functools import wraps
from time import time
from typing import TYPE_CHECKING, Any, Final

import click

from strangle_mw.cli_status import count, event_lines, moment, status_lines, step_lines
from strangle_mw.core.dials import BASIS_POINTS
from strangle_mw.core.model import Stage
from strangle_mw.core.sticky import make_pin
from strangle_mw.errors import StrangleError
from strangle_mw.follower import store_key
from strangle_mw.reach import RolloutError
from strangle_mw.rollout import Rollout, Who
from strangle_mw.status import read_events, read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from strangle_mw.core.sticky import PinnedSide
    from strangle_mw.reach import Known, Target
    from strangle_mw.rollout import Done, Following
    from strangle_mw.stores.base import Store

    Function = Callable[..., Any]

MAX_HOURS: Final = 24 * 366
"""The longest time that a pin may be good for: a year."""

_STAGES = ", ".join(Stage)


def live_commands(find: Callable[..., Target], params: Sequence[click.Parameter] = ()) -> list[click.Command]:
    """Build the commands; `find` is called with the values of `params` and says what a command is about."""
    return [bound(name, function, find, params) for name, function in _COMMANDS.items()]


def bound(
    name: str, function: Function, find: Callable[..., Any], params: Sequence[click.Parameter]
) -> click.Command:
    """Make a command of a function; it is given what `find` returns, which is called with `params`.

    What goes wrong on purpose (`StrangleError`) is told in a sentence, and the exit code is 1.
    """

    @wraps(function)
    def run(**given: Any) -> None:
        placing = {str(p.name): given.pop(str(p.name)) for p in params}
        with _told():
            function(find(**placing), **given)

    command = click.command(name)(run)
    command.params = [*params, *command.params]
    return command


@contextmanager
def _told() -> Iterator[None]:
    """Tell what went wrong in a sentence, without a traceback."""
    try:
        yield
    except StrangleError as exc:
        click.echo(click.style("error ", fg="red") + str(exc), err=True)
        sys.exit(1)


@contextmanager
def _rollout(target: Target) -> Iterator[Rollout]:
    with target.opened() as store:
        yield Rollout(store, lambda: _known(target, store), store_key())


def _known(target: Target, store: Store) -> Known:
    known = target.table(store)
    if known.note:
        _warn(known.note)
    return known


def _warn(text: str) -> None:
    click.echo(click.style("warning ", fg="yellow") + text, err=True)


# --- options that several commands have


def _by(function: Function) -> Function:
    by = click.option("--by", metavar="NAME", help="Who makes the change.  [default: your login]")
    why = click.option("--reason", default="", metavar="TEXT", help="Why; kept with the change and shown.")
    return by(why(function))


_wait = click.option(
    "--wait", type=click.FloatRange(0, 600), default=2.0, metavar="SECONDS", show_default=True,
    help="How long to wait for the workers to follow.",
)  # fmt: skip
_force = click.option(
    "--force", is_flag=True, help="Do not wait for a good health answer of the route's upstream."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def _who(by: str | None, reason: str) -> Who:
    return Who(by or _login(), reason)


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return "somebody"


def _points(percent: str) -> int:
    """Read a weight in percent, exact to a hundredth, as basis points."""
    try:
        points = Decimal(percent) * 100
        exact = 0 <= points <= BASIS_POINTS and points == points.to_integral_value()
    except ArithmeticError:  # no number at all, NaN, or one beyond all measure
        exact = False
    if not exact:
        what = f"{percent!r} is no weight: write percent, 0 to 100, with two decimals at most"
        raise click.BadParameter(what)
    return int(points)


def _settings(settings: Sequence[str]) -> tuple[Stage | None, int | None]:
    """Read `stage=canary weight=5`."""
    found: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if name not in ("stage", "weight") or not equals:
            raise click.UsageError(f"{setting!r} is not understood: write stage=STAGE or weight=PERCENT")
        if name in found:
            raise click.UsageError(f"{name} is given twice")
        found[name] = value
    stage, weight = found.get("stage"), found.get("weight")
    if stage is not None and stage not in tuple(Stage):
        raise click.UsageError(f"{stage!r} is no stage; they are {_STAGES}")
    points = None if weight is None else _points(weight)
    return None if stage is None else Stage(stage), points


# --- what was done


def _report(rollout: Rollout, done: Done, who: Who, wait: float) -> None:
    """Print what was done, and who follows."""
    by = f" (by {who.safe().by}{': ' + who.safe().why if who.why else ''})"
    for change in done.changes:
        click.echo(f"{change.route}: {change}{by}")
    for note in done.notes:
        _warn(note)
    if done.revision:
        names = [c.route for c in done.changes]
        _follow(rollout.follow(done.revision, wait), names)


def _follow(found: Following, names: Sequence[str]) -> None:
    total = len(found.workers)
    if not total:
        _warn("no worker is known to this store; one that uses it follows from its first request on")
        return
    click.echo(f"{total - len(found.behind)} of {count(total, 'worker')} follow{'s' if total == 1 else ''}")
    for worker in found.behind:
        _warn(f"{worker.id} does not follow: {'; '.join(worker.problems) or 'not heard of yet'}")
    waiting = sorted({n for w in found.workers for n in w.waiting} & set(names))
    for name in waiting:
        _warn(f"{name} waits for a good health answer of its upstream; --force does not")
    ignored = {
        p for w in found.workers for p in w.problems for n in names if p.startswith(f"override of {n!r}")
    }
    for problem in sorted(ignored):
        _warn(problem)


# --- the commands


@click.argument("route")
@click.argument("settings", nargs=-1, required=True, metavar="[stage=STAGE] [weight=PERCENT]")
@_by
@_force
@_wait
def _set(
    target: Target,
    route: str,
    settings: Sequence[str],
    by: str | None,
    reason: str,
    *,
    force: bool,
    wait: float,
) -> None:
    """Give ROUTE another stage or weight at once, on every worker.

    What is not given stays as it is. Stages are legacy, shadow, canary, modern and retired; the weight is the
    percent of the users who are served by the modern side in stage canary.
    """
    stage, points = _settings(settings)
    who = _who(by, reason)
    with _rollout(target) as rollout:
        _report(rollout, rollout.set(route, stage, points, who, force=force), who, wait)


@click.argument("route")
@click.option("--weight", type=_points, metavar="PERCENT", help="The weight, if the next stage is canary.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_by
@_force
@_wait
def _promote(
    target: Target,
    route: str,
    weight: int | None,
    by: str | None,
    reason: str,
    *,
    yes: bool,
    force: bool,
    wait: float,
) -> None:
    """Move ROUTE to its next stage, after showing what that changes.

    The weight of a canary is the route's own, or 1 percent if it has none.
    """
    who = _who(by, reason)
    with _rollout(target) as rollout:
        step = rollout.next_step(route, weight)
        click.echo("\n".join(step_lines(step, time())))
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("nobody can be asked here, this is no terminal: add --yes")
            click.confirm("Go on?", abort=True)
        _report(rollout, rollout.promote(step, who, force=force), who, wait)


@click.argument("routes", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every route that is not legacy.")
@click.option("--to-file", is_flag=True, help="Take overrides away: the table's own stage is in force again.")
@_by
@_wait
def _rollback(
    target: Target,
    routes: Sequence[str],
    by: str | None,
    reason: str,
    *,
    everything: bool,
    to_file: bool,
    wait: float,
) -> None:
    """Put ROUTES back to legacy at once, whatever the table says.

    That holds until they are set or promoted again. With --all, overrides that cannot be read are replaced.
    """
    if bool(routes) is everything:
        raise click.UsageError("name routes, or give --all")
    who = _who(by, reason)
    with _rollout(target) as rollout:
        done = rollout.rollback(None if everything else routes, who, to_table=to_file)
        _report(rollout, done, who, wait)


@_by
@_wait
def _kill(target: Target, by: str | None, reason: str, *, wait: float) -> None:
    """Turn the kill switch: every route is legacy at once, on every worker."""
    who = _who(by, reason)
    with _rollout(target) as rollout:
        done = rollout.kill(who)
        if done.revision:
            click.echo(click.style("the kill switch is on: every route is legacy", fg="red", bold=True))
        _report(rollout, done, who, wait)


@_by
@_wait
def _unkill(target: Target, by: str | None, reason: str, *, wait: float) -> None:
    """Turn the kill switch back: stages and weights are in force as before."""
    who = _who(by, reason)
    with _rollout(target) as rollout:
        done = rollout.unkill(who)
        if done.revision:
            click.echo("the kill switch is off: stages and weights are in force as before")
        _report(rollout, done, who, wait)


@click.option("--all", "everything", is_flag=True, help="Also routes that are legacy and idle.")
@_json
def _status(target: Target, *, everything: bool, as_json: bool) -> None:
    """Show stages, numbers, workers and the last events.

    Numbers are those since the stage and weight in force were first in force; --json has all.
    """
    with target.opened() as store:
        found = read_status(store, target.table(store), store_key(), time())
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
    else:
        click.echo("\n".join(status_lines(found, everything=everything)))


@click.option("-n", "number", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@_json
def _events(target: Target, number: int, *, as_json: bool) -> None:
    """Show the last events, the newest last: who has changed what, what has failed."""
    with target.opened() as store:
        found = read_events(store, number)
    if as_json:
        click.echo(json.dumps([e.as_dict() for e in found], indent=2))
    else:
        click.echo("\n".join(event_lines(found)) or "nothing has happened yet")


@click.argument("side", type=click.Choice(["modern", "legacy"]))
@click.option(
    "--hours", type=click.FloatRange(0, MAX_HOURS, min_open=True), default=8.0, show_default=True,
    help="How long it is good.",
)  # fmt: skip
def _pin(target: Target, side: PinnedSide, hours: float) -> None:
    """Print a token with which a tester is on SIDE of every canary, whatever the weight."""
    pin = target.pin()
    if pin is None:
        raise RolloutError('the table has no pin: add pin = { secret = "..." } under [strangle]')
    until = int(time() + hours * 3600)
    token = make_pin(pin.secret.encode(), side, until)
    click.echo(token)
    click.echo(f"{pin.header}: {token}")
    click.echo(f"good until {moment(until)}", err=True)


_COMMANDS: Final[dict[str, Function]] = {
    "set": _set,
    "promote": _promote,
    "rollback": _rollback,
    "kill": _kill,
    "unkill": _unkill,
    "status": _status,
    "events": _events,
    "pin": _pin,
}
