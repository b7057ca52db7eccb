"""Header hygiene of design section 5, towards the client, and what names the upstream's own origin."""

import pytest
from support import decide

from strangle_mw import HeaderRules, Route, Upstream
from strangle_mw.core.answers import answer_headers
from strangle_mw.core.decision import Forward
from strangle_mw.core.hygiene import HeaderPlan
from strangle_mw.errors import ForwardError


def test_answer_headers():
    headers = [
        (b"Content-Type", b"text/plain"),
        (b"Set-Cookie", b"a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT"),
        (b"Set-Cookie", b"b=2"),
        (b"Connection", b"X-Hop, close"),
        (b"X-Hop", b"1"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Date", b"x"),
        (b"Server", b"x"),
        (b"Strangle-Identity", b"x"),
        (b"X-Empty", b""),
        (b"Content-Length", b"5"),
    ]
    assert answer_headers(headers, 200) == [
        (b"content-type", b"text/plain"),
        (b"set-cookie", b"a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT"),
        (b"set-cookie", b"b=2"),
        (b"x-empty", b""),
        (b"content-length", b"5"),
    ]


@pytest.mark.parametrize("status", [204, 304])
def test_answers_that_have_no_body_carry_no_length(status):
    assert answer_headers([(b"Content-Length", b"5"), (b"ETag", b'"x"')], status) == [(b"etag", b'"x"')]


def test_response_rules():
    plan = HeaderPlan.compile(HeaderRules(set={"Cache-Control": "no-store"}, remove=["X-Powered-By"]))
    headers = [(b"Cache-Control", b"public"), (b"X-Powered-By", b"x"), (b"A", b"1")]
    assert answer_headers(headers, 200, plan) == [(b"a", b"1"), (b"cache-control", b"no-store")]


@pytest.mark.parametrize(
    "header", [(b"X", b"a\rSet-Cookie: x"), (b"X", b"a\x00"), (b"X Y", b"1"), (b"", b"1")]
)
def test_a_broken_header_of_the_answer_is_an_upstream_failure(header):
    with pytest.raises(ForwardError) as caught:
        answer_headers([header], 200)
    assert caught.value.status == 502


UP = "http://leads.internal:8080"
PLAIN = Route("/m/*", to=UP)
STRIPPED = Route("/api/*", to=UP, strip_prefix="/api")
BASED = Route("/m/*", to=f"{UP}/v2")
BOTH = Route("/api/*", to=f"{UP}/v2", strip_prefix="/api")
MOVED = Route("/old/*", to=UP, rewrite="/new/{*}")
FILLED = Route("/r/{id}", to=UP, rewrite="/new/{id}/x")
KEPT = Route("/m/*", to=Upstream(url=UP, host="preserve"))
TLS = Route("/m/*", to="https://leads.internal")


def said(route, name, value, headers=(("host", "shop.example.com"),), **more):
    """What the client reads in one header of the answer."""
    path = {"/m/*": "/m/x", "/api/*": "/api/x", "/old/*": "/old/x", "/r/{id}": "/r/1"}[route.pattern]
    forward = decide(route, path, headers=headers, **more)
    assert isinstance(forward, Forward)
    [(_, found)] = answer_headers([(name, value)], 302, forward=forward)
    return found


LOCATIONS = [
    (PLAIN, b"http://leads.internal:8080/m/y?a=b#c", b"/m/y?a=b#c"),
    (PLAIN, b"HTTP://Leads.Internal:8080/m/y", b"/m/y"),
    (PLAIN, b"https://leads.internal:8080/m/y", b"https://shop.example.com/m/y"),  # it asks for TLS
    (PLAIN, b"//leads.internal:8080/m/y", b"/m/y"),
    (PLAIN, b"http://leads.internal:8080", b"/"),
    (PLAIN, b"http://leads.internal:8080?a", b"/?a"),
    (PLAIN, b"http://leads.internal:8080//evil.example/x", b"/evil.example/x"),
    (PLAIN, b"http://leads.internal:8080/\\evil.example/x", b"/evil.example/x"),
    (PLAIN, b"http://leads.internal/m/y", b"http://leads.internal/m/y"),
    (PLAIN, b"http://leads.internal:8080@evil.example/", b"http://leads.internal:8080@evil.example/"),
    (PLAIN, b"http://leads.internal:8080.evil.example/", b"http://leads.internal:8080.evil.example/"),
    (PLAIN, b"https://login.example/x", b"https://login.example/x"),
    (PLAIN, b"/m/y", b"/m/y"),
    (PLAIN, b"y", b"y"),
    (PLAIN, b"../y", b"../y"),
    (PLAIN, b"?page=2", b"?page=2"),
    (PLAIN, b"", b""),
    (PLAIN, b"mailto:a@b", b"mailto:a@b"),
    (STRIPPED, b"http://leads.internal:8080/y/?q", b"/api/y/?q"),
    (STRIPPED, b"/y/", b"/api/y/"),
    (STRIPPED, b"/", b"/api/"),
    (STRIPPED, b"/api/y", b"/api/y"),  # the upstream knows X-Forwarded-Prefix
    (STRIPPED, b"/apiary", b"/api/apiary"),
    (BASED, b"http://leads.internal:8080/v2/m/y", b"/m/y"),
    (BASED, b"/v2/m/y", b"/m/y"),
    (BASED, b"/v2", b"/"),
    (BASED, b"/v22/y", b"/v22/y"),
    (BASED, b"http://leads.internal:8080/login", b"/login"),
    (BOTH, b"/v2/y?z", b"/api/y?z"),
    (BOTH, b"/v2", b"/api"),
    (MOVED, b"http://leads.internal:8080/new/y", b"/old/y"),
    (MOVED, b"/other", b"/other"),
    (FILLED, b"http://leads.internal:8080/new/2/x", b"/new/2/x"),
    (KEPT, b"http://shop.example.com/m/y", b"/m/y"),
    (KEPT, b"https://shop.example.com/m/y", b"https://shop.example.com/m/y"),
    (KEPT, b"http://leads.internal:8080/m/y", b"http://leads.internal:8080/m/y"),
    (BASED, b"/v2//evil.example/x", b"/evil.example/x"),
    (BASED, b"/v2/\\evil.example/x", b"/evil.example/x"),
    (BASED, b"/v2/\t/evil.example/x", b"/evil.example/x"),
    (BASED, b"http://leads.internal:8080/v2//evil.example", b"/evil.example"),
    (PLAIN, b"http://leads.internal:8080/\t/evil.example", b"/evil.example"),
    (PLAIN, b"/\t/evil.example", b"/\t/evil.example"),  # the upstream's own words
    (TLS, b"https://leads.internal:443/m/y", b"/m/y"),
]


@pytest.mark.parametrize(("route", "value", "public"), LOCATIONS)
def test_a_location_of_the_upstreams_own_origin_is_made_public(route, value, public):
    assert said(route, b"Location", value) == public
    assert said(route, b"Content-Location", value) == public


@pytest.mark.parametrize("route", [PLAIN, KEPT])
def test_a_client_that_has_tls_gets_a_path(route):
    own = b"https://shop.example.com/m/y" if route is KEPT else b"https://leads.internal:8080/m/y"
    assert said(route, b"Location", own, scheme="https") == b"/m/y"


COOKIES = [
    (PLAIN, b"a=1; Path=/; HttpOnly", b"a=1; Path=/; HttpOnly"),
    (PLAIN, b"a=1; Domain=leads.internal; Path=/", b"a=1; Domain=shop.example.com; Path=/"),
    (PLAIN, b"a=1; domain=.INTERNAL", b"a=1; domain=shop.example.com"),
    (PLAIN, b"a=1; Domain=example.com", b"a=1; Domain=example.com"),
    (PLAIN, b"a=1; Domain=other.example", b"a=1; Domain=other.example"),
    (PLAIN, b"a=x; Expires=Wed, 21 Oct 2026 07:28:00 GMT", b"a=x; Expires=Wed, 21 Oct 2026 07:28:00 GMT"),
    (PLAIN, b"path=/; Secure", b"path=/; Secure"),
    (STRIPPED, b"a=1; Path=/", b"a=1; Path=/api"),
    (STRIPPED, b"a=1;path=/y ;Secure", b"a=1;path=/api/y;Secure"),
    (STRIPPED, b"a=1; Path=/api/y", b"a=1; Path=/api/y"),
    (STRIPPED, b"__Host-a=1; Path=/; Secure", b"__Host-a=1; Path=/; Secure"),
    (STRIPPED, b"__host-a=1; path=/; Secure", b"__host-a=1; path=/; Secure"),
    (BASED, b"a=1; Path=/v2", b"a=1; Path=/"),
    (BASED, b"a=1; Path=/v2/m", b"a=1; Path=/m"),
    (BOTH, b"a=1; Path=/v2/", b"a=1; Path=/api"),
    (STRIPPED, b"a=1; Path=", b"a=1; Path="),
    (STRIPPED, b"", b""),
]


@pytest.mark.parametrize(("route", "value", "public"), COOKIES)
def test_a_cookie_of_the_upstreams_own_origin_is_made_public(route, value, public):
    assert said(route, b"Set-Cookie", value) == public


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000"])
def test_a_host_that_can_have_no_domain_gets_a_cookie_of_its_own(host):
    found = said(PLAIN, b"Set-Cookie", b"a=1; Domain=leads.internal; Path=/", headers=[("host", host)])
    assert found == b"a=1; Path=/"


def test_the_public_host_is_the_one_a_trusted_proxy_tells():
    headers = [("host", "inner"), ("x-forwarded-host", "shop.example.com")]
    table = {"strangle": {"trusted_proxies": ["10.0.0.0/8"]}, "routes": [{"path": "/m/*", "to": UP}]}
    forward = decide(table, "/m/x", headers=headers, peer="10.0.0.1")
    cookie = answer_headers([(b"Set-Cookie", b"a=1; Domain=leads.internal")], 200, forward=forward)
    assert cookie == [(b"set-cookie", b"a=1; Domain=shop.example.com")]


@pytest.mark.parametrize("told", ["evil.example; HttpOnly", "a b", "x/y", 'x"'])
def test_a_public_host_that_is_none_is_not_told(told):
    headers = [("host", "inner"), ("x-forwarded-host", told)]
    table = {"strangle": {"trusted_proxies": ["10.0.0.0/8"]}, "routes": [{"path": "/m/*", "to": UP}]}
    forward = decide(table, "/m/x", headers=headers, peer="10.0.0.1")
    cookie = answer_headers([(b"Set-Cookie", b"a=1; Domain=leads.internal")], 200, forward=forward)
    assert cookie == [(b"set-cookie", b"a=1")]


def test_of_several_endpoints_the_one_that_answered_counts():
    route = Route("/m/*", to=Upstream(urls=["http://a.internal/v1", "http://b.internal/v2"]))
    forward = decide(route, "/m/x")
    for endpoint, own in enumerate([b"http://a.internal/v1", b"http://b.internal/v2"]):
        found = answer_headers([(b"Location", own + b"/m/y")], 302, forward=forward, endpoint=endpoint)
        assert found == [(b"location", b"/m/y")]


def test_rules_of_the_route_come_after_the_rewriting():
    route = Route("/m/*", to=UP, response_headers=HeaderRules(set={"Location": "https://x.example/"}))
    forward = decide(route, "/m/x")
    plan = forward.action.response_headers
    assert answer_headers([(b"Location", UP.encode())], 302, plan, forward) == [
        (b"location", b"https://x.example/")
    ]
