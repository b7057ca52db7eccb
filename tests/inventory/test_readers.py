"""What is read of apps, held against the frameworks' own matching."""

import asyncio

import pytest

from strangle_mw import strangle
from strangle_mw.core.coverage import _general
from strangle_mw.inventories import framework_of, read_url_map
from strangle_mw.inventories.regexes import path_parts


def shown(endpoints):
    return [
        (e.rule, e.text, e.name, e.view.removeprefix(f"{__name__}."), ",".join(sorted(e.methods)))
        for e in endpoints
    ]


def earlier(endpoints, at, path):
    """Tell whether an endpoint that is tried before takes a path."""
    return any(e.regex.fullmatch(path) for e in endpoints[:at])


# --- Flask


@pytest.fixture
def flask_app():
    from flask import Blueprint, Flask
    from flask.views import MethodView

    app = Flask("shop", subdomain_matching=True)
    app.config["SERVER_NAME"] = "shop.example:8000"

    class Orders(MethodView):
        def get(self, **_): ...
        def post(self, **_): ...

    def view(**_): ...

    blueprint = Blueprint("reports", "reports", url_prefix="/reports", static_folder="x")
    blueprint.add_url_rule("/<int(min=1):year>/", "year", view)
    app.register_blueprint(blueprint)
    app.add_url_rule("/orders/<int:id>", view_func=Orders.as_view("orders"))
    app.add_url_rule("/any/<any(a, bc):k>.<string(length=2):lang>", "any", view, methods=["PUT", "OPTIONS"])
    app.add_url_rule("/deep/<path:p>/edit", "deep", view)
    app.add_url_rule("/loose/", "loose", view, strict_slashes=False)
    app.add_url_rule("/page/", "page", view, defaults={"n": 1})
    app.add_url_rule("/page/<int:n>", "page", view)
    app.add_url_rule("/moved", "moved", redirect_to="/page/")
    app.add_url_rule("/sub", "sub", view, subdomain="<user>.api")
    app.add_url_rule("/none", "none")
    return app


def test_flask(flask_app):
    found = read_url_map(flask_app)
    assert (found.framework, found.problem) == ("flask", "")
    assert shown(found.endpoints) == [
        ("/static/<path:filename>", "/static/{filename}", "static", "flask.app.Flask.__init__.<locals>.<lambda>", "GET"),
        ("/reports/x/<path:filename>", "/reports/x/{filename}", "reports.static", "flask.blueprints.Blueprint.send_static_file", "GET"),
        ("/reports/<int(min=1):year>/", "/reports/{year}/", "reports.year", "flask_app.<locals>.view", "GET"),
        ("/orders/<int:id>", "/orders/{id}", "orders", "flask_app.<locals>.Orders", "GET,POST"),
        ("/any/<any(a, bc):k>.<string(length=2):lang>", "/any/{k}.{lang}", "any", "flask_app.<locals>.view", "PUT"),
        ("/deep/<path:p>/edit", "/deep/{p}/edit", "deep", "flask_app.<locals>.view", "GET"),
        ("/loose/", "/loose/", "loose", "flask_app.<locals>.view", "GET"),
        ("/page/", "/page/", "page", "flask_app.<locals>.view", "GET"),
        ("/page/<int:n>", "/page/{n}", "page", "flask_app.<locals>.view", "GET"),
        ("/moved", "/moved", "moved", "(redirect)", "GET"),
        ("/sub", "/sub", "sub", "flask_app.<locals>.view", "GET"),
        ("/none", "/none", "none", "(no view)", "GET"),
    ]  # fmt: skip
    by_rule = {e.rule: e for e in found.endpoints}
    assert by_rule["/sub"].hosts == ("*.api.shop.example",)
    assert by_rule["/loose/"].loose_slash
    assert by_rule["/any/<any(a, bc):k>.<string(length=2):lang>"].regex.fullmatch("/any/bc.de")
    assert not by_rule["/any/<any(a, bc):k>.<string(length=2):lang>"].regex.fullmatch("/any/b.de")


def test_flask_matches_what_is_made_of_its_rules(flask_app):
    from werkzeug.routing import RequestRedirect

    adapter = flask_app.url_map.bind("shop.example", subdomain="")
    checked = 0
    for endpoint in read_url_map(flask_app).endpoints:
        for path in () if endpoint.hosts else _general(endpoint):
            try:
                rule, _ = adapter.match(path, method=min(endpoint.methods), return_rule=True)
            except RequestRedirect:
                assert endpoint.name in ("moved", "page")
                continue
            assert rule.rule == endpoint.rule
            checked += 1
    assert checked > 10


def test_flask_by_host():
    from flask import Flask

    app = Flask("shop", host_matching=True, static_host="cdn.example:81")
    app.add_url_rule("/", "x", host="<name>.x.example")
    assert [e.hosts for e in read_url_map(app).endpoints] == [("cdn.example",), ("*.x.example",)]


# --- Django


@pytest.fixture
def django():
    pytest.importorskip("django")
    from django_settings import setup

    setup()
    from django.test import override_settings

    with override_settings(
        ROOT_URLCONF="inventory.django_urls",
        LANGUAGES=[("en", "English"), ("de", "German")],
        LANGUAGE_CODE="en",
        USE_I18N=True,
    ):
        from django.core.handlers.wsgi import WSGIHandler

        yield WSGIHandler


def test_django(django):
    from django.urls import get_resolver

    found = read_url_map(strangle(django(), []))
    assert (found.framework, found.problem) == ("django", "")
    urls = "inventory.django_urls."
    assert [(r, t, n, v.removeprefix(urls), m) for r, t, n, v, m in shown(found.endpoints)] == [
        ("", "/", "home", "plain", ""),
        ("posted/", "/posted/", "", "posted", "POST"),
        ("both", "/both", "", "both", "GET,PUT"),
        ("report/<quarter:q>", "/report/{q}", "", "plain", ""),
        ("files/<path:rest>", "/files/{rest}", "", "Called", ""),
        ("page/", "/page/", "", "django.views.generic.base.TemplateView", "GET"),
        ("shop/<uuid:tenant>/", "/shop/{tenant}/", "shop:front", "plain", ""),
        ("shop/<uuid:tenant>/orders/<int:id>/", "/shop/{tenant}/orders/{id}/", "shop:order", "Orders", "DELETE,GET"),
        ("shop/<uuid:tenant>/read/<slug:s>", "/shop/{tenant}/read/{s}", "", "ReadOnly", "GET"),
        ("shop/<uuid:tenant>/archive/(?P<year>[0-9]{4})/(?P<kind>json|xml)/$", "/shop/{tenant}/archive/{year}/{kind}/", "shop:archive", "plain", ""),
        (r"^old/(\d+)(?:-(\w+))?/?$", r"/old/(\d+)(?:-(\w+))?/?", "", "plain", ""),
        ("^old/any", "/old/any.*", "", "plain", ""),
        (r"^v(?:1|2)/x\.json$", "/v(?:1|2)/x.json", "", "plain", ""),
        ("loose", "/.*loose.*", "", "plain", ""),
        ("en/i18n/<str:x>/", "/{language}/i18n/{x}/", "i18n", "plain", ""),
        ("en/Monday", "/{language}/Monday", "", "plain", ""),
        ("de/Montag", "/{language}/Montag", "", "plain", ""),
    ]  # fmt: skip
    assert read_url_map(get_resolver()) == found
    by_rule = {e.rule: e for e in found.endpoints}
    assert by_rule["en/i18n/<str:x>/"].rules == ("de/i18n/<str:x>/",)


def test_django_matches_what_is_made_of_its_patterns(django):
    from django.urls import resolve
    from django.utils import translation

    endpoints = read_url_map(django()).endpoints
    checked = 0
    for at, endpoint in enumerate(endpoints):
        for path in _general(endpoint):
            if not earlier(endpoints, at, path):
                language = "de" if path.startswith("/de/") else "en"
                if endpoint.rule.endswith(("Monday", "Montag")) and endpoint.rule[:2] != language:
                    continue  # the path of one language behind the prefix of the other
                with translation.override(language):
                    assert resolve(path).route in (endpoint.rule, *endpoint.rules), path
                checked += 1
    assert checked > 40


def test_the_default_language_may_have_no_prefix(django):
    from django.conf.urls.i18n import i18n_patterns
    from django.test import override_settings
    from django.urls import path

    class Urls:
        urlpatterns = i18n_patterns(path("x", lambda _: None), prefix_default_language=False)

    with override_settings(ROOT_URLCONF=Urls):
        [endpoint] = read_url_map(django()).endpoints
    assert (endpoint.rule, endpoint.rules, endpoint.text) == ("x", ("de/x",), "/{language/}x")
    assert [bool(endpoint.regex.fullmatch(p)) for p in ("/x", "/de/x", "/en/x")] == [True, True, False]


def test_urls_that_cannot_be_imported_are_a_problem(django):
    from django.test import override_settings

    with override_settings(ROOT_URLCONF="inventory.nothing"):
        found = read_url_map(django())
    assert found.endpoints == ()
    assert found.problem.startswith("its URLs cannot be read: ModuleNotFoundError: No module named")


@pytest.mark.parametrize(
    ("regex", "ends", "parts"),
    [
        (r"^a/(?P<x>\d+)/$", True, "a/ x=\\d+ /"),
        (r"^a/((?:b|c)+)/?\Z", True, "a/ =((?:b|c)+) =/?"),
        (r"^[/)](\()x{2,3}?$", True, "=[/)] =(\\() =x{2,3}?"),
        ("^a|b$", True, "=a|b"),
        ("^(?P<x>[^/]+)?", False, "x=(?:[^/]+)?"),
        (r"^a\$", True, "a$"),
        (r"^a\\$", True, "a\\"),
        ("(?P<url>.*)$", True, "url=.*"),
        ("^a", True, "a =.*"),
        ("a$", True, "=.* a"),
        (r"^a(?=b)b$", True, "a =(?=b) b"),
        ("^(a", False, "=(a"),
    ],
)
def test_regexes_are_taken_apart(regex, ends, parts):
    found = [p if isinstance(p, str) else f"{p.name}={p.regex}" for p in path_parts(regex, ends=ends)]
    assert found == parts.split(" ")


# --- Starlette and FastAPI


def test_starlette():
    from starlette.applications import Starlette
    from starlette.endpoints import HTTPEndpoint
    from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
    from starlette.staticfiles import StaticFiles

    class Orders(HTTPEndpoint):
        async def get(self, request): ...
        async def put(self, request): ...

    async def view(request): ...
    async def raw(scope, receive, send): ...

    inner = Starlette(routes=[Route("/{x:uuid}.json", view)])
    app = Starlette(
        routes=[
            Route("/", view),
            Route("/orders/{id:int}", Orders),
            Route("/post", view, methods=["POST"], name="posted"),
            WebSocketRoute("/ws", view),
            Mount("/t/{tenant:int}", routes=[Route("/f/{rest:path}", view)]),
            Mount("/inner", strangle(inner, [])),
            Mount("/static", StaticFiles(directory="."), name="static"),
            Mount("/raw", raw),
            Host("api.example:80", Router([Route("/h", view)])),
            Host("{user}.api.example", raw),
        ]
    )
    found = read_url_map(app)
    assert found.framework == "starlette"
    prefix = "test_starlette.<locals>."
    assert [(r, t, n, v.removeprefix(prefix), m) for r, t, n, v, m in shown(found.endpoints)] == [
        ("/", "/", "view", "view", "GET"),
        ("/orders/{id:int}", "/orders/{id}", "Orders", "Orders", "GET,PUT"),
        ("/post", "/post", "posted", "view", "POST"),
        ("/ws", "/ws", "view", "view", "WEBSOCKET"),
        ("/t/{tenant}/f/{rest:path}", "/t/{tenant}/f/{rest}", "view", "view", "GET"),
        ("/inner/{x:uuid}.json", "/inner/{x}.json", "view", "view", "GET"),
        ("/static/{path:path}", "/static/{path}", "static", "starlette.staticfiles.StaticFiles", ""),
        ("/raw/{path:path}", "/raw/{path}", "", "raw", ""),
        ("/h", "/h", "view", "view", "GET"),
        ("/{path:path}", "/{path}", "", "raw", ""),
    ]
    assert [e.hosts for e in found.endpoints[-2:]] == [("api.example",), ("*.api.example",)]
    assert [e.opaque for e in found.endpoints] == [False] * 6 + [True, True, False, True]


def test_fastapi():
    from fastapi import APIRouter, FastAPI

    app, router, sub = (
        FastAPI(),
        APIRouter(prefix="/v1"),
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
    )

    @router.get("/x/{i:int}")
    def read(i: int): ...

    @router.websocket("/ws")
    async def live(websocket): ...

    @sub.delete("/s", name="named")
    def remove(): ...

    app.include_router(router, prefix="/api")
    app.mount("/sub", sub)
    endpoints = [e for e in read_url_map(app).endpoints if not e.view.startswith("fastapi.")]
    assert [(e.rule, e.name, e.view.rpartition(".")[2], *e.methods) for e in endpoints] == [
        ("/api/v1/x/{i:int}", "read", "read", "GET"),
        ("/api/v1/ws", "live", "live", "WEBSOCKET"),
        ("/sub/s", "named", "remove", "DELETE"),
    ]
    docs = [e.rule for e in read_url_map(app).endpoints if e.view.startswith("fastapi.")]
    assert docs == ["/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"]


# --- finding the app


def test_an_app_is_found_inside_middlewares(flask_app):
    class Middleware:
        def __init__(self, app):
            self.application = app

        def __call__(self, environ, start_response): ...

    def closure(app):
        def call(environ, start_response):
            return app(environ, start_response)

        return call

    class Circle:
        __call__ = None

    circle = Circle()
    circle.app = circle
    wrapped = closure(Middleware(strangle(closure(flask_app.wsgi_app), [], serve="asgi", learn=True)))
    assert framework_of(wrapped) == (flask_app, "flask")
    assert framework_of(circle) is None
    assert read_url_map(closure(None)).problem.endswith(
        "closure.<locals>.call is no app of Flask, Django, Starlette or FastAPI, nor does it wrap one"
    )


def test_an_app_that_fails_when_it_is_looked_at_is_a_problem():
    class Odd:
        @property
        def app(self):
            raise SystemExit("\x1b[2Jno")

    assert read_url_map(Odd()).problem == "its URLs cannot be read: SystemExit: \\x1b[2Jno"


def test_what_is_counted_is_an_endpoint_that_is_read():
    """The middleware for Starlette and FastAPI names an endpoint as the reader does."""
    from fastapi import APIRouter, FastAPI
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Mount, Route

    from strangle_mw.starlette import StrangleMiddleware

    async def view(request):
        return Response("x")

    async def raw(scope, receive, send):
        await Response("x")(scope, receive, send)

    app, router, inner = FastAPI(), APIRouter(prefix="/v1"), APIRouter(prefix="/more")
    inner.add_api_route("/y/{name}", lambda name: name)
    router.add_api_route("/x/{number:int}", lambda number: number, methods=["POST"])
    router.include_router(inner)
    app.include_router(router, prefix="/api")
    app.mount("/t/{tenant}", Starlette(routes=[Route("/f/{rest:path}", view), Mount("/deep", raw)]))
    app.mount("/raw", raw)
    strangled = StrangleMiddleware(app, [])
    asked = [
        ("POST", "/api/v1/x/7"), ("GET", "/api/v1/more/y/z"), ("GET", "/t/ann/f/a/b"), ("GET", "/t/ann/deep/x"),
        ("GET", "/raw/x"), ("GET", "/openapi.json"),
    ]  # fmt: skip

    async def ask(method, path):
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [],
            "scheme": "http",
        }

        async def receive():
            return {"type": "http.request", "body": b""}

        async def send(message):
            assert message.get("status", 200) == 200

        await strangled(scope, receive, send)

    for method, path in asked:
        asyncio.run(ask(method, path))
    counted = engine_of(strangled).states.take_endpoints()
    rules = {rule for e in read_url_map(app).endpoints for rule in (e.rule, *e.rules)}
    assert {rule for _, rule in counted} - rules == set()
    assert len(counted) == len(asked)


def engine_of(middleware):
    return middleware._strangled.engine
