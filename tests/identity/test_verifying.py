import asyncio
import json
import re
import sys
from typing import get_args

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity.tokens import (
    EC,
    EC_NEXT,
    ED,
    ED_NEXT,
    NOW,
    OTHER,
    P384,
    REQUEST,
    SECRET,
    clock,
    forge,
    keyed,
    mint_of,
    public_pem,
    token,
)
from strangle_mw.core.identity import RESERVED, Identity
from strangle_mw.identity import IdentityError, Verifier, verify
from strangle_mw.identity.keys import b64
from strangle_mw.identity.verifying import Reason

PUBLIC = public_pem(EC)


def verifier(**settings):
    return Verifier("orders", **{"secrets": SECRET, "clock": clock, **settings})


def with_keys(**settings):
    return Verifier("orders", clock=clock, **settings)


def refused(by, found, **request):
    with pytest.raises(IdentityError) as caught:
        by.verify(found, **{**REQUEST, **request})
    assert str(caught.value) == f"identity refused: {caught.value.reason}"
    return caught.value.reason


def test_a_good_token_names_the_user():
    found = verifier().verify(token(identity=Identity("42", {"roles": ["a"]})), **REQUEST)
    assert (found.subject, found.claims["roles"], found.claims["aud"]) == ("42", ["a"], "orders")


def unsigned():
    head, body, _ = forge().split(".")
    return [f"{head}.{body}.", jwt.encode({"sub": "42"}, None, "none", {"typ": "strangle+jwt"})]


def confused():
    """The public key, which everybody may have, taken for a secret (RFC 8725 section 2.1)."""
    worker = jwt.get_algorithm_by_name("HS256")
    head, body, _ = forge(header={"kid": "a"}).split(".")
    signed = f"{head}.{body}"
    return f"{signed}.{b64(worker.sign(signed.encode(), PUBLIC.encode())).decode()}"


def raw_payload(payload, secret=SECRET):
    return jwt.PyJWS().encode(payload, secret, "HS256", {"typ": "strangle+jwt"})


GARBAGE = [
    "",
    ".",
    "..",
    "...",
    "x",
    "a.b.c",
    "é.é.é",
    "null",
    *unsigned(),
    token().decode() + "=",
    token().decode() + "," + token().decode(),
    token().decode() + "\n",
    " " + token().decode(),
    token().decode().replace(".", "..", 1),
    "x" * 8193,
    forge(x="y" * 8192),
    raw_payload(b"no JSON"),
    raw_payload(b"[1]"),
    raw_payload(b"\xff"),
    raw_payload(b"[" * 4000),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_no_token(garbage):
    assert refused(verifier(), garbage) == "malformed"
    assert refused(verifier(), garbage.encode("utf-8")) == "malformed"


REFUSALS = [
    (forge(header={"typ": "JWT"}), "type"),
    (forge(header={"typ": "STRANGLE+JWT"}), "type"),
    (forge(header={"typ": ""}), "type"),
    (forge(header={"crit": ["x"], "x": 1}), "malformed"),
    (forge(header={"jku": "https://evil.example/keys"}), "malformed"),
    (forge(header={"jwk": {"kty": "oct", "k": "eA"}}), "malformed"),
    (forge(header={"alg": "HS512"}, secret=SECRET * 2), "algorithm"),
    (forge(header={"alg": "ES256"}, secret=EC), "algorithm"),
    (forge(secret=OTHER), "signature"),
    (forge(secret=SECRET.upper()), "signature"),
    (forge(aud="leads"), "audience"),
    (forge(aud="ORDERS"), "audience"),
    (forge(iss="other"), "issuer"),
    *[(forge(without=[name]), "claims") for name in ("iss", "sub", "aud", "iat", "exp", "jti", "htm", "htu")],
    *[(forge(**{name: 1}), "claims") for name in ("sub", "jti", "htm", "htu")],
    *[(forge(**{name: ""}), "claims") for name in ("sub", "jti", "htu")],
    *[(forge(**{name: value}), "claims") for name in ("iat", "exp") for value in ("1", True, None, [NOW])],
    (forge(aud=["orders"]), "claims"),
    (forge(sub=None), "claims"),
    (forge(exp=NOW + 61), "lifetime"),
    (forge(exp=NOW), "lifetime"),
    (forge(exp=NOW - 5), "lifetime"),
    (forge(exp=float("nan")), "lifetime"),
    (forge(exp=float("inf")), "lifetime"),
    (forge(iat=float("nan")), "lifetime"),
    (forge(iat=-(10**400), exp=-(10**400) + 30), "expired"),
    (forge(iat=10**400, exp=10**400 + 30), "not-yet"),
    (forge(iat=-(10**400)), "lifetime"),
    (forge(iat=NOW - 60, exp=NOW - 20), "expired"),
    (forge(iat=NOW + 20, exp=NOW + 50), "not-yet"),
    (forge(htm="POST"), "request"),
    (forge(htu="/v1/orders/"), "request"),
    (forge(htu="/v1/Orders"), "request"),
    (forge(htu="/v1/\u20ac"), "request"),
    (forge(without=["htq"]), "request"),
    (forge(htq=""), "request"),
    (forge(htq=1), "request"),
]


@pytest.mark.parametrize(("found", "reason"), REFUSALS)
def test_every_wrong_token_is_refused_for_its_reason(found, reason):
    assert refused(verifier(leeway=10.0), found) == reason


def test_the_reasons_are_a_closed_set():
    told = {reason for _, reason in REFUSALS} | {
        "key",
        "keys",
        "anonymous",
    }  # the others: below, and elsewhere
    assert told == set(get_args(Reason))


OTHER_REQUESTS = [
    {"method": "POST"},
    {"method": "get"},
    {"method": ""},
    {"path": "/v1/orders/5"},
    {"path": "/v1//orders"},
    {"path": "/v1/%256frders"},
    {"path": "/v1/orders?page=2"},
    {"path": ""},
    {"path": "/\u20ac"},
    {"query": ""},
    {"query": "page=3"},
    {"query": "page=2&"},
    {"query": "page=%32"},
    {"query": "\u20ac"},
]


@pytest.mark.parametrize("other", OTHER_REQUESTS)
def test_a_token_is_for_one_request(other):
    assert refused(verifier(), token(), **other) == "request"
    assert verifier(match_request=False).verify(token(), **{**REQUEST, **other}).subject == "42"


def test_without_a_match_the_request_need_not_be_told():
    assert verifier(match_request=False).verify(token()).subject == "42"


SAME_PATHS = [
    (b"/a%2Fb", b"/a/b"),
    (b"/%61", b"/a"),
    (b"/%C3%A9", "/é".encode()),
    (b"/%c3%a9", b"/%C3%A9"),
    (b"/\xc3\xa9", b"/%C3%A9"),
    (b"/a%20b;c=1", b"/a%20b%3Bc%3D1"),
    (b"/%zz", b"/%25zz"),
]


@pytest.mark.parametrize(("sent", "seen"), SAME_PATHS)
def test_paths_are_compared_decoded_once(sent, seen):
    found = token(path=sent)
    assert verifier().verify(found, **{**REQUEST, "path": seen}).subject == "42"
    assert verifier().verify(found, **{**REQUEST, "path": seen.decode("latin-1")}).subject == "42"


@pytest.mark.parametrize("leeway", [0, 10, 30])
@pytest.mark.parametrize(
    ("off", "reason"),
    [(-1, None), (0, None), (29, None), (30, "expired"), (-2, "not-yet")],
)
def test_clocks_may_differ_by_the_leeway(leeway, off, reason):
    """A token of NOW - 1 to NOW + 29, looked at from either end."""
    now = NOW + off + (leeway if off > 0 else -leeway if off < 0 else 0)
    found = forge(iat=NOW - 1, exp=NOW + 30)
    by = verifier(leeway=leeway, clock=lambda: now)
    if reason is None:
        assert by.verify(found, **REQUEST).subject == "42"
    else:
        assert refused(by, found) == reason


def test_two_secrets_are_good_while_they_are_changed():
    by = verifier(secrets=[OTHER, SECRET.encode()])
    assert by.verify(forge(), **REQUEST).subject == by.verify(forge(secret=OTHER), **REQUEST).subject == "42"
    assert refused(by, forge(secret="x" * 32)) == "signature"


@pytest.mark.parametrize(
    ("algorithm", "new", "old", "wrong"),
    [("ES256", EC, EC_NEXT, "signature"), ("EdDSA", ED, ED_NEXT, "algorithm")],
)
def test_public_keys_are_given_in_pem_or_as_a_key_set(algorithm, new, old, wrong):
    mint = keyed(algorithm, new=new, old=old)
    for keys in ({"new": public_pem(new)}, json.loads(mint.jwks)):
        by = with_keys(keys=keys)
        assert by.verify(token(mint.minter), **REQUEST).subject == "42"
        assert refused(by, token(keyed(algorithm, other=new).minter)) == "key"
    assert refused(with_keys(keys={"new": public_pem(EC_NEXT)}), token(mint.minter)) in (
        "signature",
        "algorithm",
    )


def test_a_public_key_is_not_taken_for_a_secret():
    assert refused(with_keys(keys={"a": PUBLIC}), confused()) == "algorithm"


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, "give one of"),
        ({"secrets": SECRET, "keys": {"a": PUBLIC}}, "give one of"),
        ({"secrets": SECRET, "jwks_url": "https://h"}, "give one of"),
        ({"secrets": "short"}, "secrets is too short: 32 bytes or more"),
        ({"secrets": [SECRET, ""]}, "secrets is too short"),
        ({"secrets": PUBLIC}, "secrets is a key or a certificate"),
        ({"keys": {"a": EC}}, r"keys\['a'\] is no public key in PEM"),
        ({"keys": {"a": "x"}}, r"keys\['a'\] is no public key in PEM"),
        ({"keys": {"a": public_pem(P384)}}, r"keys\['a'\] is no EC key on P-256"),
        ({"keys": {"keys": [{"kty": "oct", "k": "eA", "kid": "a"}]}}, "keys holds what is no public key"),
        ({"keys": {"keys": ["x"]}}, "keys holds what is no public key"),
        ({"keys": {"keys": [{"kty": "RSA", "kid": "a"}]}}, "keys holds no key for ES256 or EdDSA"),
        ({"keys": {"keys": [{"kty": "EC", "crv": "P-256", "x": "", "y": "", "kid": "a"}]}}, "cannot be read"),
        ({"jwks_url": "file:///etc/passwd"}, "must start with https"),
        ({"secrets": SECRET, "leeway": 31}, "leeway must be 0..30 seconds"),
        ({"secrets": SECRET, "leeway": -1}, "leeway must be 0..30 seconds"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(given, what):
    with pytest.raises(ValueError, match=what) as caught:
        Verifier("orders", **given)
    assert not [part for part in (SECRET, EC.splitlines()[1]) if part in str(caught.value)]


def test_without_the_packages_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'strangle-mw[identity]'")):
        verifier()


def test_the_function_checks_one_token():
    found = token(mint_of_now())
    assert verify(found, audience="orders", secrets=SECRET, **REQUEST).subject == "42"
    with pytest.raises(IdentityError, match="audience"):
        verify(found, audience="leads", secrets=SECRET, **REQUEST)


def mint_of_now():
    from strangle_mw import IdentityTokens
    from strangle_mw.identity.minting import make_minter

    return make_minter(IdentityTokens(secrets={"orders": SECRET}), ["orders"]).minter


def test_waiting_is_only_for_keys_that_are_fetched():
    found = asyncio.run(verifier().averify(token(), **REQUEST))
    assert found.subject == "42"


# --- laws

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
CLAIMS = st.dictionaries(st.text(max_size=10).filter(lambda n: n not in RESERVED), JSON, max_size=3)
IDENTITIES = st.builds(
    Identity, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20), CLAIMS
)
PATHS = st.binary(max_size=20).map(lambda p: b"/" + p)
MINTERS = {
    "HS256": (
        mint_of(["orders", "leads"]).minter,
        verifier(),
        Verifier("leads", secrets=SECRET, clock=clock),
    ),
    **{
        algorithm: (
            keyed(algorithm, a=pem).minter,
            with_keys(keys={"a": public_pem(pem)}),
            Verifier("leads", keys={"a": public_pem(pem)}, clock=clock),
        )
        for algorithm, pem in (("ES256", EC), ("EdDSA", ED))
    },
}
ALGORITHMS = st.sampled_from(sorted(MINTERS))


@given(ALGORITHMS, IDENTITIES, st.sampled_from(["GET", "POST", "PURGE"]), PATHS, st.binary(max_size=20))
@settings(max_examples=60, deadline=None)
def test_what_is_minted_is_read_by_its_upstream_and_by_no_other(algorithm, identity, method, path, query):
    minter, own, other = MINTERS[algorithm]
    found = minter.mint("orders", identity, method, path, query)
    seen = own.verify(found, method=method, path=path, query=query)
    assert seen.subject == identity.subject
    assert {k: v for k, v in seen.claims.items() if k not in RESERVED} == identity.claims
    with pytest.raises(IdentityError, match="audience"):
        other.verify(found, method=method, path=path, query=query)


TOKENS = {algorithm: minter.mint("orders", Identity("42"), "GET", b"/v1/orders", b"page=2") for algorithm, (minter, _, _) in MINTERS.items()}  # fmt: skip


@given(ALGORITHMS, st.integers(0), st.sampled_from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=,+/ \x00\xff"))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_no_character_of_a_token_can_be_changed(algorithm, at, to):
    found = TOKENS[algorithm]
    at %= len(found)
    changed = found[:at] + bytes([to]) + found[at + 1 :]
    by = MINTERS[algorithm][1]
    if changed == found:
        assert by.verify(changed, **REQUEST).subject == "42"
    else:
        refused(by, changed)


@given(st.one_of(st.text(max_size=60), st.binary(max_size=60)))
@settings(max_examples=60, deadline=None)
def test_whatever_is_sent_only_ever_is_refused(garbage):
    assert refused(verifier(), garbage) == "malformed"
