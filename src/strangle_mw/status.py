"""How things stand: each route's stage and numbers, the workers that follow, the last events; as data.

Built from what a store and a table say, without changing either; laying it out as text is `cli_status`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from strangle_mw.core.dials import make_dial
from strangle_mw.core.events import CounterKey, read_event, safe_text
from strangle_mw.core.model import Stage
from strangle_mw.core.overrides import apply_overrides
from strangle_mw.reach import read_held, read_workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from strangle_mw.core.compiled import CompiledRoute
    from strangle_mw.core.dials import Dial
    from strangle_mw.core.events import Event
    from strangle_mw.core.overrides import Override, Overrides
    from strangle_mw.reach import Held, Known, Worker
    from strangle_mw.stores.base import Store

EVENTS = 5
"""Events that are shown with the status."""

_FALLBACK = "fallback:"
_FAILED = frozenset(("failed", "cut"))


@dataclass(frozen=True, slots=True)
class Numbers:
    """How often a route was asked for.

    `legacy` and `modern` say who answered; of modern's answers `errors` were its own 5xx, and `failed` were
    none, or cut. `fallbacks` are those of legacy's answers that came instead of modern's, by reason.
    """

    legacy: int = 0
    modern: int = 0
    errors: int = 0
    failed: int = 0
    not_compared: int = 0
    fallbacks: Mapping[str, int] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """All requests."""
        return self.legacy + self.modern

    @property
    def share(self) -> float | None:
        """Percent of the requests that were sent to the modern side, fallbacks included; None for none."""
        if not self.requests:
            return None
        return 100 * (self.modern + sum(self.fallbacks.values())) / self.requests

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "share": self.share}


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """One route: what the table declares, what is in force, what came of it.

    `dial` is in force as far as table and overrides go, whatever the kill switch says. `problem` says why the
    override does not act; `contradicted` that the table says something else than when it was made; `waiting`
    how many workers wait for a good health answer. `now` are the numbers of the stage and weight in force,
    `total` those of all stages.
    """

    name: str
    declared: Dial
    dial: Dial
    override: Override | None
    contradicted: bool
    problem: str
    waiting: int
    fixed: bool
    now: Numbers
    total: Numbers

    @property
    def is_notable(self) -> bool:
        """Tell whether there is anything to say of it."""
        return bool(self.total.requests or self.override) or self.declared.stage is not Stage.LEGACY

    def as_dict(self) -> dict[str, Any]:
        """Return plain data; weights are percent."""
        return {
            "route": self.name,
            **_dial_data(self.dial),
            "declared": _dial_data(self.declared),
            "override": None if self.override is None else _override_data(self.override),
            "contradicted": self.contradicted,
            "problem": self.problem,
            "waiting": self.waiting,
            "now": self.now.as_dict(),
            "total": self.total.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class Stray:
    """An override of a route that the table does not have."""

    name: str
    override: Override
    problem: str


@dataclass(frozen=True, slots=True)
class Status:
    """How things stand at one moment (`at`, Unix seconds); `store` is an address fit to be shown."""

    at: float
    store: str
    known: Known
    held: Held
    routes: tuple[RouteStatus, ...]
    strays: tuple[Stray, ...]
    workers: tuple[Worker, ...]
    events: tuple[Event, ...]

    @property
    def endpoints(self) -> dict[str, list[Counter[str]]]:
        """How many workers see each endpoint of each upstream open, half-open, unhealthy."""
        found: dict[str, list[Counter[str]]] = {}
        for worker in self.workers:
            for name, states in worker.upstreams.items():
                seen = found.setdefault(name, [])
                seen += [Counter() for _ in states[len(seen) :]]
                for counter, (breaker, health) in zip(seen, states, strict=False):
                    counter.update(s for s in (breaker, health) if s in ("open", "half-open", "unhealthy"))
        return dict(sorted(found.items()))

    @property
    def versions(self) -> dict[str, Counter[str]]:
        """How many calls each version of each Lambda function has answered, in the workers that are seen."""
        found: dict[str, Counter[str]] = {}
        for worker in self.workers:
            for name, versions in worker.versions.items():
                found.setdefault(name, Counter()).update(versions)
        return dict(sorted(found.items()))

    @property
    def tables(self) -> Counter[str]:
        """How many workers have each revision of the table."""
        return Counter(w.table for w in self.workers)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        kill = self.held.overrides.kill
        return {
            "at": self.at,
            "store": self.store,
            "table": {"revision": self.known.revision, "origin": self.known.origin, "note": self.known.note},
            "revision": self.held.overrides.revision,
            "refused": self.held.refused,
            "kill": None if kill is None else asdict(kill),
            "routes": [r.as_dict() for r in self.routes],
            "strays": [
                {"route": s.name, "problem": s.problem, "override": _override_data(s.override)}
                for s in self.strays
            ],
            "upstreams": {n: [dict(c) for c in counters] for n, counters in self.endpoints.items()},
            "versions": {n: dict(c) for n, c in self.versions.items()},
            "workers": [{**asdict(w), "waiting": sorted(w.waiting)} for w in self.workers],
            "events": [e.as_dict() for e in self.events],
        }


def read_status(store: Store, known: Known, key: bytes, at: float) -> Status:
    """Read how things stand; raises `StoreError`."""
    held = read_held(store, key)
    workers = tuple(read_workers(store))
    counts = store.counts()
    routes, strays = judge(known, held.overrides, counts, workers)
    return Status(at, store.url, known, held, routes, strays, workers, read_events(store, EVENTS))


def read_events(store: Store, limit: int) -> tuple[Event, ...]:
    """Return the newest events of a store, the newest last; what is none is left out."""
    found = (read_event(data) for data in store.events(limit))
    return tuple(e for e in found if e is not None)


def judge(
    known: Known, overrides: Overrides, counts: Mapping[str, int], workers: Sequence[Worker]
) -> tuple[tuple[RouteStatus, ...], tuple[Stray, ...]]:
    """Say how each route stands, and which overrides have no route; `counts` are a store's."""
    applied = apply_overrides(known.table, overrides)
    counted = _by_route(counts)
    waiting = Counter(name for w in workers for name in w.waiting)
    idle = [name for name in overrides.routes if name not in applied.dials]
    problems = {name: p.what for name, p in zip(idle, applied.problems, strict=True)}

    def stands(route: CompiledRoute) -> RouteStatus:
        dial = applied.dials.get(route.name, route.staging.dial)
        acting = dial if overrides.kill is None else make_dial(Stage.LEGACY, 0)
        found = counted.get(route.name, ())
        return RouteStatus(
            route.name,
            route.staging.dial,
            dial,
            overrides.routes.get(route.name),
            route.name in applied.contradicted,
            problems.get(route.name, ""),
            waiting[route.name],
            route.action is None,
            _sum((k, n) for k, n in found if (k.stage, k.points) == (acting.stage.value, acting.points)),
            _sum(found),
        )

    strays = (
        Stray(safe_text(n, 500), o, problems.get(n, ""))
        for n, o in overrides.routes.items()
        if n not in known.table.by_name
    )
    return tuple(map(stands, known.table.routes)), tuple(strays)


def _by_route(counts: Mapping[str, int]) -> dict[str, list[tuple[CounterKey, int]]]:
    found: dict[str, list[tuple[CounterKey, int]]] = {}
    for name, number in counts.items():
        key = CounterKey.parse(name)
        if key is not None and number > 0:
            found.setdefault(key.route, []).append((key, number))
    return found


def _sum(counted: Iterable[tuple[CounterKey, int]]) -> Numbers:
    by_side: Counter[str] = Counter()
    found: Counter[str] = Counter()
    fallbacks: Counter[str] = Counter()
    for key, number in counted:
        by_side[key.side] += number
        if key.side == "modern":
            found["errors"] += number if key.outcome == "5xx" else 0
            found["failed"] += number if key.outcome in _FAILED else 0
        elif key.outcome.startswith(_FALLBACK):
            fallbacks[key.outcome.removeprefix(_FALLBACK)] += number
    return Numbers(
        by_side["legacy"],
        by_side["modern"],
        found["errors"],
        found["failed"],
        by_side["shadow"],
        dict(sorted(fallbacks.items())),
    )


def _dial_data(dial: Dial) -> dict[str, Any]:
    return {"stage": dial.stage.value, "weight": dial.points / 100}


def _override_data(override: Override) -> dict[str, Any]:
    return {
        "stage": None if override.stage is None else override.stage.value,
        "weight": None if override.points is None else override.points / 100,
        "by": override.by,
        "at": override.at,
        "why": override.why,
        "force": override.force,
    }
