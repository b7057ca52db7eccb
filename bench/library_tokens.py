"""What `library` is for identity tokens: the names of strangle-mw, and those of PyJWT beside it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from strangle_mw import IdentityTokens
    from strangle_mw.core.identity import Minter

UPSTREAM = "orders"
SECRET = "0123456789abcdef0123456789abcdef"
PATH, METHOD = b"/orders/7", "GET"


@lru_cache
def _pem(algorithm: str) -> tuple[str, str]:
    """Return a new private key and its public one."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    private: Any = (
        ec.generate_private_key(ec.SECP256R1())
        if algorithm == "ES256"
        else ed25519.Ed25519PrivateKey.generate()
    )
    pem = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = private.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    return pem.decode(), public.decode()


def _tokens(algorithm: str) -> IdentityTokens:
    from strangle_mw import IdentityTokens, SigningKey

    if algorithm == "HS256":
        return IdentityTokens(secrets={UPSTREAM: SECRET})
    pem, _ = _pem(algorithm)
    return IdentityTokens(algorithm=algorithm, keys=[SigningKey(id="1", pem=pem)])  # type: ignore[arg-type]


def _minter(algorithm: str) -> Minter:
    from strangle_mw.identity.minting import make_minter

    minter, _, problems = make_minter(_tokens(algorithm), [UPSTREAM])
    if minter is None:
        raise RuntimeError("; ".join(map(str, problems)))
    return minter


def telling(algorithm: str, *, withheld: bool) -> Callable[[dict[str, Any]], object]:
    """Return `decision.prepare` over one route that forwards, with a token if an algorithm is given."""
    from strangle_mw.asgi_head import HTTP
    from strangle_mw.config import load
    from strangle_mw.core.decision import Forward, prepare
    from strangle_mw.identity.minting import make_minter

    table = {
        "upstreams": {UPSTREAM: {"url": "http://orders"}},
        "routes": [{"path": "/orders/*", "to": UPSTREAM, "identity": bool(algorithm)}],
    }
    snapshot = load(
        table,
        identify=lambda head: head.path.decode() if algorithm else None,
        identity=_tokens(algorithm) if algorithm else None,
        session_cookies=["sessionid", "csrftoken"] if withheld else [],
        mint=make_minter,
    )

    def decide(scope: dict[str, Any]) -> object:
        found = prepare(snapshot, scope["method"], scope["raw_path"], scope["path"], scope, HTTP)
        if not isinstance(found, Forward):
            raise TypeError(f"not forwarded: {found!r}")
        return found

    return decide


def minting(algorithm: str) -> Callable[[str], bytes]:
    """Return what makes a token for a user."""
    from strangle_mw import Identity

    minter = _minter(algorithm)
    return lambda user: minter.mint(UPSTREAM, Identity(user), METHOD, PATH, b"")


def verifying(algorithm: str) -> Callable[[bytes], object]:
    """Return what checks a token."""
    from strangle_mw.identity import Verifier

    given: dict[str, Any] = (
        {"secrets": [SECRET]} if algorithm == "HS256" else {"keys": {"1": _pem(algorithm)[1]}}
    )
    verifier = Verifier(UPSTREAM, **given)
    return lambda token: verifier.verify(token, method=METHOD, path=PATH)


def encoding() -> Callable[[str], str]:
    """Return `jwt.encode` of as many claims."""
    from os import urandom
    from time import time

    import jwt

    def encode(user: str) -> str:
        now = int(time())
        claims = {"iss": "strangle-mw", "sub": user, "aud": UPSTREAM, "iat": now, "exp": now + 30}
        more = {"jti": urandom(16).hex(), "htm": METHOD, "htu": PATH.decode()}
        return jwt.encode({**claims, **more}, SECRET, "HS256", {"typ": "strangle+jwt"})

    return encode
