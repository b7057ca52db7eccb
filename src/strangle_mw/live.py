"""The table while it runs: a changed file, overrides, the kill switch (design section 6).

All of it ends in one new snapshot, which is put in force whole; a request keeps the one it began with.
Requests never wait: a changed file is compiled on a thread of its own, the store is asked by `follower`,
upstreams by `probing`. Here is what becomes of what they find.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any

from strangle_mw.config import load
from strangle_mw.core.compiled import ForwardTo
from strangle_mw.core.dials import Dial
from strangle_mw.core.model import Stage
from strangle_mw.core.overrides import NO_OVERRIDES, apply_overrides
from strangle_mw.core.staging import MODERN_STAGES
from strangle_mw.errors import ConfigError, Problem
from strangle_mw.watch import SETTLED, FileWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from strangle_mw.config import Source
    from strangle_mw.core.compiled import CompiledRoute, CompiledUpstream
    from strangle_mw.core.decision import Snapshot
    from strangle_mw.core.overrides import Override, Overrides
    from strangle_mw.states import States

log = logging.getLogger("strangle_mw")

INTERVAL = 1.0
"""Seconds between two looks at the file."""

SWITCH = "STRANGLE_ALL"
"""The variable of the environment that turns everything off: `legacy`."""

MAX_TOLD = 20
"""Changes of overrides that are logged one by one: one command may change thousands."""

_OFF = Dial(Stage.LEGACY, 0, overridden=True)
_AT_START_ONLY = ("store", "interface", "serve", "threads", "learn")


class Live:
    """Keeps the snapshot of one engine up to date; `install` puts one in force.

    `retired` names the routes whose old code must not run, `problems` says which overrides do not act,
    `waiting` which routes wait for a good health answer, `reload_error` why the file is not the table in
    force; `hurry` is called when a route begins to wait. Raises `ConfigError` if the first table cannot be
    used; `check` names what keeps upstreams that are new from working, and may block.
    """

    def __init__(
        self,
        source: Source,
        settings: Mapping[str, Any],
        states: States,
        install: Callable[[Snapshot], None],
        check: Callable[[Sequence[CompiledUpstream]], Iterable[Problem]],
    ) -> None:
        self._source = source
        self._check = check
        self._settings = settings
        self._states = states
        self._install = install
        self._lock = threading.Lock()
        self._reloading = False
        self._since: dict[tuple[str, float], float] = {}
        self._dials: Mapping[str, Dial] = {}
        self.overrides: Overrides = NO_OVERRIDES
        self.problems: tuple[Problem, ...] = ()
        self.waiting: frozenset[str] = frozenset()
        self.retired: frozenset[str] = frozenset()
        self.hurry: Callable[[], None] = lambda: None
        self.reload_error = ""
        self.switched_off = _switched_off()
        self.watch = FileWatch(source) if isinstance(source, str | os.PathLike) else None
        self.table = self._first()
        self.refresh()

    def _first(self) -> Snapshot:
        try:
            return self._load({})
        except ConfigError as exc:
            if not self.switched_off:
                raise
            # The way out of an incident must not need a valid table.
            self.reload_error = str(exc)
            log.error("%s=legacy: the wrapped app answers everything; besides: %s", SWITCH, exc)  # noqa: TRY400
            return load([], **self._settings)

    def _load(self, known: Mapping[str, CompiledUpstream]) -> Snapshot:
        """Load the table; what starts with it (apps, credentials) has to be there, too."""
        table = load(self._source, known=known, **self._settings)
        kept = set(known.values())
        problems = [*self._check([u for u in table.upstreams.values() if u not in kept])]
        if problems:
            raise ConfigError(problems)
        return table

    # --- overrides

    def follow(self, overrides: Overrides) -> None:
        """Put other overrides in force."""
        before, self.overrides = self.overrides, overrides
        self.refresh()
        changes = [*islice(_changes(before, overrides), MAX_TOLD + 1)]
        for change in changes[:MAX_TOLD]:
            log.info("%s", change)
        if len(changes) > MAX_TOLD:
            log.info("more overrides have changed, too; `strangle status` shows them all")

    def refresh(self) -> None:
        """Make the snapshot anew from the table, the overrides and the switches."""
        with self._lock:
            routes = self.table.table.by_name
            overrides = self.overrides  # `follow` replaces them at any time
            applied = apply_overrides(self.table.table, overrides)
            made = {(name, override.at) for name, override in overrides.routes.items()}
            self._since = {key: since for key, since in self._since.items() if key in made}
            waiting = frozenset(
                n for n, dial in applied.dials.items() if self._waits(routes[n], dial, overrides.routes[n])
            )
            fresh = waiting - self.waiting
            self.problems, self.waiting = applied.problems, waiting
            dials = {r: dial for r, dial in applied.dials.items() if r not in waiting}
            dials |= {r: self._dials[r] for r in waiting if r in self._dials}
            self._dials = dials
            self.retired = frozenset(
                name
                for name, route in routes.items()
                if Stage.RETIRED in (route.staging.dial.stage, dials.get(name, _OFF).stage)
            )
            if self.switched_off or overrides.kill is not None:
                dials = dict.fromkeys(routes, _OFF)
            self._install(dataclasses.replace(self.table, dials=dials))
        if fresh:
            self.hurry()
        for route in fresh:
            self._states.tell("override-waiting", "waits for a good health answer of its upstream", route)

    def _waits(self, route: CompiledRoute, dial: Dial, override: Override) -> bool:
        """Tell whether a route has to wait: it moves to the modern side, and no probe has been good since."""
        before = self._dials.get(route.name, route.staging.dial)
        if override.force or dial.stage not in MODERN_STAGES or before.stage in MODERN_STAGES:
            return False
        since = self._since.setdefault((route.name, override.at), monotonic())
        upstreams = route.action.upstreams if isinstance(route.action, ForwardTo) else ()
        probed = [u for u in upstreams if u.declared.health is not None]
        return not all(self._states.upstream(u).was_good(since) for u in probed)

    # --- the file

    def look(self) -> float:
        """See whether the file has changed, and start reading it; return the seconds until the next look."""
        watch = self.watch
        if watch is None or self._reloading or not watch.changed():
            return INTERVAL
        if not watch.settled():
            return SETTLED
        self._reloading = True
        try:
            threading.Thread(target=self._reload, args=(watch,), name="strangle-reload", daemon=True).start()
        except BaseException:
            self._reloading = False
            raise
        return INTERVAL

    def _reload(self, watch: FileWatch) -> None:
        try:
            watch.accept(watch.fingerprint())  # what is written while we read is noticed at the next look
            problem = self._read()
            if problem and problem != self.reload_error:
                log.error("the table in force stays: %s", problem)
                self._states.tell("reload-failed", problem)
            self.reload_error = problem
        except Exception:
            log.exception("the file could not be read again; the table in force stays")
        finally:
            self._reloading = False

    def _read(self) -> str:
        """Put the file's table in force; return why that is not possible, else nothing."""
        before = self.table
        try:
            table = self._load(before.upstreams)
        except ConfigError as exc:
            return str(exc)
        for name in _AT_START_ONLY:
            if getattr(table.settings, name) != getattr(before.settings, name):
                log.warning("strangle.%s has changed: that takes effect at the next start", name)
        same = table.revision == before.revision
        if same and table.crowd.minter is None:
            return ""
        self.table = table  # the same one may have other keys, in files of their own
        self.refresh()
        if not same:
            self._states.tell("reload", f"table {table.revision}: {len(table.table.routes)} routes")
        return ""

    def reset_after_fork(self) -> None:
        """Forget threads and locks of the parent."""
        self._lock = threading.Lock()
        if self._reloading and self.watch is not None:
            self.watch.accept(None)  # it was noted as read, and the thread that read it is the parent's
        self._reloading = False


def _switched_off() -> bool:
    value = os.environ.get(SWITCH, "").strip().casefold()
    if value not in ("", "legacy"):
        raise ConfigError([Problem(SWITCH, f"must be 'legacy' or not set, not {value!r}", "switch")])
    return value == "legacy"


def _changes(before: Overrides, after: Overrides) -> Iterator[str]:
    if after.kill != before.kill:
        if after.kill is None:
            yield "the kill switch is off"
        else:
            yield f"the kill switch is on: every route is legacy (by {after.kill.by}: {after.kill.why})"
    for name, override in after.routes.items():
        if before.routes.get(name) != override:
            yield f"route {name!r}: {describe(override)} (by {override.by})"
    for name in before.routes:
        if name not in after.routes:
            yield f"route {name!r}: no override any more"


def describe(override: Override) -> str:
    """Say in words what an override asks for."""
    parts = [f"stage={override.stage.value}"] if override.stage is not None else []
    if override.points is not None:
        parts.append(f"weight={override.points / 100:g}")
    return " ".join(parts) + (f": {override.why}" if override.why else "")
