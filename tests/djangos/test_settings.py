"""`STRANGLE`: what it may hold, what is said if it is wrong, and that tests may change it."""

import pytest
from django.core.checks import run_checks
from django.core.checks.registry import registry
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client, override_settings

from django_settings import BEFORE, BEHIND, OURS
from djangos.ways import VIEWS, project
from strangle_mw import ConfigError, Respond, Route, Upstream

GONE = Route("/gone", respond=Respond(status=410))
MODERN = Route("/m/*", to="http://m", name="modern")
KEYS = {"secrets": {"http://m": "s" * 32}}


def identify(head):
    return "1"


async def awaited(identity):
    return {}


def claims(identity):
    return {"plan": "gold"}


@pytest.mark.parametrize(
    ("strangle", "says"),
    [
        (None, ["strangle.E001 STRANGLE: is not set"]),
        ([GONE], ["strangle.E001 STRANGLE: must be a dict, not list"]),
        ({}, ['strangle.E003 STRANGLE["ROUTES"]: is missing']),
        (
            {"ROUTES": [{"path": "a", "to": "http://m"}, {"path": "/b", "weight": 101}], "ROOTS": []},
            ['strangle.E002 STRANGLE["ROOTS"]: there is no such setting', 'strangle.E003 STRANGLE["ROUTES"][0].path: ',
             'strangle.E003 STRANGLE["ROUTES"][1]'],
        ),
        ({"ROUTES": 5}, ['strangle.E003 STRANGLE["ROUTES"]: must be a file']),
        ({"ROUTES": {"routes": [{"path": "a"}], "x": 1}}, ["strangle.E003 x: there is no such key", 'STRANGLE["ROUTES"].routes[0].path']),
        ({"ROUTES": [], "MAX_BODY": "x"}, ['strangle.E002 STRANGLE["MAX_BODY"]: must be a whole number']),
        ({"ROUTES": [], "MAX_BODY": -1}, ['strangle.E002 STRANGLE["MAX_BODY"]: must be 0 or more']),
        ({"ROUTES": [], "TRUSTED_PROXIES": ["x"]}, ['strangle.E002 STRANGLE["TRUSTED_PROXIES"][0]: ']),
        ({"ROUTES": [], "PIN": {"secret": "x"}}, ['strangle.E002 STRANGLE["PIN"].secret: ']),
        ({"ROUTES": [], "INTERFACE": "wsgi"}, ['strangle.E002 STRANGLE["INTERFACE"]: there is no such setting']),
        ({"ROUTES": {"strangle": {"serve": "asgi"}}}, ["strangle.E003 ", "strangle.serve: has no place"]),
        ({"ROUTES": [], "IDENTIFY": "nowhere.to"}, ['strangle.E005 STRANGLE["IDENTIFY"]: cannot be imported: ModuleNotFound']),
        ({"ROUTES": [], "CLAIMS": 5}, ['strangle.E005 STRANGLE["CLAIMS"]: must be a function']),
        ({"ROUTES": [], "CLAIMS": awaited}, ['strangle.E005 STRANGLE["CLAIMS"]: must be a plain function']),
        ({"ROUTES": [MODERN, MODERN]}, ["strangle.E003 "]),
        ({"ROUTES": [Route("/m", to="http://m", identity=True)]}, ['strangle.E003 STRANGLE["ROUTES"][0].identity: needs keys']),
        (
            {"ROUTES": [Route("/m", to="http://m", identity=True)], "IDENTITY": {"secrets": {"http://m": "short"}}},
            ['strangle.E002 STRANGLE["IDENTITY"].secrets'],
        ),
        (
            {"ROUTES": [Route("/m", to="http://m", identity=True)], "IDENTITY": {"algorithm": "none"}},
            ['strangle.E002 STRANGLE["IDENTITY"].algorithm: must be one of'],
        ),
        ({"ROUTES": [Route("/m", to="http://m", identity=True)], "IDENTITY": KEYS, "IDENTIFY": None}, ["nobody names the user"]),
        ({"ROUTES": "none.toml"}, ["strangle.E003 ", "none.toml: there is no such file"]),
    ],
)  # fmt: skip
def test_each_problem_is_a_check_of_its_own_and_a_server_does_not_start(strangle, says):
    from strangle_mw.django import wrap
    from strangle_mw.django.conf import engine

    with override_settings(STRANGLE=strangle, MIDDLEWARE=[*BEFORE, OURS]):
        found = [f"{e.id} {e.msg}" for e in run_checks() if e.id.startswith("strangle.E")]
        for text in says:
            assert any(text in line for line in found), found
        for start in (engine, WSGIHandler, lambda: wrap(lambda environ, start_response: [])):
            with pytest.raises(ConfigError) as raised:
                start()
            assert [p.where for p in raised.value.problems] == [
                f.split(" ", 1)[1].split(": ")[0] for f in found
            ]


def test_a_file_is_relative_to_base_dir_and_its_problems_name_it(tmp_path):
    (tmp_path / "strangle.toml").write_text('[[routes]]\npath = "/gone"\nrespond = { status = 410 }\n')
    with override_settings(BASE_DIR=tmp_path, STRANGLE={"ROUTES": "strangle.toml"}, MIDDLEWARE=[OURS]):
        assert Client().get("/gone").status_code == 410
        (tmp_path / "strangle.toml").write_text('[strangle]\nmax_body = -1\n[[routes]]\npath = "gone"\n')
        found = [e.msg for e in run_checks() if e.id == "strangle.E003"]
    assert [m.split(": ")[1] for m in found] == ["routes[0].path", "routes[0]", "strangle.max_body"]
    assert all(m.startswith(f"{tmp_path / 'strangle.toml'}: ") for m in found)


def test_a_test_may_change_the_settings():
    client = Client()
    with override_settings(MIDDLEWARE=[*BEFORE, OURS, *BEHIND]):
        for status in (410, 451):
            with override_settings(STRANGLE={"ROUTES": [Route("/gone", respond=Respond(status=status))]}):
                assert client.get("/gone").status_code == status
        with override_settings(STRANGLE={"ROUTES": []}):
            assert client.get("/gone").status_code == 404


def test_functions_may_be_named_by_their_paths():
    from strangle_mw.django import engine

    found = {"ROUTES": [MODERN], "IDENTIFY": f"{VIEWS}who", "CLAIMS": f"{VIEWS}who", "MAX_BODY": 5}
    with override_settings(STRANGLE=found):
        settings = engine().settings
        assert settings.max_body == 5
        assert settings.session_cookies == ("sessionid", "csrftoken")
        assert engine() is engine()


def test_wrapping_twice_is_wrapping_once(echo):
    from strangle_mw.django import wrap

    with project("wsgi wrapped", [Route("/m/*", to=echo.address)]) as app:
        assert wrap(app.app) is app.app
    with override_settings(STRANGLE={"ROUTES": []}), pytest.raises(TypeError, match="cannot be called"):
        wrap("an app")


# --- checks of the places


def checks(strangle, middleware=(), *, deploy=False, **settings):
    with override_settings(STRANGLE=strangle, MIDDLEWARE=[*middleware], **settings):
        return {
            e.id.partition(".")[2]: e
            for e in run_checks(include_deployment_checks=deploy)
            if e.id.startswith("strangle.")
        }


STICKY = Route("/c/*", to="http://m", stage="canary", weight=5, sticky=["user"])
IDENTITY = Route("/i/*", to="http://m", identity=True)
NOWHERE = {"WSGI_APPLICATION": None}


@pytest.mark.parametrize(
    ("strangle", "middleware", "settings", "ids"),
    [
        ({"ROUTES": [MODERN]}, [*BEFORE, OURS], {}, set()),
        ({"ROUTES": [MODERN]}, BEFORE, {}, set()),  # wrapped
        ({"ROUTES": [MODERN]}, BEFORE, NOWHERE, {"W001"}),
        ({"ROUTES": [MODERN]}, [OURS, *BEFORE], {}, {"W003"}),
        ({"ROUTES": [STICKY]}, [*BEFORE[:-1], OURS, BEFORE[-1]], {}, {"E004"}),
        ({"ROUTES": [IDENTITY], "IDENTITY": KEYS}, [*BEFORE[:-1], OURS], {}, {"E004"}),
        ({"ROUTES": [STICKY], "IDENTIFY": identify}, [*BEFORE[:-1], OURS, BEFORE[-1]], {}, set()),
        ({"ROUTES": [Route("/a*", to="http://m"), Route("/a/b", to="http://m")]}, [*BEFORE, OURS], {}, {"E003"}),
        ({"ROUTES": [Route("/a", to="http://m", name=n, headers={n: "1"}) for n in "xy"]}, [*BEFORE, OURS], {}, {"W002"}),
    ],
)  # fmt: skip
def test_where_the_library_stands(strangle, middleware, settings, ids):
    assert set(checks(strangle, middleware, **settings)) == ids


STORE = {"STORE": "sqlite:///live.db"}


@pytest.mark.parametrize(
    ("strangle", "middleware", "settings", "says"),
    [
        ({"ROUTES": [MODERN], **STORE}, [*BEFORE, OURS], NOWHERE, {}),
        ({"ROUTES": [MODERN]}, [*BEFORE, OURS], NOWHERE, {"W013": "no store"}),
        ({"ROUTES": [MODERN], **STORE}, BEFORE, {"SECURE_HSTS_SECONDS": 5}, {"W010": "ALLOWED_HOSTS, CSRF protection, SecurityMiddleware, SECURE_HSTS_SECONDS"}),
        ({"ROUTES": [MODERN], **STORE}, [], {"ALLOWED_HOSTS": ["*"]}, {"W010": "bypass every other middleware"}),
        ({"ROUTES": [GONE], **STORE}, BEFORE, {}, {}),
        ({"ROUTES": [MODERN], **STORE}, [OURS], {**NOWHERE, "USE_X_FORWARDED_HOST": True}, {"W011": "USE_X_FORWARDED_HOST trust"}),
        ({"ROUTES": [MODERN], **STORE, "TRUSTED_PROXIES": ["10.0.0.1"]}, [OURS], {**NOWHERE, "USE_X_FORWARDED_HOST": True}, {}),
        ({"ROUTES": [Route("/m", to=Upstream(url="https://m", verify=False))], **STORE}, [OURS], NOWHERE, {"W012": "'https://m' are not verified"}),
        ({"ROUTES": [MODERN], **STORE, "SESSION_COOKIES": []}, [OURS], NOWHERE, {"W014": "cookie 'sessionid'"}),
    ],
)  # fmt: skip
def test_what_is_said_before_a_deployment(strangle, middleware, settings, says):
    found = checks(strangle, middleware, deploy=True, **settings)
    assert set(found) == set(says)
    for id_, text in says.items():
        assert text in found[id_].msg
        assert found[id_].hint


def test_checks_are_tagged_and_listed_in_the_documentation():
    from pathlib import Path

    import strangle_mw.django.checks as module

    deploying = [
        c for c in registry.get_checks(include_deployment_checks=True) if c.__module__ == module.__name__
    ]
    assert [c.tags for c in deploying if c.__name__ == "check_deployment"] == [("security",)]
    page = (Path(__file__).parents[2] / "docs" / "django.md").read_text("utf-8")
    text = Path(module.__file__).read_text("utf-8")
    ids = {f"strangle.{n}" for n in ("E001", "E002", "E003", "E004", "E005")}
    ids |= {f"strangle.W{n:03}" for n in range(100) if f"W{n:03}" in text}
    assert [i for i in sorted(ids) if f"`{i}`" not in page] == []
    from strangle_mw.django import conf

    assert [k for k in conf.KEYS if f"`{k}`" not in page] == []
