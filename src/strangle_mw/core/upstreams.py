"""The upstreams of one table: those with a name, and those that routes name by their address.

Resolves a route's `to`; what an address is made of is `targets`. Nothing raises: problems are noted.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Literal

from strangle_mw.core.compiled import CompiledUpstream
from strangle_mw.core.interface import detect_interface
from strangle_mw.core.model import MAX_SECONDS, Endpoint, HttpxUpstream, Split, Tls, Upstream
from strangle_mw.core.patterns import PatternError
from strangle_mw.core.resilience import MAX_OPEN
from strangle_mw.core.targets import check_reference, is_target, parse_endpoint, parse_function, shown
from strangle_mw.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from strangle_mw.core.compiled import Kind
    from strangle_mw.core.model import Breaker, Health
    from strangle_mw.core.targets import LambdaFunction

_TIMES = ("connect_timeout", "timeout", "idle_timeout", "keepalive")
_APPS: tuple[Literal["asgi", "wsgi"], ...] = ("asgi", "wsgi")
_TARGETS = ("url", "urls", "lambda_", "asgi", "wsgi")
_INLINE: Mapping[str, Literal["lambda_", "asgi", "wsgi"]] = {
    "lambda:": "lambda_",
    "arn:": "lambda_",
    "asgi:": "asgi",
    "wsgi:": "wsgi",
}
# Settings that say something of one kind of target only: one that does nothing would be believed.
_ONLY = {
    "lambda": ("region", "profile", "endpoint_url", "format"),
    "http": ("host", "health", "tls", "verify", "http"),
}
# Settings of the own clients; a transport of the user's has its own.
_CONNECTS = ("tls", "verify", "http", "keepalive")
# What a probe may ask for: visible ASCII without a fragment (RFC 9112 section 3.2.1).
_PROBE_PATH = re.compile(r"/[!-\"$-~]*")
_MIN_INTERVAL = 0.1  # seconds between two probes
_MAX_WINDOW = 3600  # seconds that a breaker may look back
_ENTRIES: dict[Literal["asgi", "wsgi"], tuple[str, str]] = {
    "asgi": ("handle_async_request", "AsyncHTTPTransport()"),
    "wsgi": ("handle_request", "HTTPTransport()"),
}


def httpx_package(transport: object) -> str:
    """Return "httpx2" or "httpx", from which the transport or its base class comes; else ""."""
    packages = (c.__module__.partition(".")[0] for c in type(transport).__mro__)
    return next((p for p in packages if p in ("httpx2", "httpx")), "")


def check_transports(upstreams: Iterable[CompiledUpstream], interface: Literal["asgi", "wsgi"]) -> None:
    """Raise `ConfigError` if an app of this interface cannot ask the transport of an `HttpxUpstream`."""
    entry, remedy = _ENTRIES[interface]
    problems = []
    for upstream in upstreams:
        declared = upstream.declared
        if isinstance(declared, HttpxUpstream) and not hasattr(declared.transport, entry):
            wanted = f"{httpx_package(declared.transport)}.{remedy}"
            what = f"an app with the interface {interface!r} needs a transport like {wanted}"
            problems.append(Problem(f"upstreams.{upstream.name}.transport", what, "transport-interface"))
    if problems:
        raise ConfigError(problems)


class UpstreamRegistry:
    """Collects a table's upstreams; `note(field, what, id)` is told of problems.

    What was compiled before and is declared the same is taken from `known`: connections and breakers stay.
    """

    def __init__(
        self,
        names: Iterable[str],
        note: Callable[[str, str, str], None],
        known: Mapping[str, CompiledUpstream],
    ) -> None:
        self._known = known
        self.compiled: dict[str, CompiledUpstream] = {}
        self.used: set[str] = set()
        self._declared = frozenset(names)
        self._note = note

    def add(self, name: str, upstream: Upstream) -> None:
        """Add an upstream that has a name."""
        given = next((k for k in _TARGETS if getattr(upstream, k) not in ("", ())), "url")
        self.compiled[name] = self._compile(name, upstream, given.rstrip("_"))
        self.check(upstream, "")

    def check(self, upstream: Upstream, field: str) -> None:
        """Note what an upstream's settings cannot be; `field` is where they stand."""
        at = f"{field}." if field else ""
        given = [k for k in _TARGETS if getattr(upstream, k) not in ("", ())]
        if len(given) != 1:
            what = (
                "needs a `url`, or `lambda`, `asgi` or `wsgi`"
                if not given
                else f"give only one of {', '.join(k.rstrip('_') for k in given)}"
            )
            self._note(field, what, "upstream-target")
        else:
            self._check_fitting(upstream, given[0], at)
        if isinstance(upstream, HttpxUpstream):
            self._check_transport(upstream, at)
        if upstream.endpoint_url:
            self._check_invoke_address(upstream.endpoint_url, f"{at}endpoint_url")
        for name in _TIMES:
            if not 0 < getattr(upstream, name) <= MAX_SECONDS:
                self._note(
                    at + name, f"must be more than 0 and at most {MAX_SECONDS} seconds", "upstream-range"
                )
        if not 0 <= upstream.pool_timeout <= MAX_SECONDS:
            self._note(at + "pool_timeout", f"must be 0..{MAX_SECONDS} seconds", "upstream-range")
        if upstream.max_in_flight < 1:
            self._note(at + "max_in_flight", "must be 1 or more", "upstream-range")
        self._check_breaker(upstream.breaker, f"{at}breaker.")
        if upstream.health is not None:
            self._check_health(upstream, upstream.health, f"{at}health")
        addresses = [u for u in (upstream.url, *upstream.urls) if u]
        if upstream.tls != Tls() and addresses and not all(u.startswith("https:") for u in addresses):
            self._note(at + "tls", "needs an https:// address", "tls-without-https")
        if upstream.tls.key and not upstream.tls.cert:
            self._note(at + "tls.key", "needs `cert`, the certificate it belongs to", "tls-key")

    def _check_fitting(self, upstream: Upstream, target: str, at: str) -> None:
        """Note settings that do not act on this kind of target."""
        kind = "http" if target in ("url", "urls") else target.rstrip("_")
        plain = Upstream()
        for of, names in _ONLY.items():
            for name in names if of != kind else ():
                if getattr(upstream, name) != getattr(plain, name):
                    needed = "`url`" if of == "http" else f"`{of}`"
                    self._note(
                        at + name, f"needs {needed}; here is `{target.rstrip('_')}`", "upstream-setting"
                    )

    def _check_invoke_address(self, url: str, at: str) -> None:
        try:
            endpoint = parse_endpoint(url)
        except PatternError as exc:
            self._note(at, f"{shown(url)} {exc}", "lambda-endpoint")
        else:
            if endpoint.scheme == "unix":
                self._note(at, f"{url!r} must be https://host or http://host:port", "lambda-endpoint")

    def _check_breaker(self, breaker: Breaker, at: str) -> None:
        ranges = {
            "failures": (breaker.failures >= 0, "must be 0 or more; 0 switches this rule off"),
            "ratio": (0 <= breaker.ratio <= 1, "must be 0..1; 0 switches this rule off"),
            "minimum": (breaker.minimum >= 1, "must be 1 or more"),
            "window": (0 < breaker.window <= _MAX_WINDOW, f"must be more than 0, at most {_MAX_WINDOW}"),
            "open": (0 < breaker.open <= MAX_OPEN, f"must be more than 0, at most {MAX_OPEN:g}"),
        }
        for name, (holds, what) in ranges.items():
            if not holds:
                self._note(at + name, what, "upstream-range")

    def _check_health(self, upstream: Upstream, health: Health, at: str) -> None:
        if not _PROBE_PATH.fullmatch(health.path):
            what = "must start with a slash, and hold no blank, `#`, or control or non-ASCII character"
            self._note(f"{at}.path", what, "health-path")
        if not _MIN_INTERVAL <= health.interval <= MAX_SECONDS:
            self._note(f"{at}.interval", f"must be {_MIN_INTERVAL}..{MAX_SECONDS} seconds", "upstream-range")
        if isinstance(upstream, HttpxUpstream) or upstream.http == "2":
            what = "probes go over the own HTTP/1.1 client, which says nothing of this transport; remove it"
            self._note(at, what, "health-transport")

    def _check_transport(self, upstream: HttpxUpstream, at: str) -> None:
        transport = upstream.transport
        if not httpx_package(transport) or not any(hasattr(transport, e) for e, _ in _ENTRIES.values()):
            what = (
                "must be a transport of httpx2 or httpx: give httpx2.AsyncHTTPTransport(), under WSGI "
                "httpx2.HTTPTransport(); not a client, which keeps one user's cookies for the next"
            )
            self._note(at + "transport", what, "transport-type")
        plain = Upstream()
        for name in _CONNECTS:
            if getattr(upstream, name) != getattr(plain, name):
                self._note(at + name, "is the transport's business: set it there", "transport-setting")
        for url in (upstream.url, *upstream.urls):
            if url.startswith("unix:"):
                what = "a transport connects by itself: give it uds=, and an http:// address here"
                self._note(at + "url", what, "transport-setting")

    def shares(self, to: object) -> list[tuple[CompiledUpstream, int]]:
        """Resolve a `to`: each upstream with the upper bound of its share, in basis points."""
        if callable(to):
            to = self._app(to)
            if to is None:
                return []
        if isinstance(to, Upstream):
            return [(self._anonymous(to, "to"), 10_000)]
        splits = [Split(upstream=to)] if isinstance(to, str) else self._splits(to)
        total = sum(s.weight for s in splits)
        if splits and (total <= 0 or any(s.weight < 0 for s in splits)):
            self._note("to", "weights must be 0 or more, and one of them more", "split-weight")
            return []
        reached, found = 0, []
        for at, split in enumerate(splits):
            reached += split.weight
            field = "to" if len(splits) == 1 else f"to[{at}].upstream"
            upstream = self._resolve(field, split.upstream)
            if upstream is not None:
                found.append((upstream, round(reached * 10_000 / total)))
        return found

    def _splits(self, to: object) -> list[Split]:
        if isinstance(to, list | tuple) and to and all(isinstance(s, Split) for s in to):
            return list(to)
        self._note("to", "must be an upstream's name, an address or a list of {upstream, weight}", "type")
        return []

    def _app(self, app: Callable[..., object]) -> Upstream | None:
        """Take an app that is given as a route's `to`."""
        try:
            interface = detect_interface(app)
        except TypeError as exc:
            what = str(exc).partition(";")[0]
            self._note("to", f"{what}; give Upstream(asgi=app) or Upstream(wsgi=app)", "app-interface")
            return None
        return Upstream(asgi=app) if interface == "asgi" else Upstream(wsgi=app)

    def _anonymous(self, upstream: Upstream, field: str) -> CompiledUpstream:
        """Name an upstream without a name: by its address, and a number if that has other settings."""
        address = _address(upstream)
        name, number = address, 1
        while name in self.compiled and self.compiled[name].declared != upstream:
            number += 1
            name = f"{address} ({number})"
        self.used.add(name)
        if name not in self.compiled:
            self.compiled[name] = self._compile(name, upstream, field)
            self.check(upstream, field)
        return self.compiled[name]

    def _resolve(self, field: str, name: str) -> CompiledUpstream | None:
        if name in self._declared:
            self.used.add(name)
            return self.compiled.get(name)  # if it is not there, its own problem is already told
        if is_target(name):
            # A plain address has the default settings, whatever an object with that address says elsewhere.
            return self._anonymous(_inline(name), field)
        near = difflib.get_close_matches(name, self._declared, 1)
        hint = (
            f"; did you mean {near[0]!r}?" if near else "; define [upstreams.NAME] or give an http(s) address"
        )
        self._note(field, f"there is no upstream {name!r}{hint}", "upstream-unknown")
        return None

    def _compile(self, name: str, upstream: Upstream, field: str) -> CompiledUpstream:
        made = self._elsewhere(name, upstream, field) or CompiledUpstream(
            name, upstream, tuple(self._endpoints(upstream, field))
        )
        before = self._known.get(name)
        return before if before is not None and before.declared == upstream else made

    def _elsewhere(self, name: str, upstream: Upstream, field: str) -> CompiledUpstream | None:
        """Compile what is not reached by an address: a function, or an app in this process."""
        if upstream.lambda_:
            try:
                function = parse_function(upstream.lambda_)
            except PatternError as exc:
                self._note(field, f"{upstream.lambda_!r} {exc}", "upstream-address")
                function = None
            if function is not None and function.region and upstream.region not in ("", function.region):
                what = f"is {upstream.region!r}, and the ARN says {function.region!r}; remove it"
                self._note("region" if field == "lambda" else field, what, "lambda-region")
            return _placed(name, upstream, "lambda", upstream.lambda_, function)
        kind: Kind
        for kind in _APPS:
            app = getattr(upstream, kind)
            if isinstance(app, str) and app:
                try:
                    check_reference(app)
                except PatternError as exc:
                    self._note(field, f"{app!r} {exc}", "upstream-address")
            if app != "":
                return _placed(name, upstream, kind, _app_name(app))
        return None

    def _endpoints(self, upstream: Upstream, field: str) -> list[Endpoint]:
        endpoints: list[Endpoint] = []
        several = len(upstream.urls) > 1
        for at, url in enumerate([upstream.url, *upstream.urls] if upstream.url else upstream.urls):
            where = field
            if several:
                where = f"{field}[{at}]" if field == "urls" else f"{field}.urls[{at}]"
            if (key := _inline_key(url)) is not None:
                self._note(where, f"{url!r} is no URL; write {key.rstrip('_')} = ...", "upstream-address")
                continue
            try:
                endpoint = parse_endpoint(url)
            except PatternError as exc:
                self._note(where, f"{shown(url)} {exc}", "upstream-address")
                continue
            if endpoint in endpoints:
                self._note(where, f"{url!r} stands there already; give each once", "upstream-address-twice")
            endpoints.append(endpoint)
        return endpoints


def _inline_key(target: str) -> Literal["lambda_", "asgi", "wsgi"] | None:
    return next((key for start, key in _INLINE.items() if target.startswith(start)), None)


def _inline(target: str) -> Upstream:
    """Declare the upstream that a route names by its address alone."""
    key, (_, _, place) = _inline_key(target), target.partition(":")
    if key == "lambda_":
        return Upstream(lambda_=target if target.startswith("arn:") else place)
    if key == "asgi":
        return Upstream(asgi=place)
    return Upstream(url=target) if key is None else Upstream(wsgi=place)


def _placed(
    name: str, upstream: Upstream, kind: Kind, place: str, function: LambdaFunction | None = None
) -> CompiledUpstream:
    return CompiledUpstream(name, upstream, (Endpoint(kind, place, 0, b""),), kind, function)


def _address(upstream: Upstream) -> str:
    """Say where an upstream without a name is; the same in every process, since sticky groups have it."""
    if upstream.lambda_:
        return upstream.lambda_ if upstream.lambda_.startswith("arn:") else f"lambda:{upstream.lambda_}"
    for kind in _APPS:
        if (app := getattr(upstream, kind)) != "":
            return f"{kind}:{_app_name(app)}"
    return upstream.url or ", ".join(upstream.urls) or "upstream"


def _app_name(app: object) -> str:
    if isinstance(app, str):
        return app
    named = app if hasattr(app, "__qualname__") else type(app)
    return f"{named.__module__}:{getattr(named, '__qualname__', type(app).__name__)}"
