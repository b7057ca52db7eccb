"""One thread a process that talks to the store, so that no request ever does (design section 6).

It reads overrides, writes counters, events and a sign of life, and survives the store's failing: the last
known overrides stay, counts wait. What overrides do is `live`.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from strangle_mw.core.events import safe_text
from strangle_mw.core.overrides import OverridesError, latest_revision, parse_overrides
from strangle_mw.core.usage import DAY, outdated, usage_fields
from strangle_mw.stores.base import MAX_FACT, StoreError, to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from strangle_mw.core.compiled import CompiledRoute
    from strangle_mw.live import Live
    from strangle_mw.states import States
    from strangle_mw.stores.base import Store

log = logging.getLogger("strangle_mw")

POLL = 0.25
"""Seconds between two looks at the revision, if nothing hints at a change before."""
FLUSH = 1.0
"""Seconds between two writes of counters and events."""
BEAT = 2.0
"""Seconds between two signs of life of a worker."""
LIFE = 15.0
"""Seconds after which a worker without a sign of life is forgotten."""

CHECK = 60.0
"""Seconds between two looks whether the store still has the table's description."""

_MOMENT = 0.001

KEY = "STRANGLE_STORE_KEY"
"""The variable of the environment with the key that documents of overrides are signed with."""


def store_key() -> bytes:
    """Return the key that overrides are signed with, b"" for none."""
    return os.environ.get(KEY, "").encode()


class Follower:
    """Keeps one process in step with its store.

    `refused` says why the store's document is not followed.
    """

    def __init__(self, store: Store, live: Live, states: States) -> None:
        self._store = store
        self._live = live
        self._states = states
        self._key = store_key()
        self._raw = self._refused = b""
        self._faults: dict[str, str] = {}
        self.refused = ""
        self.reset_after_fork()

    @property
    def error(self) -> str:
        """Why the store cannot be used at the moment, "" if it can."""
        return next(iter(self._faults.values()), "")

    def reset_after_fork(self) -> None:
        """Begin anew in a child process: no thread, another worker."""
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._sure = False
        self._published, self._checked = "", 0.0
        self._flushed = self._beaten = 0.0
        self._changed = False
        self._pruned = 0
        self._started = time()
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"

    def start(self) -> None:
        """Start the thread if it does not run; the first read is done at once (after a fork it is late)."""
        if self._thread is not None and self._thread.is_alive():
            return
        # Made now, and by their full names, for gevent that patches late: gunicorn's workers do.
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self.read()
        self._thread = threading.Thread(target=self._run, name="strangle-store", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, write what is left to be written, and sign off; a second time does nothing."""
        if self._stopped.is_set():
            return  # at exit, after `close`: the store may be gone by now
        self._stopped.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread.is_alive():
            thread.join(2 * FLUSH)
        self.flush(leaving=True)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.read()
                self.flush(monotonic())
                self._store.wait(FLUSH if self.refused else POLL)
            except Exception:  # a bug must not end the following of the kill switch
                log.exception("the store's thread goes on after an error")
                self._stopped.wait(FLUSH)

    def read(self) -> None:
        """Follow the overrides, if they have changed."""
        live = self._live
        try:
            # The last time may have been broken off half-way: by an error, or by a fork beside this thread.
            raw = self._store.read(live.overrides.revision if self._sure else -1)
        except StoreError as exc:
            self._lost("read", str(exc))
            return
        self._back("read")
        if raw and raw == self._refused:
            return
        if raw is None or (raw == self._raw and self._sure):
            self._refused, self.refused = b"", ""
            self._back("put back")
            return
        try:
            found = parse_overrides(raw, self._key, latest_revision(time()))
        except OverridesError as exc:
            self._refuse(raw, str(exc))
            return
        if found.revision < live.overrides.revision:
            self._put_back(found.revision)
            return
        self._back("put back")
        self._raw, self._refused, self.refused = raw, b"", ""
        if found != live.overrides or not self._sure:  # a store without a document says so at every look
            self._sure = False
            live.follow(found)
            self._sure = True
            self._changed = True  # who has made the change looks at who follows

    def _put_back(self, revision: int) -> None:
        """Give a store that has lost its data, or is an old copy, what this process knows."""
        self._published = ""  # its tables may be gone as well
        mine = self._live.overrides.revision
        what = f"the store has revision {revision} of the overrides, {mine} was known: put back"
        try:
            if self._store.restore(self._raw, mine):
                log.warning("%s", what)
                self._states.tell("store-back", what)
        except StoreError as exc:
            self._lost("put back", str(exc))

    def _refuse(self, raw: bytes, reason: str) -> None:
        self._refused = raw  # not parsed again and again: a large one takes a tenth of a second
        if reason != self.refused:
            self.refused = reason
            log.error("the overrides in the store are refused, the last good ones stay: %s", reason)
            self._states.tell("store-refused", reason)

    def _lost(self, doing: str, reason: str) -> None:
        """Tell, once, that the store fails at something; one that is full can still be read, say."""
        if not self._faults:
            log.error("the store cannot be used, the last known overrides stay: %s", reason)
            self._states.tell("store-lost", reason)
        self._faults[doing] = reason

    def _back(self, doing: str) -> None:
        if self._faults.pop(doing, "") and not self._faults:
            self._published = ""
            log.warning("the store can be used again")
            self._states.tell("store-back", "the store can be used again")

    def flush(self, now: float | None = None, *, leaving: bool = False) -> None:
        """Write counters, events and a sign of life: what is due at `now`, or everything."""
        with self._lock:
            if now is None or now >= self._flushed + FLUSH:
                self._flushed = now or 0.0
                self._try("write", self._write)
                self._try("prune", self._prune)
            if leaving and not self._beaten:
                return  # nobody knows this process: it has not served
            if now is None or self._changed or now >= self._beaten + BEAT:
                self._changed = False
                self._beaten = now or monotonic()
                self._try("beat", lambda: self._beat(_MOMENT if leaving else LIFE))

    def _try(self, doing: str, act: Callable[[], None]) -> None:
        """Let the failing of one thing keep none of the others from being done."""
        try:
            act()
        except StoreError as exc:
            self._lost(doing, str(exc))
        else:
            self._back(doing)

    def _write(self) -> None:
        counts, hits = self._states.take_counts(), self._states.take_endpoints()
        try:
            if counts or hits:
                fields = {key.field(): number for key, number in counts.items()}
                self._store.add_counts(fields | usage_fields(hits, counts, int(time() // DAY)))
        except BaseException:
            self._states.return_counts(counts)
            self._states.return_endpoints(hits)
            raise
        events = self._states.take_events()
        try:
            if events:
                self._store.add_events([{**e.as_dict(), "worker": self.worker} for e in events])
        except BaseException:
            self._states.return_events(events)
            raise

    def _prune(self) -> None:
        """Forget, once a day, the hits of days that are long over."""
        today = int(time() // DAY)
        if today != self._pruned:
            for prefix in outdated(self._store.counts(), today):
                self._store.reset_counts(prefix)
            self._pruned = today

    def _beat(self, life: float) -> None:
        table = self._live.table
        if table.revision != self._published or monotonic() >= self._checked + CHECK:
            self._checked = monotonic()
            if table.revision not in self._store.tables():
                self._store.publish_table(table.revision, describe_table(table.revision, table.table.routes))
            self._published = table.revision
        self._store.beat(self.worker, fitting(self._sign_of_life()), life)

    def _sign_of_life(self) -> dict[str, Any]:
        live = self._live
        problems = [str(p) for p in live.problems[:20]]
        problems += [f"the store's overrides are refused: {self.refused}"] if self.refused else []
        problems += [f"the file is not in force: {live.reload_error}"] if live.reload_error else []
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": self._started,
            "seen": time(),
            "table": live.table.revision,
            "overrides": live.overrides.revision,
            "off": live.switched_off,
            "waiting": sorted(live.waiting),
            "problems": [safe_text(p, 500) for p in problems],
            "upstreams": self._states.describe(),
            "versions": self._states.versions(),
        }


def fitting(said: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a sign of life what makes it too long to be read: its worker would not be seen at all.

    First the upstreams that nothing is wrong with, then more.
    """
    troubled = {
        name: states
        for name, states in said["upstreams"].items()
        if any(s["breaker"] != "closed" or s["health"] == "unhealthy" for s in states)
    }
    for part, less in (
        ("upstreams", troubled),
        ("upstreams", {}),
        ("versions", {}),
        ("waiting", []),
        ("problems", []),
    ):
        if len(to_json(said)) <= MAX_FACT:
            break
        said = {**said, part: less}
    return said


def describe_table(revision: str, routes: tuple[CompiledRoute, ...]) -> bytes:
    """Write what `strangle status` and `strangle set` need to know of a table; no addresses (P18, P23)."""
    described = [
        {
            "name": r.name,
            "stage": r.staging.dial.stage.value,
            "weight": r.staging.dial.points,
            "percent": r.declared.weight,
            "fallback": r.declared.fallback,
            "legacy": r.action is None,
        }
        for r in routes
    ]
    return json.dumps({"revision": revision, "routes": described}, separators=(",", ":")).encode()
