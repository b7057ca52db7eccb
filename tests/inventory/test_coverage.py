"""Which routes cover which endpoints, asked of the compiled table: by cases, and against random requests."""

import os
import re

import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from strangle_mw import ConfigError, Route
from strangle_mw.config import load
from strangle_mw.core.compiled import CompiledRoute
from strangle_mw.core.coverage import Coverage
from strangle_mw.core.inventory import AppEndpoint, Param, join
from strangle_mw.core.samples import samples

INT, PATH = "[0-9]+", ".*"


def endpoint(*path, methods=("GET",), **more):
    return AppEndpoint("r", join(*path), methods=frozenset(methods), **more)


def to(pattern=None, **more):
    return Route(pattern, **{"to": "http://m", **more})


def covers(routes, app_endpoint, **table):
    declared = [{"to": "http://m", **r} if isinstance(r, dict) else r for r in routes]
    coverage = Coverage(load({"routes": declared, **table} if table else declared))
    found = coverage.of(app_endpoint)
    assert {c.extent for c in found if not c.routes} <= {"not", "unknown"}
    extents = {c.extent for c in found}
    return extents.pop() if len(extents) == 1 else {c.method: c.extent for c in found}


ORDER = endpoint("/orders/", Param("id", INT))
ANY_ORDER = endpoint("/orders/", Param("id"))
STATIC = endpoint("/static/", Param("path", PATH))


@pytest.mark.parametrize(
    ("routes", "asked", "extent"),
    [
        ([], ORDER, "not"),
        ([to("/orders/{id}")], ORDER, "wholly"),
        ([to("/orders/*")], ORDER, "wholly"),
        ([to("/*")], STATIC, "wholly"),
        ([to("/orders/{id:int}")], ORDER, "wholly"),
        ([to("/orders/{id:int}")], ANY_ORDER, "partly"),
        ([to("/orders/{id:slug}")], ORDER, "wholly"),
        ([to("/orders/{id:slug}")], ANY_ORDER, "partly"),
        ([to("/orders/{id:uuid}")], ORDER, "not"),
        ([to("/orders/new")], ANY_ORDER, "partly"),
        ([to("/orders/new")], ORDER, "not"),
        ([to("/orders/1{rest}")], ORDER, "partly"),
        ([to("/orders/{id}.json")], ANY_ORDER, "partly"),
        ([to("/orders/{id}.json")], endpoint("/orders/", Param("id"), ".json"), "wholly"),
        ([to("/orders/{id}"), Route("/orders/7", to="legacy")], ORDER, "partly"),
        ([to("/orders/{id}"), Route("POST /orders/7", to="legacy")], ORDER, "wholly"),
        ([to("/orders/{id}"), Route("/orders/*", to="legacy")], ORDER, "wholly"),
        ([to("/orders/{id}", stage="legacy")], ORDER, "wholly"),
        ([to("/orders/{id}", headers={"X": "1"})], ORDER, "partly"),
        ([to("/orders/{id}", when=lambda _: 1 / 0)], ORDER, "partly"),
        ([to("/orders/{id}", headers={"X": "1"}), to("/orders/*")], ORDER, "wholly"),
        ([to("/orders/{id}"), Route("/orders/{id}", headers={"X": "1"}, to="legacy")], ORDER, "partly"),
        ([to("/orders/{id}", hosts=["a.example"])], ORDER, "partly"),
        ([to("/orders/{id}", hosts=["a.example"])], endpoint("/orders/", Param("id"), hosts=("a.example",)), "wholly"),
        ([to("/orders/{id}", hosts=["b.example"])], endpoint("/orders/", Param("id"), hosts=("a.example",)), "not"),
        ([to("/x", hosts=["a.b.example"])], endpoint("/x", hosts=("*.b.example",)), "partly"),
        ([to("/x", hosts=["*.b.example"])], endpoint("/x", hosts=("*.b.example",)), "wholly"),
        ([to("POST /orders/{id}")], ORDER, "not"),
        ([to("GET /orders/{id}")], endpoint("/orders/", Param("id"), methods=("GET", "POST")), {"GET": "wholly", "POST": "not"}),
        ([to("GET /orders/{id}")], endpoint("/orders/", Param("id"), methods=("WEBSOCKET",)), "wholly"),
        ([to("/static/css/{file}")], STATIC, "partly"),
        ([to("/static/a/b/c/d/{x}.css")], STATIC, "partly"),
        ([to("/static/*")], STATIC, "wholly"),
        ([Route(regex="/orders/[0-9]+", to="http://m")], ORDER, "wholly"),
        ([Route(regex="/orders/[0-9]{2}", to="http://m")], ORDER, "partly"),
        ([to("/a")], endpoint("/a/"), "not"),
        ([to("/a"), to("/a/")], endpoint("/a/", loose_slash=True), "wholly"),
        ([to("/a")], endpoint("/a/", loose_slash=True), "partly"),
        ([to("/a/{x}")], endpoint("/a/", Param("x", "(?=y)z")), "unknown"),
        ([to("/a/{x}")], endpoint("/a/", Param("x", "(")), "unknown"),
        ([to("/a/{x}")], endpoint("/a/", Param("x", "[a-f0-9]{40}|archive")), "wholly"),
        ([to("/a/archive")], endpoint("/a/", Param("x", "[a-f0-9]{40}|archive")), "partly"),
        ([to("/a/{x}/b"), to("/a/{x:int}/{y}")], endpoint("/a/", Param("x"), "/", Param("y")), "partly"),
        ([to("/caf%C3%A9/{x}")], endpoint("/caf\xe9/", Param("x")), "wholly"),
        ([to("/b")], endpoint(Param("lang", "(?:(?:de|fr)/)?"), methods=()), "unknown"),
        ([to("/de/b"), to("/b")], endpoint("/", Param("lang", "(?:(?:de|fr)/)?"), "b"), "partly"),
        ([to("/de/b"), to("/fr/b"), to("/b")], endpoint("/", Param("lang", "(?:(?:de|fr)/)?"), "b"), "wholly"),
    ],
)  # fmt: skip
def test_extents(routes, asked, extent):
    assert covers(routes, asked) == extent


def test_a_table_that_ignores_the_slash():
    assert covers([{"path": "/a"}], endpoint("/a/"), trailing_slash="ignore") == "wholly"


def test_a_view_of_any_method_is_asked_with_those_that_routes_name():
    found = Coverage(load([to("PURGE /a")])).of(endpoint("/a", methods=()))
    assert [c.method for c in found if c.extent == "wholly"] == ["PURGE"]
    assert {c.method for c in found if c.extent == "not"} == {"GET", "POST", "PUT", "PATCH", "DELETE"}


def test_touched_are_the_routes_that_endpoints_meet_carve_outs_too():
    routes = [
        to("/a/{x}", name="a"),
        to("/b", name="b"),
        Route("/a/7", to="legacy", name="c"),
        to("/a/*", name="d"),
    ]
    coverage = Coverage(load(routes))
    coverage.of(endpoint("/a/", Param("x")))
    assert coverage.touched == {"a", "c"}
    assert coverage.beside(endpoint("/b/")) == ("b",)
    assert coverage.beside(endpoint("/b")) == ()
    assert coverage.touched == {"a", "c"}


@pytest.mark.parametrize(
    ("regex", "some"),
    [
        ("[^/]+", {"zq~9.x", "70419"}),
        ("(?:json|xml)", {"json", "xml"}),
        (r"(?P<year>\d{4})-(?P<month>\d{2})", {"2024-02"}),
        (r"[A-Z]{2}\d{6}", {"ZZ777777"}),
        ("(?:(?:de|fr)/)?", {"de/", "fr/", ""}),
    ],
)
def test_samples(regex, some):
    found = samples(regex)
    assert all(re.fullmatch(regex, s) for s in found)
    assert some <= set(found) or regex.startswith(r"(?P")
    assert found


# --- the law


WORDS = ["a", "b", "orders", "new", "7"]
PARAMS = {
    "str": ("[^/]+", st.sampled_from([*WORDS, "x-1", "x~1", "a.json", "70419", "Z"])),
    "int": ("[0-9]+", st.sampled_from(["7", "0", "70419", "12"])),
    "slug": ("[-a-zA-Z0-9_]+", st.sampled_from([*WORDS, "x-1", "70419"])),
    "path": (".*", st.sampled_from([*WORDS, "a/b", "a/7/new", "", "x~/7", "a/b/c/d"])),
    "kind": ("new|b", st.sampled_from(["new", "b"])),
}  # fmt: skip
SEGMENTS = st.sampled_from([*WORDS, "{x}", "{x:int}", "{x:slug}", "{x}.json", "a{x}"])


@st.composite
def routes(draw):
    segments = [
        s.replace("x", f"x{at}", 1) for at, s in enumerate(draw(st.lists(SEGMENTS, min_size=1, max_size=3)))
    ]
    path = "/" + "/".join(segments) + draw(st.sampled_from(["", "", "/*", "/"]))
    more = {"to": draw(st.sampled_from(["http://m", "http://m", "legacy"]))}
    if draw(st.integers(0, 5)) == 0:
        more["headers"] = {"X": "1"}
    if draw(st.integers(0, 5)) == 0:
        more["hosts"] = [draw(st.sampled_from(["h.example", "*.example"]))]
    return Route(draw(st.sampled_from(["", "GET ", "POST "])) + path, **more)


@st.composite
def endpoints(draw):
    kinds = draw(st.lists(st.sampled_from([*WORDS, *PARAMS]), min_size=1, max_size=3))
    parts = [Param(f"p{at}", PARAMS[k][0]) if k in PARAMS else k for at, k in enumerate(kinds)]
    return kinds, endpoint(*[p for part in parts for p in ("/", part)], methods=("GET", "POST"))


@settings(max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "40")), deadline=None)
@given(st.lists(routes(), max_size=5), endpoints(), st.data())
def test_no_request_contradicts_what_is_said_of_its_endpoint(declared, asked, data):
    kinds, app_endpoint = asked
    named = [Route(**{**vars_of(r), "name": str(at)}) for at, r in enumerate(declared)]
    try:
        snapshot = load(named)
    except ConfigError:  # a route that another one hides
        reject()
    covers = {c.method: c for c in Coverage(snapshot).of(app_endpoint)}
    assume(all(c.extent != "unknown" for c in covers.values()))
    path = "".join("/" + (data.draw(PARAMS[k][1]) if k in PARAMS else k) for k in kinds)
    for method, cover in covers.items():
        for host in ("h.example", "g.example", "zq.invalid"):
            for fields in ([], [(b"x", b"1")]):
                found = matched(snapshot, method, path, [(b"host", host.encode()), *fields])
                modern = isinstance(found, CompiledRoute) and found.action is not None
                assert cover.extent != "wholly" or modern, (path, method, cover)
                assert cover.extent != "not" or not modern, (path, method, cover)
                assert not modern or found.name in cover.routes, (path, method, cover)


def vars_of(route):
    return {name: getattr(route, name) for name in ("pattern", "to", "headers", "hosts")}


def matched(snapshot, method, path, headers):
    from strangle_mw.core.messages import RequestHead

    return snapshot.table.match(path.encode(), method, RequestHead(method, path.encode(), b"", headers))
