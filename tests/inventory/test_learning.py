"""Templates learned from what an app answers: what is kept of a path, how few there are, and who counts."""

import asyncio
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strangle_mw import Route, strangle
from strangle_mw.learning import MAX_TEMPLATES, MAX_WORDS, OTHERS, Templates, kind_of, learned


@pytest.mark.parametrize(
    ("segment", "kind"),
    [
        *((w, w) for w in ("", "orders", "getSalesLeads", "v2", "oauth2", "app.min.js", "how-to-2", "README", "_next", ".well-known")),
        *((w, w) for w in ("internationalization", "getSalesLeadsByCustomerAndRegion", "a")),
        *((w, "{int}") for w in ("0", "70419")),
        ("123e4567-e89b-42d3-a456-426614174999", "{uuid}"),
        *((w, "{date}") for w in ("2026-11-24", "2026-11")),
        *((w, "{id}") for w in (
            "deadbeef1", "3f786850e387550f", "ord-20261124", "dGhpc2lzYXRva2VuIQ", "QWxhZGRpbjpPcGVu", "mfrggzdfmztwqylkmfrggzdf",
            "a@b.example", "caf\xe9", "a b", "x=y", "{int}", "\x1b[2J", "-", "1.2.3", "\ud800",
        ) if w != "-"),
    ],
)  # fmt: skip
def test_kinds(segment, kind):
    assert kind_of(segment) == kind


def test_templates():
    templates = Templates()
    assert templates.of("/orders/7/lines/2026-01-01") == "/orders/{int}/lines/{date}"
    assert templates.of("/") == "/"
    assert templates.of("/a//b/") == "/a//b/"
    assert templates.of("*") == OTHERS
    assert templates.of("/a" * 20) == "/a" * 12 + "/{path}"


def test_too_many_words_at_one_place_are_values():
    templates = Templates()
    names = [f"{a}{b}" for a in "abcdefghij" for b in "abcdefghij"]
    found = [templates.of(f"/users/{name}/home") for name in names]
    assert found[MAX_WORDS - 1] == f"/users/{names[MAX_WORDS - 1]}/home"
    assert set(found[MAX_WORDS:]) == {"/users/{id}/home"}
    assert templates.of("/other/zz") == "/other/zz"
    assert templates.of("/users/aa/home") == "/users/aa/home"


def test_too_many_templates_are_one():
    templates = Templates()
    words = [f"{a}{b}" for a in "abcdefghijklmnopqrst" for b in "abcdefghijklmnopqrst"]
    found = {templates.of(f"/{a}/{b}") for a in words for b in words[:10]}
    assert len(found) == MAX_TEMPLATES + 1
    assert OTHERS in found
    assert templates.of("/aa/aa") == "/aa/aa"


@given(st.lists(st.text(max_size=60), max_size=5))
@settings(max_examples=60, deadline=None)
def test_nothing_of_a_path_is_kept_but_words(segments):
    template = Templates().of("/" + "/".join(segments))
    assert re.fullmatch(r"(/(\{[a-z]+\}|[A-Za-z0-9._~-]{0,41}))+|\(other\)", template)


def test_a_template_is_taken_apart():
    [endpoint] = learned(
        [("GET", "/a/{int}/x{date}{id}"), ("HEAD", "/a/{int}/x{date}{id}"), ("GET", ""), ("GET", OTHERS)]
    )
    assert (endpoint.text, endpoint.methods) == ("/a/{int}/x{date}{id}", {"GET"})
    assert endpoint.regex.fullmatch("/a/7/x2026-01zz")
    assert not endpoint.regex.fullmatch("/a/b/x2026-01zz")


# --- counting


def counted(strangled):
    return strangled.engine.states.take_endpoints()


STATUSES = {"/orders/7": 200, "/orders/8": 302, "/nothing/1": 404, "/orders": 405, "/broken/1": 500}
COUNTED = {("GET", "/orders/{int}"): 2, ("GET", ""): 3}


def test_a_wsgi_app_is_counted():
    def app(environ, start_response):
        status = STATUSES[environ["PATH_INFO"]]
        start_response(f"{status} Said", [])
        if status == 500:
            start_response("500 Again", [], (None, None, None))
        return [b"x"]

    strangled = strangle(app, [Route("/gone", respond={"status": 410})], interface="wsgi", learn=True)
    for path in (*STATUSES, "/gone"):
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "wsgi.url_scheme": "http",
            "RAW_URI": path,
        }
        list(strangled(environ, lambda *_: None))
    assert counted(strangled) == COUNTED
    assert isinstance(strangle(app, [], interface="wsgi").app, type(app))  # without `learn`, the app itself


@pytest.mark.parametrize("root", ["", "/shop"])
def test_an_asgi_app_is_counted(root):
    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": STATUSES[scope["path"]], "headers": []})
            await send({"type": "http.response.body"})

    async def nothing(*_):
        return {"type": "lifespan.shutdown"}

    strangled = strangle(app, [], learn=True)
    common = {"root_path": root, "query_string": b"", "headers": []}
    for path in STATUSES:
        asyncio.run(strangled({"type": "http", "method": "GET", "path": path, **common}, nothing, nothing))
    asyncio.run(strangled({"type": "websocket", "path": "/ws/1", "scheme": "ws", **common}, nothing, nothing))
    expected = {(m, root + t if t else t): n for (m, t), n in COUNTED.items()}
    assert counted(strangled) == {**expected, ("WEBSOCKET", f"{root}/ws/{{int}}"): 1}


def test_an_app_served_on_threads_is_counted():
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"x"]

    strangled = strangle(app, [], interface="wsgi", serve="asgi", learn=True)
    assert type(strangled.app.app).__name__ == "LearningWSGI"
