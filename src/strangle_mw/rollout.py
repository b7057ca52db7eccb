"""Moves routes while the app runs: set, promote, rollback, kill; each is one edit of a store's overrides.

For commands and pages: nothing is printed and nobody is asked here. What an override may do is
`core.overrides`; how things stand is `status`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from time import monotonic, sleep, time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from strangle_mw.core.dials import basis_points, dial_words, make_dial
from strangle_mw.core.events import Event, safe_text
from strangle_mw.core.model import Stage
from strangle_mw.core.overrides import (
    Kill,
    Override,
    Overrides,
    OverridesError,
    apply_overrides,
    encode_overrides,
    latest_revision,
    with_kill,
    with_override,
    without,
)
from strangle_mw.reach import RolloutError, read_document, read_held, read_workers
from strangle_mw.stores.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from strangle_mw.core.compiled import CompiledRoute
    from strangle_mw.core.dials import Dial
    from strangle_mw.core.events import Kind
    from strangle_mw.reach import Known, Worker
    from strangle_mw.stores.base import Store

T = TypeVar("T")

STAGES: Final = tuple(Stage)
"""All stages, in the order in which a route moves forward."""

FIRST_POINTS: Final = 100
"""The weight (basis points) of a canary that nobody has given one: 1 %."""

LOOK: Final = 0.05
"""Seconds between two looks at who follows."""

REMEDY: Final = "`strangle rollback --all` replaces them"
KILL: Final = "`strangle kill` makes every route legacy at once"
RESTART: Final = "a restart with STRANGLE_ALL=legacy makes every route legacy"


class Who(NamedTuple):
    """Who makes a change, and why; cut and escaped to what a document holds."""

    by: str
    why: str = ""

    def safe(self) -> Who:
        """Return the texts as they are stored."""
        return Who(safe_text(self.by, 200), safe_text(self.why, 1000))


@dataclass(frozen=True, slots=True)
class Change:
    """One route's stage and weight, before and after."""

    route: str
    before: Dial
    after: Dial

    def __str__(self) -> str:
        return f"{dial_words(self.before)} -> {dial_words(self.after)}"


@dataclass(frozen=True, slots=True)
class Done:
    """What was done: the overrides' revision (0 if nothing was), each route that was changed, notes."""

    revision: int
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Following:
    """Which of the workers follow a revision, and which do not (yet)."""

    workers: tuple[Worker, ...]
    behind: tuple[Worker, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One route's next stage: what `Rollout.promote` will do; `override` is what was in force before."""

    route: CompiledRoute
    before: Dial
    after: Dial
    points: int | None
    override: Override | None


class _NothingToDoError(Exception):
    """Ends an edit that would change nothing."""


class Rollout:
    """Live changes to one store.

    `table` gives the routes that may be named, `key` signs what is stored (b"" for no signature), `now` is
    the Unix time. Every method may raise `RolloutError` and `StoreError`; nothing is changed then.
    """

    def __init__(
        self, store: Store, table: Callable[[], Known], key: bytes = b"", now: Callable[[], float] = time
    ) -> None:
        self.store = store
        self._table = table
        self._key = key
        self._now = now
        self._replaced = ""
        self._killed = False

    @cached_property
    def known(self) -> Known:
        """The table whose routes may be named."""
        return self._table()

    def set(
        self, name: str, stage: Stage | None, points: int | None, who: Who, *, force: bool = False
    ) -> Done:
        """Give a route a stage, a weight (basis points), or both; what is not given stays as it is.

        `force` moves to a modern stage without waiting for a good health answer of the upstream.
        """
        route = self._movable(name)
        by, why = who.safe()

        def change(overrides: Overrides) -> tuple[Overrides, Change]:
            old = overrides.routes.get(name)
            new = Override(
                stage or (old.stage if old else None),
                points if points is not None or old is None else old.points,
                by,
                self._now(),
                why,
                force,
                route.staging.dial,
            )
            turned = Change(name, self._dial(overrides, name), self._judged(route, new, points))
            return with_override(overrides, name, new, self._now()), turned

        revision, changed = self._edit(change)
        return self._done(revision, "override", who, [changed])

    def next_step(self, name: str, points: int | None = None) -> Step:
        """Say what `promote` would do; `points` is the weight if the next stage is `canary`."""
        route = self._movable(name)
        overrides = self._overrides()
        override, before = overrides.routes.get(name), self._dial(overrides, name)
        if before.stage is STAGES[-1]:
            raise RolloutError(f"{name} is {before.stage.value}: there is no stage after it")
        stage = STAGES[STAGES.index(before.stage) + 1]
        kept = None if override is None else override.points
        if stage is Stage.CANARY:
            points = next(p for p in (points, kept, _declared_points(route), FIRST_POINTS) if p is not None)
            return Step(route, before, make_dial(stage, points), points, override)
        if points is not None:
            what = f"a weight acts in stage 'canary', and the next stage of {name} is {stage.value!r}"
            raise RolloutError(what)
        return Step(route, before, make_dial(stage, 0), kept, override)

    def promote(self, step: Step, who: Who, *, force: bool = False) -> Done:
        """Move a route to its next stage, unless somebody has moved it since `next_step`."""
        name = step.route.name
        by, why = who.safe()

        def change(overrides: Overrides) -> tuple[Overrides, Change]:
            found = overrides.routes.get(name)
            if found != step.override:
                others = f"by {found.by}" if found is not None else "back to the table's stage"
                raise RolloutError(f"{name} was changed in the meantime ({others}): look again")
            declared = step.route.staging.dial
            new = Override(step.after.stage, step.points, by, self._now(), why, force, declared)
            return with_override(overrides, name, new, self._now()), Change(name, step.before, step.after)

        revision, changed = self._edit(change)
        return self._done(revision, "promote", who, [changed])

    def rollback(self, names: Collection[str] | None, who: Who, *, to_table: bool = False) -> Done:
        """Put routes to stage `legacy` by overrides, whatever the table says; None: all that are not there.

        `to_table` takes their overrides away instead, so that the table's stages are in force again. For all
        routes, a document that cannot be read is replaced.
        """
        known = self.known  # read before the edit: no store may be asked inside its own
        if names is not None:
            self._check_names(names, to_table=to_table)
        who = who.safe()

        def change(overrides: Overrides) -> tuple[Overrides, tuple[list[str], list[Change]]]:
            before = known.dials(overrides)
            chosen = self._chosen(names, overrides, before, to_table)
            if not chosen and not self._replaced:
                raise _NothingToDoError
            after = without(overrides, set(chosen), self._now())
            if not to_table:
                after = replace(after, routes={**after.routes, **self._held_back(chosen, who)})
            dials = known.dials(after)
            return after, (chosen, [Change(n, before[n], dials[n]) for n in chosen if n in dials])

        try:
            revision, (chosen, changes) = self._edit(change, replacing=names is None)
        except _NothingToDoError:
            return Done(0, (), ("there is no override" if to_table else "every route is legacy already",))
        summary = f"{len(chosen)} overrides taken away" if to_table else f"{len(chosen)} routes to legacy"
        one_by_one = names is not None and len(changes) == len(chosen)
        return self._done(revision, "rollback", who, changes, "" if one_by_one else summary)

    def kill(self, who: Who) -> Done:
        """Turn the kill switch: every route is legacy. A document that cannot be read is replaced."""
        by, why = who.safe()
        held = read_held(self.store, self._key)
        if (kill := held.overrides.kill) is not None:
            return Done(0, (), (f"the kill switch is on already, by {kill.by}",))
        revision, _ = self._edit(
            lambda overrides: (with_kill(overrides, Kill(by, self._now(), why), self._now()), None),
            replacing=True,
            way_out=RESTART,
        )
        return self._done(revision, "kill", who, [], "every route is legacy")

    def unkill(self, who: Who) -> Done:
        """Turn the kill switch back: stages and weights are in force as before."""
        if self._overrides().kill is None:
            return Done(0, (), ("the kill switch is off already",))
        revision, _ = self._edit(lambda overrides: (with_kill(overrides, None, self._now()), None))
        return self._done(revision, "unkill", who, [], "stages and weights as before")

    def follow(self, revision: int, seconds: float) -> Following:
        """Wait until every worker has a revision of the overrides, at most `seconds`; tell who has not."""
        end = monotonic() + seconds
        while True:
            workers = read_workers(self.store)
            behind = tuple(w for w in workers if w.overrides < revision)
            if not behind or monotonic() >= end:
                return Following(tuple(workers), behind)
            sleep(LOOK)

    # --- one edit

    def _edit(
        self,
        change: Callable[[Overrides], tuple[Overrides, T]],
        *,
        replacing: bool = False,
        way_out: str = KILL,
    ) -> tuple[int, T]:
        """Change the document; return its revision and what `change` says besides."""
        # Workers put back what they know if what they find is older; they are asked before the edit as well.
        latest = latest_revision(self._now())
        told = [w.overrides for w in read_workers(self.store)] if replacing else []
        floor = max((r for r in told if r <= latest), default=0)
        found: list[tuple[int, T]] = []

        def changed(raw: bytes) -> bytes:
            self._replaced = ""
            try:
                overrides = read_document(raw, self._key)
            except OverridesError as exc:
                if not replacing:
                    raise RolloutError(_refused(exc.reason)) from None
                self._replaced = exc.reason
                overrides = Overrides(floor)
            after, said = change(overrides)
            self._killed = overrides.kill is not None and after.kill is not None
            found[:] = [(after.revision, said)]
            return encode_overrides(after, self._key)

        try:
            self.store.edit(changed)
        except OverridesError as exc:
            raise RolloutError(f"nothing was changed: {exc.reason}; {way_out}") from None
        return found[0]

    def _done(
        self, revision: int, kind: Kind, who: Who, changes: Sequence[Change], summary: str = ""
    ) -> Done:
        """Put what was done among the events: each change, or a summary. It is done by now, and stays so."""
        why = f": {who.why}" if who.why else ""
        told = [(summary, "")] if summary else [(str(c), c.route) for c in changes]
        events = [Event(self._now(), kind, f"{what}{why}", route, who.by) for what, route in told]
        notes = []
        if self._replaced:
            notes.append(f"the overrides that were there could not be used and are gone: {self._replaced}")
        if self._killed:
            notes.append("the kill switch is on: every route stays legacy until `strangle unkill`")
        try:
            self.store.add_events([e.as_dict() for e in events])
        except StoreError as exc:
            notes.append(f"it is not among the events: {exc.reason}")
        return Done(revision, tuple(changes), tuple(notes))

    # --- what may be named

    def _overrides(self) -> Overrides:
        held = read_held(self.store, self._key)
        if held.refused:
            raise RolloutError(_refused(held.refused))
        return held.overrides

    def _dial(self, overrides: Overrides, name: str) -> Dial:
        return self.known.dials(overrides)[name]

    def _movable(self, name: str) -> CompiledRoute:
        route = self.known.route(name)
        if route.action is None:
            raise RolloutError(f'{name} has no modern side: the table says to = "legacy"')
        return route

    def _judged(self, route: CompiledRoute, override: Override, points: int | None) -> Dial:
        """Return the dial that an override makes of its route; raises `RolloutError` if it makes no sense."""
        name = route.name
        dial = apply_overrides(self.known.table, Overrides(routes={name: override})).dials.get(name)
        if dial is None and override.stage is Stage.CANARY:
            raise RolloutError(f"stage 'canary' needs a weight, and {name} has none: add weight=5, say")
        if dial is None or (points is not None and dial.stage is not Stage.CANARY):
            stage = (override.stage or route.staging.dial.stage).value
            raise RolloutError(f"a weight acts in stage 'canary', and {name} is {stage!r}: add stage=canary")
        return dial

    def _check_names(self, names: Collection[str], *, to_table: bool) -> None:
        stored = self._overrides().routes if to_table else {}
        for name in names:
            if name in stored:
                continue  # also one that the table has no more
            if to_table:
                self.known.route(name)
                raise RolloutError(f"{name} has no override: the table's own stage is in force")
            self._movable(name)

    def _chosen(
        self, names: Collection[str] | None, overrides: Overrides, before: Mapping[str, Dial], to_table: bool
    ) -> list[str]:
        if names is not None:
            return list(dict.fromkeys(names))
        if to_table:
            return list(overrides.routes)
        # Also those that other workers' tables may have.
        strays = [n for n, o in overrides.routes.items() if n not in before and o.stage is not Stage.LEGACY]
        return [n for n, dial in before.items() if dial.stage is not Stage.LEGACY] + strays

    def _held_back(self, names: Collection[str], who: Who) -> dict[str, Override]:
        """Make overrides that hold routes at `legacy`; no weight is kept, to come back unseen some day."""
        at, routes = self._now(), self.known.table.by_name
        declared = {n: routes[n].staging.dial for n in names if n in routes}
        return {n: Override(Stage.LEGACY, None, who.by, at, who.why, declared=declared.get(n)) for n in names}


def _declared_points(route: CompiledRoute) -> int | None:
    percent = route.declared.weight
    return None if percent is None else basis_points(percent)


def _refused(reason: str) -> str:
    return f"the overrides in the store are refused, workers keep the last good ones: {reason}; {REMEDY}"
