"""The commands of an app: what they print and how they end, whoever has them."""

import json

import click
import pytest
from click.testing import CliRunner

from strangle_mw import ConfigError, Problem, Route
from strangle_mw.cli import main
from strangle_mw.cli_app import AppContext, app_commands, honour_no_color
from strangle_mw.engine import Engine

ROUTES = [Route("GET /m/{x}", to="http://m:81", name="mine"), Route("/m/*", to="legacy")]
TIED = [Route("/a", to="http://m", headers={name: "1"}) for name in "XY"]


@pytest.fixture
def make():
    """Make a group of commands about an app with these routes, and a function that runs one."""
    engines = []

    def one(routes=(), **settings):
        engine = Engine(list(routes), **settings)
        engines.append(engine)
        return runner(lambda: AppContext(engine, None, "STORE in the settings"))

    yield one
    for engine in engines:
        engine.close()


def runner(find):
    @click.group
    def group():
        honour_no_color()

    for command in app_commands(find):
        group.add_command(command)
    return lambda *args, **more: CliRunner().invoke(group, args, catch_exceptions=False, **more)


def broken():
    raise ConfigError([Problem("ROUTES[0].path", "is odd", "odd"), Problem("STORE", "is odd, too", "odd")])


def test_an_app_has_all_commands_but_those_about_files():
    result = runner(broken)("--help")
    listed = {line.split()[0] for line in result.stdout.partition("Commands:\n")[2].splitlines()}
    assert listed == {*main.commands, "inventory"} - {"import", "lambda-dev", "schema"}


@pytest.mark.parametrize("command", [c.name for c in app_commands(broken)])
def test_each_command_says_what_it_is_for(command):
    result = runner(broken)(command, "--help")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()[2].strip()) > 15


def test_check(make):
    result = make(ROUTES)("check")
    assert (result.exit_code, result.stdout) == (0, "ok the app: 2 routes, 1 upstream\n")
    assert json.loads(make(ROUTES)("check", "--json").stdout) == {"ok": True, "problems": [], "warnings": []}


def test_check_tells_warnings_and_strict_counts_them(make):
    run = make(TIED)
    assert (run("check").exit_code, run("check", "--strict").exit_code) == (0, 1)
    assert run("check").stdout.startswith("warning routes[1]")


def test_check_tells_every_problem():
    run = runner(broken)
    result = run("check")
    assert result.exit_code == 1
    assert result.stdout == "problem ROUTES[0].path: is odd (odd)\nproblem STORE: is odd, too (odd)\n"
    assert result.stderr == "the app: 2 problems\n"
    found = json.loads(run("check", "--json").stdout)
    assert (found["ok"], [p["id"] for p in found["problems"]]) == (False, ["odd", "odd"])


@pytest.mark.parametrize(
    "command", ["routes", "explain GET /", "inventory", "status", "events", "kill", "set x stage=legacy"]
)
def test_other_commands_tell_why_they_cannot_be(command):
    result = runner(broken)(*command.split())
    assert result.exit_code == 1
    assert "ROUTES[0].path: is odd (odd)\n  STORE: is odd, too (odd)" in result.stderr


def test_routes_and_explain(make):
    run = make(ROUTES)
    assert run("routes").stdout.splitlines()[1].split()[:2] == ["mine", "GET"]
    assert [r["name"] for r in json.loads(run("routes", "--json").stdout)] == ["mine", "/m/*"]
    assert (
        "-> forwarded by 'mine' to 'http://m:81': http://m:81/m/1\n" in run("explain", "get", "/m/1").stdout
    )
    assert json.loads(run("explain", "PUT", "/m/1", "--json").stdout)["decision"] == "legacy"
    result = run("explain", "GET", "m")
    assert (result.exit_code, "write '/m'" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("store", "says"), [(None, "set STORE in the settings\n"), ("memory:", "lives inside each process")]
)
def test_live_commands_need_a_store_that_can_be_reached(make, store, says):
    result = make(ROUTES, store=store)("kill")
    assert (result.exit_code, says in result.stderr) == (1, True)


def test_a_store_of_the_apps_own(make, tmp_path):
    run = make(ROUTES, store=f"sqlite:///{tmp_path}/live.db")
    assert run("set", "mine", "stage=legacy", "--by", "ann").stdout == "mine: modern -> legacy (by ann)\n"
    assert "mine" in run("status", "--all").stdout


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color_holds_even_for_a_terminal(make, environment, coloured):
    result = make(ROUTES)("check", color=True, env={"NO_COLOR": None, **environment})
    assert ("\x1b[" in result.stdout) is coloured
    assert "\x1b[" not in make(ROUTES)("check").stdout
