import gc
import json
import re
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask, request, session
from flask.cli import FlaskGroup, ScriptInfo

from echo import Echo
from strangle_mw import ConfigError, Route
from strangle_mw.flask import ROUTES, SETTINGS, Strangle, commands


@pytest.fixture(scope="module")
def echo():
    upstream = Echo()
    yield upstream
    upstream.close()


def monolith(routes, **config):
    app = Flask("shop")
    app.secret_key = "x"
    app.config.update(STRANGLE_ROUTES=routes, **config)

    @app.route("/legacy", methods=["GET", "POST"])
    def legacy():
        session["n"] = session.get("n", 0) + 1
        return {"n": session["n"], "form": request.form.to_dict()}

    return app


def close(app):
    app.extensions["strangle"].close()


def test_the_test_client_goes_through_the_routes(echo):
    app = monolith([Route("/m/*", to=echo.address)])
    Strangle(app)
    client = app.test_client()
    assert client.get("/m/x?a=b").json["line"] == "GET /m/x?a=b HTTP/1.1"
    assert client.get("/legacy").json["n"] == 1
    assert client.post("/legacy", data={"a": "1"}).json == {"n": 2, "form": {"a": "1"}}
    assert client.post("/m/x", data={"a": "1"}).json["length"] == 3
    assert isinstance(app, Flask)
    close(app)


def test_one_extension_serves_several_apps(echo):
    extension = Strangle()
    apps = [monolith([Route(f"/{n}", to=echo.address)]) for n in ("one", "two")]
    for app in apps:
        extension.init_app(app)
    assert apps[0].test_client().get("/one").status_code == 200
    assert apps[0].test_client().get("/two").status_code == 404
    assert apps[1].test_client().get("/two").status_code == 200
    for app in apps:
        close(app)


def test_a_file_is_relative_to_the_apps_root(tmp_path):
    (tmp_path / "strangle.toml").write_text('[[routes]]\npath = "/gone"\nrespond = { status = 410 }\n')
    app = Flask("shop", root_path=str(tmp_path))
    app.config["STRANGLE_ROUTES"] = "strangle.toml"
    Strangle(app)
    assert app.test_client().get("/gone").status_code == 410


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "STRANGLE_ROUTES: is not set"),
        (
            {"STRANGLE_ROUTES": 5},
            "STRANGLE_ROUTES: must be a file's path, a dict or a list of routes, not int",
        ),
        ({"STRANGLE_ROUTES": "none.toml"}, "STRANGLE_ROUTES: .*none.toml: there is no such file"),
        ({"STRANGLE_TRUSTED_PROXY": "x"}, "STRANGLE_TRUSTED_PROXY: there is no such setting"),
        ({"STRANGLE_TRUSTED_PROXIES": ["x"]}, r"STRANGLE_TRUSTED_PROXIES\[0\]: 'x' must be an address"),
        ({"STRANGLE_ALLOW_HEADERS": [" "]}, r"STRANGLE_ALLOW_HEADERS\[0\]: ' ' cannot be the name"),
        ({"STRANGLE_MAX_BODY": "x"}, "STRANGLE_MAX_BODY: must be a whole number, not text"),
        ({"STRANGLE_REPLAY_LIMIT": -1}, "STRANGLE_REPLAY_LIMIT: must be 0..16777216 bytes"),
        ({"STRANGLE_IDENTIFY": 5}, "STRANGLE_IDENTIFY: must be a function"),
        ({"STRANGLE_IDENTITY": 5}, "STRANGLE_IDENTITY: must be a table, not a number"),
        ({"STRANGLE_SESSION_COOKIES": 5}, "STRANGLE_SESSION_COOKIES: must be a list, not a number"),
        ({"STRANGLE_STORE": "file:x"}, "STRANGLE_STORE: "),
        ({"STRANGLE_PIN": {"secret": "short"}}, "STRANGLE_PIN.secret: must have 16 characters or more"),
        ({"STRANGLE_ROUTES": [{"path": "a", "to": "http://m"}]}, r"STRANGLE_ROUTES\[0\].path: "),
        ({"STRANGLE_ROUTES": {"routes": [{"path": "a", "to": "http://m"}]}}, r" routes\[0\].path: "),
    ],
)
def test_a_wrong_setting_is_told_with_its_key(config, says):
    app = Flask("shop")
    app.config.update({"STRANGLE_ROUTES": [], **config} if config else {})
    with pytest.raises(ConfigError, match=says) as refused:
        Strangle(app)
    assert len(refused.value.problems) == 1
    assert "strangle" not in app.extensions


def test_all_wrong_settings_are_told_at_once():
    app = Flask("shop")
    app.config.update(STRANGLE_ROUTE=[], STRANGLE_IDENTIFY="nomodule:x", STRANGLE_MAX_BODY="x")
    with pytest.raises(ConfigError) as refused:
        Strangle(app)
    told = [p.where for p in refused.value.problems]
    assert told == ["STRANGLE_ROUTE", "STRANGLE_IDENTIFY", "STRANGLE_ROUTES"]


def test_what_stands_in_the_file_is_told_by_its_place(tmp_path):
    (tmp_path / "strangle.toml").write_text('[strangle]\nmax_body = "x"\n')
    with pytest.raises(ConfigError, match=r" strangle\.max_body: must be a whole number"):
        Strangle(monolith(tmp_path / "strangle.toml"))


@pytest.mark.parametrize("key", [ROUTES, *SETTINGS])
def test_every_setting_is_in_the_docs(key):
    page = Path(__file__).parents[1] / "docs" / "flask.md"
    assert re.search(rf"^\| `{key}` \|", page.read_text("utf-8"), re.MULTILINE)


def test_serving_from_an_asgi_server_is_told_how(tmp_path):
    (tmp_path / "strangle.toml").write_text('[strangle]\nserve = "asgi"\n')
    with pytest.raises(ConfigError, match=r"asgi_app = strangle\(app"):
        Strangle(monolith(tmp_path / "strangle.toml"))


def test_wrapping_twice_is_refused():
    app = monolith([])
    Strangle(app)
    with pytest.raises(RuntimeError, match="wrapped already"):
        Strangle(app)


def test_settings_are_passed_on():
    app = monolith(
        [], STRANGLE_MAX_BODY=5, STRANGLE_TRUSTED_PROXIES=["10.0.0.1"], STRANGLE_ALLOW_HEADERS=["x_y"]
    )
    Strangle(app)
    settings = app.extensions["strangle"].settings
    assert (settings.max_body, settings.trusted_proxies, settings.allow_headers) == (5, ["10.0.0.1"], ["x_y"])


def test_a_server_does_not_load_the_commands():
    code = "import sys, strangle_mw.flask; print([m for m in sys.modules if m.startswith('strangle_mw.cli')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_extension_keeps_no_app_alive():
    app = monolith([])
    Strangle(app)
    close(app)
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None


def test_flask_strangle_commands():
    app = monolith([Route("GET /m/{x}", to="http://m", name="mine")])
    Strangle(app)
    run = app.test_cli_runner().invoke
    assert run(args=["strangle", "check"]).output == "ok the app: 1 route, 1 upstream\n"
    assert "mine" in run(args=["strangle", "routes"]).output
    assert "-> forwarded by 'mine'" in run(args=["strangle", "explain", "GET", "/m/1"]).output
    wrong = run(args=["strangle", "explain", "GET", "m"])
    assert wrong.exit_code == 2
    assert "write '/m'" in wrong.output


def _factory(**config):
    def create_app():
        app = monolith([Route("/m/*", to="http://m", name="mine")], **config)
        Strangle(app)
        return app

    return create_app


@pytest.mark.parametrize(
    ("create_app", "arguments", "code", "says"),
    [
        (_factory(), "routes", 0, "mine"),
        (_factory(STRANGLE_MAX_BODY="x"), "check", 1, "problem STRANGLE_MAX_BODY: must be a whole number"),
        (_factory(STRANGLE_MAX_BODY="x"), "routes", 1, "STRANGLE_MAX_BODY: must be a whole number"),
        (lambda: Flask("plain"), "routes", 1, "the app: is not strangled: call Strangle(app)"),
    ],
)
def test_the_commands_find_the_app_that_flask_is_about(create_app, arguments, code, says):
    """As an entry point `flask.commands`, they are there before the app, and if it cannot be made."""
    group = FlaskGroup(add_default_commands=False)
    group.add_command(commands)
    info = ScriptInfo(create_app=create_app, load_dotenv_defaults=False)
    result = CliRunner().invoke(group, ["strangle", *arguments.split()], obj=info)
    assert result.exit_code == code, result.output
    assert says in result.output


def test_endpoints_are_counted_by_flasks_own_match(echo):
    app = monolith([Route("/m/*", to=echo.address)])
    app.add_url_rule("/items/<int:item>/", "items", str, methods=["GET", "DELETE"])

    @app.before_request
    def refuse():
        if request.args:
            return "no", 403
        return None

    Strangle(app)
    client = app.test_client()
    for path in ("/items/1/", "/items/2/", "/items/3", "/items/x/", "/none", "/m/x", "/static/none.css"):
        client.get(path)
    client.delete("/items/1/")
    client.get("/legacy?no")
    hits = app.extensions["strangle"].states.take_endpoints()
    assert hits == {
        ("GET", "/items/<int:item>/"): 2,
        ("DELETE", "/items/<int:item>/"): 1,
        ("GET", "/static/<path:filename>"): 1,
        ("GET", "/legacy"): 1,
    }
    close(app)


def test_the_inventory_of_the_app(echo, tmp_path):
    app = monolith([Route("/m/*", to=echo.address)], STRANGLE_STORE=f"sqlite:///{tmp_path}/live.db")
    app.add_url_rule("/m/<name>", "modern", lambda name: name)
    Strangle(app)
    client = app.test_client()
    for path in ("/legacy", "/legacy", "/m/x"):
        assert client.get(path).status_code == 200
    app.extensions["strangle"].sync()
    run = app.test_cli_runner().invoke
    found = json.loads(run(args=["strangle", "inventory", "--json"]).output)
    told = {e["rule"]: sum(g["legacy_hits"] for g in e["routes"]) for e in found["endpoints"]}
    assert told == {"/legacy": 2, "/m/<name>": 0, "/static/<path:filename>": 0}
    assert "/m/{name}" in run(args=["strangle", "inventory", "--days", "7"]).output
    assert "|/legacy|" in run(args=["strangle", "inventory", "--markdown"]).output.replace(" ", "")
    close(app)


def test_under_the_development_server(echo):
    from werkzeug.serving import make_server

    from servers import request as raw
    from servers import talk

    app = monolith([Route("/m/*", to=echo.address)])
    Strangle(app)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        assert talk(server.port, raw("GET", "/m/a%2Fb?q=%zz")).json()["line"] == "GET /m/a%2Fb?q=%zz HTTP/1.1"
        assert talk(server.port, raw("GET", "/legacy")).json() == {"n": 1, "form": {}}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        close(app)
