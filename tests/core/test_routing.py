"""Design section 3.3, rule by rule: `better` wins whatever their order. The general law is in tests/laws."""

import pytest
from support import decide

from strangle_mw import Condition, Route
from strangle_mw.core.decision import LEGACY, Forward
from strangle_mw.core.messages import RequestHead
from strangle_mw.core.routing import NEEDS_HEAD, RouteTable


def to(name, pattern=None, **fields):
    return Route(pattern, to=f"http://{name}", **fields)


HOST = [("Host", "a.b.example:8080")]
BETA = [("X-Beta", "1"), ("Host", "h")]
CASES = {
    "1 exact host before wildcard": (to("w", "/*", hosts=["*.b.example"]), to("b", "/*", hosts=["a.b.example"]), "/x", HOST),
    "1 longer wildcard before shorter": (to("w", "/*", hosts=["*.example"]), to("b", "/*", hosts=["*.b.example"]), "/x", HOST),
    "1 wildcard before any": (to("w", "/x"), to("b", "/*", hosts=["*.example"]), "/x", HOST),
    "2 exact literal before subtree": (to("w", "/a/*"), to("b", "/a"), "/a", ()),
    "2 literal before partial": (to("w", "/a/x{p}"), to("b", "/a/xy"), "/a/xy", ()),
    "2 more literal characters first": (to("w", "/a/{p}n"), to("b", "/a/{p}.json"), "/a/1.json", ()),
    "2 partial before typed": (to("w", "/a/{p:slug}"), to("b", "/a/x{p}"), "/a/xy", ()),
    "2 typed before parameter": (to("w", "/a/{p}"), to("b", "/a/{p:int}"), "/a/1", ()),
    "2 parameter before the end of a subtree": (to("w", "/a/*"), to("b", "/a/{p}"), "/a/1", ()),
    "2 longest literal prefix": (to("w", "/a/*"), to("b", "/a/b/*"), "/a/b/c", ()),
    "2 from the left": (to("w", "/{p}/b"), to("b", "/a/*"), "/a/b", ()),
    "2 equal rank: the next segment decides": (to("w", "/{p:int}/{q}"), to("b", "/{p:slug}/x"), "/1/x", ()),
    "2 regex after every path": (Route(regex="/a/b", to="http://w"), to("b", "/{p}/*"), "/a/b", ()),
    "3 method before any": (to("w", "/a"), to("b", "GET /a"), "/a", ()),
    "4 more header conditions": (to("w", "/a", query={"q": "1"}, cookies={"c": "1"}), to("b", "/a", headers={"X-Beta": "1"}), "/a?q=1", [*BETA, ("Cookie", "c=1")]),
    "4 then query conditions": (to("w", "/a", cookies={"c": "1", "d": "1"}), to("b", "/a", query={"q": "1"}), "/a?q=1", [("Cookie", "c=1; d=1")]),
    "4 then cookie conditions": (to("w", "/a", when=lambda _: True), to("b", "/a", cookies={"c": "1"}), "/a", [("Cookie", "c=1")]),
    "4 then when": (to("w", "/a"), to("b", "/a", when=lambda _: True), "/a", ()),
}  # fmt: skip


@pytest.mark.parametrize("turned", [False, True], ids=["as written", "turned"])
@pytest.mark.parametrize(("worse", "better", "target", "headers"), CASES.values(), ids=CASES)
def test_rule(worse, better, target, headers, turned):
    routes = [better, worse] if turned else [worse, better]
    decision = decide(routes, target, headers=headers)
    assert isinstance(decision, Forward)
    assert decision.upstream.name == "http://b"


def test_rule_5_list_order_between_true_ties():
    first, second = to("one", "/a", headers={"X": "1"}), to("two", "/a", headers={"Y": "1"})
    both = [("X", "1"), ("Y", "1")]
    assert decide([first, second], "/a", headers=both).upstream.name == "http://one"
    assert decide([second, first], "/a", headers=both).upstream.name == "http://two"


def test_backtracking_is_complete():
    routes = [
        to("m", "POST /a/b"),
        to("h", "/a/{x}", headers={"X": "1"}),
        to("i", "/a/{x:int}"),
        to("s", "/a/*", cookies={"c": Condition(present=True)}),
        to("r", "PUT /*"),
    ]
    assert decide(routes, "/a/b", "POST").upstream.name == "http://m"
    assert decide(routes, "/a/b", headers=[("X", "1")]).upstream.name == "http://h"
    assert decide(routes, "/a/b", headers=[("Cookie", "c=9")]).upstream.name == "http://s"
    assert decide(routes, "/a/b", "PUT").upstream.name == "http://r"
    assert decide(routes, "/a/b") is LEGACY


def test_backtracking_crosses_hosts():
    routes = [to("h", "POST /a", hosts=["h.example"]), to("any", "/a")]
    assert decide(routes, "/a", headers=[("Host", "h.example")]).upstream.name == "http://any"


@pytest.mark.parametrize("method", ["POST", "PUT", "get", "OPTIONS"])
def test_other_methods_go_to_legacy_never_405(method):
    assert decide(to("x", "GET /a"), "/a", method) is LEGACY


def test_head_follows_get_unless_listed():
    assert isinstance(decide(to("x", "GET /a"), "/a", "HEAD"), Forward)
    listed = [to("get", "GET /a"), to("head", "HEAD /a")]
    assert decide(listed, "/a", "HEAD").upstream.name == "http://head"
    assert decide(listed[::-1], "/a", "HEAD").upstream.name == "http://head"


def test_to_legacy_carves_an_exception():
    routes = [to("x", "/v1/*"), Route("/v1/internal/*", to="legacy")]
    assert decide(routes, "/v1/internal/y") is LEGACY
    assert isinstance(decide(routes, "/v1/other"), Forward)


def test_trailing_slash_is_significant_unless_ignored():
    assert decide(to("x", "/a"), "/a/") is LEGACY
    for pattern in ("/a", "/a/"):
        table = {"trailing_slash": "ignore", "routes": [to("x", pattern)]}
        assert decide(table, "/a").target == b"/a"
        assert decide(table, "/a/").target == b"/a/"


def test_the_default_route_needs_no_head():
    from strangle_mw.core.compile import RouteCompiler

    compiler = RouteCompiler()
    declared = [to("h", "/h", hosts=["h.example"]), to("c", "/c", headers={"X": "1"}), to("p", "/p")]
    table = RouteTable([compiler.compile(r, i) for i, r in enumerate(declared)])
    assert table.match_plain("/none", "GET") is None
    assert table.match_plain("/h", "GET") is NEEDS_HEAD
    head = RequestHead("GET", b"/h", b"", [(b"host", b"H.Example.:80")])
    assert table.match_plain("/h", "GET", head).name.startswith("/h")
