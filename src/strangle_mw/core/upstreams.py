"""The upstreams of one table: those with a name, and those that routes name by their address.

Resolves a route's `to`; what an address is made of is `targets`. Nothing raises: problems are noted.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Literal

from strangle_mw.core.compiled import CompiledUpstream
from strangle_mw.core.model import MAX_SECONDS, HttpxUpstream, Split, Tls, Upstream
from strangle_mw.core.patterns import PatternError
from strangle_mw.core.resilience import MAX_OPEN
from strangle_mw.core.targets import is_target, parse_endpoint
from strangle_mw.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from strangle_mw.core.model import Breaker, Endpoint, Health

_TIMES = ("connect_timeout", "timeout", "idle_timeout", "keepalive")
# What parses already and acts in a later version (see `compile`).
_LATER = {
    "lambda_": "Lambda functions act",
    "asgi": "apps in this process act",
    "wsgi": "apps in this process act",
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
        self.compiled[name] = self._compile(name, upstream, "url" if upstream.url else "urls")
        self.check(upstream, "")

    def check(self, upstream: Upstream, field: str) -> None:
        """Note what an upstream's settings cannot be; `field` is where they stand."""
        at = f"{field}." if field else ""
        kinds = [k for k in ("url", "urls", "lambda_", "asgi", "wsgi") if getattr(upstream, k)]
        if len(kinds) != 1:
            what = (
                "needs a `url`"
                if not kinds
                else f"give only one of {', '.join(k.rstrip('_') for k in kinds)}"
            )
            self._note(field, what, "upstream-target")
        for name, what in _LATER.items():
            if getattr(upstream, name):
                self._note(at + name.rstrip("_"), f"{what} in a later version; remove it", "not-yet")
        if isinstance(upstream, HttpxUpstream):
            self._check_transport(upstream, at)
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
        if upstream.tls != Tls() and not all(
            u.startswith("https:") for u in (upstream.url, *upstream.urls) if u
        ):
            self._note(at + "tls", "needs an https:// address", "tls-without-https")
        if upstream.tls.key and not upstream.tls.cert:
            self._note(at + "tls.key", "needs `cert`, the certificate it belongs to", "tls-key")

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
        if callable(to):
            self._note(
                "to", "apps in this process act in a later version; give an http(s) address", "not-yet"
            )
        else:
            self._note("to", "must be an upstream's name, an address or a list of {upstream, weight}", "type")
        return []

    def _anonymous(self, upstream: Upstream, field: str) -> CompiledUpstream:
        """Name an upstream without a name: by its address, and a number if that has other settings."""
        address = upstream.url or ", ".join(upstream.urls) or "upstream"
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
            return self._anonymous(Upstream(url=name), field)
        near = difflib.get_close_matches(name, self._declared, 1)
        hint = (
            f"; did you mean {near[0]!r}?" if near else "; define [upstreams.NAME] or give an http(s) address"
        )
        self._note(field, f"there is no upstream {name!r}{hint}", "upstream-unknown")
        return None

    def _compile(self, name: str, upstream: Upstream, field: str) -> CompiledUpstream:
        endpoints: list[Endpoint] = []
        several = len(upstream.urls) > 1
        for at, url in enumerate([upstream.url, *upstream.urls] if upstream.url else upstream.urls):
            where = field
            if several:
                where = f"{field}[{at}]" if field == "urls" else f"{field}.urls[{at}]"
            if url.startswith(("lambda:", "arn:", "asgi:", "wsgi:")):
                kind = "Lambda functions" if url.startswith(("lambda:", "arn:")) else "apps in this process"
                self._note(where, f"{kind} act in a later version; give an http(s) address", "not-yet")
                continue
            try:
                endpoint = parse_endpoint(url)
            except PatternError as exc:
                self._note(where, f"{url!r} {exc}", "upstream-address")
                continue
            if endpoint in endpoints:
                self._note(where, f"{url!r} stands there already; give each once", "upstream-address-twice")
            endpoints.append(endpoint)
        before = self._known.get(name)
        if before is not None and before.declared == upstream:
            return before
        return CompiledUpstream(name, upstream, tuple(endpoints))
