"""From what a user gives (a list, a dict, a file) to a `Snapshot`, or every problem at once.

Reading files and checking shapes live here; what a route means is `core.compile`, what a table means as a
whole is `core.lint`. A problem names its place as the user wrote it: `routes[3].weight`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from importlib.util import find_spec
from inspect import iscoroutinefunction
from ipaddress import ip_network
from os import PathLike
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, Literal

from strangle_mw.asking import Telling, asked, identifying
from strangle_mw.core.compile import RouteCompiler
from strangle_mw.core.compiled import ForwardTo, RespondWith
from strangle_mw.core.decision import Snapshot
from strangle_mw.core.hygiene import Hygiene, TrustedPeers, is_https
from strangle_mw.core.identity import Mint, plain_origin
from strangle_mw.core.lint import duplicate_names, slow_regexes, ties, unreachable
from strangle_mw.core.messages import is_token
from strangle_mw.core.model import Respond, Route, Upstream
from strangle_mw.core.routing import RouteTable
from strangle_mw.core.settings import IdentityTokens, Settings, TableOptions
from strangle_mw.core.staging import Crowd
from strangle_mw.decoding import Decoder, kind_of
from strangle_mw.errors import ConfigError, Problem
from strangle_mw.files import read_file
from strangle_mw.stores import check_store_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from strangle_mw.core.compiled import CompiledRoute, CompiledUpstream

Source = str | PathLike[str] | Mapping[str, Any] | Sequence[Route | Mapping[str, Any]]
"""What `strangle` takes as its routes: a file's path, a document as a dict, or a list of routes."""

MintHook = Callable[[IdentityTokens, Sequence[str]], Mint]
"""Reads the keys of identity tokens, for the upstreams with these names."""

JWKS_ROUTE = "strangle-jwks"
"""The route that publishes the keys of identity tokens."""

# Settings that parse already and act in a later version (see `core.compile`).
_LATER_SETTINGS = ("admin",)
_SHORTEST_SECRET = 16
_MOST_THREADS = 10_000
_LARGEST_REPLAY = 16 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The whole of a file; also its JSON Schema's root."""

    trailing_slash: Literal["strict", "ignore"] = dataclasses.field(
        default="strict", metadata={"doc": "`ignore` makes `/a` and `/a/` the same path"}
    )
    ambiguous: Literal["reject", "legacy"] = dataclasses.field(
        default="reject",
        metadata={"doc": "a path that two standard readings route differently: 400, or legacy"},
    )
    strangle: Settings = dataclasses.field(
        default_factory=Settings, metadata={"doc": "settings of the middleware"}
    )
    upstreams: Mapping[str, Upstream | None] = dataclasses.field(
        default_factory=dict, metadata={"doc": "named modern targets"}
    )
    routes: Sequence[Route | None] = dataclasses.field(
        default=(), metadata={"doc": "the routes; their order is irrelevant"}
    )


def load(
    source: Source,
    *,
    hop_marker: bytes = b"strangle-none",
    draw: Callable[[], int] = lambda: 0,
    new_id: Callable[[], bytes] = lambda: b"0" * 32,
    now: Callable[[], float] = time,
    known: Mapping[str, CompiledUpstream] | None = None,
    mint: MintHook | None = None,
    framework_cookies: Sequence[str] | None = None,
    **settings: Any,
) -> Snapshot:
    """Load a route table.

    `source` is a path to a `.toml`, `.json` or `.yaml` file, a dict of the same shape, or a list of `Route`
    objects or dicts; `settings` are those of `Settings` and go before the file's. Of `known` upstreams, those
    that are declared as before are used again, with all that hangs on them. `mint` reads the keys of identity
    tokens, for the named upstreams; without it, nothing is read and nobody is told. `framework_cookies` are
    the session cookies of the framework in use. Raises `ConfigError` with every
    problem found.
    """
    problems: list[Problem] = []
    data = _document(source)
    decoder = Decoder(problems, from_file=isinstance(source, str | PathLike))
    document = _decode(data, decoder)
    given = {k: v for k, v in settings.items() if v is not None and (v != () or k == "session_cookies")}
    in_code = Decoder(problems, from_file=False).table(Settings, given, "strangle()") or Settings()
    known_here = {k: getattr(in_code, k) for k in given if hasattr(in_code, k)}
    merged = dataclasses.replace(document.strangle, **known_here)
    # Functions are told by their addresses, which differ from process to process.
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(data))
    revision = blake2b(text.encode("utf-8", "backslashreplace"), digest_size=6).hexdigest()
    if merged.session_cookies is None and framework_cookies is not None:
        merged = dataclasses.replace(merged, session_cookies=framework_cookies)
    compiler = RouteCompiler(
        document.upstreams,
        loose_slash=document.trailing_slash == "ignore",
        known=known,
        session_cookies=merged.session_cookies,
    )
    snapshot, keys = _compile(document, merged, problems, hop_marker, compiler, mint)
    hygiene = dataclasses.replace(snapshot.hygiene, new_id=new_id)
    crowd = Crowd(pin=merged.pin, new_id=new_id, draw=draw, now=now, is_https=lambda h: is_https(h, hygiene))
    origins = frozenset(map(plain_origin, merged.identity.origins if merged.identity is not None else ()))
    asking = identifying(merged.identify)
    minter = None if keys.minter is None else Telling(keys.minter)
    crowd = dataclasses.replace(crowd, **asking, minter=minter, origins=origins)
    return dataclasses.replace(snapshot, revision=revision, hygiene=hygiene, crowd=crowd)


# What is told as missing when it was there and could not be used.
_ECHOES = {
    "target-missing": ("to", "redirect", "respond"),
    "upstream-target": ("url", "urls", "lambda", "asgi", "wsgi"),
}


def _without_echoes(problems: Iterable[Problem]) -> Iterator[Problem]:
    places = [p.where for p in problems]
    for problem in problems:
        causes = [f"{problem.where}.{field}" for field in _ECHOES.get(problem.id, ())]
        if not any(place.startswith(cause) for place in places for cause in causes):
            yield problem


def _decode(data: Mapping[str, Any], decoder: Decoder) -> Document:
    """Decode a document part by part: what is right is compiled, so that its problems show, too."""
    parts = {k: v for k, v in data.items() if k not in ("routes", "upstreams")}
    document = decoder.table(Document, parts, "") or Document()
    routes, upstreams = data.get("routes", ()), data.get("upstreams", {})
    if isinstance(routes, str) or not isinstance(routes, Sequence):
        decoder.note("routes", f"must be a list, not {kind_of(routes)}", "type")
        routes = ()
    if not isinstance(upstreams, Mapping):
        decoder.note("upstreams", f"must be a table, not {kind_of(upstreams)}", "type")
        upstreams = {}
    return dataclasses.replace(
        document,
        routes=[decoder.table(Route, r, f"routes[{i}]") for i, r in enumerate(routes)],
        upstreams={str(n): decoder.table(Upstream, u, f"upstreams.{n}") for n, u in upstreams.items()},
    )


def _document(source: Source) -> Mapping[str, Any]:
    if isinstance(source, str | PathLike):
        return read_file(Path(source))
    if isinstance(source, Mapping):
        return source
    if isinstance(source, list | tuple):
        return {"routes": source}
    what = f"must be a file's path, a dict or a list of routes, not {type(source).__name__}"
    raise ConfigError([Problem("routes", what, "source-type")])


def _compile(
    document: Document,
    settings: Settings,
    problems: list[Problem],
    hop_marker: bytes,
    compiler: RouteCompiler,
    mint: MintHook | None,
) -> tuple[Snapshot, Mint]:
    loose = document.trailing_slash == "ignore"
    for name, upstream in document.upstreams.items():
        if upstream is not None:
            compiler.begin(f"upstreams.{name}")
            compiler.upstreams.add(name, upstream)
    compiled = [compiler.compile(_guarded(r, i), i) for i, r in enumerate(document.routes) if r is not None]
    routes = [r for r in compiled if r is not None]
    keys = _keys(routes, settings, mint, problems)
    if settings.identity is not None and settings.identity.jwks_path:
        routes += _published(compiler, settings.identity.jwks_path, keys.jwks, len(document.routes))
    upstreams = compiler.upstreams.compiled
    problems += compiler.problems
    problems += _check_upstreams(upstreams, compiler.upstreams.used, document)
    problems += [*duplicate_names(routes), *unreachable(routes), *_check_settings(settings)]
    if problems:
        raise ConfigError(_without_echoes(dict.fromkeys(problems)))
    snapshot = Snapshot(
        RouteTable(routes, loose_slash=loose),
        upstreams,
        TableOptions(ambiguous=document.ambiguous, trailing_slash=document.trailing_slash),
        Hygiene(
            hop_marker,
            frozenset(h.lower().encode("latin-1", "replace") for h in settings.allow_headers),
            TrustedPeers(tuple(_network(p) for p in settings.trusted_proxies)),
        ),
        settings,
        warnings=tuple(_warnings(routes, upstreams)),
    )
    return snapshot, keys


def _keys(
    routes: Sequence[CompiledRoute], settings: Settings, mint: MintHook | None, problems: list[Problem]
) -> Mint:
    """Read the keys of identity tokens, as far as routes need any."""
    asking = [r for r in routes if _tells(r)]
    if settings.identity is None:
        if any(re.match(r"strangle(\(\))?\.identity\b", p.where) for p in problems):
            return Mint(None)  # it is there, and could not be read
        what = "needs keys: give `secrets` or `keys` under [strangle.identity] (docs/identity.md)"
        problems += [Problem(f"routes[{r.index}].identity", what, "identity-keys") for r in asking]
        return Mint(None)
    if mint is None:
        from strangle_mw.identity.minting import check_tokens  # of no use to a table without tokens

        problems += check_tokens(settings.identity)
        return Mint(None)
    if settings.identify is None:
        what = "nobody names the user: give `identify`, or use an integration (docs/identity.md)"
        problems += [Problem(f"routes[{r.index}].identity", what, "identity-identify") for r in asking]
    found = mint(settings.identity, told_upstreams(routes))
    problems += found.problems
    return found


def told_upstreams(routes: Iterable[CompiledRoute]) -> list[str]:
    """Name the upstreams that are told who the user is."""
    actions = (r.action for r in routes if _tells(r))
    return sorted({u.name for a in actions if isinstance(a, ForwardTo) for u in a.upstreams})


def _tells(route: CompiledRoute) -> bool:
    return isinstance(route.action, ForwardTo) and route.action.identity


def _published(compiler: RouteCompiler, path: str, jwks: bytes, index: int) -> Iterator[CompiledRoute]:
    """Make the route that publishes the public keys; its key set may be kept for some minutes (RFC 7517)."""
    others, compiler.problems = compiler.problems, []
    fixed = Respond(status=200, body=jwks.decode(), content_type="application/jwk-set+json")
    route = compiler.compile(Route(f"GET {path}", name=JWKS_ROUTE, respond=fixed), index)
    where = "strangle.identity.jwks_path"
    compiler.problems = [*others, *(dataclasses.replace(p, where=where) for p in compiler.problems)]
    if route is not None and isinstance(route.action, RespondWith):
        headers = (*route.action.headers, (b"cache-control", b"public, max-age=300"))
        yield dataclasses.replace(route, action=dataclasses.replace(route.action, headers=headers))


def _warnings(
    routes: Sequence[CompiledRoute], upstreams: Mapping[str, CompiledUpstream]
) -> Iterator[Problem]:
    yield from ties(routes)
    yield from slow_regexes(routes)
    for name, upstream in upstreams.items():
        if not upstream.declared.verify:
            yield Problem(f"upstreams.{name}.verify", "TLS certificates are NOT verified", "tls-unverified")


def _guarded(route: Route, index: int) -> Route:
    """Make a `when` that raises count as no: the wrapped app answers, and the error is told once."""
    when = route.when
    if when is None or iscoroutinefunction(when):
        return route  # the latter is refused by `core.compile`
    guarded = asked(when, lambda answer, _: bool(answer), f"routes[{index}].when raised; taken for no")
    return dataclasses.replace(route, when=lambda head: guarded(head) is True)


def _check_upstreams(
    upstreams: Mapping[str, CompiledUpstream], used: set[str], document: Document
) -> Iterator[Problem]:
    for name in document.upstreams:
        if name not in used and None not in document.routes:
            yield Problem(
                f"upstreams.{name}",
                "no route uses it; remove it or name it in a route's `to`",
                "upstream-unused",
            )
    for upstream in upstreams.values():
        yield from _check_tls(f"upstreams.{upstream.name}", upstream.declared)
        if upstream.kind == "lambda" and find_spec("botocore") is None:
            what = "Lambda functions need one more package: pip install 'strangle-mw[lambda]'"
            yield Problem(f"upstreams.{upstream.name}.lambda", what, "lambda-extra")
        if upstream.declared.http == "2" and not all(map(find_spec, ("httpx2", "h2"))):
            what = "HTTP/2 needs more packages: pip install 'strangle-mw[http2]'"
            yield Problem(f"upstreams.{upstream.name}.http", what, "http2-extra")


def _check_tls(where: str, upstream: Upstream) -> Iterator[Problem]:
    for field in ("ca", "cert", "key"):
        path = getattr(upstream.tls, field)
        if path and not Path(path).is_file():
            yield Problem(f"{where}.tls.{field}", f"there is no file {path!r}", "tls-file")


def _check_settings(settings: Settings) -> Iterator[Problem]:
    for field in _LATER_SETTINGS:
        if getattr(settings, field) is not None:
            yield Problem(f"strangle.{field}", "acts in a later version; remove it", "not-yet")
    if settings.store is not None and (refused := check_store_url(settings.store)) is not None:
        yield Problem("strangle.store", refused, "store-url")
    if settings.pin is not None and len(settings.pin.secret) < _SHORTEST_SECRET:
        yield Problem("strangle.pin.secret", "must have 16 characters or more", "pin-secret")
    if settings.pin is not None and not _is_pin_header(settings.pin.header):
        what = f"{settings.pin.header!r} must start with Strangle-: such headers are never forwarded"
        yield Problem("strangle.pin.header", what, "pin-header")
    if not 0 <= settings.replay_limit <= _LARGEST_REPLAY:
        yield Problem("strangle.replay_limit", f"must be 0..{_LARGEST_REPLAY} bytes", "replay-range")
    if settings.threads is not None and settings.serve is None:
        yield Problem("strangle.threads", 'needs serve = "asgi"', "threads-unused")
    if settings.threads is not None and not 1 <= settings.threads <= _MOST_THREADS:
        yield Problem("strangle.threads", f"must be 1..{_MOST_THREADS}", "threads-range")
    if settings.max_body is not None and settings.max_body < 0:
        yield Problem("strangle.max_body", "must be 0 or more bytes", "max-body-range")
    for at, name in enumerate(settings.allow_headers):
        if not is_token(name.encode("latin-1", "replace")):
            yield Problem(
                f"strangle.allow_headers[{at}]", f"{name!r} cannot be the name of a header", "header-name"
            )
    for at, name in enumerate(settings.session_cookies or ()):
        if not is_token(name.encode("latin-1", "replace")):
            what = f"{name!r} cannot be the name of a cookie"
            yield Problem(f"strangle.session_cookies[{at}]", what, "cookie-name")
    for at, proxy in enumerate(settings.trusted_proxies):
        if _network(proxy) is None:
            what = f"{proxy!r} must be an address or a network like 10.0.0.0/8 (or `unix`)"
            yield Problem(f"strangle.trusted_proxies[{at}]", what, "trusted-proxy")


def _is_pin_header(name: str) -> bool:
    return name.lower().startswith("strangle-") and bool(is_token(name.encode("latin-1", "replace")))


def _network(text: str) -> object | None:
    if text == "unix":
        return ""  # what servers report as the peer of a Unix socket
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None
