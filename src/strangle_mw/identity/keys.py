"""What both sides of an identity token share: its size, its digest of a query, and keys of every form.

Keys become what PyJWT and cryptography want. Every error is a `ValueError` whose text says what to do, and
holds nothing of the key. Which key is used when is the business of `minting`, `verifying` and `remote`.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST_TOKEN: Final = 8192
"""Bytes of a token: more is neither minted nor read, and few servers take longer header fields."""

SHORTEST_SECRET: Final = 32
"""Bytes that a secret needs for HS256 (RFC 7518 section 3.2)."""

EXTRA: Final = "needs PyJWT and cryptography: pip install 'strangle-mw[identity]'"
"""What is told if the packages are not there."""

_KINDS: Final = {"ES256": "EC key on P-256", "EdDSA": "Ed25519 key"}
_CURVES: Final = {"EC P-256": "ES256", "OKP Ed25519": "EdDSA"}
_MAKE: Final = {
    "ES256": "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
    "EdDSA": "openssl genpkey -algorithm ed25519",
}


def b64(data: bytes) -> bytes:
    """Return base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=")


def digest(query: bytes) -> str:
    """Return `htq` of a query: its SHA-256 in base64url."""
    return b64(sha256(query).digest()).decode()


class Key(NamedTuple):
    """A key that is ready for use, and the one algorithm that it is used with (RFC 8725 section 3.1).

    `algorithm` is its name (`alg`), `worker` PyJWT's object for it, `material` what that works with.
    """

    algorithm: str
    worker: Any
    material: Any


def secret_key(secret: str | bytes) -> Key:
    """Read the secret of HS256."""
    data = secret.encode() if isinstance(secret, str) else secret
    if len(data) < SHORTEST_SECRET:
        raise ValueError(f"is too short: {SHORTEST_SECRET} bytes or more, as of `openssl rand -hex 32`")
    _require()
    return _checked("HS256", data, "is a key or a certificate, not a secret; for keys use ES256 or EdDSA")


def private_key(pem: bytes, algorithm: str) -> Key:
    """Read a private key in PEM; it must be of the kind that the algorithm needs, and not encrypted."""
    _require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if b"-----BEGIN PUBLIC" in pem or b"-----BEGIN CERT" in pem:
        raise ValueError("is a public key; tokens are signed with the private one")
    try:
        found = load_pem_private_key(pem, password=None)
    except TypeError:
        raise ValueError("is encrypted; give the key without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"is no private key in PEM, as of `{_MAKE[algorithm]}`") from None
    return _of_kind(found, algorithm)


def public_key(pem: str | bytes) -> Key:
    """Read a public key in PEM: Ed25519, or EC on P-256."""
    _require()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = pem.encode() if isinstance(pem, str) else pem
    try:
        found = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is no public key in PEM, as of `openssl pkey -in key.pem -pubout`") from None
    return _of_kind(found, "EdDSA" if type(found).__name__.startswith("Ed") else "ES256")


def read_jwks(document: object) -> dict[str, Key]:
    """Read a key set (RFC 7517): key id -> key. Keys of other kinds or for other uses are passed over.

    A private key or a secret in it is refused together with the whole set: what is published is no secret.
    """
    found = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(found, list):
        raise ValueError("is no key set")  # noqa: TRY004 - the text of a document, not an argument's type
    keys = {}
    for jwk in found:
        if not isinstance(jwk, dict) or jwk.keys() & {"d", "k"}:
            raise ValueError("holds what is no public key")
        kid, algorithm = jwk.get("kid"), _CURVES.get(f"{jwk.get('kty')} {jwk.get('crv')}")
        fits = jwk.get("use", "sig") == "sig" and jwk.get("alg", algorithm) == algorithm
        if algorithm and fits and isinstance(kid, str):
            keys[kid] = _read_jwk(jwk, algorithm)
    return keys


def write_jwk(kid: str, key: Key) -> Mapping[str, str]:
    """Write the public half of a private key as a JWK (RFC 7517, RFC 8037)."""
    public = key.worker.to_jwk(key.material.public_key(), as_dict=True)
    return {**public, "kid": kid, "use": "sig", "alg": key.algorithm}


def _read_jwk(jwk: Mapping[str, Any], algorithm: str) -> Key:
    _require()
    from jwt import PyJWTError, get_algorithm_by_name

    worker = get_algorithm_by_name(algorithm)
    try:
        return Key(algorithm, worker, worker.from_jwk(dict(jwk)))
    except (PyJWTError, ValueError, TypeError):
        raise ValueError("holds a key that cannot be read") from None


def _of_kind(found: Any, algorithm: str) -> Key:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    kinds = (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey)
    curve = getattr(found, "curve", None)
    right = isinstance(curve, ec.SECP256R1) if algorithm == "ES256" else isinstance(found, kinds)
    if not right:
        raise ValueError(f"is no {_KINDS[algorithm]}, which {algorithm} needs")
    return _checked(algorithm, found, "cannot be used")


def _checked(algorithm: str, material: object, refusal: str) -> Key:
    import jwt

    worker = jwt.get_algorithm_by_name(algorithm)
    try:
        return Key(algorithm, worker, worker.prepare_key(material))
    except jwt.InvalidKeyError:
        raise ValueError(refusal) from None


def _require() -> None:
    """Say what to install, if it is not there."""
    try:
        import cryptography  # noqa: F401
        import jwt  # noqa: F401
    except ModuleNotFoundError:
        raise ImportError(EXTRA) from None
