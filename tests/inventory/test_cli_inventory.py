"""`strangle inventory` on real apps, with stores and without, and what it says of mistakes."""

import json

import pytest
from click.testing import CliRunner

from strangle_mw.cli import main

APP = """
from flask import Flask

from strangle_mw import strangle
from strangle_mw.flask import Strangle

app = Flask("shop")
app.config.update(STRANGLE_ROUTES=@FILE@, STRANGLE_STORE=@STORE@)
Strangle(app)


@app.get("/orders/<int:id>")
def order(id):
    return "legacy"


@app.get("/search")
def search():
    return "legacy"


def opaque(environ, start_response):
    start_response("200 OK", [])
    return [b"x"]


learned = strangle(opaque, @FILE@, interface="wsgi", store=@STORE@, learn=True)
"""
TABLE = """
[[routes]]
pattern = "GET /orders/{id}"
name = "orders"
to = "http://127.0.0.1:9"
stage = "legacy"

[[routes]]
path = "/gone"
name = "gone"
respond = { status = 410 }
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STRANGLE_STORE", raising=False)
    (tmp_path / "strangle.toml").write_text(TABLE)
    (tmp_path / "bad.toml").write_text('[[routes]]\npath = "a"\n')
    (tmp_path / "stored.toml").write_text('[strangle]\nstore = "sqlite:///none/s.db"\n')
    return tmp_path


@pytest.fixture
def store(folder):
    return f"sqlite:///{folder}/s.db"


@pytest.fixture
def app(folder, store):
    """Write an app to be imported under a name that no other test's has; return the name and its module."""
    name = f"shop_{abs(hash(str(folder)))}"
    text = APP.replace("@FILE@", repr(str(folder / "strangle.toml"))).replace("@STORE@", repr(store))
    (folder / f"{name}.py").write_text(text)
    return name


def run(*arguments):
    return CliRunner().invoke(main, ["inventory", *arguments])


def test_a_table_without_counts(app):
    result = run(f"{app}:app", "strangle.toml")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(
        "0 of 3 endpoints modern\nno hits are known here: counts are kept inside each process;"
    )
    assert f"/orders/{{id}}        GET      legacy  orders  {app}.order\n" in result.stdout
    assert "warning route 'gone': covers no endpoint of the app" in result.stdout


def test_overrides_and_counts_come_from_the_store(app, store, folder, monkeypatch):
    import importlib

    monkeypatch.syspath_prepend(str(folder))
    module = importlib.import_module(app)
    client = module.app.test_client()
    assert client.get("/search").text == client.get("/search").text == "legacy"
    assert client.get("/gone").status_code == 410
    module.app.extensions["strangle"].close()
    done = CliRunner().invoke(main, ["set", "orders", "stage=modern", "--store", store, "--wait", "0"])
    assert done.exit_code == 0, done.output
    found = json.loads(run(f"{app}:app", "strangle.toml", "--store", store, "--json", "--days", "7").stdout)
    assert found["headline"].startswith("1 of 3 endpoints modern; 33 % of requests; 2 quiet since 20")
    assert {e["path"]: (e["modern"], sum(e["legacy"].values())) for e in found["endpoints"]} == {
        "/static/{filename}": (False, 0),
        "/orders/{id}": (True, 0),
        "/search": (False, 2),
    }
    assert CliRunner().invoke(main, ["kill", "--store", store, "--wait", "0"]).exit_code == 0
    assert "the kill switch is on" in run(f"{app}:app", "strangle.toml", "--store", store).stdout


def test_an_opaque_app_is_listed_as_learned(app, store, folder, monkeypatch):
    import importlib

    monkeypatch.syspath_prepend(str(folder))
    learned = importlib.import_module(app).learned
    for path in ("/orders/7", "/orders/8", "/other"):
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "RAW_URI": path, "wsgi.url_scheme": "http"}
        list(learned(environ, lambda *_: None))
    learned.engine.close()
    page = run(f"{app}:learned", "strangle.toml", "--store", store, "--markdown").stdout
    assert page.startswith("**0 of 2 endpoints modern; 0 % of requests; 0 quiet since")
    assert f"{app}.opaque is no app of Flask".replace("_", "\\_") in page
    assert "| /orders/{int} | GET | legacy | orders | 2 |" in page
    assert "warning" not in page


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nowhere:app", "strangle.toml"), 1, "error nowhere:app cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
        (("json:app", "strangle.toml"), 1, "error json:app cannot be imported: AttributeError: module 'json' has no attribute 'app'"),
        (("failing:app", "strangle.toml"), 1, "error failing:app cannot be imported: SystemExit: no \\x1b[2J"),
        (("json:loads", "none.toml"), 1, "none.toml: there is no such file"),
        (("json:loads", "bad.toml"), 1, "must start with a slash"),
        (("json:loads", "stored.toml"), 1, "there is no such folder"),
        (("json:loads", "strangle.toml", "--store", "what"), 1, "a store must be"),
        (("json", "strangle.toml"), 2, "must be MODULE:APP"),
        ((":x", "strangle.toml"), 2, "must be MODULE:APP"),
        (("json:loads", "strangle.toml", "--days", "0"), 2, "is not in the range"),
        (("json:loads",), 2, "Missing argument"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_sentence(folder, arguments, code, says):
    (folder / "failing.py").write_text('raise SystemExit("no \\x1b[2J")')
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert says in result.output
    assert "Traceback" not in result.output


def test_on_a_terminal_lines_are_cut(app, monkeypatch):
    monkeypatch.setattr("strangle_mw.cli_inventory._width", lambda: 40)
    lines = run(f"{app}:app", "strangle.toml").stdout.splitlines()
    assert max(map(len, lines)) == 40
