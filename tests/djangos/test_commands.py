"""`manage.py strangle`, as it is typed and as it is called."""

import json
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command, load_command_class
from django.test import override_settings

from django_settings import BEFORE, OURS
from strangle_mw import Respond, Route

ROUTES = [Route("/m/*", to="http://m", name="m"), Route("/who/", respond=Respond(status=410), name="gone")]


def run(*arguments, **more):
    told, errors = StringIO(), StringIO()
    call_command("strangle", *arguments, stdout=told, stderr=errors, **more)
    return told.getvalue() + errors.getvalue()


@pytest.fixture
def store(tmp_path):
    found = {"ROUTES": ROUTES, "STORE": f"sqlite:///{tmp_path / 'live.db'}"}
    with override_settings(STRANGLE=found, MIDDLEWARE=[*BEFORE, OURS]):
        yield


def test_the_table_is_shown(store):
    assert "2 routes, 1 upstream" in run("check")
    assert "/m/*" in run("routes")
    assert [r["name"] for r in json.loads(run("routes", "--json"))] == ["m", "gone"]
    assert "-> forwarded by 'm' to" in run("explain", "GET", "/m/1", "-H", "X-A: b")


def test_the_inventory_is_that_of_the_project(store):
    told = run("inventory")
    assert "1 of 15 endpoints modern" in told
    assert "djangos.views.who" in told


def test_a_route_is_moved_and_moved_back(store):
    assert "m: modern -> legacy" in run("rollback", "m", "--by", "ann", "--wait", "0")
    assert "legacy" in run("status", "--all")
    assert "m: legacy -> canary 5 %" in run("set", "m", "stage=canary", "weight=5", "--force", "--wait", "0")
    assert "kill switch is on" in run("kill", "--wait", "0")
    assert "kill switch is off" in run("unkill", "--wait", "0")
    assert "rollback" in run("events") or "legacy" in run("events")


@pytest.mark.parametrize(
    ("strangle", "arguments", "code", "says"),
    [
        ({"ROUTES": ROUTES}, ["rollback", "m"], 1, 'set STRANGLE["STORE"]'),
        ({"ROUTES": ROUTES}, ["explain", "GET", "m"], 2, "write '/m'"),
        ({"ROUTES": ROUTES}, ["nothing"], 2, "No such command"),
        ({"ROUTES": 5}, ["routes"], 1, 'STRANGLE["ROUTES"]'),
        ({"ROUTES": 5}, ["status"], 1, 'STRANGLE["ROUTES"]'),
        (None, ["check"], 1, "1 problem"),
    ],
)
def test_mistakes_are_told_without_a_traceback(strangle, arguments, code, says):
    with override_settings(STRANGLE=strangle), pytest.raises(CommandError, match="(?s).*") as raised:
        run(*arguments)
    assert raised.value.returncode == code
    assert says in str(raised.value)


def test_as_it_is_typed(database):
    """With Django's own options wherever they stand; help is that of the commands."""
    environment = {
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "DJANGO_SETTINGS_MODULE": "nowhere",
        "STRANGLE_TEST_SETTINGS": json.dumps({"ROUTES": [{"path": "a", "to": "http://m"}]}),
    }  # fmt: skip
    typed = "import sys; from django.core.management import execute_from_command_line as e; e(['manage.py', *sys.argv[1:]])"

    def typing(*arguments):
        command = [sys.executable, "-W", "error", "-c", typed, *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    shown = typing("strangle", "--help", "--settings=django_settings")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Usage: manage.py strangle [OPTIONS] COMMAND" in shown.stdout
    wrong = typing("strangle", "routes", "--json", "--settings", "django_settings")
    assert wrong.returncode == 1
    assert 'STRANGLE["ROUTES"][0].path' in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("option", "coloured"), [("--force-color", True), ("--no-color", False), ("--traceback", False)]
)
def test_djangos_own_options_are_djangos(store, capsys, option, coloured):
    command = load_command_class("strangle_mw.django", "strangle")
    with pytest.raises(SystemExit) as ended:
        command.run_from_argv(["manage.py", "strangle", "check", option])
    assert ended.value.code == 0
    assert ("\x1b[" in capsys.readouterr().out) is coloured


def test_a_problem_of_identity_names_the_projects_setting():
    with override_settings(STRANGLE={"ROUTES": [Route("/m/*", to="http://m", identity=True)]}):
        found = StringIO()
        with pytest.raises(CommandError):
            call_command("strangle", "check", stdout=found)
    assert 'in STRANGLE["IDENTITY"]' in found.getvalue()
