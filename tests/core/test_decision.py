"""`prepare`, the one door: every field of design section 3.1 that acts, and the rules of 3.4."""

import pytest
from support import Reader, decide, request

from strangle_mw import Condition, HeaderRules, Redirect, Respond, Route, Split
from strangle_mw.config import load
from strangle_mw.core.decision import LEGACY, Answer, Forward, Legacy, Reject, prepare
from strangle_mw.core.model import MAX_REGEX_PATH

M = "http://m"


def forwarded(route, target="/a", **request):
    return isinstance(decide(route, target, **request), Forward)


# field of design section 3.1 -> (route, a request that takes it, one that does not)
FIELDS = {
    "pattern": (Route("GET,POST /a", to=M), {"method": "POST"}, {"method": "PUT"}),
    "path": (Route(path="/a/{x:int}", to=M), {"target": "/a/1"}, {"target": "/a/x"}),
    "path missing is everything": (Route(to=M, methods=["GET"]), {"target": "/any/path"}, {"method": "POST"}),
    "regex": (Route(regex=r"/a|/b/\d+", to=M), {"target": "/b/12"}, {"target": "/b/12x"}),
    "regex is ASCII": (Route(regex=r"/\w", to=M), {"target": "/b"}, {"target": "/%C3%A9"}),
    "methods": (Route(path="/a", methods=["PURGE"], to=M), {"method": "PURGE"}, {"method": "GET"}),
    "hosts": (Route("/a", hosts=["H.example."], to=M), {"headers": [("Host", "h.EXAMPLE:80")]}, {"headers": [("Host", "x")]}),
    "hosts *": (Route("/a", hosts=["*.example"], to=M), {"headers": [("Host", "a.b.example")]}, {"headers": [("Host", "example")]}),
    "headers": (Route("/a", headers={"X-B": "1"}, to=M), {"headers": [("X-B", "1")]}, {"headers": [("X-B", "12")]}),
    "headers present": (Route("/a", headers={"X": Condition(present=True)}, to=M), {"headers": [("X", "")]}, {}),
    "headers absent": (Route("/a", headers={"X": Condition(absent=True)}, to=M), {}, {"headers": [("X", "")]}),
    "headers prefix": (Route("/a", headers={"X": Condition(prefix="ab")}, to=M), {"headers": [("X", "abc")]}, {"headers": [("X", "a")]}),
    "headers regex": (Route("/a", headers={"X": Condition(regex="a+")}, to=M), {"headers": [("X", "aa")]}, {"headers": [("X", "aab")]}),
    "query": (Route("/a", query={"q": "x y"}, to=M), {"target": "/a?q=x+y"}, {"target": "/a?q=x"}),
    "cookies": (Route("/a", cookies={"c": "1"}, to=M), {"headers": [("Cookie", "b=2; c=1")]}, {"headers": [("Cookie", "c=2")]}),
    "when": (Route("/a", when=lambda h: h.header("x") == "1", to=M), {"headers": [("X", "1")]}, {}),
    "stage": (Route("/a", to=M, stage="modern"), {}, {"target": "/b"}),
    "encoded_slash": (Route("/f/{n}", to=M, encoded_slash=True), {"target": "/f/a%2Fb%5Cc"}, {"target": "/f/a/b"}),
}  # fmt: skip


@pytest.mark.parametrize(("route", "takes", "leaves"), FIELDS.values(), ids=FIELDS)
def test_field(route, takes, leaves):
    assert forwarded(route, **{"target": "/a", **takes})
    assert decide(route, **{"target": "/a", **leaves}) is LEGACY


def test_stage_legacy_answers_from_the_wrapped_app():
    decision = decide(Route("/a", to=M, stage="legacy"), "/a")
    assert isinstance(decision, Legacy)
    assert decision.route.name == "/a"
    assert isinstance(decide(Route("/a", redirect=Redirect(to="/b"), stage="legacy"), "/a"), Legacy)


def test_a_when_that_raises_counts_as_no(caplog):
    def broken(_):
        raise RuntimeError("boom")

    assert decide(Route("/a", when=broken, to=M), "/a") is LEGACY
    assert "routes[0].when raised" in caplog.text


REWRITES = {
    "as received": (Route("/a/*", to=M), "/a/b%2Fc?x=%zz", b"/a/b%2Fc?x=%zz"),
    "strip_prefix": (Route("/api/v1/*", to=M, strip_prefix="/api"), "/api/v1/x?y", b"/v1/x?y"),
    "strip everything": (Route("/api/*", to=M, strip_prefix="/api"), "/api", b"/"),
    "strip by whole segments": (Route("/api/*", to=M, strip_prefix="/api/"), "/api/apix", b"/apix"),
    "strip an encoded spelling": (Route("/api/*", to=M, strip_prefix="/api"), "/%61pi/x", b"/x"),
    "strip leaves one slash": (Route("/api/*", to=M, strip_prefix="/api"), "/api//x", b"/x"),
    "rewrite": (Route("/old/{id}", to=M, rewrite="/new/{id}/view"), "/old/%41b", b"/new/%41b/view"),
    "rewrite rest": (Route("/old/*", to=M, rewrite="/new/{*}"), "/old/a/b/", b"/new/a/b/"),
    "rewrite leaves one slash": (Route("/old/*", to=M, rewrite="/{*}"), "/old//h.example/x", b"/h.example/x"),
    "rewrite bare rest": (Route("/old/*", to=M, rewrite="/{*}"), "/old", b"/"),
    "rewrite from a regex": (Route(regex="/o/(?P<id>[0-9]+)", to=M, rewrite="/n/{id}"), "/o/12", b"/n/12"),
    "encoded slash stays data": (Route("/f/{n}", to=M, rewrite="/g/{n}", encoded_slash=True), "/f/a%2Fb", b"/g/a%2Fb"),
}  # fmt: skip


@pytest.mark.parametrize(("route", "target", "sent"), REWRITES.values(), ids=REWRITES)
def test_rewrite(route, target, sent):
    assert decide(route, target).target == sent


AMBIGUOUS = {
    "dot segments": "/m/../legacy",
    "encoded dots": "/m/%2e%2e/legacy",
    "encoded slash": "/m%2Fx",
    "backslash": "/m\\x",
    "empty segments": "//m/x",
    "parameters": "/m;v=1/x",
    "fragment": "/m#",
    "NUL": "/m%00/x",
    "overlong": "/m/%c0%ae%c0%ae/legacy",
    "only legacy as received": "/legacy/../m/x",
}


@pytest.mark.parametrize("target", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_readings_that_disagree_are_refused(target):
    table = {"routes": [Route("/m/*", to=M)]}
    assert decide(table, target) == Reject(400, "ambiguous-path")
    assert isinstance(decide({**table, "ambiguous": "legacy"}, target), Legacy)


@pytest.mark.parametrize("target", [t.replace("/m", "/other") for t in AMBIGUOUS.values()])
def test_odd_paths_with_no_reading_under_a_route_are_untouched(target):
    assert decide(Route("/m/*", to=M), target) is LEGACY


@pytest.mark.parametrize(
    "target", ["/m/a%2Fb", "/m/a//b", "/m/a;v/b", "/m/x/../y", "/m/%E2%82%AC", "/m/.well-known"]
)
def test_odd_paths_whose_every_reading_agrees_are_forwarded_as_they_came(target):
    assert decide(Route("/m/*", to=M), target).target == target.encode()


@pytest.mark.parametrize("target", ["/../x", "/m/../../x", "/m/a/%2e%2e/%2e%2e/%2e%2e/x"])
def test_the_base_path_is_never_left(target):
    assert decide(Route("/*", to="http://m/base"), target) == Reject(400, "ambiguous-path")


def test_a_parameter_cannot_leave_its_rewrite():
    route = Route("/r{a}", to=M, rewrite="/in/{a}")
    assert decide(route, "/r..") == Reject(400, "ambiguous-path")
    assert decide(route, "/r.x").target == b"/in/.x"


@pytest.mark.parametrize("path", ["*", "modern", "@evil/", "x:443", ""])
def test_what_is_no_path_goes_to_legacy(path):
    assert decide(Route("/*", to=M), path) is LEGACY


def test_absolute_form_is_reduced_and_its_authority_decides():
    route = Route("/a", hosts=["h.example"], to=M)
    decision = decide(route, "http://h.example/a", headers=[("Host", "other")])
    assert decision.target == b"/a"
    assert dict(decision.headers)[b"x-forwarded-host"] == b"h.example"
    assert decide(route, "http://other/a", headers=[("Host", "h.example")]) is LEGACY
    assert decide(Route("/a", to=M), "http://u:p@h/a") == Reject(400, "bad-host")


def test_a_raw_path_that_says_something_else_is_ignored():
    assert decide(Route("/m/*", to=M), "/m/x", decoded="/other") is LEGACY
    assert decide(Route("/m/*", to=M), "/other", decoded="/m/a b").target == b"/m/a%20b"


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("CONNECT", "/m", 405),
        ("GE T", "/m", 400),
        ("GET\n", "/m", 400),
        ("", "/m", 400),
        ("GET", "/m?a b", 400),
        ("GET", "/m?a#b", 400),
    ],
)
def test_what_cannot_stand_on_a_request_line_is_refused(method, target, status):
    assert decide(Route("/m", to=M), target, method).status == status
    assert decide(Route("/other", to=M), target, method) is LEGACY


def test_a_regex_is_not_tried_on_a_long_path():
    route = Route(regex="/x+", to=M)
    assert forwarded(route, "/" + "x" * (MAX_REGEX_PATH - 1))
    assert decide(route, "/" + "x" * MAX_REGEX_PATH) is LEGACY


def test_max_body_is_held_against_the_declared_length():
    big = [("Content-Length", "11")]
    assert decide(Route("/m", to=M), "/m", "POST", big, settings={"max_body": 10}) == Reject(
        413, "body-too-large"
    )
    assert forwarded(Route("/m", to=M), "/m", method="POST", headers=big, settings={"max_body": 11})


@pytest.mark.parametrize(
    ("to", "target", "location"),
    [
        ("/new/{id}", "/old/5?a=b", b"/new/5?a=b"),
        ("https://new.example/x/{id}", "/old/5", b"https://new.example/x/5"),
        ("https://new.example", "/old/5", b"https://new.example/"),
    ],
)
def test_redirect(to, target, location):
    answer = decide(Route("/old/{id}", redirect=Redirect(to=to, status=301)), target)
    assert isinstance(answer, Answer)
    assert answer.status == 301
    assert dict(answer.headers)[b"location"] == location


@pytest.mark.parametrize("target", ["/old//evil.example", "/old/\\evil.example", "/old///evil.example"])
def test_a_redirect_never_leads_to_another_site(target):
    answer = decide(Route("/old/*", redirect=Redirect(to="/{*}")), target)
    location = dict(answer.headers)[b"location"]
    assert location[:1] == b"/"
    assert location[1:2] not in (b"/", b"\\")


@pytest.mark.parametrize(
    ("respond", "status", "kind", "body"),
    [
        (Respond(), 410, b"text/plain; charset=utf-8", b""),
        (Respond(status=200, body="{}", content_type="application/json"), 200, b"application/json", b"{}"),
        (Respond(status=204), 204, None, b""),
    ],
)
def test_respond(respond, status, kind, body):
    answer = decide(Route("/gone", respond=respond), "/gone")
    assert (answer.status, answer.body) == (status, body)
    assert dict(answer.headers).get(b"content-type") == kind


def test_request_header_rules_act():
    rules = HeaderRules(set={"X-Team": "a"}, remove=["Cookie"])
    headers = dict(
        decide(Route("/m", to=M, request_headers=rules), "/m", headers=[("Cookie", "a=1")]).headers
    )
    assert headers[b"x-team"] == b"a"
    assert b"cookie" not in headers


def test_a_split_is_sticky_and_follows_the_weights():
    route = Route(
        "/m",
        to=[Split(upstream="http://a", weight=1), Split(upstream="http://b", weight=3)],
        sticky=["header:X-User"],
    )
    snapshot = load([route])
    asked = [request("GET", headers=[("X-User", f"u{i}")]) for i in range(400)]

    def shared_out():
        return [prepare(snapshot, "GET", b"/m", "/m", a, Reader()).upstream.name for a in asked]

    names = shared_out()
    assert names == shared_out()
    assert 60 < names.count("http://a") < 140


@pytest.mark.parametrize(
    ("draw", "upstream"), [(0, "http://a"), (2499, "http://a"), (2500, "http://b"), (9999, "http://b")]
)
def test_a_split_without_key_is_drawn(draw, upstream):
    route = Route("/m", to=[Split(upstream="http://a", weight=1), Split(upstream="http://b", weight=3)])
    assert decide(route, "/m", settings={"draw": lambda: draw}).upstream.name == upstream


def test_a_parameter_cannot_climb_over_literal_text_after_it():
    route = Route("/{t}/{d}/*", to=M, rewrite="/{t}/public/{d}/{*}")
    assert decide(route, "/t/../x/secret") == Reject(400, "ambiguous-path")
    assert decide(route, "/t/%2e%2e/x/secret") == Reject(400, "ambiguous-path")
    assert decide(route, "/t/d/x//y").target == b"/t/public/d/x//y"


@pytest.mark.parametrize(
    "route", [Route("/r", respond=Respond(status=200)), Route("/r", redirect=Redirect(to="/x"))]
)
def test_connect_is_refused_by_every_kind_of_route(route):
    assert decide(route, "/r", "CONNECT") == Reject(405, "connect")


@pytest.mark.parametrize("kind", ["rewrite", "redirect"])
def test_named_groups_are_there_when_the_trailing_slash_is_ignored(kind):
    what = {"to": M, "rewrite": "/b/{id}"} if kind == "rewrite" else {"redirect": Redirect(to="/b/{id}")}
    table = {"trailing_slash": "ignore", "routes": [Route(regex=r"/a/(?P<id>[0-9]+)", **what)]}
    found = decide(table, "/a/5/")
    assert (found.target if kind == "rewrite" else dict(found.headers)[b"location"]) == b"/b/5"


def test_a_path_that_no_request_can_have_is_legacys():
    class Latin1(Reader):
        encoding = "latin-1"

    table = load([Route("/*", to=M)])
    assert prepare(table, "GET", None, "/\u65e5\u672c", {}, Latin1()) is LEGACY


def test_the_limit_of_a_body_is_that_of_the_snapshot_that_decided():
    assert decide(Route("/m", to=M), "/m", settings={"max_body": 7}).max_body == 7
