"""P8: who the user is can be said by nobody but us, to nobody but the upstream it is said to.

Whatever a client sends, an upstream gets exactly one token, ours, or none for nobody; whatever an upstream sends, the
client gets none. Session cookies stay on their side. What real servers make of the spellings is in
tests/drivers/test_identity.py, pages of other sites are in test_p08_cross_site.py, laws in tests/laws/test_identity.py.
"""

import json

import pytest
from tests.transports.lambda_invoke_api import InvokeApi, answer
from tests.transports.upstream import ScriptedUpstream, forever, head, send

from promises.drive import address
from strangle_mw import (
    Breaker,
    ConfigError,
    HeaderRules,
    IdentityTokens,
    Route,
    SigningKey,
    Upstream,
    strangle,
)
from strangle_mw.bridges.loop_thread import loop_thread
from strangle_mw.core.identity import Identity
from strangle_mw.identity import IdentityError, Verifier
from strangle_mw.identity.minting import make_minter

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SERVE = [forever(head(), send(OK))]
SECRETS = {"orders": "o" * 32, "leads": "l" * 32}
TOKENS = IdentityTokens(secrets=SECRETS)
ORDERS = Verifier("orders", secrets=SECRETS["orders"])
USER = ((b"x-user", b"7"),)


@pytest.fixture(scope="module", autouse=True)
def _loop():
    """The loop of this process stays, with its descriptors."""
    loop_thread()


def identify(asked):
    return asked.header("x-user")


def stolen(subject="root"):
    """A token that is good for the very request that carries it, only that we did not mint it for its client."""
    return make_minter(TOKENS, ["orders"]).minter.mint("orders", Identity(subject), "GET", b"/who/x", b"")


NAME = b"strangle-identity"
GOOD = stolen()
SPOOFS = {
    "plain": ((NAME, GOOD),),
    "upper case": ((b"STRANGLE-IDENTITY", GOOD),),
    "mixed case": ((b"Strangle-Identity", GOOD),),
    "underscore": ((b"strangle_identity", GOOD),),
    "dot": ((b"strangle.identity", GOOD),),
    "dot in upper case": ((b"STRANGLE.IDENTITY", GOOD),),
    "twice": ((NAME, GOOD), (NAME, GOOD)),
    "in every spelling": ((NAME, GOOD), (b"strangle_identity", GOOD), (b"strangle.identity", GOOD)),
    "nominated": ((b"connection", b"strangle-identity"), (NAME, GOOD)),
    "nominated among others": ((b"connection", b"close, Strangle-Identity , x"), (NAME, GOOD)),
    "nominated in another spelling": ((b"connection", b"strangle_identity"), (b"strangle_identity", GOOD)),
    "nominated twice": ((b"connection", b"close"), (b"connection", b"Strangle-Identity"), (NAME, GOOD)),
    "announced as a trailer": ((b"trailer", b"Strangle-Identity"), (NAME, GOOD)),
    "empty": ((NAME, b""),),
    "a name of the same family": ((b"strangle-user", GOOD), (b"strangle_id", GOOD), (b"strangle-", GOOD)),
    "first empty": ((NAME, b""), (NAME, GOOD)),
    "a list": ((NAME, GOOD + b", " + GOOD),),
}
ALLOWED = ["strangle_identity", "strangle.identity", "Strangle_Identity", "STRANGLE.IDENTITY"]


def table(to, **more):
    """`/who/*` says who the user is, `/m/*` does not; the same upstream."""
    return {
        "upstreams": {"orders": to},
        "routes": [Route("/who/*", to="orders", identity=True, **more), Route("/m/*", to="orders")],
    }


def fields(wire):
    """Take a head apart as it stood on the wire; `_` and `.` of names read as `-`, as somebody may read them."""
    lines = [line.partition(b": ") for line in wire.split(b"\r\n")[1:-2]]
    return [(n.lower().replace(b"_", b"-").replace(b".", b"-"), v) for n, _, v in lines]


def tokens(found):
    return [v for n, v in found if n.startswith(b"strangle-")]


def assert_only_ours(found, user="7", path="/who/x"):
    """There is one token, ours, for this request; or none if nobody asks."""
    if user is None:
        assert tokens(found) == []
        return
    (token,) = tokens(found)
    assert ORDERS.verify(token, method="GET", path=path).subject == user


@pytest.mark.parametrize("spoof", SPOOFS.values(), ids=SPOOFS)
def test_a_client_names_nobody(strangled, spoof):
    with ScriptedUpstream(SERVE) as server:
        for allowed in ((), ALLOWED):
            side = strangled(
                table({"url": address(server)}), identify=identify, identity=TOKENS, allow_headers=allowed
            )
            for target, user, headers in (
                ("/who/x", "7", (*USER, *spoof)),
                ("/who/x", "7", (*spoof, *USER)),
                ("/who/x", None, spoof),
                ("/m/x", None, (*USER, *spoof)),
            ):
                assert side.ask(target, headers=headers).status == 200
                assert GOOD not in server.heads[-1]
                assert_only_ours(fields(server.heads[-1]), user)
            side.close()


@pytest.mark.parametrize(
    "nominated", [b"strangle-identity", b"close, STRANGLE-Identity", b"strangle_identity"]
)
@pytest.mark.parametrize("name", [b"connection", b"trailer"])
def test_a_client_does_not_remove_what_we_say(strangled, name, nominated):
    with ScriptedUpstream(SERVE) as server:
        side = strangled(table({"url": address(server)}), identify=identify, identity=TOKENS)
        assert side.ask("/who/x", headers=(*USER, (name, nominated))).status == 200
        side.close()
    assert_only_ours(fields(server.heads[0]))


@pytest.mark.parametrize("part", ["set", "add", "remove"])
@pytest.mark.parametrize(
    "name", ["Strangle-Identity", "strangle_identity", "STRANGLE.IDENTITY", "strangle-x"]
)
def test_nor_does_a_rule_of_a_route_say_or_remove_it(name, part):
    rules = HeaderRules(**{part: [name] if part == "remove" else {name: "1"}})
    with pytest.raises(ConfigError, match="is set by the library"):
        strangle(lambda _environ, _start: [], [Route("/m", to="http://m", request_headers=rules)])


def test_a_token_says_which_request_it_is_for(strangled):
    with ScriptedUpstream(SERVE) as server:
        to = {"url": address(server) + "/base"}
        side = strangled(table(to, strip_prefix="/who"), identify=identify, identity=TOKENS)
        for target in ("/who/x", "/who/a%2Fb?q=1&r=%20", "/who/"):
            assert side.ask(target, headers=USER).status in (200, 400)
        side.close()
    for wire in server.heads:
        path, _, query = wire.split(b" ")[1].partition(b"?")
        (token,) = tokens(fields(wire))
        assert ORDERS.verify(token, method="GET", path=path, query=query).subject == "7"
        with pytest.raises(IdentityError, match="request"):
            ORDERS.verify(token, method="GET", path=path, query=query + b"&more=1")
    assert server.heads[0].startswith(b"GET /base/x ")


def test_a_token_for_one_upstream_is_refused_by_another(strangled):
    with ScriptedUpstream(SERVE) as server:
        to = {"url": address(server)}
        routes = [Route(f"/{name}", to=name, identity=True) for name in SECRETS]
        side = strangled(
            {"upstreams": dict.fromkeys(SECRETS, to), "routes": routes}, identify=identify, identity=TOKENS
        )
        for name in SECRETS:
            assert side.ask(f"/{name}", headers=USER).status == 200
        side.close()
    shared = "s" * 32
    for wire, name, other in zip(server.heads, SECRETS, reversed(SECRETS), strict=True):
        (token,) = tokens(fields(wire))
        asked = {"method": "GET", "path": f"/{name}"}
        assert Verifier(name, secrets=SECRETS[name]).verify(token, **asked).subject == "7"
        for secrets, reason in ((SECRETS[other], "signature"), ([SECRETS[name], shared], "audience")):
            with pytest.raises(IdentityError, match=reason):
                Verifier(other, secrets=secrets).verify(token, **asked)


def test_who_raises_or_is_unknown_is_nobody(strangled):
    def unsure(asked):
        return {"none": None, "false": False, "empty": "", "raises": None}[asked.header("x-user")] or 1 / 0

    with ScriptedUpstream(SERVE) as server:
        side = strangled(table({"url": address(server)}), identify=unsure, identity=TOKENS)
        for user in (b"none", b"false", b"empty", b"raises", b"odd"):
            assert side.ask("/who/x", headers=((b"x-user", user), (NAME, GOOD))).status == 200
        side.close()
    assert len(server.heads) == 5
    assert not any(tokens(fields(wire)) for wire in server.heads)


# --- the other way, and the wrapped app


@pytest.mark.parametrize("name", [b"Strangle-Identity", b"strangle-identity", b"STRANGLE-User"])
@pytest.mark.parametrize("target", ["/who/x", "/m/x"])
def test_an_upstream_says_nothing_of_it_to_the_client(strangled, name, target):
    said = OK.replace(b"\r\n\r\n", b"\r\n%b: said\r\n%b: again\r\nX-Up: 1\r\n\r\n" % (name, name))
    with ScriptedUpstream([forever(head(), send(said))]) as server:
        side = strangled(table({"url": address(server)}), identify=identify, identity=TOKENS)
        seen = side.ask(target, headers=USER)
        side.close()
    assert (seen.status, seen.header(b"x-up")) == (200, b"1")
    assert not [n for n, _ in seen.headers if n.lower().startswith(b"strangle-")]


SENT = ((b"cookie", b"sessionid=secret; a=1"), (NAME, b"untouched"), *USER)
LEGACY_ARMS = {
    "a route of its own": {"target": "/other"},
    "stage legacy": {"stage": "legacy"},
    "a canary of 0 %": {"stage": "canary", "weight": 0, "sticky": ["user"]},
    "fallback": {"to": {"url": "http://127.0.0.1:1", "breaker": Breaker(failures=0, ratio=0)}},
}


@pytest.mark.parametrize("arm", LEGACY_ARMS.values(), ids=LEGACY_ARMS)
def test_the_wrapped_app_gets_the_request_untouched_and_no_token(strangled, arm):
    given = dict(arm)
    target, to = given.pop("target", "/who/x"), given.pop("to", {"url": "http://127.0.0.1:1"})
    side = strangled(table(to, **given), identify=identify, identity=TOKENS)
    assert side.ask(target, headers=SENT).status == 299
    (seen,) = side.legacy
    found = seen["headers"] if strangled.kind == "asgi" else environ_headers(seen)
    assert {f for f in found if f[0] not in (b"host", b"raw-uri")} >= set(SENT)
    assert [v for n, v in found if n == NAME] == [b"untouched"]


def environ_headers(environ):
    return [
        (k[5:].lower().replace("_", "-").encode(), v.encode("latin-1"))
        for k, v in environ.items()
        if k.startswith("HTTP_")
    ]


# --- whatever the upstream is


def inside(kind, seen):
    """An app in this process that keeps its scope or environ."""

    async def asgi(scope, receive, send):
        if scope["type"] == "http":
            seen.append((scope, scope["headers"]))
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

    def wsgi(environ, start_response):
        seen.append((environ, environ_headers(environ)))
        start_response("200 OK", [("Content-Length", "0")])
        return []

    return Upstream(**{kind: asgi if kind == "asgi" else wsgi})


@pytest.mark.parametrize("user", ["7", None])
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_an_app_in_this_process_is_told_the_same(strangled, kind, user):
    seen = []
    side = strangled(table(inside(kind, seen)), identify=identify, identity=TOKENS)
    for spoof in SPOOFS.values():
        assert side.ask("/who/x", headers=(*(USER if user else ()), *spoof)).status == 200
        whole, found = seen.pop()
        assert_only_ours([(n.replace(b"_", b"-").replace(b".", b"-"), v) for n, v in found], user)
        assert GOOD not in repr(whole).encode()


@pytest.mark.parametrize("user", ["7", None])
@pytest.mark.parametrize("kind", ["2.0", "1.0", "rest", "alb"])
def test_a_function_is_told_the_same(strangled, kind, user):
    with InvokeApi(lambda _: answer({"statusCode": 200, "body": "x"})) as api:
        to = {"lambda": "orders", "endpoint_url": api.url, "format": kind}
        side = strangled(table(to), identify=identify, identity=TOKENS)
        cookies = ((b"cookie", b"sessionid=secret; a=1"),)
        for spoof in SPOOFS.values():
            asked = (*(USER if user else ()), *cookies, *spoof)
            assert side.ask("/who/x", headers=asked).status == 200
        side.close()
    assert len(api.calls) == len(SPOOFS)
    for call in api.calls:
        lists = call.event.get("multiValueHeaders") or {n: [v] for n, v in call.event["headers"].items()}
        assert_only_ours([(n.lower().encode(), v.encode()) for n, vs in lists.items() for v in vs], user)
        for trace in (GOOD.decode(), "secret", "sessionid"):
            assert trace not in json.dumps(call.event)


# --- cookies


OWN = b"sessionid=secret"
COOKIES = {  # what a client sends -> what an upstream gets
    "nothing else": ([OWN], []),
    "one of three": ([b"a=1; " + OWN + b"; b=2"], [b"a=1; b=2"]),
    "the first": ([OWN + b"; a=1"], [b"a=1"]),
    "the last": ([b"a=1; " + OWN], [b"a=1"]),
    "both, and twice": ([b"csrftoken=secret; " + OWN + b"; a=1; " + OWN], [b"a=1"]),
    "no blank behind the semicolon": ([b"a=1;" + OWN + b";b=2"], [b"a=1;b=2"]),
    "odd blanks": ([b"a=1 ;  \tsessionid \t=\t secret ;b=2"], [b"a=1 ;b=2"]),
    "quoted": ([b'a=1; sessionid="secret"; b="2"'], [b'a=1; b="2"']),
    "a semicolon in quotes splits": ([b'a="1; sessionid=secret; b"'], [b'a="1; b"']),
    "no value": ([b"sessionid=; a=1"], [b"a=1"]),
    "no equals sign": ([b"sessionid; a=1"], [b"a=1"]),
    "an equals sign in the value": ([b"sessionid=secret=secret; a=b=c"], [b"a=b=c"]),
    "empty pairs": ([b"; ;" + OWN + b";;"], []),
    "a longer name": ([b"sessionid2=1; xsessionid=2; sessionid-x=3"], [b"sessionid2=1; xsessionid=2; sessionid-x=3"]),
    "another case": ([b"SessionID=1"], [b"SessionID=1"]),
    "as a value": ([b"a=sessionid"], [b"a=sessionid"]),
    "several headers": ([b"a=1", OWN, b"b=2"], [b"a=1", b"b=2"]),
    "joined with a comma": ([b"a=1," + OWN + b"; b=2"], [b"a=1; b=2"]),
    "joined with comma and blank": ([b"a=1, " + OWN + b", b=2"], [b"a=1"]),
    "a comma in a value": ([b"a=1,2; b=x,y=z"], [b"a=1,2; b=x,y=z"]),
    "a blank that only Python strips": ([b"\xa0" + OWN + b"; a=1"], [b"a=1"]),
}  # fmt: skip


def sent_cookies(strangled, cookies, target="/who/x", **settings):
    """What the upstream gets of these `Cookie` headers; an environ has only one."""
    if strangled.kind == "wsgi":
        cookies = [b"; ".join(cookies)]
    with ScriptedUpstream(SERVE) as server:
        more = settings.pop("more", {})
        side = strangled(table({"url": address(server)}), identify=identify, identity=TOKENS, **settings)
        headers = (*USER, *((b"cookie", c) for c in cookies))
        assert side.ask(target, headers=headers, **more).status == 200
        side.close()
    return [v for n, v in fields(server.heads[0]) if n == b"cookie"]


@pytest.mark.parametrize(("cookies", "kept"), COOKIES.values(), ids=COOKIES)
def test_session_cookies_stay_here(strangled, cookies, kept):
    found = sent_cookies(strangled, cookies)
    assert found == ([b"; ".join(kept)] if kept and strangled.kind == "wsgi" else kept)


@pytest.mark.parametrize("strangled", ["asgi"], indirect=True)
def test_session_cookies_stay_here_in_http_2_which_may_split_them(strangled):
    cookies = [b"a=1", OWN, b"b=2; csrftoken=secret"]
    assert sent_cookies(strangled, cookies, more={"version": "2"}) == [b"a=1; b=2"]
    assert sent_cookies(strangled, [OWN], more={"version": "2"}) == []


@pytest.mark.parametrize("strangled", ["asgi"], indirect=True)
def test_session_cookies_stay_here_whatever_the_case_of_the_header(strangled):
    """ASGI servers write names in lower case; what a middleware before us writes is another matter."""
    with ScriptedUpstream(SERVE) as server:
        side = strangled(table({"url": address(server)}), identify=identify, identity=TOKENS)
        assert side.ask("/who/x", headers=(*USER, (b"Cookie", b"a=1; " + OWN))).status == 200
        side.close()
    assert b"secret" not in server.heads[0]


WITHHELD = {  # settings, target -> whether the session cookie and one named `mine` are withheld
    "by default, of routes that say who the user is": ({}, "/who/x", (True, False)),
    "by default, of no other": ({}, "/m/x", (False, False)),
    "named, of all": ({"session_cookies": ["mine"]}, "/m/x", (False, True)),
    "named, instead of the known ones": ({"session_cookies": ["mine"]}, "/who/x", (False, True)),
    "none": ({"session_cookies": []}, "/who/x", (False, False)),
}


@pytest.mark.parametrize(("settings", "target", "withheld"), WITHHELD.values(), ids=WITHHELD)
def test_which_cookies_stay_here(strangled, settings, target, withheld):
    (found,) = sent_cookies(strangled, [b"a=1; sessionid=s; mine=m"], target, **settings)
    assert [name not in found for name in (b"sessionid=", b"mine=")] == list(withheld)


SET_COOKIES = {  # what an upstream sets -> whether it reaches the client
    "another": (b"a=1; Path=/; HttpOnly", True),
    "ours": (b"sessionid=evil; Path=/", False),
    "ours, with blanks": (b" \tsessionid \t= evil", False),
    "ours, without a value": (b"sessionid=", False),
    "ours, deleted": (b'sessionid=""; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0', False),
    "ours, for another path": (b"sessionid=evil; Path=/other; Domain=example", False),
    "without a name, which browsers send as ours": (b"=sessionid=evil", False),
    "without a name, with blanks": (b" = \tsessionid=evil; Path=/", False),
    "a longer name": (b"sessionid2=1", True),
    "as a value": (b"a=sessionid", True),
    "an attribute named like it": (b"a=1; sessionid=1", True),
}


@pytest.mark.parametrize(("said", "crosses"), SET_COOKIES.values(), ids=SET_COOKIES)
def test_an_upstream_does_not_set_a_session_cookie(strangled, said, crosses):
    wire = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: %b\r\nSET-COOKIE: b=2\r\n\r\n" % said)
    with ScriptedUpstream([forever(head(), send(wire))]) as server:
        side = strangled(table({"url": address(server)}), identify=identify, identity=TOKENS)
        seen = side.ask("/who/x", headers=USER)
        other = side.ask("/m/x", headers=USER)
        side.close()
    assert [c.strip() for c in seen.all(b"set-cookie")] == ([said.strip()] if crosses else []) + [b"b=2"]
    assert len(other.all(b"set-cookie")) == 2


# --- keys


def test_a_published_key_is_public(strangled):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    made = [Ed25519PrivateKey.generate() for _ in range(2)]
    pems = [k.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode() for k in made]
    keys = [SigningKey(id=f"k{i}", pem=pem) for i, pem in enumerate(pems)]
    signed = IdentityTokens(algorithm="EdDSA", keys=keys, jwks_path="/.well-known/jwks.json")
    with ScriptedUpstream(SERVE) as server:
        side = strangled(table({"url": address(server)}), identify=identify, identity=signed)
        seen = side.ask("/.well-known/jwks.json", headers=((b"cookie", OWN),))
        assert side.ask("/who/x", headers=USER).status == 200
        side.close()
    published = json.loads(seen.body)
    assert [k["kid"] for k in published["keys"]] == ["k0", "k1"]
    assert not any("d" in k for k in published["keys"])
    assert (seen.status, seen.header(b"content-type")) == (200, b"application/jwk-set+json")
    assert seen.header(b"cache-control") == b"public, max-age=300"
    (token,) = tokens(fields(server.heads[0]))
    assert Verifier("orders", keys=published).verify(token, method="GET", path="/who/x").subject == "7"
