import threading

import pytest
from flask import Flask, request, session

from echo import Echo
from strangle_mw import ConfigError, Route
from strangle_mw.flask import Strangle


@pytest.fixture
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
        ({"STRANGLE_ROUTES": "none.toml"}, "there is no such file"),
        (
            {"STRANGLE_ROUTES": [], "STRANGLE_TRUSTED_PROXY": "x"},
            "STRANGLE_TRUSTED_PROXY: there is no such setting",
        ),
        ({"STRANGLE_ROUTES": [], "STRANGLE_MAX_BODY": "x"}, "max_body: must be a whole number, not text"),
        ({"STRANGLE_ROUTES": [{"path": "a", "to": "x"}]}, "2 problems"),
    ],
)
def test_a_wrong_setting_is_told_at_init(config, says):
    app = Flask("shop")
    app.config.update(config)
    with pytest.raises(ConfigError, match=says):
        Strangle(app)


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


def test_flask_strangle_commands():
    app = monolith([Route("GET /m/{x}", to="http://m", name="mine")])
    Strangle(app)
    run = app.test_cli_runner().invoke
    assert "mine" in run(args=["strangle", "routes"]).output
    assert "-> forwarded by 'mine'" in run(args=["strangle", "explain", "GET", "/m/1"]).output
    wrong = run(args=["strangle", "explain", "GET", "m"])
    assert wrong.exit_code == 2
    assert "write '/m'" in wrong.output


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
