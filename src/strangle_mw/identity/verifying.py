"""The other side: checks the token of `Strangle-Identity` and names the user.

What a token must be stands here and nowhere else; how a framework hands over the header, and how it answers,
is the business of the modules beside. Nothing of a token gets into an error or the log.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from time import time
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from urllib.parse import unquote_to_bytes

from strangle_mw.core.identity import MAX_LIFETIME, TOKEN_TYPE, Identity
from strangle_mw.errors import StrangleError
from strangle_mw.identity.keys import LARGEST_TOKEN, Key, digest, public_key, read_jwks, secret_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from strangle_mw.identity.remote import RemoteKeys

Reason = Literal[
    "algorithm",
    "anonymous",
    "audience",
    "claims",
    "expired",
    "issuer",
    "key",
    "keys",
    "lifetime",
    "malformed",
    "not-yet",
    "request",
    "signature",
    "type",
]
"""Why a token is refused; docs/identity.md says what each means."""

MOST_LEEWAY: Final = 30
"""Seconds by which two clocks may differ."""

_CLAIMS: Final[Mapping[str, Any]] = {
    "iss": str,
    "sub": str,
    "aud": str,
    "iat": int | float,
    "exp": int | float,
    "jti": str,
    "htm": str,
    "htu": str,
}
_is_compact = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+").fullmatch  # RFC 7515 section 7.1

T = TypeVar("T")


class IdentityError(StrangleError):
    """A token is refused; `reason` is of a closed set, `status` is 401, or 503 for "keys"."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        self.status = 503 if reason == "keys" else 401
        super().__init__(f"identity refused: {reason}")


class Verifier:
    """Checks the tokens of one service; made once, safe for threads, cheap to ask.

    `audience` is the name that the monolith's table gives this service's upstream. Give one of: `secrets`
    (one, or two while they are changed), `keys` (key id -> public key in PEM, or a key set as a dict), or
    `jwks_url`. `leeway` is how many seconds the clocks may differ, at most 30. `match_request=False` takes
    tokens for other requests of this service, too. `clock` gives seconds since 1970. Raises `ValueError` for
    what cannot be used, `ImportError` without PyJWT.
    """

    def __init__(
        self,
        audience: str,
        *,
        issuer: str = "strangle-mw",
        secrets: str | bytes | Sequence[str | bytes] = (),
        keys: Mapping[str, Any] | None = None,
        jwks_url: str = "",
        leeway: float = 10,
        match_request: bool = True,
        clock: Callable[[], float] = time,
    ) -> None:
        if bool(secrets) + bool(keys) + bool(jwks_url) != 1:
            raise ValueError("give one of `secrets`, `keys` and `jwks_url`")
        if not 0 <= leeway <= MOST_LEEWAY:
            raise ValueError(f"leeway must be 0..{MOST_LEEWAY} seconds")
        self._expected = {"aud": audience, "iss": issuer}
        self._leeway, self._match_request, self._clock = leeway, match_request, clock
        given = [secrets] if isinstance(secrets, str | bytes) else secrets
        self._secrets = [_named("secrets", secret_key, s) for s in given]
        self._keys = _read_keys(keys or {})
        self._remote = _remote(jwks_url) if jwks_url else None

    def verify(
        self, token: str | bytes, *, method: str = "", path: str | bytes = "", query: str | bytes = b""
    ) -> Identity:
        """Return who the token speaks of; raise `IdentityError` if it is not good for this request.

        `path` and `query` as they came over the wire: percent-encoded, without the question mark; text is
        taken for Latin-1, as in WSGI. Paths are compared when both are decoded once, so that `%41` is `A`.
        `claims` of the result are all that the token has. With `jwks_url` this may wait for the network.
        """
        parts = _Parts(token)
        keys = self._secrets or [self._find(parts.kid)]
        claims = parts.claims(keys)
        self._check(claims)
        if self._match_request and not _is_for(claims, method, path, query):
            raise IdentityError("request")
        return Identity(claims["sub"], claims)

    async def averify(
        self, token: str | bytes, *, method: str = "", path: str | bytes = "", query: str | bytes = b""
    ) -> Identity:
        """Do as `verify`, and wait for the network in a thread, if at all."""
        if self._remote is not None and self._remote.due(kid := _Parts(token).kid):
            from asyncio import to_thread

            await to_thread(self._find, kid)
        return self.verify(token, method=method, path=path, query=query)

    def _find(self, kid: str) -> Key:
        try:
            found = self._remote.find(kid) if self._remote is not None else self._keys.get(kid)
        except LookupError:
            raise IdentityError("keys") from None
        if found is None:
            raise IdentityError("key")
        return found

    def _check(self, claims: Mapping[str, Any]) -> None:
        """Check what is the same for all requests.

        Numbers of Python's JSON may be NaN, for which every comparison is false, or too large for a float.
        """
        for name, kind in _CLAIMS.items():
            value = claims.get(name)
            if not isinstance(value, kind) or isinstance(value, bool) or value == "":
                raise IdentityError("claims")
        for name, reason in _SAID:
            if claims[name] != self._expected[name]:
                raise IdentityError(reason)
        now, issued, expires = self._clock(), claims["iat"], claims["exp"]
        if not issued < expires <= issued + MAX_LIFETIME:
            raise IdentityError("lifetime")
        if not issued <= now + self._leeway:
            raise IdentityError("not-yet")
        if not now - self._leeway < expires:
            raise IdentityError("expired")


_SAID: Final[Sequence[tuple[str, Reason]]] = (("aud", "audience"), ("iss", "issuer"))


def verify(
    token: str | bytes,
    *,
    audience: str,
    secrets: str | bytes | Sequence[str | bytes],
    method: str,
    path: str | bytes,
    query: str | bytes = b"",
) -> Identity:
    """Check one token by secret; see `Verifier` for keys and settings, and for more than one token."""
    return Verifier(audience, secrets=secrets).verify(token, method=method, path=path, query=query)


class _Parts:
    """A token taken apart; nothing in it is believed yet."""

    def __init__(self, token: str | bytes) -> None:
        from jwt import InvalidTokenError, get_unverified_header

        text = token.decode("latin-1") if isinstance(token, bytes) else token
        if len(text) > LARGEST_TOKEN or not _is_compact(text):
            raise IdentityError("malformed")
        try:
            header = get_unverified_header(text)  # every part is strict base64url afterwards
        except (InvalidTokenError, ValueError):
            raise IdentityError("malformed") from None
        # What is not known may not be skipped (`crit`), nor say where keys are (`jku`, `jwk`).
        if header.keys() - {"alg", "kid", "typ"}:
            raise IdentityError("malformed")
        if header.get("typ") != TOKEN_TYPE:
            raise IdentityError("type")
        self.kid: str = header.get("kid", "")
        self._algorithm = header.get("alg")
        self._signed, _, signature = text.rpartition(".")
        self._signature = _decode(signature)

    def claims(self, keys: Sequence[Key]) -> dict[str, Any]:
        """Return the claims, if one of the keys has signed them; each is for one algorithm only."""
        signed = self._signed.encode()
        if not any(key.algorithm == self._algorithm for key in keys):
            raise IdentityError("algorithm")
        if not any(key.worker.verify(signed, key.material, self._signature) for key in keys):
            raise IdentityError("signature")
        try:
            claims = json.loads(_decode(self._signed.partition(".")[2]))
        except (ValueError, RecursionError):
            raise IdentityError("malformed") from None
        if not isinstance(claims, dict):
            raise IdentityError("malformed")
        return claims


def _decode(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _is_for(claims: Mapping[str, Any], method: str, path: str | bytes, query: str | bytes) -> bool:
    try:
        wanted = digest(_raw(query)) if query else None
        same = unquote_to_bytes(_raw(claims["htu"])) == unquote_to_bytes(_raw(path))
    except UnicodeEncodeError:
        return False
    return same and claims["htm"] == method and claims.get("htq") == wanted


def _raw(text: str | bytes) -> bytes:
    return text.encode("latin-1") if isinstance(text, str) else text


def _remote(url: str) -> RemoteKeys:
    from strangle_mw.identity.remote import RemoteKeys

    return RemoteKeys(url)


def _read_keys(keys: Mapping[str, Any]) -> Mapping[str, Key]:
    if isinstance(keys.get("keys"), list):
        found = _named("keys", read_jwks, keys)
        if not found:
            raise ValueError("keys holds no key for ES256 or EdDSA with an id")
        return found
    return {kid: _named(f"keys[{kid!r}]", public_key, pem) for kid, pem in keys.items()}


def _named(setting: str, read: Callable[[Any], T], value: object) -> T:
    """Read a key; what is wrong with it is told with the setting's name."""
    try:
        return read(value)
    except ValueError as exc:
        raise ValueError(f"{setting} {exc}") from None
