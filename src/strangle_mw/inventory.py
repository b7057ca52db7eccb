"""How far the migration is: the app's own endpoints, joined with the table and what was counted; as data.

Built from plain values, without reading or printing anything; laying it out as text is `cli_inventory`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from strangle_mw.config import JWKS_ROUTE
from strangle_mw.core.coverage import Coverage
from strangle_mw.core.inventory import WEBSOCKET, AppEndpoint, UrlMap
from strangle_mw.core.model import Stage
from strangle_mw.core.staging import MODERN_STAGES
from strangle_mw.core.usage import DAY, hits, read_usage, text_key
from strangle_mw.errors import Problem
from strangle_mw.learning import OTHERS, learned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from strangle_mw.core.coverage import Cover, Extent
    from strangle_mw.core.decision import Snapshot
    from strangle_mw.core.dials import Dial
    from strangle_mw.core.usage import Days, Usage

WINDOW: Final = 30
"""Days that are looked at, if not told otherwise."""

NOT_COUNTED: Final = (
    "no hit of an endpoint is counted yet: the integrations of Django, Flask and Starlette count them, "
    "and strangle(..., learn=True)"
)

_STAGES = list(Stage)


@dataclass(frozen=True, slots=True)
class Group:
    """The methods of an endpoint that have the same routes.

    `dial` is the stage and weight of the least advanced of them, None without; `hits` those that the wrapped
    app has answered in the days looked at, `last` the last day (Unix days) with one.
    """

    methods: tuple[str, ...]
    extent: Extent
    routes: tuple[str, ...]
    dial: Dial | None
    hits: int
    last: int | None

    @property
    def is_modern(self) -> bool:
        """Tell whether the old code is out of use, as far as the table says."""
        return (
            self.extent == "wholly"
            and self.dial is not None
            and self.dial.stage in (Stage.MODERN, Stage.RETIRED)
        )

    @property
    def is_moving(self) -> bool:
        """Tell whether any request may go to the modern side."""
        return self.dial is not None and self.dial.stage in MODERN_STAGES


@dataclass(frozen=True, slots=True)
class Entry:
    """One endpoint; `quiet` is the number of days without a hit on the wrapped app, None if not counted."""

    endpoint: AppEndpoint
    groups: tuple[Group, ...]
    days: Days
    quiet: int | None

    @property
    def extent(self) -> Extent:
        """How far it is covered, all methods together."""
        found = {g.extent for g in self.groups}
        return found.pop() if len(found) == 1 else "unknown" if "unknown" in found else "partly"

    @property
    def is_modern(self) -> bool:
        """Tell whether the old code is out of use, as far as the table says."""
        return all(g.is_modern for g in self.groups)


@dataclass(frozen=True, slots=True)
class RouteUse:
    """One route of the table: what answered its requests in the days looked at, and when last."""

    name: str
    dial: Dial
    modern: Days
    legacy: Days


@dataclass(frozen=True, slots=True)
class Inventory:
    """How things stand on one day (`today`, Unix days), looking `days` back.

    `since` is the first day on which the app's endpoints were counted, None if they were not, which `note`
    explains; `legacy` are the requests that it has answered in the days looked at, also those for no endpoint
    of it; `problem` says why the URL map could not be read: then the endpoints are those learned. `gone`
    are rules that were counted and that the app has no more.
    """

    today: int
    days: int
    framework: str
    problem: str
    note: str
    since: int | None
    entries: tuple[Entry, ...]
    routes: tuple[RouteUse, ...]
    warnings: tuple[Problem, ...]
    gone: tuple[str, ...]
    legacy: int

    @property
    def first(self) -> int:
        """The first day that is looked at."""
        return self.today - self.days + 1

    @property
    def modern(self) -> int:
        """Requests that the modern side has answered in the days looked at."""
        return sum(hits(r.modern, self.first) for r in self.routes)

    @property
    def quiet(self) -> int | None:
        """How many endpoints were not asked for in all the days looked at, or since counting began."""
        if self.since is None:
            return None
        return sum(not hits(e.days, self.first) for e in self.entries)

    @property
    def headline(self) -> str:
        """Say in one line how far the migration is."""
        total = len(self.entries)
        if not total:
            return "no endpoint of the app is known"
        parts = [f"{sum(e.is_modern for e in self.entries)} of {total} endpoint{'s' * (total != 1)} modern"]
        requests = self.legacy + self.modern
        if self.since is None:
            return parts[0]
        if requests:
            parts.append(f"{100 * self.modern / requests:.0f} % of requests")
        began = f"since {date(self.since)}, when counting began"
        parts.append(f"{self.quiet} quiet {f'for {self.days} days' if self.is_long else began}")
        return "; ".join(parts)

    @property
    def is_long(self) -> bool:
        """Tell whether counting has run for all the days looked at."""
        return self.since is not None and self.today - self.since >= self.days

    def as_dict(self) -> dict[str, Any]:
        """Return plain data; days are dates, weights percent."""
        return {
            "headline": self.headline,
            "date": date(self.today),
            "days": self.days,
            "framework": self.framework,
            "problem": self.problem,
            "note": self.note,
            "counting_since": date(self.since),
            "requests": {"legacy": self.legacy, "modern": self.modern},
            "endpoints": [_entry_data(e) for e in self.entries],
            "routes": [
                {
                    "route": r.name,
                    **_dial_data(r.dial),
                    "modern": _dated(r.modern),
                    "legacy": _dated(r.legacy),
                }
                for r in self.routes
            ],
            "gone": list(self.gone),
            "warnings": [asdict(w) for w in self.warnings],
        }


def build(
    url_map: UrlMap,
    snapshot: Snapshot,
    counts: Mapping[str, int],
    now: float,
    days: int = WINDOW,
    note: str = "",
) -> Inventory:
    """Join an app's endpoints with a table and a store's counts.

    `snapshot.dials` are the overrides in force; `now` is Unix seconds; `note` says why nothing was counted.
    """
    usage, today = read_usage(counts), int(now // DAY)
    endpoints = learned(usage.endpoints) if url_map.problem else url_map.endpoints
    asked = _by_rule(usage)
    coverage = Coverage(snapshot)
    entries = tuple(_entry(e, coverage.of(e), snapshot, usage, asked, today, days) for e in endpoints)
    rules = {text_key(rule) for e in endpoints for rule in (e.rule, *e.rules)}
    first = today - days + 1
    return Inventory(
        today,
        days,
        url_map.framework,
        url_map.problem,
        note or (NOT_COUNTED if usage.since is None else ""),
        usage.since,
        entries,
        tuple(_route_use(snapshot, n, usage) for n in snapshot.table.by_name if n != JWKS_ROUTE),
        tuple(_warnings(entries, coverage, snapshot, readable=not url_map.problem)),
        tuple(sorted({rule for _, rule in usage.endpoints} - rules - {"", OTHERS})),
        sum(hits(found, first) for found in usage.endpoints.values()),
    )


def _by_rule(usage: Usage) -> dict[str, list[tuple[str, Days]]]:
    found: dict[str, list[tuple[str, Days]]] = defaultdict(list)
    for (method, rule), days in usage.endpoints.items():
        found[rule].append((method, days))
    return found


def _entry(
    endpoint: AppEndpoint,
    covers: Sequence[Cover],
    snapshot: Snapshot,
    usage: Usage,
    asked: Mapping[str, list[tuple[str, Days]]],
    today: int,
    days: int,
) -> Entry:
    rules = {text_key(rule) for rule in (endpoint.rule, *endpoint.rules)}
    mine = [(m, found) for rule in rules for m, found in asked.get(rule, ()) if endpoint.takes(m)]
    whole = _summed(found for _, found in mine)
    quiet = None if usage.since is None else today - max(whole, default=usage.since)
    groups: dict[tuple[Extent, tuple[str, ...]], list[str]] = {}
    for cover in covers:
        groups.setdefault((cover.extent, cover.routes), []).append(cover.method)
    return Entry(
        endpoint,
        tuple(_group(m, *key, snapshot, mine, today - days + 1) for key, m in groups.items()),
        whole,
        quiet,
    )


def _group(
    methods: Sequence[str],
    extent: Extent,
    routes: tuple[str, ...],
    snapshot: Snapshot,
    asked: Iterable[tuple[str, Days]],
    first: int,
) -> Group:
    mine = _summed(days for m, days in asked if ("GET" if m == "HEAD" else m) in methods)
    dials = [snapshot.dial(snapshot.table.by_name[name]) for name in routes]
    dial = min(dials, key=lambda d: (_STAGES.index(d.stage), d.points), default=None)
    return Group(tuple(methods), extent, routes, dial, hits(mine, first), max(mine, default=None))


def _summed(found: Iterable[Mapping[int, int]]) -> Days:
    total: Days = defaultdict(int)
    for days in found:
        for day, number in days.items():
            total[day] += number
    return dict(total)


def _route_use(snapshot: Snapshot, name: str, usage: Usage) -> RouteUse:
    modern, legacy = (usage.routes.get((text_key(name), side), {}) for side in ("modern", "legacy"))
    return RouteUse(name, snapshot.dial(snapshot.table.by_name[name]), modern, legacy)


# --- what deserves a second look


def _warnings(
    entries: Sequence[Entry], coverage: Coverage, snapshot: Snapshot, *, readable: bool
) -> Iterator[Problem]:
    beside = {JWKS_ROUTE}
    for entry in entries:
        near = coverage.beside(entry.endpoint) if entry.extent == "not" else ()
        beside.update(near)
        yield from _about(entry, near)
    yield from _split_methods(entries)
    for route in snapshot.table.routes if readable else ():
        if route.name not in coverage.touched and route.name not in beside:
            what = "covers no endpoint of the app: is it new, is its path misspelt, or is the old code gone?"
            yield Problem(f"route {route.name!r}", what, "route-without-endpoint")


def _about(entry: Entry, beside: Sequence[str]) -> Iterator[Problem]:
    text = entry.endpoint.text
    if entry.extent == "unknown":
        what = "no sample request could be made of its expression, so nobody knows which routes cover it"
        yield Problem(text, what, "coverage-unknown")
    elif beside:
        what = (
            f"{_named(beside)} would cover it but for the slash at the end; "
            'write the route\'s path as the app does, or trailing_slash = "ignore" above the routes'
        )
        yield Problem(text, what, "slash-split")


def _split_methods(entries: Sequence[Entry]) -> Iterator[Problem]:
    """Warn of paths of which one method is moving and another is not: they may share data."""
    by_path: dict[tuple[object, ...], list[tuple[AppEndpoint, Group]]] = defaultdict(list)
    for entry in entries:
        by_path[entry.endpoint.text, entry.endpoint.hosts] += ((entry.endpoint, g) for g in entry.groups)
    for (text, _), groups in by_path.items():
        moving = {m for e, g in groups if g.is_moving for m in _certain(e, g)}
        staying = {m for e, g in groups if not g.is_moving for m in _certain(e, g)} - moving - {WEBSOCKET}
        if moving - {WEBSOCKET} and staying:
            what = (
                f"{_listed(moving)} may go to the modern side, {_listed(staying)} to the wrapped app: "
                "what one writes the other must see"
            )
            yield Problem(str(text), what, "methods-split")


def _certain(endpoint: AppEndpoint, group: Group) -> Iterable[str]:
    """Return the methods that a view surely takes: of one that takes any, those with a route or a hit."""
    return group.methods if endpoint.methods or group.is_moving or group.hits else ()


def _named(routes: Sequence[str]) -> str:
    return f"route{'s' * (len(routes) > 1)} " + ", ".join(map(repr, routes))


def _listed(methods: Iterable[str]) -> str:
    return ", ".join(sorted(methods))


# --- plain data


def date(day: int | None) -> str:
    """Write a day (Unix days) as `2026-11-24`, "" for none."""
    return "" if day is None else datetime.fromtimestamp(day * DAY, UTC).strftime("%Y-%m-%d")


def _dated(days: Mapping[int, int]) -> dict[str, int]:
    return {date(day): number for day, number in sorted(days.items())}


def _dial_data(dial: Dial | None) -> dict[str, Any]:
    return {
        "stage": None if dial is None else dial.stage.value,
        "weight": None if dial is None else dial.points / 100,
    }


def _entry_data(entry: Entry) -> dict[str, Any]:
    endpoint = entry.endpoint
    return {
        "path": endpoint.text,
        "rule": endpoint.rule,
        "name": endpoint.name,
        "view": endpoint.view,
        "methods": sorted(endpoint.methods),
        "hosts": list(endpoint.hosts),
        "opaque": endpoint.opaque,
        "coverage": entry.extent,
        "modern": entry.is_modern,
        "routes": [
            {
                "methods": list(g.methods),
                "coverage": g.extent,
                "routes": list(g.routes),
                **_dial_data(g.dial),
                "legacy_hits": g.hits,
            }
            for g in entry.groups
        ],
        "legacy": _dated(entry.days),
        "last_seen": date(max(entry.days, default=None)),
        "quiet_days": entry.quiet,
    }
