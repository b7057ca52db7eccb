"""Who is behind a request, and what of that may cross: identities, the origin check, session cookies.

Tokens are minted elsewhere and come in as a function (`Minter`); here is when one is asked for, and what a
request must not bring or take along (promise P8, design section 7). Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from strangle_mw.core.fallback import SAFE_METHODS
from strangle_mw.core.messages import Refused

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from strangle_mw.core.messages import Header, RequestHead
    from strangle_mw.errors import Problem

HEADER: Final = b"strangle-identity"
"""The header that carries the token; whatever a client sends under this name is dropped (`hygiene`)."""

TOKEN_TYPE: Final = "strangle+jwt"  # noqa: S105 - the `typ` of our tokens (RFC 8725 section 3.11)

MAX_LIFETIME: Final = 60
"""Seconds that a token may be good for."""

RESERVED: Final = frozenset(["iss", "sub", "aud", "iat", "exp", "nbf", "jti", "htm", "htu", "htq"])
"""Claims that the library makes: those of RFC 7519, and the request's as in RFC 9449 section 4.2."""

SESSION_COOKIES: Final = ("sessionid", "csrftoken", "session", "remember_token")
"""The session and CSRF cookies of Django, Flask, Starlette and Flask-Login."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user of one request, as the monolith knows it.

    `subject` is the user's id; `claims` are told to the upstream; `user` is the framework's own object, for
    functions of yours, and is never sent. `from_cookie` says that browsers send the credential by
    themselves, so that another site's page could be behind the request.
    """

    subject: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    user: Any = None
    from_cookie: bool = True


class Minter(Protocol):
    """Makes the token for one request; `path` is that sent, without the query. May raise `ValueError`."""

    def mint(self, upstream: str, identity: Identity, method: str, path: bytes, query: bytes) -> bytes:
        """Return a token for this upstream and request."""


class Mint(NamedTuple):
    """What keys come to: the minter, the public keys as a JWKS document (b"" for none), and problems."""

    minter: Minter | None
    jwks: bytes = b""
    problems: Sequence[Problem] = ()


class NeedsIdentity(BaseException):
    """Raised out of a decision whose `identify` has to be awaited: await it, and decide again."""

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        super().__init__()


def read_identity(found: object, head: RequestHead) -> Identity | None:
    """Read what an `identify` has returned; False and "" are nobody, too: no id that the unknown share."""
    subject = found.subject if isinstance(found, Identity) else found
    if subject is None or subject is False:
        return None
    if subject is True or hasattr(subject, "is_authenticated"):  # a framework's nobody has a text, too
        raise TypeError("identify has returned no id: return the user's id, or an Identity with it")
    text = str(subject)
    if not text:
        return None
    if isinstance(found, Identity):
        return found if text is subject else replace(found, subject=text)
    return Identity(text, from_cookie=sent_by_browser(head))


def sent_by_browser(head: RequestHead) -> bool:
    """Tell whether a browser may have sent the credential by itself: all but Bearer it does.

    Cookies, Basic and Digest, certificates, and what depends on where the client is.
    """
    scheme, _, _ = (_header(head, b"authorization") or "").partition(" ")
    return scheme.lower() != "bearer"


def _header(head: RequestHead, name: bytes) -> str | None:
    """Return what `head.header` does, whatever the case that an ASGI middleware has given the name."""
    values = [v.strip() for n, v in head.headers if n.lower() == name]
    return b", ".join(values).decode("latin-1") if values else None


# --- the origin of a request (cross-site request forgery, cross-site WebSocket hijacking)


def is_unsafe(head: RequestHead) -> bool:
    """Tell whether a page of another site could do harm by this request."""
    return head.method not in SAFE_METHODS or head.opens_websocket


def check_origin(head: RequestHead, host: bytes, *, https: bool, origins: Collection[str]) -> None:
    """Refuse an unsafe request that a page of another site has made with this site's cookies.

    `host` is the public one. A browser says where a request comes from, by `Sec-Fetch-Site` or by `Origin`
    (Fetch standard); what says neither is none, and allowed, as in Go's `CrossOriginProtection`. A WebSocket
    begins with a GET, and counts as unsafe (RFC 6455 section 10.2).
    """
    if not is_unsafe(head):
        return
    site, origin = _header(head, b"sec-fetch-site"), _header(head, b"origin")
    if origin is not None and plain_origin(origin) in origins:
        return
    if site is not None:
        if site not in ("same-origin", "none"):
            raise Refused(403, "cross-origin")
    elif origin is not None and not _is_own(origin, host, https=https):
        raise Refused(403, "cross-origin")


def _is_own(origin: str, host: bytes, *, https: bool) -> bool:
    scheme, separator, authority = plain_origin(origin).partition("://")
    if not separator or scheme not in ("http", "https") or (https and scheme == "http"):
        return False
    return authority == plain_origin(f"{scheme}://{host.decode('latin-1')}").partition("://")[2]


def plain_origin(origin: str) -> str:
    """Write an origin as browsers do: lower case, without its scheme's own port (RFC 6454 section 6.2)."""
    scheme, separator, authority = origin.strip().lower().partition("://")
    default = {"http": ":80", "https": ":443"}.get(scheme)
    return scheme + separator + (authority.removesuffix(default) if default else authority)


# --- session cookies


def withheld_names(given: Sequence[str] | None, *, identity: bool) -> frozenset[bytes]:
    """Return the cookies that a route withholds: those given, else the known ones where a token goes."""
    names = given if given is not None else SESSION_COOKIES if identity else ()
    return frozenset(name.encode("utf-8", "surrogateescape") for name in names)


def withhold(value: bytes, names: Collection[bytes]) -> bytes:
    """Return a `Cookie` header without the cookies of these names; b"" if nothing is left.

    What remains is not touched (RFC 6265 section 4.2: pairs with semicolons between them, and servers split
    there whatever is quoted). WSGI servers join two such headers with a comma; what stands behind one of ours
    until the semicolon goes with it, as it may be of its value.
    """
    if not any(name in value for name in names):
        return value
    kept = []
    for pair in value.split(b";"):
        left = _before_ours(pair, names) if b"," in pair else pair
        if not pair or (left and _cookie_name(left) not in names):
            kept.append(left)
    joined = b";".join(kept).strip(b" \t")
    return joined if joined.strip(b"; \t") else b""


def _before_ours(pair: bytes, names: Collection[bytes]) -> bytes:
    parts = pair.split(b",")
    for at, part in enumerate(parts):
        if (b"=" in part or not at) and _cookie_name(part) in names:
            return b",".join(parts[:at])
    return pair


def without_cookies(headers: Iterable[Header], names: Collection[bytes]) -> list[Header]:
    """Return an answer's headers without those that set one of these cookies.

    A cookie `=a=1` has no name, and browsers send it as `a=1` (RFC 6265bis section 5.8.3).
    """
    return [
        (n, v)
        for n, v in headers
        if n != b"set-cookie" or _cookie_name(v.partition(b";")[0].lstrip(b"= \t")) not in names
    ]


# What is no visible ASCII: some frameworks strip only blanks of a name, some whatever Unicode takes for one.
_BLANKS: Final = bytes([*range(0x21), *range(0x7F, 0x100)])


def _cookie_name(pair: bytes) -> bytes:
    return pair.partition(b"=")[0].strip(_BLANKS)


is_origin = re.compile(r"https?://(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?").fullmatch
"""What a listed origin looks like: lower case, no path (RFC 6454 section 6.2)."""
