"""What a single route may not say: each mistake by its id, all of them at once, with the remedy."""

import pytest

from strangle_mw import (
    Condition,
    ConfigError,
    HeaderRules,
    Redirect,
    Respond,
    Route,
    Shadow,
    Split,
    Tls,
    Upstream,
)
from strangle_mw.config import load

M = "http://m"


async def asynchronous(_head):
    return False


MISTAKES = {
    "pattern and path": (Route("/a", path="/b", to=M), "routes[0].path", "path-twice"),
    "methods twice": (Route("GET /a", methods=["POST"], to=M), "routes[0].methods", "methods-twice"),
    "method name": (Route("GE(T /a", to=M), "routes[0].methods", "method-name"),
    "method case": (Route("get /a", to=M), "routes[0].methods", "method-case"),
    "path": (Route("a/b", to=M), "routes[0].pattern", "path-pattern"),
    "path by name": (Route(path="/a//b", to=M), "routes[0].path", "path-pattern"),
    "path and regex": (Route(path="/a", regex="/a", to=M), "routes[0].regex", "path-and-regex"),
    "regex": (Route(regex="/(", to=M), "routes[0].regex", "regex-syntax"),
    "host with port": (Route("/a", hosts=["h.example:80"], to=M), "routes[0].hosts[0]", "host-name"),
    "host with scheme": (Route("/a", hosts=["http://h"], to=M), "routes[0].hosts[0]", "host-name"),
    "host with star inside": (Route("/a", hosts=["a.*.example"], to=M), "routes[0].hosts[0]", "host-name"),
    "header name": (Route("/a", headers={"X Y": "1"}, to=M), "routes[0].headers.X Y", "header-name"),
    "cookie name": (Route("/a", cookies={"": "1"}, to=M), "routes[0].cookies.", "cookie-name"),
    "condition without test": (Route("/a", headers={"X": Condition()}, to=M), "routes[0].headers.X", "condition-kind"),
    "condition with two": (Route("/a", query={"q": Condition(prefix="a", present=True)}, to=M), "routes[0].query.q", "condition-kind"),
    "condition regex": (Route("/a", query={"q": Condition(regex="(")}, to=M), "routes[0].query.q", "regex-syntax"),
    "no target": (Route("/a"), "routes[0]", "target-missing"),
    "two targets": (Route("/a", to=M, respond=Respond()), "routes[0].respond", "target-twice"),
    "canary without weight": (Route("/a", to=M, stage="canary"), "routes[0].weight", "weight-missing"),
    "retired with fallback": (Route("/a", to=M, stage="retired", fallback="auto"), "routes[0].fallback", "fallback-retired"),
    "weight": (Route("/a", to=M, weight=101), "routes[0].weight", "weight-range"),
    "timeout": (Route("/a", to=M, timeout=0), "routes[0].timeout", "timeout-range"),
    "unknown upstream": (Route("/a", to="leads"), "routes[0].to", "upstream-unknown"),
    "address": (Route("/a", to="ftp://x"), "routes[0].to", "upstream-address"),
    "query in address": (Route("/a", to="http://x/?a=b"), "routes[0].to", "upstream-address"),
    "user in address": (Route("/a", to="http://u:p@x"), "routes[0].to", "upstream-address"),
    "port": (Route("/a", to="http://x:99999"), "routes[0].to", "upstream-address"),
    "unix": (Route("/a", to="unix:x.sock"), "routes[0].to", "upstream-address"),
    "lambda": (Route("/a", to="lambda:f n"), "routes[0].to", "upstream-address"),
    "in-process": (Route("/a", to="asgi:a"), "routes[0].to", "upstream-address"),
    "app object": (Route("/a", to=print), "routes[0].to", "app-interface"),
    "split weights": (Route("/a", to=[Split(upstream=M, weight=0)]), "routes[0].to", "split-weight"),
    "split upstream": (Route("/a", to=[Split(upstream=M), Split(upstream="x")]), "routes[0].to[1].upstream", "upstream-unknown"),
    "strip and rewrite": (Route("/a/*", to=M, strip_prefix="/a", rewrite="/{*}"), "routes[0].rewrite", "rewrite-twice"),
    "strip elsewhere": (Route("/a/*", to=M, strip_prefix="/b"), "routes[0].strip_prefix", "strip-prefix"),
    "strip a parameter": (Route("/a/{x}", to=M, strip_prefix="/a/{x}"), "routes[0].strip_prefix", "strip-prefix"),
    "strip from a regex": (Route(regex="/a", to=M, strip_prefix="/a"), "routes[0].strip_prefix", "strip-prefix"),
    "rewrite name": (Route("/a/{x}", to=M, rewrite="/b/{y}"), "routes[0].rewrite", "template"),
    "protected header": (Route("/a", to=M, request_headers=HeaderRules(set={"Host": "x"})), "routes[0].request_headers.set.Host", "header-protected"),
    "forwarding header": (Route("/a", to=M, request_headers=HeaderRules(remove=["X-Forwarded-For"])), "routes[0].request_headers.remove.X-Forwarded-For", "header-protected"),
    "header rule name": (Route("/a", to=M, response_headers=HeaderRules(add={"A B": "x"})), "routes[0].response_headers.add.A B", "header-name"),
    "header rule value": (Route("/a", to=M, response_headers=HeaderRules(add={"A": "x\r\ny"})), "routes[0].response_headers.add.A", "header-value"),
    "redirect": (Route("/a", redirect=Redirect(to="ftp://x/")), "routes[0].redirect.to", "redirect-target"),
    "redirect name": (Route("/a", redirect=Redirect(to="/{x}")), "routes[0].redirect.to", "template"),
    "respond status": (Route("/a", respond=Respond(status=199)), "routes[0].respond.status", "respond-status"),
    "respond body": (Route("/a", respond=Respond(status=204, body="x")), "routes[0].respond.body", "respond-body"),
    "respond type": (Route("/a", respond=Respond(content_type="a\nb")), "routes[0].respond.content_type", "header-value"),
    "pattern without path": (Route("GET", to=M), "routes[0].pattern", "path-pattern"),
    "regex flags": (Route(regex="(?u)/a", to=M), "routes[0].regex", "regex-syntax"),
    "empty regex": (Route(regex="", to=M), "routes[0].regex", "regex-slash"),
    "regex without slash": (Route(regex="v1/.*", to=M), "routes[0].regex", "regex-slash"),
    "encoded slash in a regex": (Route(regex="/a", to=M, encoded_slash=True), "routes[0].encoded_slash", "field-unused"),
    "host in Unicode": (Route("/a", hosts=["b\u00fccher.example"], to=M), "routes[0].hosts[0]", "host-name"),
    "header twice": (Route("/a", headers={"X-A": "1", "x-a": "2"}, to=M), "routes[0].headers.x-a", "header-twice"),
    "header name in Unicode": (Route("/a", to=M, request_headers=HeaderRules(set={"\u65e5": "x"})), "routes[0].request_headers.set.\u65e5", "header-name"),
    "target number": (Route("/a", to=5), "routes[0].to", "type"),
    "target table": (Route("/a", to={"url": M}), "routes[0].to", "type"),
    "target list": (Route("/a", to=[]), "routes[0].to", "type"),
    "port 0": (Route("/a", to="http://h:0"), "routes[0].to", "upstream-address"),
    "endless timeout": (Route("/a", to=M, timeout=float("inf")), "routes[0].timeout", "timeout-range"),
    "timeout nan": (Route("/a", to=M, timeout=float("nan")), "routes[0].timeout", "timeout-range"),
    "empty upstream": (Route("/a", to=Upstream()), "routes[0].to", "upstream-target"),
    "upstream with a setting of another kind": (Route("/a", to=Upstream(lambda_="x", host="preserve")), "routes[0].to.host", "upstream-setting"),
    "upstream type": (Route("/a", to=Upstream(url=M, connect_timeout="x")), "routes[0].to.connect_timeout", "type"),
    "upstream range": (Route("/a", to=Upstream(url=M, timeout=-1)), "routes[0].to.timeout", "upstream-range"),
    "upstream url": (Route("/a", to=Upstream(url=5)), "routes[0].to.url", "type"),
    "tls without https": (Route("/a", to=Upstream(url=M, tls=Tls(ca=__file__))), "routes[0].to.tls", "tls-without-https"),
    "unused rewrite": (Route("/a", to="legacy", rewrite="/b"), "routes[0].rewrite", "field-unused"),
    "unused rules": (Route("/a", respond=Respond(), response_headers=HeaderRules(set={"a": "b"})), "routes[0].response_headers", "field-unused"),
    "async when": (Route("/a", to=M, when=asynchronous), "routes[0].when", "when-async"),
    "when is text": (Route("/a", to=M, when="yes"), "routes[0].when", "type"),
    "sticky in Unicode": (Route("/a", to=M, sticky=["header:\u65e5"]), "routes[0].sticky[0]", "sticky-source"),
    "half a character": (Route("/a", to=M, name="\ud800"), "routes[0].name", "type"),
    "sticky": (Route("/a", to=M, sticky=["ip"]), "routes[0].sticky[0]", "sticky-source"),
    "shadow sample": (Route("/a", to=M, shadow=Shadow(sample=101)), "routes[0].shadow.sample", "sample-range"),
    "shadow of a redirect": (Route("/a", redirect=Redirect(to="/b"), shadow=Shadow()), "routes[0].shadow", "field-unused"),
    "identity": (Route("/a", to=M, identity=True), "routes[0].identity", "identity-keys"),
    "fallback of a redirect": (Route("/a", redirect=Redirect(to="/b"), fallback="auto"), "routes[0].fallback", "field-unused"),
    "fallback on success": (Route("/a", to=M, fallback="auto", fallback_on=["200"]), "routes[0].fallback_on[0]", "fallback-on"),
    "fallback on words": (Route("/a", to=M, fallback="auto", fallback_on=["5XX"]), "routes[0].fallback_on[0]", "fallback-on"),
    "fallback_on without auto": (Route("/a", to=M, fallback_on=["404"]), "routes[0].fallback_on", "field-unused"),
    "shared_store without auto": (Route("/a", to=M, shared_store=True), "routes[0].shared_store", "field-unused"),
    "fallback_until without fallback": (Route("/a", to=M, fallback="off", fallback_until="2027-01-01"), "routes[0].fallback_until", "field-unused"),
    "fallback_until": (Route("/a", to=M, fallback_until="soon"), "routes[0].fallback_until", "date"),
    "weight of an exception": (Route("/a", to="legacy", weight=5), "routes[0].weight", "field-unused"),
    "sticky address": (Route("/a", to=M, sticky=["header:X-Forwarded-For"]), "routes[0].sticky[0]", "sticky-address"),
    "an address twice": (Route("/a", to=Upstream(urls=["http://a", "http://b", "http://a:80/"])), "routes[0].to.urls[2]", "upstream-address-twice"),
    "pool_timeout": (Route("/a", to=Upstream(url="http://a", pool_timeout=-1)), "routes[0].to.pool_timeout", "upstream-range"),
}  # fmt: skip


@pytest.mark.parametrize(("route", "where", "id_"), MISTAKES.values(), ids=MISTAKES)
def test_mistake(route, where, id_):
    with pytest.raises(ConfigError) as caught:
        load([route])
    assert [(p.where, p.id) for p in caught.value.problems] == [(where, id_)]
    assert len(caught.value.problems[0].what) > 5


def test_all_problems_of_one_route_at_once():
    with pytest.raises(ConfigError) as caught:
        load([Route("get a", regex="(", weight=-1, to=M, timeout=0, sticky=["x"])])
    assert {p.id for p in caught.value.problems} >= {
        "method-case",
        "regex-syntax",
        "weight-range",
        "timeout-range",
        "sticky-source",
    }


@pytest.mark.parametrize("fallback", ["off", "never"])
def test_what_already_holds_may_be_said(fallback):
    load([Route("/a", to=M, fallback=fallback)])


@pytest.mark.parametrize(
    ("route", "name"),
    [
        (Route("GET,POST /a/{x}", to=M), "GET,POST /a/{x}"),
        (Route("/a", to=M), "/a"),
        (Route(regex="/a+", to=M), "regex /a+"),
        (Route("/a", name="mine", to=M), "mine"),
        (Route("/a", hosts=["h"], headers={"X": "1"}, to=M), "/a [h, header X = '1']"),
    ],
)
def test_a_name_is_derived_from_what_matches(route, name):
    assert load([route]).table.routes[0].name == name


def test_a_misspelt_upstream_is_guessed():
    with pytest.raises(ConfigError) as caught:
        load(
            {
                "upstreams": {"leads": {"url": M}},
                "routes": [{"path": "/a", "to": "laeds"}, {"path": "/b", "to": "leads"}],
            }
        )
    assert "did you mean 'leads'?" in caught.value.problems[0].what


def test_one_wrong_type_does_not_hide_the_rest():
    table = {
        "upstreams": {"u": {"url": "http://x?y", "max_in_flight": "many"}},
        "routes": [{"path": "nope", "to": "missing", "weight": "x"}],
    }
    with pytest.raises(ConfigError) as caught:
        load(table)
    found = {p.id for p in caught.value.problems}
    assert found == {"type", "upstream-address", "path-pattern", "upstream-unknown", "upstream-unused"}


@pytest.mark.parametrize("first", [0, 1])
def test_settings_of_an_upstream_object_stay_with_its_route(first):
    loose = Route("/a", to=Upstream(url="https://x.example", verify=False))
    plain = Route("/b", to="https://x.example")
    routes = [loose, plain] if first == 0 else [plain, loose]
    found = {r.declared.pattern: r.action.upstreams[0].declared for r in load(routes).table.routes}
    assert (found["/a"].verify, found["/b"].verify) == (False, True)
