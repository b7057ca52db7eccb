"""The commands: what is printed where, what is written, and the exit codes."""

import json
import os
import stat

import pytest
from click.testing import CliRunner

from imports.spaces import MONOLITH, default, route, service
from strangle_mw.cli_import import import_commands
from strangle_mw.config import load

[COMMAND] = import_commands
SERVICES = {"ServiceSummaryList": [MONOLITH, service()]}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("routes.json", {"RouteSummaryList": [default(), route(1, "/v1/getSalesLeads", Methods=["GET"])]})
    save("services.json", SERVICES)
    save("bad.json", {"RouteSummaryList": [route(1, "/a", "svc-Missing000"), route(2, "/b", State="?")]})
    save("api.json", {"openapi": "3.0.3", "paths": {"/leads/{id}": {"get": {"operationId": "getLead"}}}})

    def call(*arguments, **more):
        return CliRunner().invoke(COMMAND, arguments, catch_exceptions=False, **more)

    return call


def save(name, data):
    with open(name, "w", encoding="utf-8") as file:  # noqa: PTH123 - in the folder of the test
        json.dump(data, file)


TABLE = """\
# From AWS Migration Hub Refactor Spaces, by `strangle import refactor-spaces`.
# The wrapped app is the service of the DEFAULT route, 'monolith', and needs no upstream.

# leads (svc-Leads00000)
[upstreams.leads]
url = "http://leads.internal:8080"
timeout = 29.0

[[routes]]
name = "rte-0000000001"
path = "/v1/getSalesLeads"
methods = ["GET"]
to = "leads"
stage = "modern"
"""
BOTH = ("refactor-spaces", "routes.json", "services.json")


@pytest.mark.parametrize("more", [(), ("--output", "-")])
def test_the_table_is_printed_and_notes_beside_it(run, more):
    result = run(*BOTH, *more)
    assert result.exit_code == 0
    assert result.stdout == TABLE
    assert "note routes.json: rte-Default000: is the DEFAULT route" in result.stderr


def test_the_table_is_written(run, tmp_path):
    result = run(*BOTH, "--output", "strangle.toml")
    assert (result.exit_code, result.stdout) == (0, "ok strangle.toml: 1 route, 1 upstream\n")
    assert (tmp_path / "strangle.toml").read_text() == TABLE
    assert [p.name for p in tmp_path.iterdir() if "strangle" in p.name] == ["strangle.toml"]
    assert len(load(str(tmp_path / "strangle.toml")).table.routes) == 1


def test_a_file_that_is_there_is_kept(run, tmp_path):
    (tmp_path / "strangle.toml").write_text("mine")
    result = run(*BOTH, "--output", "strangle.toml")
    assert result.exit_code == 2
    assert "strangle.toml is there already; --force writes over it" in result.stderr
    assert (tmp_path / "strangle.toml").read_text() == "mine"
    (tmp_path / "strangle.toml").chmod(0o640)
    assert run(*BOTH, "--output", "strangle.toml", "--force").exit_code == 0
    assert (tmp_path / "strangle.toml").read_text() == TABLE
    assert stat.S_IMODE((tmp_path / "strangle.toml").stat().st_mode) == 0o640


def test_a_link_that_leads_nowhere_is_something_that_is_there(run, tmp_path):
    (tmp_path / "strangle.toml").symlink_to("real.toml")
    assert run(*BOTH, "--output", "strangle.toml").exit_code == 2
    assert run(*BOTH, "--output", "strangle.toml", "--force").exit_code == 0
    assert (tmp_path / "strangle.toml").is_symlink()
    assert (tmp_path / "real.toml").read_text() == TABLE


def test_where_hard_links_do_not_work(run, tmp_path, monkeypatch):
    def refuse(*_args):
        raise PermissionError(1, "no")

    monkeypatch.setattr(os, "link", refuse)
    assert run(*BOTH, "--output", "strangle.toml").exit_code == 0
    assert (tmp_path / "strangle.toml").read_text() == TABLE


def test_somebody_who_is_faster_wins(run, tmp_path, monkeypatch):
    def link(_draft, target):
        target.write_text("faster")
        raise FileExistsError(17, "there")

    monkeypatch.setattr(os, "link", link)
    assert run(*BOTH, "--output", "strangle.toml").exit_code == 2
    assert (tmp_path / "strangle.toml").read_text() == "faster"
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json"] * 4 + [".toml"]


@pytest.mark.parametrize("output", ["nowhere/strangle.toml", "folder.toml"])
def test_a_place_that_takes_no_file(run, tmp_path, output):
    (tmp_path / "folder.toml").mkdir()
    result = run(*BOTH, "--output", output, "--force")
    assert result.exit_code == 1
    assert f"error {output} cannot be written: " in result.stderr


def test_problems_write_nothing_and_are_told_at_once(run, tmp_path):
    result = run("refactor-spaces", "bad.json", "services.json", "--output", "strangle.toml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert (
        "problem bad.json: rte-0000000001: its service svc-Missing000 is not among the files" in result.stderr
    )
    assert "problem bad.json: rte-0000000002.State: '?' is not known" in result.stderr
    assert "2 problems: nothing is written" in result.stderr
    assert not (tmp_path / "strangle.toml").exists()


def test_a_printed_draft_does_not_load(run, tmp_path):
    result = run("refactor-spaces", "bad.json", "services.json")
    assert result.exit_code == 1
    assert result.stdout.startswith("# From AWS")
    assert "2 problems: what is printed does not load" in result.stderr
    (tmp_path / "draft.toml").write_text(result.stdout)
    with pytest.raises(Exception, match="unresolved: there is no such key"):
        load(str(tmp_path / "draft.toml"))


def test_files_that_cannot_be_read_are_told_at_once(run):
    result = run("refactor-spaces", "routes.json", "none.json", "/")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "problem none.json: cannot be read" in result.stderr
    assert "2 problems: nothing is written" in result.stderr


def test_a_file_that_is_neither(run, tmp_path):
    (tmp_path / "text").write_text("ROUTESUMMARYLIST\t/a")
    result = run("refactor-spaces", "text")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "must be what `aws migration-hub-refactor-spaces list-routes`" in result.stderr
    assert "this is text" in result.stderr


def test_a_broken_template_inside_a_file(run):
    save("t.json", {"TemplateBody": "a: ["})
    result = run("refactor-spaces", "t.json")
    assert result.exit_code == 1
    assert "problem t.json: TemplateBody: is not YAML" in result.stderr


def test_standard_input_and_values(run):
    template = {
        "Resources": {
            "S": {
                "Type": "AWS::RefactorSpaces::Service",
                "Properties": {"Name": "s", "UrlEndpoint": {"Url": {"Ref": "U"}}},
            }
        }
    }
    assert run("refactor-spaces", "-", input=json.dumps(template)).exit_code == 1
    result = run("refactor-spaces", "-", "--value", "U=http://h/?a=b", input=json.dumps(template))
    assert "must not hold a query" in result.stderr
    result = run("refactor-spaces", "-", "--value", "U=http://h", input=json.dumps(template))
    assert result.exit_code == 0
    assert '# url = "http://h"' in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("refactor-spaces",), "Missing argument 'FILE...'"),
        ((*BOTH, "--value", "x"), "write NAME=VALUE"),
        ((*BOTH, "--value", "=x"), "write NAME=VALUE"),
        ((*BOTH, "--force"), "--force needs --output"),
        ((*BOTH, "--output", "strangle.yaml"), "must end in .toml"),
        ((*BOTH, "--application", "app-x"), "there is no application 'app-x'; there is app-Shop000001"),
        (("openapi", "api.json"), "Missing option '--to'"),
        (("openapi", "api.json", "--to", "legacy"), "the wrapped app has these paths already"),
        (("openapi", "api.json", "--to", "leads"), "--to leads is no address"),
        (
            ("openapi", "api.json", "--to", "http://h", "--url", "http://h"),
            "--to http://h is an address already",
        ),
        (("openapi", "api.json", "--to", "http://h", "--stage", "canary"), "'canary' is not one of"),
        (("openapi", "api.json", "--to", "http://h", "--prefix", "v1"), "--prefix must start with a slash"),
    ],
)
def test_wrong_use(run, arguments, says):
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stdout == ""


def test_several_applications(run):
    save("other.json", default(ApplicationId="app-Other00001", RouteId="rte-Other00000"))
    result = run(*BOTH, "other.json")
    assert result.exit_code == 2
    assert "choose one with --application: app-Other00001, app-Shop000001" in result.stderr
    assert run(*BOTH, "other.json", "--application", "app-Shop000001").stdout == TABLE


def test_json(run, tmp_path):
    found = json.loads(run(*BOTH, "--json").stdout)
    assert (found["ok"], found["problems"], found["table"], found["written"]) == (True, [], TABLE, None)
    assert {
        "where": "methods",
        "what": "a route for GET also takes HEAD here; AWS would not forward that",
    } in found["notes"]
    found = json.loads(run(*BOTH, "--json", "--output", "strangle.toml").stdout)
    assert found["written"] == "strangle.toml"
    assert (tmp_path / "strangle.toml").read_text() == TABLE
    result = run("refactor-spaces", "bad.json", "services.json", "--json", "--output", "new.toml")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["ok"], found["written"]) == (1, False, None)
    assert [p["id"] for p in found["problems"]] == ["import-service", "import-state"]


def test_names_of_others_do_not_move_the_cursor(run):
    save("routes.json", {"RouteSummaryList": [default(), route(1, "/a", **{"\x1b[2J": 1})]})
    result = run(*BOTH)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout + result.stderr
    assert "the field '\\x1b[2J' is not known" in result.stderr


def test_openapi(run):
    result = run("openapi", "api.json", "--to", "leads", "--url", "http://leads.internal:8080")
    assert result.exit_code == 0
    assert (
        result.stdout
        == """\
# From api.json, by `strangle import openapi`.
# Every route is in stage legacy: nothing moves until you move it.

[upstreams.leads]
url = "http://leads.internal:8080"

[[routes]]
name = "getLead"
path = "/leads/{id}"
methods = ["GET"]
to = "leads"
stage = "legacy"
"""
    )


@pytest.mark.parametrize(
    "to", ["lambda:leads:live", "http://h/base", "unix:/run/leads.sock", "asgi:leads:app"]
)
def test_openapi_to_an_address(run, to):
    result = run("openapi", "api.json", "--to", to, "--output", "strangle.toml")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "ok strangle.toml: 1 route, 0 upstreams\n"
