"""An inventory as data and as text: endpoints, routes and what was counted, put together."""

import json

import pytest

from strangle_mw import IdentityTokens, Route
from strangle_mw.cli_inventory import inventory_lines, markdown
from strangle_mw.config import load
from strangle_mw.core.events import CounterKey
from strangle_mw.core.inventory import AppEndpoint, Param, UrlMap, join
from strangle_mw.core.usage import DAY, endpoint_field, usage_fields
from strangle_mw.inventory import build

TODAY = 20_781  # 2026-11-24
NOW = TODAY * DAY + 5


def endpoint(rule, *methods, hosts=(), view="shop.view"):
    parts = [
        Param(p[1:-1]) if p.startswith("{") else p
        for p in rule.replace("{", "\0{").replace("}", "}\0").split("\0")
    ]
    return AppEndpoint(rule, join(*parts), view=view, methods=frozenset(methods), hosts=hosts)


ENDPOINTS = [
    endpoint("/", "GET"),
    endpoint("/orders/{id}", "GET", view="shop.order"),
    endpoint("/orders/{id}", "POST", view="shop.save"),
    endpoint("/reports/", "GET"),
    endpoint("/search", "GET", "POST"),
    endpoint("/any"),
]
ROUTES = [
    Route("GET /orders/{id}", to="http://m", name="orders"),
    Route("/search", to="http://m", name="search", stage="canary", weight=5),
    Route("/reports", to="http://m", name="reports"),
    Route("/nothing", respond={"status": 410}, name="idle"),
]


def days(**hits):
    """Make counts: `GET_orders_{id}=...` would be no name, so rules come by their numbers in ENDPOINTS."""
    counts = {}
    for name, ago in hits.items():
        method, at = name.split("_")
        counts[endpoint_field(TODAY - ago, method, ENDPOINTS[int(at)].rule)] = 10
    return counts


def routed(route, side, number, ago=0):
    return usage_fields({}, {CounterKey(route, "modern", 10_000, side, "2xx"): number}, TODAY - ago)


def report(counts=None, endpoints=ENDPOINTS, routes=ROUTES, **more):
    return build(UrlMap(tuple(endpoints), "flask"), load(list(routes)), counts or {}, NOW, **more)


def ids(found):
    return [(w.where, w.id) for w in found.warnings]


def test_without_counts_nothing_is_said_of_hits():
    found = report()
    assert found.headline == "1 of 6 endpoints modern"
    assert found.note.startswith("no hit of an endpoint is counted yet: the integrations")
    assert [e.quiet for e in found.entries] == [None] * 6
    assert found.as_dict()["counting_since"] == ""


def test_the_headline():
    counts = {
        **days(GET_0=0, HEAD_0=40, GET_1=31, POST_4=29),
        **routed("orders", "modern", 30),
        **routed("orders", "modern", 99, ago=30),
    }
    counts[endpoint_field(TODAY, "GET", "")] = 20
    found = report(counts)
    assert (found.legacy, found.modern) == (40, 30)
    assert found.headline == "1 of 6 endpoints modern; 43 % of requests; 4 quiet for 30 days"
    assert [e.quiet for e in found.entries] == [0, 31, 40, 40, 29, 40]
    assert report(counts, days=29).headline.endswith("; 5 quiet for 29 days")
    young = report({**days(GET_0=3, GET_1=0)})
    assert (
        young.headline
        == "1 of 6 endpoints modern; 0 % of requests; 4 quiet since 2026-11-21, when counting began"
    )
    assert report({}, endpoints=ENDPOINTS[1:2]).headline == "1 of 1 endpoint modern"
    assert report({}, endpoints=()).headline == "no endpoint of the app is known"


def test_hits_belong_to_a_method_and_a_rule():
    counts = days(GET_1=0, POST_1=1, OPTIONS_1=0, GET_5=0, other_5=0, GET_3=2)
    counts[endpoint_field(TODAY, "GET", "/gone")] = 3
    found = report(counts)
    hits = [[g.hits for g in e.groups] for e in found.entries]
    assert hits[1:3] == [[10], [10]]
    assert hits[5] == [10]
    assert dict(found.entries[5].days) == {TODAY: 20}
    assert found.gone == ("/gone",)


def test_an_endpoint_is_counted_under_further_rules():
    both = AppEndpoint("en/x", ("/x",), rules=("de/x",))
    counts = {endpoint_field(TODAY, "GET", "de/x"): 1, endpoint_field(TODAY - 1, "GET", "en/x"): 2}
    found = report(counts, endpoints=[both])
    assert dict(found.entries[0].days) == {TODAY: 1, TODAY - 1: 2}
    assert found.gone == ()


def test_stages_are_those_of_the_least_advanced_route():
    routes = [
        Route("/a/{x:int}", to="http://m", stage="modern"),
        Route("/a/*", to="http://m", stage="canary", weight=50),
        Route("/b", to="http://m", stage="retired"),
        Route("/c", to="http://m", stage="legacy"),
    ]
    found = report(
        endpoints=[endpoint("/a/{x}", "GET"), endpoint("/b", "GET"), endpoint("/c", "GET")], routes=routes
    )
    assert [(e.groups[0].dial.stage, e.groups[0].dial.points, e.is_modern) for e in found.entries] == [
        ("canary", 5000, False), ("retired", 10000, True), ("legacy", 0, False)
    ]  # fmt: skip


def test_warnings():
    assert ids(report()) == [
        ("/reports/", "slash-split"),
        ("/orders/{id}", "methods-split"),
        ("route 'idle'", "route-without-endpoint"),
    ]


@pytest.mark.parametrize(
    ("endpoints", "routes", "counts", "warned"),
    [
        ([endpoint("/a", "GET")], ["GET /a"], {}, []),
        ([endpoint("/a", "GET", "POST")], ["GET /a"], {}, ["methods-split"]),
        ([endpoint("/a")], ["GET /a"], {}, []),
        ([endpoint("/a")], ["GET /a"], {endpoint_field(TODAY, "POST", "/a"): 1}, ["methods-split"]),
        ([endpoint("/a", "GET", "WEBSOCKET")], ["GET /a"], {}, []),
        ([endpoint("/a", "GET", hosts=("x.example",)), endpoint("/a", "POST", hosts=("y.example",))], ["GET /a"], {}, []),
        ([endpoint("/a/", "GET")], ["/a/", "/a"], {}, ["route-without-endpoint"]),
        ([AppEndpoint("r", ("/a/", Param("x", "(?=y)x")))], ["/a/{x}"], {}, ["coverage-unknown", "route-without-endpoint"]),
    ],
)  # fmt: skip
def test_more_warnings(endpoints, routes, counts, warned):
    found = report(counts, endpoints, [Route(r, to="http://m") for r in routes])
    assert [i for _, i in ids(found)] == warned


def test_a_map_that_cannot_be_read_gives_way_to_what_was_learned():
    counts = {
        endpoint_field(TODAY, m, r): 4
        for m, r in (
            ("GET", "/orders/{int}"),
            ("HEAD", "/orders/{int}"),
            ("POST", "/up/{id}"),
            ("GET", ""),
            ("GET", "(other)"),
        )
    }
    found = build(
        UrlMap(problem="no app of Flask"),
        load([Route("/orders/*", to="http://m", name="o"), Route("/x", to="http://m")]),
        counts,
        NOW,
    )
    assert [
        (e.endpoint.text, sorted(e.endpoint.methods), e.extent, e.groups[0].hits) for e in found.entries
    ] == [
        ("/orders/{int}", ["GET"], "wholly", 8),
        ("/up/{id}", ["POST"], "not", 4),
    ]
    assert found.warnings == ()
    assert inventory_lines(found)[:3] == [
        "1 of 2 endpoints modern; 0 % of requests; 0 quiet since 2026-11-24, when counting began",
        "the app's URLs are not known: no app of Flask",
        "listed are the templates learned from what it has answered",
    ]  # fmt: skip


def test_as_text():
    found = report({**days(GET_0=0, GET_4=1), endpoint_field(TODAY, "GET", "/gone"): 1})
    assert inventory_lines(found) == [
        "1 of 6 endpoints modern; 0 % of requests; 4 quiet since 2026-11-23, when counting began",
        "",
        "ENDPOINT      METHODS   STAGE       ROUTES  LEGACY HITS  LAST SEEN   VIEW",
        "/             GET       legacy              10           2026-11-24  shop.view",
        "/orders/{id}  GET       modern      orders  0            never       shop.order",
        "/orders/{id}  POST      legacy              0            never       shop.save",
        "/reports/     GET       legacy              0            never       shop.view",
        "/search       GET,POST  canary 5 %  search  10           2026-11-23  shop.view",
        "/any          any       legacy              0            never       shop.view",
        "counted, and no endpoint of the app by now (1 rule): /gone",
        *(f"warning {w}" for w in found.warnings),
    ]
    assert max(map(len, inventory_lines(found, 60))) == 60


def test_in_markdown_nothing_of_a_rule_is_markup():
    page = markdown(report(endpoints=[endpoint("/a_b|<c>*", "GET")], routes=[]))
    assert page[0] == "**0 of 1 endpoint modern** (2026-11-24)"
    assert page[-1] == "| /a\\_b\\|\\<c>\\* | GET | legacy |  |  |  | shop.view |"


def test_as_data():
    found = json.loads(json.dumps(report({**days(GET_1=2), **routed("orders", "modern", 3)}).as_dict()))
    assert found["endpoints"][1] == {
        "path": "/orders/{id}",
        "rule": "/orders/{id}",
        "name": "",
        "view": "shop.order",
        "methods": ["GET"],
        "hosts": [],
        "opaque": False,
        "coverage": "wholly",
        "modern": True,
        "routes": [{"methods": ["GET"], "coverage": "wholly", "routes": ["orders"], "stage": "modern", "weight": 100.0, "legacy_hits": 10}],
        "legacy": {"2026-11-22": 10},
        "last_seen": "2026-11-22",
        "quiet_days": 2,
    }  # fmt: skip
    assert found["routes"][0] == {
        "route": "orders",
        "stage": "modern",
        "weight": 100.0,
        "modern": {"2026-11-24": 3},
        "legacy": {},
    }
    assert found["requests"] == {"legacy": 10, "modern": 3}


def test_the_publishing_of_keys_is_neither_a_route_nor_a_request_of_the_app():
    keys = {"identity": IdentityTokens(algorithm="ES256", jwks_path="/keys.json")}
    counts = days(GET_0=1) | routed("strangle-jwks", "modern", 1000)
    found = build(UrlMap(tuple(ENDPOINTS), "flask"), load([], **keys), counts, NOW)
    assert found.modern == 0
    assert found.routes == ()
    assert "strangle-jwks" not in str(found.warnings)
