"""P8: a page of another site cannot have the browser's cookies turned into a token for an unsafe request.

A table for people, and every combination against a specification that is written here once more.
"""

import itertools

import pytest
from support import decide

from strangle_mw import Identity, IdentityTokens, Route
from strangle_mw.config import load
from strangle_mw.core.decision import Forward, Reject, prepare
from strangle_mw.core.messages import RequestHead
from strangle_mw.identity import Verifier
from strangle_mw.identity.minting import make_minter

SECRET = "o" * 32
LISTED = "https://partner.example"
TOKENS = IdentityTokens(secrets={"orders": SECRET}, origins=[LISTED])
TABLE = {
    "upstreams": {"orders": {"url": "http://m"}},
    "routes": [Route("/who", to="orders", identity=True), Route("/m", to="orders")],
}


def by_cookie(_head):
    return Identity("7")


def by_token(_head):
    return Identity("7", from_cookie=False)


def settings(identify, **more):
    return {"identify": identify, "identity": TOKENS, "mint": make_minter, **more}


def asked(headers, method="POST", identify=by_cookie, target="/who", **more):
    return decide(
        TABLE, target, method, [("Host", "h.example"), *headers], settings=settings(identify), **more
    )


SITE, ORIGIN = "Sec-Fetch-Site", "Origin"
CASES = {  # headers -> whether an unsafe request that brings a cookie is let through
    "no browser": ([], True),
    "the same origin": ([(SITE, "same-origin")], True),
    "typed by the user": ([(SITE, "none")], True),
    "a sister site": ([(SITE, "same-site")], False),
    "another site": ([(SITE, "cross-site")], False),
    "a word of the future": ([(SITE, "same-planet")], False),
    "an empty word": ([(SITE, "")], False),
    "two words": ([(SITE, "same-origin"), (SITE, "cross-site")], False),
    "the word goes before the origin": ([(SITE, "same-origin"), (ORIGIN, "https://proxied.example")], True),
    "in that direction, too": ([(SITE, "cross-site"), (ORIGIN, "http://h.example")], False),
    "old browser, own page": ([(ORIGIN, "http://h.example")], True),
    "its own port told": ([(ORIGIN, "http://h.example:80")], True),
    "TLS ends before the server": ([(ORIGIN, "https://h.example")], True),
    "old browser, another page": ([(ORIGIN, "http://evil.example")], False),
    "another port": ([(ORIGIN, "http://h.example:8080")], False),
    "a longer host": ([(ORIGIN, "http://h.example.evil.example")], False),
    "a host below": ([(ORIGIN, "http://evil.h.example")], False),
    "user info": ([(ORIGIN, "http://h.example@evil.example")], False),
    "a sandboxed frame": ([(ORIGIN, "null")], False),
    "an empty origin": ([(ORIGIN, "")], False),
    "no URL": ([(ORIGIN, "h.example")], False),
    "another scheme": ([(ORIGIN, "ftp://h.example")], False),
    "an extension": ([(ORIGIN, "chrome-extension://h.example")], False),
    "two origins": ([(ORIGIN, "http://h.example"), (ORIGIN, "http://h.example")], False),
    "a listed origin": ([(ORIGIN, LISTED)], True),
    "a listed origin, from another site": ([(ORIGIN, LISTED), (SITE, "cross-site")], True),
    "a listed origin, its port told": ([(ORIGIN, LISTED + ":443")], True),
    "a listed origin without TLS": ([(ORIGIN, LISTED.replace("https", "http"))], False),
}


@pytest.mark.parametrize(("headers", "through"), CASES.values(), ids=CASES)
def test_an_unsafe_request_of_another_site_is_refused(headers, through):
    found = asked(headers)
    if through:
        assert isinstance(found, Forward)
        assert b"\r\nstrangle-identity: " in found.fields
    else:
        assert (found.status, found.reason) == (403, "cross-origin")


CROSS = [(SITE, "cross-site"), (ORIGIN, "http://evil.example")]
HARMLESS = {
    "a safe method": {"method": "GET"},
    "another safe method": {"method": "OPTIONS"},
    "a credential that no browser sends by itself": {"identify": by_token},
    "nobody": {"identify": lambda _: None},
    "a route that says nothing of the user": {"target": "/m"},
}


@pytest.mark.parametrize("case", HARMLESS.values(), ids=HARMLESS)
def test_what_no_page_can_abuse_is_let_through(case):
    assert isinstance(asked(CROSS, **case), Forward)
    assert isinstance(asked(CROSS), Reject)


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ([("Cookie", "sessionid=1")], True),
        ([("Cookie", "")], True),
        ([("Cookie", "a=1"), ("Authorization", "Bearer x")], False),
        ([("Authorization", "Bearer x")], False),
        ([("Authorization", "Basic x")], True),
        ([], True),  # a client's certificate, its address
    ],
)
def test_an_id_alone_is_taken_for_one_that_browsers_tell_by_themselves(headers, refused):
    assert isinstance(asked([*CROSS, *headers], identify=lambda _: 7), Reject) is refused


# --- every combination

METHODS = [
    "GET",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "QUERY",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "PURGE",
    "get",
    "post",
]
SITES = [None, "same-origin", "none", "same-site", "cross-site", "", "Same-Origin", "none, cross-site"]
ORIGINS = [
    None, "http://h.example", "https://h.example", "https://h.example:443", "HTTPS://H.Example", "http://h.example:443",
    "http://evil.example", "null", "", LISTED, "https://public.example", "http://public.example", "https://h.example/",
]  # fmt: skip
# (the scheme we see, the host, what a trusted proxy adds) -> the public origins
CLIENTS = [
    (("http", "h.example", {}), {"http://h.example", "https://h.example"}),
    (("https", "h.example", {}), {"https://h.example"}),
    (("https", "H.EXAMPLE:443", {}), {"https://h.example"}),
    (("http", "h.example", {"x-forwarded-proto": "https"}), {"https://h.example"}),
    (
        ("http", "inner", {"x-forwarded-proto": "https", "x-forwarded-host": "public.example"}),
        {"https://public.example"},
    ),
]


def specified(method, site, origin, public, *, from_cookie, websocket):
    """Tell whether a request is let through, as docs/identity.md says it."""
    if not from_cookie or (method in {"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"} and not websocket):
        return True
    named = (
        None
        if origin is None
        else origin.lower().removesuffix(":443" if "https" in origin.lower() else ":80")
    )
    if named == LISTED:
        return True
    if site is not None:
        return site in {"same-origin", "none"}
    return origin is None or named in public


class Reader:
    encoding = "utf-8"

    @staticmethod
    def head(source, path, authority):
        websocket, source = source
        head = RequestHead(path=path, authority=authority, **source)
        head.opens_websocket = websocket
        return head


def test_every_combination_is_as_specified():
    snapshots = {
        flag: load(TABLE, **settings(identify, trusted_proxies=["192.0.2.1"]))
        for flag, identify in ((True, by_cookie), (False, by_token))
    }
    verifier = Verifier("orders", secrets=SECRET)
    product = itertools.product(METHODS, SITES, ORIGINS, CLIENTS, snapshots, (False, True))
    outcomes = {True: 0, False: 0}
    for method, site, origin, ((scheme, host, more), public), from_cookie, websocket in product:
        if websocket and method != "GET":
            continue
        headers = {"host": host, "sec-fetch-site": site, "origin": origin, **more}
        fields = [(n.encode(), v.encode()) for n, v in headers.items() if v is not None]
        source = {"method": method, "query": b"", "headers": fields, "scheme": scheme, "peer": "192.0.2.1"}
        found = prepare(snapshots[from_cookie], method, b"/who", "/who", (websocket, source), Reader())
        wanted = specified(method, site, origin, public, from_cookie=from_cookie, websocket=websocket)
        case = (method, site, origin, scheme, host, more, from_cookie, websocket)
        outcomes[wanted] += 1
        if wanted:
            assert isinstance(found, Forward), case
            token = dict(found.headers).get(b"strangle-identity")
            if method == "TRACE":  # its answer would show it
                assert token is None, case
                continue
            assert verifier.verify(token, method=method, path="/who").subject == "7", case
        else:
            assert isinstance(found, Reject), case
            assert (found.status, found.reason) == (403, "cross-origin"), case
    assert min(outcomes.values()) > 1000


@pytest.mark.parametrize("peer", ["192.0.2.1", "192.0.2.9"])
def test_only_a_trusted_proxy_says_what_the_public_host_is(peer):
    headers = [("Host", "inner"), ("X-Forwarded-Host", "evil.example"), (ORIGIN, "http://evil.example")]
    more = settings(by_cookie, trusted_proxies=["192.0.2.1"])
    found = decide(TABLE, "/who", "POST", headers, settings=more, peer=peer)
    assert isinstance(found, Forward) is (peer == "192.0.2.1")
