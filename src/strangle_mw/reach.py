"""Which store and which route table a live command is about, and what stands in the store, strictly read.

Others have written what a store holds: nothing of it is used or shown that was not checked here (promises
P18, P20). No change is made here (`rollout`), nothing is printed (`cli_live`).
"""

from __future__ import annotations

import difflib
import json
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import time
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import msgspec

from strangle_mw.config import load
from strangle_mw.core.compiled import CompiledRoute, RespondWith
from strangle_mw.core.events import MAX_TIME, safe_text
from strangle_mw.core.model import LEGACY_TARGET, Respond, Route, Stage
from strangle_mw.core.overrides import (
    MAX_REVISION,
    NO_OVERRIDES,
    Overrides,
    OverridesError,
    apply_overrides,
    latest_revision,
    parse_overrides,
)
from strangle_mw.core.routing import RouteTable
from strangle_mw.core.staging import compile_staging
from strangle_mw.errors import ConfigError, StrangleError
from strangle_mw.files import read_file
from strangle_mw.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from strangle_mw.core.decision import Snapshot
    from strangle_mw.core.dials import Dial
    from strangle_mw.core.model import Pin
    from strangle_mw.stores.base import Store

NO_STORE = (
    "there is no store to change: give --store URL, set STRANGLE_STORE, "
    "or name one as `store` under [strangle] in the table file"
)
IN_PROCESS = (
    "the store 'memory:' lives inside each process, where no command reaches it: "
    "use sqlite:///path.db for one host, redis://host for many"
)
NO_TABLE = "there is no route table: give --file PATH (no worker has published its own in this store)"


class RolloutError(StrangleError):
    """What an operator asked for cannot be done, or makes no sense; says the remedy."""


# --- tables


@dataclass(frozen=True, slots=True)
class Known:
    """A route table as a command knows it.

    `origin` says where it is from; `note` what was wrong with a better place. The routes of a published table
    are good for stages and nothing else: its description names no path and no address.
    """

    revision: str
    origin: str
    table: RouteTable
    note: str = ""

    def route(self, name: str) -> CompiledRoute:
        """Return a route by its name; raises `RolloutError` that guesses what was meant."""
        names = self.table.by_name
        if name not in names:
            near = difflib.get_close_matches(name, names, 1, 0.5)
            guess = f"did you mean {near[0]!r}?" if near else "`strangle status --all` lists them"
            raise RolloutError(f"{self.origin} has no route {safe_text(name, 200)!r}; {guess}")
        return names[name]

    def dials(self, overrides: Overrides) -> dict[str, Dial]:
        """Return the stage and weight of every route under these overrides, the kill switch left aside."""
        changed = apply_overrides(self.table, overrides).dials
        return {r.name: changed.get(r.name, r.staging.dial) for r in self.table.routes}


class _Described(msgspec.Struct):
    """One route of a published table (`follower.describe_table`)."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
    stage: Stage
    weight: Annotated[int, msgspec.Meta(ge=0, le=10_000)]
    legacy: bool
    percent: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    fallback: Literal["", "auto", "connect", "never", "off"] | None = None


class _Table(msgspec.Struct):
    revision: Annotated[str, msgspec.Meta(max_length=100)]
    routes: list[_Described]


def read_table(text: bytes) -> Known | None:
    """Read the description of a table; None for what is none."""
    try:
        found = msgspec.json.decode(text, type=_Table)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    routes = [_stand_in(at, route) for at, route in enumerate(found.routes)]
    return Known(safe_text(found.revision, 100), "the table of the workers", RouteTable(routes))


def _stand_in(index: int, of: _Described) -> CompiledRoute:
    """Make a route that matches no request and has the stages of the one described."""
    percent = of.percent
    if percent is None and of.stage is Stage.CANARY:
        percent = of.weight / 100
    declared = Route(
        name=of.name,
        to=LEGACY_TARGET if of.legacy else None,
        respond=None if of.legacy else Respond(),
        stage=of.stage,
        weight=percent,
        fallback=of.fallback or "",
    )
    staging = compile_staging(declared, "", lambda *_: None)
    if of.fallback is None:  # a worker of another version: better nothing than a guess
        staging = replace(staging, policies={})
    action = None if of.legacy else RespondWith(410, (), b"")
    return CompiledRoute(
        index, of.name, declared, staging, None, None, frozenset(), (), (), None, action, (0, 0, 0, 0)
    )


def published_table(store: Store) -> Known | None:
    """Return the table that workers have published: the newest that one of them has now, else the newest."""
    current = {w.table for w in read_workers(store)}
    for revision in sorted(store.tables(), key=lambda r: r not in current):
        text = store.table(revision)
        if text is not None and (found := read_table(text)) is not None:
            return found
    return None


# --- targets


class Target(Protocol):
    """What a live command is about."""

    def opened(self) -> AbstractContextManager[Store]:
        """Lend the store; raises `RolloutError` or `StoreError`."""

    def table(self, store: Store) -> Known:
        """Return the table whose routes may be named; raises `RolloutError`."""

    def pin(self) -> Pin | None:
        """Return how testers choose a side; raises `RolloutError`, `ConfigError`."""


class FileTarget:
    """A table file and a store's URL, each of which may be missing.

    A file that cannot be used is no reason to be unable to act: workers do not use it either, so their own
    table holds, and the URL of the store is still looked for in the file.
    """

    def __init__(self, file: Path | None, url: str | None) -> None:
        self._file = file
        self._url = url

    @contextmanager
    def opened(self) -> Iterator[Store]:
        """Lend the store, as `Target.opened`."""
        url = self._url or self._own_store()
        if not url:
            raise RolloutError(NO_STORE)
        if url == "memory:":
            raise RolloutError(IN_PROCESS)
        store = open_store(url)
        try:
            yield store
        finally:
            store.close()

    def table(self, store: Store) -> Known:
        """Return the file's table, or what the workers have published, as `Target.table`."""
        loaded = self._loaded
        if loaded is not None and not isinstance(loaded, ConfigError):
            return Known(loaded.revision, str(self._file), loaded.table)
        published = published_table(store)
        if loaded is None:
            if published is None:
                raise RolloutError(NO_TABLE)
            return published
        if published is None:
            raise loaded
        note = f"{self._file} cannot be used, so what counts is {published.origin}; {loaded}"
        return Known(published.revision, published.origin, published.table, note)

    def pin(self) -> Pin | None:
        """Return the file's pin, as `Target.pin`."""
        loaded = self._loaded
        if isinstance(loaded, ConfigError):
            raise loaded
        if loaded is None:
            raise RolloutError("a pin is signed with the table's secret: give --file PATH")
        return loaded.settings.pin

    @cached_property
    def _loaded(self) -> Snapshot | ConfigError | None:
        try:
            return None if self._file is None else load(self._file)
        except ConfigError as exc:
            return exc

    def _own_store(self) -> str | None:
        """Read the URL alone: a table of 10,000 routes takes seconds, and the kill switch needs none."""
        settings = read_file(self._file).get("strangle") if self._file is not None else None
        url = settings.get("store") if isinstance(settings, dict) else None
        return url if isinstance(url, str) else None


# --- the document


@dataclass(frozen=True, slots=True)
class Held:
    """The overrides that a store holds; `refused` says why they are not to be used."""

    overrides: Overrides
    refused: str = ""


def read_held(store: Store, key: bytes) -> Held:
    """Read a store's overrides; raises `StoreError` only."""
    try:
        return Held(parse_overrides(store.read(-1) or b"", key, latest_revision(time())))
    except OverridesError as exc:
        return Held(NO_OVERRIDES, exc.reason)


def read_document(raw: bytes, key: bytes) -> Overrides:
    """Read a document that an edit starts from.

    Raises `OverridesError`, and `RolloutError` for a signed one without a key: what is written without would
    be refused by the workers.
    """
    found = parse_overrides(raw, key, latest_revision(time()))
    if raw and not key and "mac" in json.loads(raw):
        raise RolloutError(
            "the overrides in the store are signed: set STRANGLE_STORE_KEY to the workers' key"
        )
    return found


# --- workers


class _State(msgspec.Struct):
    breaker: Literal["closed", "open", "half-open"] = "closed"
    health: Literal["unknown", "healthy", "unhealthy"] = "unknown"


class _Said(msgspec.Struct):
    """What a worker says of itself (`follower`)."""

    seen: Annotated[float, msgspec.Meta(ge=0, le=MAX_TIME)] = 0.0
    table: str = ""
    overrides: Annotated[int, msgspec.Meta(ge=0, le=MAX_REVISION)] = 0
    off: bool = False
    waiting: list[str] = []
    problems: list[str] = []
    upstreams: dict[str, list[_State]] = {}
    versions: dict[str, dict[str, Annotated[int, msgspec.Meta(ge=0)]]] = {}


@dataclass(frozen=True, slots=True)
class Worker:
    """One process that follows the store, as it was last seen (`seen`: Unix seconds of its own clock).

    `off`: its environment says STRANGLE_ALL=legacy; `waiting` are routes that wait for a good health answer;
    `upstreams` the states of the endpoints of each: breaker and health; `versions` how many calls each
    version of each Lambda function has answered.
    """

    id: str
    seen: float = 0.0
    table: str = ""
    overrides: int = 0
    off: bool = False
    waiting: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()
    upstreams: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    versions: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def read_workers(store: Store) -> list[Worker]:
    """Return the workers that a store knows of, by their names; raises `StoreError`."""
    return [read_worker(name, info) for name, info in sorted(store.workers().items())]


def read_worker(name: str, info: Mapping[str, Any]) -> Worker:
    """Read what a worker says of itself; one of another version is shown with a problem."""
    shown = safe_text(name, 200)
    try:
        said = msgspec.convert(info, _Said)
    except (msgspec.ValidationError, RecursionError):
        return Worker(shown, problems=("what it says of itself cannot be read: is it of another version?",))
    return Worker(
        shown,
        said.seen,
        safe_text(said.table, 100),
        said.overrides,
        said.off,
        frozenset(said.waiting),
        tuple(safe_text(p, 500) for p in said.problems[:30]),
        {safe_text(n, 200): tuple((s.breaker, s.health) for s in e) for n, e in said.upstreams.items()},
        {safe_text(n, 200): {safe_text(v, 50): c for v, c in e.items()} for n, e in said.versions.items()},
    )
