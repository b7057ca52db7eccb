import pytest
from support import Reader, decide, request

from strangle_mw import ConfigError, Identity, IdentityTokens, Route
from strangle_mw.config import load
from strangle_mw.core.decision import Forward, Legacy, Reject, prepare
from strangle_mw.core.identity import Mint, read_identity, withhold
from strangle_mw.core.messages import RequestHead

SECRET = "s" * 32
ROUTE = {"path": "/orders/*", "to": "orders", "identity": True}
TABLE = {"upstreams": {"orders": {"url": "http://orders.internal/api"}}, "routes": [ROUTE]}
TOKENS = IdentityTokens(secrets={"orders": SECRET})


class Minted:
    """A minter that tells what it was asked for."""

    def mint(self, upstream, identity, method, path, query):
        if identity.claims.get("broken"):
            raise ValueError("the claims cannot be used")
        return f"{upstream}|{identity.subject}|{method}|{path.decode()}|{query.decode()}".encode()


def asked(target="/orders/7", method="GET", headers=(), *, route=(), user="alice", **settings):
    table = {**TABLE, "routes": [{**ROUTE, **dict(route)}]}
    settings = {
        "identify": lambda _: user,
        "identity": TOKENS,
        "mint": lambda *_: Mint(Minted()),
        **settings,
    }
    return decide(table, target, method, headers, settings=settings)


def tokens(forward):
    return [v for n, v in forward.headers if n == b"strangle-identity"]


def test_a_token_is_minted_for_what_is_sent():
    found = asked("/orders/7?a=%20b", "POST", route={"rewrite": "/v2/o/{*}"})
    assert tokens(found) == [b"orders|alice|POST|/api/v2/o/7|a=%20b"]
    assert found.headers[-2][0] == b"strangle-identity", "ours are last"


@pytest.mark.parametrize("nobody", [None, False, "", Identity("")])
def test_nobody_has_no_token(nobody):
    assert tokens(asked(user=nobody)) == []


def test_a_route_without_identity_tells_nobody():
    assert tokens(asked(route={"identity": False})) == []


def test_a_token_goes_to_the_upstream_that_was_chosen():
    table = {
        "upstreams": {"a": {"url": "http://a"}, "b": {"url": "http://b/x"}},
        "routes": [{"path": "/*", "identity": True, "to": [{"upstream": "a"}, {"upstream": "b"}]}],
    }
    settings = {"identity": TOKENS, "mint": lambda *_: Mint(Minted())}
    seen = set()
    for user in range(20):
        found = decide(table, "/p", settings={**settings, "identify": lambda _, user=user: user})
        (token,) = tokens(found)
        assert (
            token.decode()
            == f"{found.upstream.name}|{user}|GET|{found.upstream.endpoints[0].base.decode()}/p|"
        )
        seen.add(found.upstream.name)
    assert seen == {"a", "b"}


def test_claims_that_cannot_be_used_are_a_502_told_once(caplog):
    for _ in range(2):
        found = asked(user=Identity("alice", {"broken": True}))
    assert (found.status, found.reason) == (502, "identity")
    settings = {"identify": lambda _: Identity("x", {"broken": True}), "identity": TOKENS}
    snapshot = load(TABLE, mint=lambda *_: Mint(Minted()), **settings)
    caplog.clear()
    for _ in range(2):
        assert isinstance(prepare(snapshot, "GET", b"/orders/7", "/orders/7", request(), Reader()), Reject)
    assert caplog.text.count("no token could be made") == 1


def test_an_unsafe_request_of_another_site_is_refused_before_anything_is_minted():
    cookie = ("Cookie", "sessionid=1")
    found = asked(method="POST", headers=[cookie, ("Sec-Fetch-Site", "cross-site")])
    assert (found.status, found.reason) == (403, "cross-origin")
    bearer = ("Authorization", "Bearer x")
    assert tokens(asked(method="POST", headers=[cookie, bearer, ("Sec-Fetch-Site", "cross-site")]))


def test_session_cookies_stay_here_where_a_token_goes():
    cookies = ("Cookie", "a=1; sessionid=s; csrftoken=c; session2=x")
    sent = dict(asked(headers=[cookies]).headers)
    assert sent[b"cookie"] == b"a=1; session2=x"
    assert dict(asked(headers=[cookies], route={"identity": False}).headers)[b"cookie"] == cookies[1].encode()
    assert b"cookie" not in dict(asked(headers=[("Cookie", "sessionid=s")]).headers)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"framework_cookies": ["a"]}, b"sessionid=s"),
        ({"framework_cookies": ["a"], "session_cookies": []}, b"a=1; sessionid=s"),
        ({"framework_cookies": ["a"], "session_cookies": ()}, b"a=1; sessionid=s"),
        ({"session_cookies": ["sessionid"]}, b"a=1"),
    ],
)
@pytest.mark.parametrize("identity", [True, False])
def test_which_cookies_are_withheld(settings, kept, identity):
    found = asked(headers=[("Cookie", "a=1; sessionid=s")], route={"identity": identity}, **settings)
    assert dict(found.headers)[b"cookie"] == kept


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (b"sessionid=1", b""),
        (b" sessionid = 1 ; b=2", b"b=2"),
        (b"a=1;sessionid=1;b=2", b"a=1;b=2"),
        (b"sessionid=1; sessionid=2", b""),
        (b"sessionid; a=1", b"a=1"),
        (b"xsessionid=1; sessionidx=2", b"xsessionid=1; sessionidx=2"),
        (b"\tsessionid=1", b""),
        (b'a="x; sessionid=1"', b'a="x'),
        (b";; ;", b";; ;"),
        (b"; sessionid=1 ;", b""),
    ],
)
def test_withhold(value, left):
    assert withhold(value, {b"sessionid"}) == left


def test_head_names_the_user_to_when():
    route = Route("/a", to="http://m", when=lambda head: head.user == "alice" and head.identity.user == 1)
    for user, kind in (("alice", Forward), ("bob", Legacy)):
        calls = []

        def identify(head, user=user, calls=calls):
            calls.append(head)
            return Identity(user, user=1)

        assert isinstance(decide(route, "/a", settings={"identify": identify}), kind)
        assert len(calls) == 1
    assert isinstance(decide(route, "/a"), Legacy)


@pytest.mark.parametrize(
    ("headers", "by_cookie"),
    [
        ([], True),
        ([("cookie", "a=1")], True),
        ([("cookie", "a=1"), ("authorization", "Bearer x")], False),
        ([("authorization", "bearer x")], False),
        ([("authorization", "Basic x")], True),
        ([("authorization", "Digest x")], True),
    ],
)
def test_who_has_an_id_alone_is_known_by_what_browsers_send_themselves(headers, by_cookie):
    head = RequestHead("GET", b"/", b"", [(n.encode(), v.encode()) for n, v in headers])
    assert read_identity(7, head) == Identity("7", from_cookie=by_cookie)


def problems(table, **settings):
    with pytest.raises(ConfigError) as caught:
        load(table, **settings)
    return {(p.where, p.id) for p in caught.value.problems}


def test_identity_needs_keys_and_somebody_who_names_the_user():
    assert problems(TABLE) == {("routes[0].identity", "identity-keys")}
    settings = {"identity": TOKENS, "mint": lambda *_: Mint(Minted())}
    assert problems(TABLE, **settings) == {("routes[0].identity", "identity-identify")}
    assert load(TABLE, identity=TOKENS).crowd.minter is None, "commands need neither"


def test_one_path_is_signed_for_all_addresses():
    table = {**TABLE, "upstreams": {"orders": {"urls": ["http://a/x", "http://b/y"]}}}
    assert ("routes[0].identity", "identity-base") in problems(table, identity=TOKENS)


def test_identity_on_a_route_that_forwards_nothing():
    table = {"routes": [{"path": "/a", "to": "legacy", "identity": True}]}
    assert problems(table, identity=TOKENS) == {("routes[0].identity", "field-unused")}


def test_keys_are_published_by_a_route_of_their_own():
    keys = IdentityTokens(algorithm="EdDSA", jwks_path="/.well-known/keys.json")
    mint = {"mint": lambda *_: Mint(Minted(), b'{"keys":[]}'), "identify": lambda _: None}
    found = decide(TABLE, "/.well-known/keys.json", settings={"identity": keys, **mint})
    assert (found.status, found.body, found.route.name) == (200, b'{"keys":[]}', "strangle-jwks")
    assert dict(found.headers)[b"content-type"] == b"application/jwk-set+json"
    assert dict(found.headers)[b"cache-control"] == b"public, max-age=300"


def test_a_path_for_keys_that_is_none():
    assert problems(TABLE, identity=IdentityTokens(algorithm="ES256", jwks_path="/a//b")) == {
        ("strangle.identity.jwks_path", "path-pattern")
    }
