"""What the tests of identity share: keys, a clock that stands, minters, and tokens made by hand."""

from __future__ import annotations

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from strangle_mw.core.identity import Identity
from strangle_mw.core.settings import IdentityTokens, SigningKey
from strangle_mw.identity.minting import make_minter

NOW = 1_800_000_000
SECRET = "0123456789abcdef0123456789abcdef"
OTHER = "another secret of thirty-two byte"
USER = Identity("42")
REQUEST = {"method": "GET", "path": "/v1/orders", "query": "page=2"}


def clock():
    return NOW


def pem(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()).decode()


def public_pem(private):
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(private.encode(), None)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


EC, EC_NEXT = (pem(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
ED, ED_NEXT = (pem(ed25519.Ed25519PrivateKey.generate()) for _ in range(2))
P384 = pem(ec.generate_private_key(ec.SECP384R1()))
ENCRYPTED = pem(ec.generate_private_key(ec.SECP256R1()), BestAvailableEncryption(b"x"))
PEMS = {"ES256": (EC, EC_NEXT), "EdDSA": (ED, ED_NEXT)}


def mint_of(upstreams=("orders",), **settings):
    """Make a minter; without other settings one with a secret for each upstream."""
    settings = settings or {"secrets": dict.fromkeys(upstreams, SECRET)}
    return make_minter(IdentityTokens(**settings), upstreams, clock=clock)


def keyed(algorithm, **pems):
    return mint_of(algorithm=algorithm, keys=[SigningKey(id=k, pem=v) for k, v in pems.items()])


def token(
    minter=None, upstream="orders", identity=USER, *, method="GET", path=b"/v1/orders", query=b"page=2"
):
    return (minter or mint_of().minter).mint(upstream, identity, method, path, query)


def forge(without=(), *, secret=SECRET, header=None, **claims):
    """Make a token by hand: a good one but for what is given."""
    good = jwt.decode(token(), options={"verify_signature": False})
    payload = {k: v for k, v in {**good, **claims}.items() if k not in without}
    fields = {"typ": "strangle+jwt", "alg": "HS256", **(header or {})}
    return jwt.PyJWS().encode(jwt.PyJWT()._encode_payload(payload), secret, fields["alg"], fields)
