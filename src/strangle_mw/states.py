"""What changes while requests run, in one process: breakers, health, fallback budgets, counters, events.

The machines are `core.resilience`; here they get their clock, chance and locks. Nothing is sent or stored
here. After a fork a process starts anew.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from threading import Lock
from time import monotonic, time
from typing import TYPE_CHECKING, Protocol

from strangle_mw.core.balance import choose
from strangle_mw.core.events import CounterKey, Event
from strangle_mw.core.fallback import reason_of
from strangle_mw.core.messages import STANDARD_METHODS
from strangle_mw.core.resilience import CircuitBreaker, EndpointHealth, FallbackBudget
from strangle_mw.stores.base import MAX_EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.core.dials import Dial
    from strangle_mw.core.events import Kind
    from strangle_mw.core.resilience import BreakerState, HealthState, Outcome
    from strangle_mw.errors import ForwardError

log = logging.getLogger("strangle_mw")

_LOGGED: Mapping[Kind, int] = {
    "breaker-open": logging.WARNING,
    "breaker-closed": logging.WARNING,
    "unhealthy": logging.WARNING,
    "healthy": logging.INFO,
    "retired-hit": logging.WARNING,
    "override-waiting": logging.WARNING,
    "reload": logging.INFO,
}

MAX_VERSIONS = 8
"""Versions of one function that are counted; an alias names two at most, the older ones are forgotten."""

MAX_RULES = 1_000
"""Endpoints of the wrapped app that are counted each by itself; a framework's rules are fewer, as a rule."""

OTHER_RULES = "(other)"
"""What further endpoints are counted under (promise P17)."""

_METHODS = STANDARD_METHODS | {"WEBSOCKET"}

_Key = tuple[str, str, int, str, str]


class UpstreamState:
    """The breakers and the health of one upstream's endpoints."""

    __slots__ = ("breakers", "health", "lock", "tell", "upstream")

    def __init__(self, upstream: CompiledUpstream, tell: Callable[[Kind, str], None]) -> None:
        self.upstream = upstream
        self.tell = tell
        self.lock = Lock()
        self.breakers = [CircuitBreaker(upstream.declared.breaker, random.random) for _ in upstream.endpoints]
        self.health = [EndpointHealth() for _ in upstream.endpoints]

    def probed(self, endpoint: int, *, ok: bool) -> None:
        """Note what an active probe has found."""
        with self.lock:
            changed: HealthState | None = self.health[endpoint].probed(ok, monotonic())
        if changed is not None:
            self.tell("healthy" if ok else "unhealthy", self._name(endpoint))

    def was_good(self, since: float) -> bool:
        """Tell whether a probe of any endpoint was good at or after a time (`monotonic`)."""
        return any(h.last_good is not None and h.last_good >= since for h in self.health)

    def settled(self, endpoint: int, changed: BreakerState) -> None:
        """Tell that a breaker has opened or closed."""
        self.tell("breaker-open" if changed == "open" else "breaker-closed", self._name(endpoint))

    def _name(self, endpoint: int) -> str:
        return f"upstream {self.upstream.name!r}, endpoint {endpoint + 1} of {len(self.breakers)}"

    def describe(self) -> list[dict[str, object]]:
        """Return the state of each endpoint, for `strangle status`."""
        now = monotonic()
        with self.lock:
            return [
                {"breaker": breaker.state(now), "health": health.state}
                for breaker, health in zip(self.breakers, self.health, strict=True)
            ]


class Loaded(Protocol):
    """A pool, as far as choosing one needs to know it."""

    @property
    def in_flight(self) -> int:
        """How many exchanges it has at the moment."""


class Endpoints:
    """One conversation's view of an upstream: `core.exchange.Endpoints`, with the pools' loads."""

    __slots__ = ("_permit", "_pools", "_route", "_state", "_states")

    def __init__(
        self,
        states: States,
        upstream: CompiledUpstream,
        pools: Sequence[Loaded],
        route: str,
    ) -> None:
        self._states = states
        self._state = states.upstream(upstream)
        self._pools = pools
        self._route = route
        self._permit: int | None = None

    def __len__(self) -> int:
        return len(self._pools)

    def choose(self, tried: Collection[int]) -> int | None:
        """Name the next endpoint: unhealthy ones are left out, unless all are."""
        state, now = self._state, monotonic()
        with state.lock:
            endpoint = 0 if len(self._pools) == 1 else self._balance(tried, now)
            self._permit = None if endpoint is None else state.breakers[endpoint].admit(now)
        return None if self._permit is None else endpoint

    def _balance(self, tried: Collection[int], now: float) -> int | None:
        state = self._state
        out = {at for at, b in enumerate(state.breakers) if at in tried or not b.admits(now)}
        left_out = out | {at for at, h in enumerate(state.health) if not h.usable}
        out = out if len(left_out) == len(self._pools) else left_out
        if len(out) == len(self._pools):
            return None
        return choose([p.in_flight for p in self._pools], out, random.randrange)

    def settle(self, endpoint: int, outcome: Outcome | None) -> None:
        """Say how an endpoint did."""
        state, permit = self._state, self._permit
        if permit is None:
            return
        changed = None
        with state.lock:
            if outcome is None:
                state.breakers[endpoint].forget(permit)
            else:
                changed = state.breakers[endpoint].record(permit, outcome, monotonic())
        if changed is not None:
            state.settled(endpoint, changed)

    def spend(self) -> bool:
        """Take one fallback from the route's budget, if there is one left."""
        return self._states.spend(self._route)


class States:
    """Everything of one process and engine that lives longer than a request, but for connections."""

    def __init__(self) -> None:
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Begin with nothing: what the parent counted is the parent's."""
        self._lock = Lock()
        self._upstreams: dict[CompiledUpstream, UpstreamState] = {}
        self._budgets: dict[str, FallbackBudget] = {}
        self._counts: dict[_Key, int] = {}
        self._rules: set[str] = set()
        self._asked: dict[tuple[str, str], int] = {}
        # More than a store keeps need not wait for it; the oldest are dropped.
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._hits: dict[str, float] = {}
        self._versions: dict[str, dict[str, int]] = {}
        self._told: dict[tuple[str, str], float] = {}

    def upstream(self, upstream: CompiledUpstream) -> UpstreamState:
        """Return the state of one upstream's endpoints."""
        state = self._upstreams.get(upstream)
        if state is None:
            with self._lock:
                state = self._upstreams.setdefault(upstream, UpstreamState(upstream, self.tell))
        return state

    def keep(self, upstreams: Collection[CompiledUpstream], routes: Collection[str]) -> None:
        """Forget the state of all upstreams and routes but these."""
        with self._lock:
            self._upstreams = {u: s for u, s in self._upstreams.items() if u in upstreams}
            self._budgets = {r: b for r, b in self._budgets.items() if r in routes}
            self._hits = {r: h for r, h in self._hits.items() if r in routes}
            self._told = {k: t for k, t in self._told.items() if k[0] in routes}
            names = {u.name for u in upstreams}
            self._versions = {n: v for n, v in self._versions.items() if n in names}

    def asked(self, route: str) -> None:
        """Count a request of a route that goes to the modern side, for its fallback budget."""
        with self._lock:
            budget = self._budgets.get(route) or self._budgets.setdefault(route, FallbackBudget())
            budget.request(monotonic())

    def spend(self, route: str) -> bool:
        """Take one fallback from a route's budget, if there is one left."""
        with self._lock:
            budget = self._budgets.get(route)
            return budget is None or budget.spend(monotonic())

    def count(self, route: str, dial: Dial, side: str, outcome: str) -> None:
        """Count one request."""
        key = (route, dial.label, dial.points, side, outcome)
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + 1

    def endpoint_hit(self, method: str, rule: str) -> None:
        """Count a request that the wrapped app has answered, by the framework's own match.

        `rule` is the text of the rule as the framework writes it, "" for a request that no endpoint of the
        app is for; `method` is "WEBSOCKET" for one.
        """
        method = method if method in _METHODS else "other"
        with self._lock:
            if rule not in self._rules:
                if len(self._rules) < MAX_RULES:
                    self._rules.add(rule)
                else:
                    rule = OTHER_RULES
            key = (method, rule)
            self._asked[key] = self._asked.get(key, 0) + 1

    def take_endpoints(self) -> Mapping[tuple[str, str], int]:
        """Hand over the hits of the wrapped app's endpoints since the last time, by method and rule."""
        with self._lock:
            taken, self._asked = self._asked, {}
        return taken

    def return_endpoints(self, hits: Mapping[tuple[str, str], int]) -> None:
        """Take back what could not be stored."""
        with self._lock:
            for key, number in hits.items():
                self._asked[key] = self._asked.get(key, 0) + number

    def executed(self, upstream: str, version: str) -> None:
        """Count a call of a Lambda function by the version that has answered (an alias chooses it)."""
        with self._lock:
            versions = self._versions.setdefault(upstream, {})
            if version not in versions and len(versions) >= MAX_VERSIONS:
                del versions[next(iter(versions))]
            versions[version] = versions.get(version, 0) + 1

    def versions(self) -> Mapping[str, Mapping[str, int]]:
        """Return how many calls each version of each Lambda function has answered."""
        with self._lock:
            return {upstream: dict(versions) for upstream, versions in self._versions.items()}

    def take_counts(self) -> Mapping[CounterKey, int]:
        """Hand over what was counted since the last time."""
        with self._lock:
            taken, self._counts = self._counts, {}
        return {CounterKey(*key): number for key, number in taken.items()}

    def return_counts(self, counts: Mapping[CounterKey, int]) -> None:
        """Take back what could not be stored; the number of keys is bounded by the table (promise P17)."""
        with self._lock:
            for key, number in counts.items():
                self._counts[key] = self._counts.get(key, 0) + number

    def tell(self, kind: Kind, what: str, route: str = "") -> None:
        """Note an event, and log what nobody else does."""
        event = Event(time(), kind, what, route)
        self._events.append(event)
        if (level := _LOGGED.get(kind)) is not None:
            log.log(level, "%s: %s%s", kind, event.what, f" (route {event.route!r})" if route else "")

    def take_events(self) -> Sequence[Event]:
        """Hand over what happened since the last time."""
        taken = []
        while self._events:
            taken.append(self._events.popleft())
        return taken

    def return_events(self, events: Sequence[Event]) -> None:
        """Take back what could not be stored; the oldest are dropped first."""
        room = MAX_EVENTS - len(self._events)
        self._events.extendleft(reversed(events[len(events) - room :] if room < len(events) else events))

    def old_code_ran(self, route: str) -> None:
        """Note that a retired route was answered by the old code: an event a route and minute."""
        now = monotonic()
        if now >= self._hits.get(route, now):
            self._hits[route] = now + 60.0
            self.tell("retired-hit", "the old code has answered, although the route is retired", route)

    def replaced(self, route: str, upstream: str, error: ForwardError) -> None:
        """Log why legacy answers for the modern side: a line a route, reason and minute."""
        now, key = monotonic(), (route, reason_of(error))
        with self._lock:
            if now < self._told.get(key, now):
                return
            self._told[key] = now + 60.0
        log.warning("fallback on route %r: upstream %r: %s", route, upstream, error)

    def describe(self) -> Mapping[str, object]:
        """Return the state of each upstream's endpoints, for `strangle status`."""
        return {u.name: state.describe() for u, state in tuple(self._upstreams.items())}
