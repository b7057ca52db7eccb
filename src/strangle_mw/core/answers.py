"""An upstream's answer as the client gets it: which headers cross, and what they say of the upstream itself.

What depends on names alone is worked out once per list of names, as in `hygiene`, which has the other
direction. An upstream is not trusted to keep a header a header (promise P5).
"""

from __future__ import annotations

import re
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from strangle_mw.core.hygiene import (
    HOP_BY_HOP,
    LEGAL_IN_VALUE,
    NO_RULES,
    PLAIN_CONNECTION,
    is_host,
    nominated_names,
    read_fields,
)
from strangle_mw.core.identity import without_cookies
from strangle_mw.core.messages import Header, is_token, normalize_host
from strangle_mw.core.sticky import Mark, mark_headers
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from strangle_mw.core.decision import Forward
    from strangle_mw.core.hygiene import HeaderPlan

_PERSONAL = Mark(("Cookie", "Authorization"))
_URL_NAMES = (b"location", b"content-location")
_url = re.compile(rb"(https?:|)//([^/?#\\]*)(.*)", re.IGNORECASE | re.DOTALL).fullmatch
_is_address = re.compile(r"[0-9.]+|\[.*").fullmatch
_is_name = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]").fullmatch


def answer_headers(
    headers: Sequence[Header],
    status: int,
    plan: HeaderPlan = NO_RULES,
    forward: Forward | None = None,
    endpoint: int = 0,
) -> list[Header]:
    """Build the headers of an upstream's answer as the client gets them, names in lower case.

    `Date` and `Server` are left to the server in front, which speaks for the origin and would double them
    (proxy trap 19). 204 and 304 carry no length (RFC 9110 sections 8.6, 15.4.5). With `forward`, what names
    the origin of that endpoint names the public one instead. Raises `ForwardError` for names or values that
    could end a header early (promise P5).
    """
    names, values = zip(*headers) if headers else ((), ())  # noqa: B905 - pairs, all of them
    recipe = _answer_recipe(names)
    if b"".join(values).translate(None, LEGAL_IN_VALUE):
        raise ForwardError("head", "control bytes in a header of the answer", request_sent=True)
    kept: list[Header] = list(zip(recipe.names, recipe.pick(values)))  # noqa: B905 - of one length
    if forward is not None:
        for at in recipe.own:
            name, value = kept[at]
            kept[at] = (name, _public(name, value, forward, endpoint))
    if recipe.connection:
        options = [values[at] for at in recipe.connection]
        if options not in PLAIN_CONNECTION and (nominated := nominated_names(tuple(options))):
            kept = [h for h in kept if h[0] not in nominated]
    if status in (204, 304):
        kept = [h for h in kept if h[0] != b"content-length"]
    return kept if plan is NO_RULES else plan.apply(kept)


def public_headers(headers: Sequence[Header], status: int, forward: Forward, endpoint: int) -> list[Header]:
    """Build the headers of an answer to a forwarded request: hygiene, the route's rules, a canary's mark."""
    made = answer_headers(headers, status, forward.action.response_headers, forward, endpoint)
    if forward.action.withheld:
        made = without_cookies(made, forward.action.withheld)
    if forward.action.identity:
        # The upstream has seen a token, which caches in front do not: to them its `Vary` says nothing.
        made = mark_headers(made, _PERSONAL, forward.head.method)
    return made if forward.mark is None else mark_headers(made, forward.mark, forward.head.method)


class _AnswerRecipe(NamedTuple):
    """What is done with the headers of an answer, by their place; `own` are places among those kept."""

    names: tuple[bytes, ...]
    pick: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]
    connection: tuple[int, ...]
    own: tuple[int, ...]


@lru_cache(maxsize=512)
def _answer_recipe(names: tuple[bytes, ...]) -> _AnswerRecipe:
    for name in names:
        if not is_token(name):
            raise ForwardError("head", "a header of the answer has no valid name", request_sent=True)
    lower = [n.lower() for n in names]
    places = [at for at, name in enumerate(lower) if _crosses(name)]
    kept = tuple(lower[at] for at in places)
    return _AnswerRecipe(
        kept,
        _picker(places),
        tuple(at for at, name in enumerate(lower) if name == b"connection"),
        tuple(at for at, name in enumerate(kept) if name == b"set-cookie" or name in _URL_NAMES),
    )


def _crosses(name: bytes) -> bool:
    return not (name in HOP_BY_HOP or name in (b"date", b"server") or name.startswith(b"strangle-"))


def _picker(places: Sequence[int]) -> Callable[[tuple[bytes, ...]], tuple[bytes, ...]]:
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple(values[at] for at in places)


# --- the upstream's own origin (proxy trap 27)


def _public(name: bytes, value: bytes, forward: Forward, endpoint: int) -> bytes:
    host = forward.host(endpoint)
    if name == b"set-cookie":
        return _public_cookie(value, forward, host, endpoint)
    if value.startswith(b"/") and value[1:2] not in (b"/", b"\\", b"\t"):
        return _public_path(value, forward, endpoint)
    match = _url(value)
    if match is None or _without_default(match[2]) != _without_default(host):
        return value
    # A path alone is right whatever scheme and host the client has used; TLS often ends in front of us.
    path = _public_path(_one_slash(match[3]), forward, endpoint)
    if match[1].lower() == b"https:" and forward.upstream.endpoints[endpoint].scheme != "https":
        asked = dict(read_fields(forward.fields))
        authority = asked.get(b"x-forwarded-host", b"")
        if asked.get(b"x-forwarded-proto") == b"http" and is_host(authority):
            return b"https://" + authority + path  # it asks for TLS: a path alone would lead back here
    return path


def _one_slash(path: bytes) -> bytes:
    """Start a path with one slash: `//host` is another site, in any spelling of browsers (promise P23)."""
    return b"/" + path.lstrip(b"/\\\t")


def _without_default(authority: bytes) -> bytes:
    return re.sub(rb":(?:80|443)?$", b"", authority.lower())


def _public_path(reference: bytes, forward: Forward, endpoint: int) -> bytes:
    """Undo what the route does to a path: base path off, `strip_prefix` on; the query stays."""
    path, mark, rest = re.fullmatch(rb"([^?#]*)([?#]?)(.*)", reference, re.DOTALL).groups()  # type: ignore[union-attr]
    sent, public = forward.action.rewrite.public or (None, b"")
    if sent is None:
        return reference
    sent = forward.upstream.endpoints[endpoint].base + sent
    if _below(path, sent) and (sent or not _below(path, public)):
        path = _one_slash(public + path[len(sent) :])
    return path + mark + rest


def _below(path: bytes, prefix: bytes) -> bool:
    return not prefix or path == prefix or path.startswith(prefix + b"/")


def _public_cookie(value: bytes, forward: Forward, host: bytes, endpoint: int) -> bytes:
    """Rewrite `Domain` and `Path` (RFC 6265 section 4.1.2) of a cookie, and nothing else of it."""
    pair, *attributes = value.split(b";")
    kept = [pair]
    for attribute in attributes:
        name, equals, text = attribute.partition(b"=")
        kind, text = name.strip().lower(), text.strip()
        if kind == b"domain":
            domain = _public_domain(text, forward, host)
            if domain is not None:
                kept.append(attribute if domain == text else name + equals + domain)
        elif kind == b"path" and text.startswith(b"/") and not pair.lstrip().lower().startswith(b"__host-"):
            path = _public_path(text, forward, endpoint)
            if path not in (text, b"/"):
                path = path.rstrip(b"/")  # `/api` is also the path of `/api/x`; `/api/` is not that of `/api`
            kept.append(attribute if path == text else name + equals + path)
        else:
            kept.append(attribute)
    return b";".join(kept)


def _public_domain(domain: bytes, forward: Forward, host: bytes) -> bytes | None:
    """Return the domain to say, None for none: then the cookie is the public host's alone."""
    wanted = domain.decode("latin-1").lower().removeprefix(".")
    fields = dict(read_fields(forward.fields))
    public = normalize_host(fields.get(b"x-forwarded-host", b"").decode("latin-1").partition(",")[0].strip())
    if not _is_name(public):
        public = ""  # a trusted proxy may have passed on what a client wrote
    if _domain_matches(public, wanted) or not _domain_matches(normalize_host(host.decode("latin-1")), wanted):
        return domain
    return public.encode("latin-1") if "." in public and not _is_address(public) else None


def _domain_matches(host: str, domain: str) -> bool:
    return host == domain or host.endswith("." + domain)
