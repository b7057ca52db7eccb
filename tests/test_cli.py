import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from strangle_mw.cli import main

GOOD = """
[upstreams.leads]
url = "http://127.0.0.1:8081"

[[routes]]
pattern = "GET /v1/getSalesLeads"
to = "leads"

[[routes]]
path = "/v1/*"
to = "legacy"
hosts = ["h.example"]
"""
BAD = '[[routes]]\npath = "a"\nto = "leads"\nwieght = 5\n'
TIED = '[[routes]]\npath = "/a"\nheaders = {X = "1"}\nto = "http://m"\n[[routes]]\npath = "/a"\nheaders = {Y = "1"}\nto = "http://m"\n'


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strangle.toml").write_text(GOOD)
    (tmp_path / "bad.toml").write_text(BAD)
    (tmp_path / "tied.toml").write_text(TIED)

    def call(*arguments):
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    return call


def test_check_good(run):
    result = run("check", "strangle.toml")
    assert result.exit_code == 0
    assert result.stdout == "ok strangle.toml: 2 routes, 1 upstream\n"


def test_check_bad_tells_every_problem(run):
    result = run("check", "bad.toml")
    assert result.exit_code == 1
    assert (
        "problem routes[0].wieght: there is no such key; did you mean 'weight'? (unknown-key)"
        in result.stdout
    )
    assert "bad.toml: 3 problems" in result.stderr


def test_check_json(run):
    found = json.loads(run("check", "bad.toml", "--json").stdout)
    assert found["ok"] is False
    assert found["problems"][0]["id"] == "unknown-key"
    assert json.loads(run("check", "strangle.toml", "--json").stdout) == {
        "ok": True,
        "problems": [],
        "warnings": [],
    }


def test_check_warns_and_strict_counts_warnings(run):
    result = run("check", "tied.toml")
    assert result.exit_code == 0
    assert "warning routes[1]" in result.stdout
    assert run("check", "tied.toml", "--strict").exit_code == 1


@pytest.mark.parametrize(
    ("app", "code", "says"),
    [
        ("shop:wsgi", 0, "shop:wsgi is WSGI"),
        ("shop:make.app", 0, "is ASGI"),
        ("shop", 1, "must be MODULE:ATTR"),
        ("shop:none", 1, "has no attribute 'none'"),
        ("nomodule:app", 1, "No module named 'nomodule'"),
        ("broken:app", 1, "RuntimeError: boom"),
        ("leaves:app", 1, "SystemExit: 3"),
        ("shop:number", 1, "interface='asgi' or interface='wsgi'"),
    ],
)
def test_check_app(run, tmp_path, app, code, says, monkeypatch):
    (tmp_path / "shop.py").write_text(
        "def wsgi(environ, start_response): ...\nnumber = 1\nclass make:\n    async def app(scope, receive, send): ...\n"
    )
    (tmp_path / "broken.py").write_text("raise RuntimeError('boom')\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    for name in ("shop", "broken", "leaves"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    result = run("check", "strangle.toml", "--app", app)
    assert result.exit_code == code
    assert says in result.stdout


def test_check_app_does_what_a_start_does(run, tmp_path, monkeypatch):
    (tmp_path / "shop2.py").write_text("def wsgi(environ, start_response): ...\n")
    (tmp_path / "more.toml").write_text(
        '[upstreams.a]\nasgi = "shop2:wsgi"\n[upstreams.b]\nwsgi = "nomodule:app"\n[upstreams.c]\nwsgi = "shop2:wsgi"\n'
        + "".join(f'[[routes]]\npath = "/{n}"\nto = "{n}"\n' for n in "abc")
    )
    assert run("check", "more.toml").exit_code == 0
    assert "shop2" not in sys.modules
    monkeypatch.delitem(sys.modules, "shop2", raising=False)
    result = run("check", "more.toml", "--app", "shop2:wsgi")
    assert result.exit_code == 1
    assert "upstreams.a.asgi: 'shop2:wsgi' is WSGI; write wsgi = 'shop2:wsgi' (app-missing)" in result.stdout
    assert "upstreams.b.wsgi: cannot import 'nomodule'" in result.stdout


def test_check_app_reads_the_keys_of_tokens_and_check_alone_needs_none(run, tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_SECRET", raising=False)
    (tmp_path / "shop3.py").write_text("def wsgi(environ, start_response): ...\n")
    (tmp_path / "keys.toml").write_text(
        '[strangle.identity]\nsecrets = { orders = "env:NO_SUCH_SECRET" }\n'
        '[upstreams.orders]\nurl = "http://orders"\n[[routes]]\npath = "/o"\nto = "orders"\nidentity = true\n'
    )
    assert run("check", "keys.toml").exit_code == 0
    text = (tmp_path / "keys.toml").read_text()
    (tmp_path / "long.toml").write_text(
        text.replace("[strangle.identity]", "[strangle.identity]\nlifetime = 90")
    )
    assert "strangle.identity.lifetime: must be more than 0" in run("check", "long.toml").stdout
    result = run("check", "keys.toml", "--app", "shop3:wsgi")
    assert result.exit_code == 1
    assert "strangle.identity.secrets.orders: the environment has no variable NO_SUCH_SECRET" in result.stdout


def test_a_misspelt_file_is_guessed(run):
    result = run("check", "strangel.toml")
    assert result.exit_code == 1
    assert "did you mean 'strangle.toml'?" in result.stdout
    result = run("routes", "strangel.toml")
    assert result.exit_code == 1
    assert "did you mean 'strangle.toml'?" in result.stderr


def test_routes(run):
    lines = run("routes", "strangle.toml").stdout.splitlines()
    assert lines[0].split() == ["ROUTE", "METHODS", "PATH", "CONDITIONS", "STAGE", "TO"]
    assert lines[1].split() == ["GET", "/v1/getSalesLeads", "GET", "/v1/getSalesLeads", "modern", "leads"]
    assert lines[2].endswith("legacy")
    assert json.loads(run("routes", "strangle.toml", "--json").stdout)[0]["to"] == "leads"


def test_explain(run):
    result = run("explain", "strangle.toml", "get", "/v1/getSalesLeads?x=1")
    assert result.exit_code == 0
    assert (
        "-> forwarded by 'GET /v1/getSalesLeads' to 'leads': http://127.0.0.1:8081/v1/getSalesLeads?x=1"
        in result.stdout
    )
    assert "1. GET /v1/getSalesLeads  [modern]: taken" in result.stdout


def test_explain_headers_and_json(run):
    found = json.loads(
        run("explain", "strangle.toml", "GET", "/v1/x", "-H", "Host: h.example", "--json").stdout
    )
    assert found["decision"] == "legacy"
    assert found["candidates"] == [{"route": "/v1/* [h.example]", "refused": None}]


def test_explain_guesses_a_misspelt_path(run):
    assert (
        "did you mean /v1/getSalesLeads?" in run("explain", "strangle.toml", "GET", "/v1/getSaleLeads").stdout
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain", "strangle.toml", "GET", "v1/x"], "write '/v1/x'"),
        (["explain", "strangle.toml", "GET", "/v1/x", "-H", "nocolon"], "write 'Name: value'"),
        (["explain", "strangle.toml", "GET"], "Missing argument"),
        (["chekc", "strangle.toml"], "No such command"),
        (["check"], "Missing argument"),
    ],
)
def test_wrong_use_exits_with_2(run, arguments, says):
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_schema(run):
    assert json.loads(run("schema").stdout)["title"] == "strangle-mw route table"


@pytest.mark.parametrize("command", [[], *([name] for name in main.commands)])
def test_help(run, command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert len(result.stdout) > 80


def test_as_a_program_without_colours_when_not_a_terminal(run, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "strangle_mw.cli", "check", "bad.toml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
