import json

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from identity.services import KINDS, Asked, talk, tell, verifier
from identity.tokens import NOW, OTHER, SECRET, forge, token
from strangle_mw.identity.asgi import IdentityMiddleware
from strangle_mw.identity.django import identity_middleware

HEADER = "Strangle-Identity"


@pytest.fixture(params=KINDS)
def ask(request):
    return KINDS[request.param]


def good(target="/v1/orders?page=2", method="GET"):
    path, _, query = target.partition("?")
    return token(method=method, path=path.encode("latin-1"), query=query.encode("latin-1")).decode()


@pytest.mark.parametrize(
    ("target", "prefix"),
    [
        ("/v1/orders?page=2", ""),
        ("/", ""),
        ("/?a=%2F&b=%C3%A9", ""),
        ("/v1/a%2Fb%20c;d=1", ""),
        ("/v1/%C3%A9%E2%82%AC", ""),
        ("/v1/a%25b", ""),
        ("/shop/v1/orders?page=2", "/shop"),
        ("/shop/", "/shop"),
    ],
)
def test_the_service_sees_who_asks(ask, target, prefix):
    answer = ask(Asked(target, [(HEADER, good(target))], prefix=prefix), required=True)
    assert (answer.status, answer.json()) == (200, {"user": "42"})


def test_a_path_that_is_no_text_is_compared_where_the_framework_has_kept_it(ask):
    answer = ask(Asked("/v1/%FF", [(HEADER, good("/v1/%FF"))]))
    # Django under WSGI writes what is no UTF-8 as "%FF", which could as well have been "%25FF".
    assert answer.status == (401 if ask is KINDS["django-wsgi"] else 200)


def test_unsafe_methods_are_nothing_special(ask):
    asked = Asked("/v1/orders?page=2", [(HEADER, good(method="POST"))], method="POST")
    assert ask(asked).json() == {"user": "42"}


def test_nobody_may_pass_unless_a_user_is_required(ask):
    assert ask(Asked("/v1/orders")).json() == {"user": None}
    answer = ask(Asked("/v1/orders"), required=True)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Strangle-Identity"


BAD = [
    ([(HEADER, "")], "malformed"),
    ([(HEADER, "42")], "malformed"),
    ([(HEADER, "x" * 10_000)], "malformed"),
    ([(HEADER, "\xe9.\xe9.\xe9")], "malformed"),
    ([(HEADER, good()), (HEADER, good())], "malformed"),
    ([(HEADER, good()), (HEADER, "")], "malformed"),
    ([(HEADER, good() + ", " + good())], "malformed"),
    ([(HEADER, "Bearer " + good())], "malformed"),
    ([(HEADER, forge(secret=OTHER))], "signature"),
    ([(HEADER, forge(aud="leads"))], "audience"),
    ([(HEADER, forge(iat=NOW - 60, exp=NOW - 30))], "expired"),
    ([(HEADER, good("/v1/orders"))], "request"),
    ([(HEADER, good("/v1/other?page=2"))], "request"),
    ([(HEADER, good(method="POST"))], "request"),
]


@pytest.mark.parametrize(("headers", "reason"), BAD)
def test_a_bad_token_is_401_even_where_nobody_may_pass(ask, headers, reason):
    answer = ask(Asked("/v1/orders?page=2", headers))
    assert answer.status == 401
    assert answer.json() == {
        "type": f"urn:strangle-mw:identity-{reason}",
        "title": "Unauthorized",
        "status": 401,
    }
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["www-authenticate"] == "Strangle-Identity"


@pytest.mark.parametrize("other", ["Authorization", "X-Strangle-Identity", "Strangle-Identity-", "Identity"])
def test_no_other_header_says_who_asks(ask, other):
    assert ask(Asked("/v1/orders?page=2", [(other, good())])).json() == {"user": None}


def test_a_token_for_another_request_may_be_allowed(ask):
    asked = Asked("/v1/orders?page=3", [(HEADER, good())])
    assert ask(asked, match_request=False).json() == {"user": "42"}


def test_while_the_keys_cannot_be_had_it_is_503(ask):
    headers = [(HEADER, forge(header={"kid": "a"}))]
    answer = ask(Asked("/v1/orders?page=2", headers), secrets=(), jwks_url="http://127.0.0.1:9/keys")
    assert (answer.status, answer.headers["retry-after"]) == (503, "10")
    assert answer.json()["type"] == "urn:strangle-mw:identity-keys"


def test_what_is_refused_is_logged_without_the_token(ask, caplog):
    caplog.set_level("INFO", "strangle_mw")
    ask(Asked("/v1/orders?page=2", [(HEADER, forge(secret=OTHER))]))
    assert [r.getMessage() for r in caplog.records if r.name == "strangle_mw"] == [
        "identity refused: signature"
    ]


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, "audience"),
        ({"audience": "orders"}, "give one of `secrets`, `keys` and `jwks_url`"),
        ({"audience": "orders", "secrets": "x"}, "secrets is too short"),
        ({"audience": "orders", "secret": SECRET}, "secret"),
    ],
)
def test_wrong_settings_of_django_are_told(given, what):
    with override_settings(STRANGLE_VERIFY=given), pytest.raises(ImproperlyConfigured, match=what):
        identity_middleware(lambda _: None)


# --- WebSockets, and what is neither


def websocket(headers=(), **more):
    scope = {k: v for k, v in Asked("/live", headers).scope().items() if k != "method"}
    return {**scope, "type": "websocket", **more}


async def seen(scope, _receive, send):
    await send({"type": "test", **tell(scope["strangle_identity"])})


def test_a_websocket_is_a_get():
    app = IdentityMiddleware(seen, verifier({}))
    assert talk(app, websocket([(HEADER, good("/live"))])) == [{"type": "test", "user": "42"}]
    assert talk(app, websocket()) == [{"type": "test", "user": None}]


def test_a_refused_websocket_is_not_accepted():
    app = IdentityMiddleware(seen, verifier({}), required=True)
    assert talk(app, websocket()) == [{"type": "websocket.close", "code": 1008}]
    start, body = talk(app, websocket(extensions={"websocket.http.response": {}}))
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert json.loads(body["body"])["type"] == "urn:strangle-mw:identity-anonymous"


def test_lifespans_pass_untouched():
    scope, passed = {"type": "lifespan"}, []

    async def app(scope, *_):
        passed.append(scope)

    talk(IdentityMiddleware(app, verifier({}), required=True), scope)
    assert passed[0] is scope


def test_the_state_of_one_request_is_not_that_of_the_next():
    shared = {"db": 1}

    async def app(scope, *_):
        assert scope["state"] == {"db": 1, "strangle_identity": None}

    talk(IdentityMiddleware(app, verifier({})), {**Asked("/").scope(), "state": shared})
    assert shared == {"db": 1}
