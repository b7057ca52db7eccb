"""Mints the tokens of `Strangle-Identity`: from settings to a `Minter`, and every problem of them at once.

When a token is asked for, and for whom, is `core.decision`; what a key must be is `keys`. Minting is done
for each request, so all that stays the same is made once.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from msgspec.json import encode

from strangle_mw.core.identity import MAX_LIFETIME, RESERVED, TOKEN_TYPE, Mint, is_origin
from strangle_mw.errors import Problem
from strangle_mw.identity.keys import (
    EXTRA,
    LARGEST_TOKEN,
    Key,
    b64,
    digest,
    private_key,
    secret_key,
    write_jwk,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from strangle_mw.core.identity import Identity
    from strangle_mw.core.settings import IdentityTokens, SigningKey

_WHERE = "strangle.identity"


def make_minter(
    tokens: IdentityTokens, upstreams: Collection[str], *, clock: Callable[[], float] = time
) -> Mint:
    """Read the keys, and make what mints tokens for these upstreams.

    Reads files and the environment (`env:NAME`). Every problem is in the result, none is raised; with
    problems there is no minter. `clock` gives seconds since 1970.
    """
    problems = list(check_tokens(tokens))
    try:
        if tokens.algorithm == "HS256":
            secrets = _read_secrets(tokens, upstreams, problems)
            signers, jwks = {name: _Signer(key) for name, key in secrets.items()}, b""
        else:
            keys = _read_keys(tokens, problems)
            signers = dict.fromkeys(upstreams, *[_Signer(key, kid) for kid, key in keys.items()][:1])
            jwks = json.dumps({"keys": [write_jwk(kid, key) for kid, key in keys.items()]}).encode()
    except ImportError:
        problems = [Problem(_WHERE, EXTRA, "identity-extra")]
    if problems:
        return Mint(None, b"", problems)
    return Mint(TokenMinter(tokens, signers, clock), jwks)


class TokenMinter:
    """Mints tokens; one for each request, never kept (see `core.identity.Minter`)."""

    def __init__(
        self, tokens: IdentityTokens, signers: Mapping[str, _Signer], clock: Callable[[], float]
    ) -> None:
        self._issuer, self._callback = tokens.issuer, tokens.claims
        self._lifetime = math.ceil(tokens.lifetime)
        self._signers, self._clock = signers, clock

    def mint(self, upstream: str, identity: Identity, method: str, path: bytes, query: bytes) -> bytes:
        """Return a token for this upstream and request.

        Claims: RFC 7519 section 4.1; `htm` and `htu` after RFC 9449 section 4.2, `htu` being the path as it
        is sent, `htq` the digest of the query if there is one. Raises `ValueError` for further claims that
        are reserved, no JSON or too much.
        """
        now = int(self._clock())
        claims = {
            "iss": self._issuer,
            "sub": str(identity.subject),
            "aud": upstream,
            "iat": now,
            "exp": now + self._lifetime,
            "jti": os.urandom(16).hex(),
            "htm": method,
            "htu": path.decode("latin-1"),
        }
        if query:
            claims["htq"] = digest(query)
        payload = encode(claims)
        if identity.claims or self._callback is not None:
            payload = self._with_more(payload, identity)
        token = self._signers[upstream].sign(payload)
        if len(token) > LARGEST_TOKEN:
            raise ValueError(f"the claims make a token of more than {LARGEST_TOKEN} bytes")
        return token

    def _with_more(self, payload: bytes, identity: Identity) -> bytes:
        try:
            more = {**identity.claims, **(self._callback(identity) if self._callback else {})}
            text = _STRICT_JSON(more)
        except Exception as exc:
            raise ValueError(f"the claims cannot be used: {type(exc).__name__}") from exc
        if reserved := RESERVED & more.keys():
            raise ValueError(f"these claims are the library's own: {', '.join(sorted(reserved))}")
        return payload[:-1] + b"," + text[1:].encode() if more else payload


# Not msgspec: it writes NaN as null, and bytes, dates and sets as what the reader cannot tell from text.
_STRICT_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class _Signer:
    """Signs payloads with one key; the first part of each token is made once."""

    def __init__(self, key: Key, kid: str = "") -> None:
        header = {"alg": key.algorithm, **({"kid": kid} if kid else {}), "typ": TOKEN_TYPE}
        self._start = b64(encode(header)) + b"."
        self._sign, self._material = key.worker.sign, key.material

    def sign(self, payload: bytes) -> bytes:
        body = self._start + b64(payload)
        return body + b"." + b64(self._sign(body, self._material))


# --- settings


def check_tokens(tokens: IdentityTokens) -> Iterator[Problem]:
    """Find what is wrong with settings that are no keys."""
    if not 0 < tokens.lifetime <= MAX_LIFETIME:
        what = f"must be more than 0 and at most {MAX_LIFETIME} seconds"
        yield Problem(f"{_WHERE}.lifetime", what, "identity-lifetime")
    if not tokens.issuer:
        yield Problem(f"{_WHERE}.issuer", "must not be empty", "identity-issuer")
    if tokens.jwks_path and not tokens.jwks_path.startswith("/"):
        what = f"must start with a slash: {'/' + tokens.jwks_path!r}"
        yield Problem(f"{_WHERE}.jwks_path", what, "identity-jwks")
    if set(tokens.jwks_path) & set("{*"):
        what = "must be one path, like /.well-known/jwks.json, without parameters"
        yield Problem(f"{_WHERE}.jwks_path", what, "identity-jwks")
    if tokens.jwks_path and tokens.algorithm == "HS256":
        what = 'secrets are not published; remove it, or use `keys` with algorithm = "ES256" or "EdDSA"'
        yield Problem(f"{_WHERE}.jwks_path", what, "identity-jwks")
    for i, origin in enumerate(tokens.origins):
        if not is_origin(origin):
            what = f'must be an origin like "https://app.example.com", in lower case, not {origin!r}'
            yield Problem(f"{_WHERE}.origins[{i}]", what, "identity-origin")
    unused, used = ("keys", "secrets") if tokens.algorithm == "HS256" else ("secrets", "keys")
    if getattr(tokens, unused):
        what = f"{tokens.algorithm} uses `{used}`; remove these, or choose another `algorithm`"
        yield Problem(f"{_WHERE}.{unused}", what, "identity-unused")


def _read_secrets(
    tokens: IdentityTokens, upstreams: Collection[str], problems: list[Problem]
) -> dict[str, Key]:
    found = {}
    for name in sorted({*upstreams, *tokens.secrets}):
        where = f"{_WHERE}.secrets.{name}"
        if name not in tokens.secrets:
            what = f'is missing; give a secret of its own, like {name} = "env:{_variable(name)}"'
            problems.append(Problem(where, what, "identity-no-secret"))
            continue
        try:
            found[name] = secret_key(_from_environment(tokens.secrets[name]))
        except ValueError as exc:
            problems.append(Problem(where, str(exc), "identity-secret"))
    return found


def _read_keys(tokens: IdentityTokens, problems: list[Problem]) -> dict[str, Key]:
    found: dict[str, Key] = {}
    if not tokens.keys:
        what = (
            f'is empty; {tokens.algorithm} needs a private key, like [{{ id = "2026-11", file = "key.pem" }}]'
        )
        problems.append(Problem(f"{_WHERE}.keys", what, "identity-no-keys"))
    ids = [key.id for key in tokens.keys]
    for i, declared in enumerate(tokens.keys):
        where = f"{_WHERE}.keys[{i}]"
        if not declared.id or ids.index(declared.id) != i:
            what = "is used twice" if declared.id else "must not be empty"
            problems.append(Problem(f"{where}.id", what, "identity-key-id"))
            continue
        field = "file" if declared.file else "pem"
        try:
            found[declared.id] = private_key(_read_pem(declared), tokens.algorithm)
        except ValueError as exc:
            problems.append(Problem(f"{where}.{field}", str(exc), "identity-key"))
    return found


def _read_pem(declared: SigningKey) -> bytes:
    if bool(declared.file) == bool(declared.pem):
        raise ValueError("give either `file` or `pem`")
    if declared.pem:
        return _from_environment(declared.pem).encode()
    try:
        return Path(declared.file).read_bytes()
    except OSError as exc:
        raise ValueError(f"cannot be read: {exc.strerror}") from None


def _from_environment(value: str) -> str:
    kind, _, name = value.partition(":")
    if kind != "env":
        return value
    if not os.environ.get(name):
        raise ValueError(f"the environment has no variable {name}")
    return os.environ[name]


def _variable(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name).upper() + "_SECRET"
