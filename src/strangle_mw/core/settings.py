"""What a user writes beside routes and upstreams: the settings of the middleware, as frozen values.

Only declarations live here, as in `model`, whose rules for a field's `doc` and `key` hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence  # noqa: TC003 - read at run time for the schema
from dataclasses import dataclass, field
from typing import Any, Literal

from strangle_mw.core.model import Pin, described


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key that identity tokens are signed with; give `file` or `pem`."""

    id: str = field(metadata=described("the key's id (`kid`), by which the other side finds the public key"))
    file: str = field(default="", metadata=described("PEM file of the private key"))
    pem: str = field(
        default="",
        repr=False,
        metadata=described("the private key in PEM, or `env:NAME` for one in the environment"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityTokens:
    """How the tokens of routes with `identity = true` are made."""

    issuer: str = field(default="strangle-mw", metadata=described("who says so (`iss`)"))
    algorithm: Literal["HS256", "ES256", "EdDSA"] = field(
        default="HS256", metadata=described("how tokens are signed: with `secrets` (HS256), or with `keys`")
    )
    lifetime: float = field(default=30.0, metadata=described("seconds that a token is good for, at most 60"))
    secrets: Mapping[str, str] = field(
        default_factory=dict,
        repr=False,
        metadata=described(
            "upstream -> secret of 32 bytes or more, or `env:NAME` for one in the environment"
        ),
    )
    keys: Sequence[SigningKey] = field(
        default=(), metadata=described("private keys: the first signs, all are published")
    )
    jwks_path: str = field(
        default="", metadata=described("path at which the public keys are published (JWKS)")
    )
    origins: Sequence[str] = field(
        default=(),
        metadata=described("further origins whose pages may send unsafe requests with this site's cookies"),
    )
    claims: Callable[..., Mapping[str, Any]] | None = field(
        default=None, metadata=described("callable(Identity) -> further claims", python_only=True)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """What holds for the whole table.

    `ambiguous` decides on a path that two standard readings send to different routes: `reject` answers 400,
    `legacy` calls the wrapped app. `trailing_slash` "ignore" makes `/a` and `/a/` the same path.
    """

    ambiguous: Literal["reject", "legacy"] = "reject"
    trailing_slash: Literal["strict", "ignore"] = "strict"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `strangle(app, source, ...)` takes beside the routes; in a file, the table `[strangle]`."""

    interface: Literal["asgi", "wsgi"] | None = field(
        default=None, metadata=described("the wrapped app's interface, where it cannot be told from the app")
    )
    trusted_proxies: Sequence[str] = field(
        default=(),
        metadata=described("addresses and networks whose forwarding headers are kept; `unix` for sockets"),
    )
    allow_headers: Sequence[str] = field(
        default=(), metadata=described("names with `_` or `.` that may be forwarded")
    )
    max_body: int | None = field(default=None, metadata=described("bytes that a forwarded body may have"))
    replay_limit: int = field(
        default=65_536,
        metadata=described("bytes of a body up to which it is kept, so that legacy can answer"),
    )
    identify: Callable[..., Any] | None = field(
        default=None,
        metadata=described(
            "callable(RequestHead) -> the user's id or an `Identity`, or None if there is none",
            python_only=True,
        ),
    )
    identity: IdentityTokens | None = field(
        default=None, metadata=described("how tokens are made for routes with `identity = true`")
    )
    session_cookies: Sequence[str] | None = field(
        default=None,
        metadata=described(
            "names of cookies that no upstream gets or sets; the framework's own if not given"
        ),
    )
    learn: bool = field(
        default=False,
        metadata=described(
            "count what the wrapped app answers by path templates that are learned, for the inventory"
        ),
    )
    pin: Pin | None = field(default=None, metadata=described("lets testers choose a side of a canary"))
    serve: Literal["asgi"] | None = field(
        default=None, metadata=described("`asgi` serves a WSGI app from an ASGI server, on a pool of threads")
    )
    threads: int | None = field(default=None, metadata=described("threads of that pool; 40 if not given"))
    store: str | None = field(
        default=None,
        metadata=described("where live changes are kept: `memory:`, `sqlite:///path.db` or `redis://host`"),
    )
    admin: str | None = field(default=None, metadata=described("path of the admin page"))
