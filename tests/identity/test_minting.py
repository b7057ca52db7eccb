import json
import sys

import jwt
import pytest

from identity.tokens import (
    EC,
    ED,
    ENCRYPTED,
    NOW,
    OTHER,
    P384,
    PEMS,
    SECRET,
    USER,
    clock,
    keyed,
    mint_of,
    public_pem,
    token,
)
from strangle_mw import Identity, IdentityTokens, SigningKey
from strangle_mw.identity.keys import LARGEST_TOKEN
from strangle_mw.identity.minting import make_minter

NO_TIMES = {"verify_iat": False, "verify_exp": False}  # the clock of these tests stands
KEYS = "strangle.identity.keys"
SECRETS = "strangle.identity.secrets"


def key(**fields):
    return {"algorithm": "ES256", "keys": [SigningKey(**{"id": "a", **fields})]}


WRONG = [
    ({}, f"{SECRETS}.orders", 'is missing; give a secret of its own, like orders = "env:ORDERS_SECRET"'),
    ({"secrets": {"orders": "x" * 31}}, f"{SECRETS}.orders", "is too short: 32 bytes or more"),
    ({"secrets": {"orders": "env:STRANGLE_NOT_SET"}}, f"{SECRETS}.orders", "no variable STRANGLE_NOT_SET"),
    ({"secrets": {"orders": "env:STRANGLE_EMPTY"}}, f"{SECRETS}.orders", "no variable STRANGLE_EMPTY"),
    ({"secrets": {"orders": EC}}, f"{SECRETS}.orders", "is a key or a certificate, not a secret"),
    ({"secrets": {"orders": SECRET, "leads": "short"}}, f"{SECRETS}.leads", "is too short"),
    ({"secrets": {"orders": SECRET}, "keys": [SigningKey(id="a", pem=EC)]}, KEYS, "HS256 uses `secrets`"),
    ({**key(pem=EC), "secrets": {"orders": SECRET}}, SECRETS, "ES256 uses `keys`"),
    ({"algorithm": "EdDSA"}, KEYS, "is empty; EdDSA needs a private key"),
    (key(), f"{KEYS}[0].pem", "give either `file` or `pem`"),
    (key(file="key.pem", pem=EC), f"{KEYS}[0].file", "give either `file` or `pem`"),
    (key(file="/nowhere/key.pem"), f"{KEYS}[0].file", "cannot be read: No such file or directory"),
    (key(file="/"), f"{KEYS}[0].file", "cannot be read: Is a directory"),
    (key(pem="env:STRANGLE_NOT_SET"), f"{KEYS}[0].pem", "no variable STRANGLE_NOT_SET"),
    (key(pem=ED), f"{KEYS}[0].pem", "is no EC key on P-256, which ES256 needs"),
    (key(pem=P384), f"{KEYS}[0].pem", "is no EC key on P-256, which ES256 needs"),
    ({**key(pem=EC), "algorithm": "EdDSA"}, f"{KEYS}[0].pem", "is no Ed25519 key, which EdDSA needs"),
    (key(pem=public_pem(EC)), f"{KEYS}[0].pem", "is a public key; tokens are signed with the private one"),
    (key(pem=ENCRYPTED), f"{KEYS}[0].pem", "is encrypted; give the key without a passphrase"),
    (key(pem="hunter2"), f"{KEYS}[0].pem", "is no private key in PEM, as of `openssl genpkey"),
    (key(pem=EC.replace("M", "hunter2", 1)), f"{KEYS}[0].pem", "is no private key in PEM"),
    (key(id="", pem=EC), f"{KEYS}[0].id", "must not be empty"),
    (
        {"algorithm": "ES256", "keys": [SigningKey(id="a", pem=EC), SigningKey(id="a", pem=EC)]},
        f"{KEYS}[1].id",
        "is used twice",
    ),
    *[
        ({"secrets": {"orders": SECRET}, "lifetime": wrong}, "strangle.identity.lifetime", "more than 0 and at most 60")
        for wrong in (0, -1, 60.1, float("nan"))
    ],
    ({"secrets": {"orders": SECRET}, "issuer": ""}, "strangle.identity.issuer", "must not be empty"),
    ({"secrets": {"orders": SECRET}, "jwks_path": "/keys"}, "strangle.identity.jwks_path", "secrets are not published"),
    ({**key(pem=EC), "jwks_path": "/*"}, "strangle.identity.jwks_path", "must be one path"),
    ({**key(pem=EC), "jwks_path": "keys"}, "strangle.identity.jwks_path", "must start with a slash: '/keys'"),
    *[
        ({"secrets": {"orders": SECRET}, "origins": [wrong]}, "strangle.identity.origins[0]", f"not '{wrong}'")
        for wrong in ("app.example.com", "https://a.example/", "https://A.example", "*", "null")
    ],
]  # fmt: skip


@pytest.mark.parametrize(("settings", "where", "what"), WRONG)
def test_each_wrong_setting_is_told_at_its_place(settings, where, what, monkeypatch):
    monkeypatch.setenv("STRANGLE_EMPTY", "")
    minter, jwks, problems = make_minter(IdentityTokens(**settings), ["orders"])
    assert (minter, jwks) == (None, b"")
    assert [p.where for p in problems] == [where]
    assert what in problems[0].what
    assert problems[0].id.startswith("identity-")
    assert not [part for part in ("hunter2", EC.splitlines()[1], SECRET) if part in str(problems)]


def test_all_problems_are_told_at_once():
    settings = IdentityTokens(lifetime=0, issuer="", origins=["x"], secrets={"leads": "y"})
    found = [p.where for p in make_minter(settings, ["orders"]).problems]
    assert len(found) == len(set(found)) == 5


def test_without_the_packages_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "jwt", None)
    (problem,) = mint_of().problems
    assert str(problem).endswith("pip install 'strangle-mw[identity]' (identity-extra)")


def test_a_token_says_who_asks_for_what():
    minter = mint_of().minter
    found = token(
        minter, identity=Identity("42", {"roles": ["staff"], "name": "Zoë"}), path=b"/v1/%C3%A9%2Fx"
    )
    assert jwt.get_unverified_header(found) == {"alg": "HS256", "typ": "strangle+jwt"}
    claims = jwt.decode(found, SECRET, ["HS256"], audience="orders", options=NO_TIMES)
    assert len(claims.pop("jti")) == 32
    assert claims == {
        "iss": "strangle-mw",
        "sub": "42",
        "aud": "orders",
        "iat": NOW,
        "exp": NOW + 30,
        "htm": "GET",
        "htu": "/v1/%C3%A9%2Fx",
        "htq": "vHx-sK0K_ewiqYruZDfCG6aMyeYO7hYmjulG_6u-r1E",
        "roles": ["staff"],
        "name": "Zoë",
    }


def test_without_a_query_there_is_no_digest_and_no_id_is_used_twice():
    minter = mint_of().minter
    found = [jwt.decode(token(minter, query=b""), options={"verify_signature": False}) for _ in range(20)]
    assert all("htq" not in claims for claims in found)
    assert len({claims["jti"] for claims in found}) == 20


def test_an_id_that_is_no_text_becomes_text_and_a_part_of_a_second_counts_as_one():
    minter = mint_of(secrets={"orders": SECRET}, lifetime=0.2, issuer="shop").minter
    claims = jwt.decode(token(minter, identity=Identity(7)), options={"verify_signature": False})
    assert (claims["sub"], claims["exp"] - claims["iat"], claims["iss"]) == ("7", 1, "shop")


@pytest.mark.parametrize("algorithm", PEMS)
def test_the_first_key_signs_and_all_are_published_without_their_private_part(algorithm):
    first, second = PEMS[algorithm]
    mint = keyed(algorithm, new=first, old=second)
    found = token(mint.minter)
    assert jwt.get_unverified_header(found) == {"alg": algorithm, "kid": "new", "typ": "strangle+jwt"}
    published = jwt.PyJWKSet.from_json(mint.jwks.decode())
    claims = jwt.decode(found, published["new"], audience="orders", options=NO_TIMES)
    assert claims["sub"] == "42"
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(found, published["old"], audience="orders")
    for jwk in json.loads(mint.jwks)["keys"]:
        assert {"d", "k"}.isdisjoint(jwk)
        assert (jwk["alg"], jwk["use"]) == (algorithm, "sig")


def test_secrets_and_keys_come_from_the_environment_or_from_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("ORDERS_SECRET", OTHER)
    monkeypatch.setenv("SIGNING_KEY", ED)
    (tmp_path / "key.pem").write_text(ED)
    assert jwt.decode(
        token(mint_of(secrets={"orders": "env:ORDERS_SECRET"}).minter), OTHER, ["HS256"],
        audience="orders", options=NO_TIMES,
    )  # fmt: skip
    given = [SigningKey(id="a", pem="env:SIGNING_KEY"), SigningKey(id="b", file=str(tmp_path / "key.pem"))]
    one, two = json.loads(mint_of(algorithm="EdDSA", keys=given).jwks)["keys"]
    assert one["x"] == two["x"]


def test_secrets_are_not_shown():
    tokens = IdentityTokens(secrets={"orders": SECRET}, keys=[SigningKey(id="a", pem=EC)])
    assert SECRET not in repr((tokens, mint_of()))
    assert EC.splitlines()[1] not in repr(tokens)


class Opaque:
    def __repr__(self):
        return "hunter2"


def deep():
    found = []
    for _ in range(100_000):
        found = [found]
    return found


REFUSED = [
    ({"sub": "1"}, "these claims are the library's own: sub"),
    ({"aud": "x", "nbf": 1}, "the library's own: aud, nbf"),
    ({"x": Opaque()}, "cannot be used: TypeError"),
    ({"x": float("nan")}, "cannot be used: ValueError"),
    ({"x": b"bytes"}, "cannot be used: TypeError"),
    ({"x": {1, 2}}, "cannot be used: TypeError"),
    ({"x": deep()}, "cannot be used: RecursionError"),
    ({("a", "b"): 1}, "cannot be used: TypeError"),
    ({"x": "y" * LARGEST_TOKEN}, f"more than {LARGEST_TOKEN} bytes"),
    (None, "cannot be used: TypeError"),
]


@pytest.mark.parametrize(("claims", "what"), REFUSED)
@pytest.mark.parametrize("by", ["identity", "callback"])
def test_claims_that_cannot_be_sent_are_refused(claims, what, by):
    if by == "callback":
        minter = mint_of(secrets={"orders": SECRET}, claims=lambda _: claims).minter
        identity = USER
    else:
        minter = mint_of(secrets={"orders": SECRET}, claims=lambda _: {}).minter
        identity = Identity("42", claims)
    with pytest.raises(ValueError, match=what) as caught:
        token(minter, identity=identity)
    assert "hunter2" not in str(caught.value)


def test_the_callback_gets_the_identity_and_goes_before_its_claims():
    def claims(identity):
        return {"name": identity.user.title(), "plan": "new"}

    minter = mint_of(secrets={"orders": SECRET}, claims=claims).minter
    found = token(minter, identity=Identity("42", {"plan": "old", "a": 1}, user="zoe"))
    found = jwt.decode(found, options={"verify_signature": False})
    assert (found["name"], found["plan"], found["a"]) == ("Zoe", "new", 1)
    none = token(mint_of(secrets={"orders": SECRET}, claims=lambda _: {}).minter)
    assert jwt.decode(none, options={"verify_signature": False})["sub"] == "42"
    broken = mint_of(
        secrets={"orders": SECRET}, claims=lambda identity: {"name": identity.user.title()}
    ).minter
    with pytest.raises(ValueError, match="cannot be used: AttributeError"):
        token(broken)


def test_each_upstream_has_its_own_secret():
    minter = make_minter(
        IdentityTokens(secrets={"orders": SECRET, "leads": OTHER}), ["orders", "leads"], clock=clock
    ).minter
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token(minter, "leads"), SECRET, ["HS256"], audience="leads")
