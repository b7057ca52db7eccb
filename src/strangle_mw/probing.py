"""Active health checks: a thread for each upstream that wants them, in each process that serves.

When to ask and what becomes of the answers lives here; asking is `transports.probe`, which the engine hands
in, judging `core.resilience`.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.states import UpstreamState

log = logging.getLogger("strangle_mw")

HURRY = 0.5
"""Seconds between two probes while a route waits for a good answer."""


class Asks(Protocol):
    """One upstream's probe."""

    def ask(self, endpoint: int) -> bool:
        """Tell whether an endpoint is well."""

    def close(self) -> None:
        """Give up what it holds."""


class Prober:
    """Asks the endpoints of one upstream again and again, until it is stopped.

    `waited_for` tells whether a route waits for a good answer; `found` is called after each round then.
    """

    def __init__(
        self, state: UpstreamState, probe: Asks, waited_for: Callable[[], bool], found: Callable[[], None]
    ) -> None:
        self._state = state
        self._probe = probe
        self._waited_for = waited_for
        self._found = found
        self._wake = threading.Event()
        self._stopped = False
        threading.Thread(target=self._run, name="strangle-health", daemon=True).start()

    def hurry(self) -> None:
        """Ask at once: somebody waits."""
        self._wake.set()

    def stop(self) -> None:
        """End after the probe that is under way."""
        self._stopped = True
        self._wake.set()

    def _run(self) -> None:
        health = self._state.upstream.declared.health
        while not self._stopped and health is not None:
            for endpoint in range(len(self._state.health)):
                self._state.probed(endpoint, ok=self._asked(endpoint))
            if self._waited_for():
                self._tell()
            pause = min(HURRY, health.interval) if self._waited_for() else health.interval
            self._wake.wait(pause)
            self._wake.clear()
        self._probe.close()

    def _tell(self) -> None:
        try:
            self._found()
        except Exception:  # the thread goes on: who waits is told again after the next round
            log.exception("the overrides could not be applied after a health check")

    def _asked(self, endpoint: int) -> bool:
        try:
            return self._probe.ask(endpoint)
        except Exception:  # a probe that cannot be made counts as a bad one; the thread goes on
            log.exception("a health check failed by itself")
            return False


class Probers:
    """The probers of one process: one for each upstream with health checks."""

    def __init__(
        self,
        make: Callable[[CompiledUpstream], Asks],
        state: Callable[[CompiledUpstream], UpstreamState],
        waited_for: Callable[[], bool],
        found: Callable[[], None],
    ) -> None:
        self._make = make
        self._state = state
        self._waited_for = waited_for
        self._found = found
        self._lock = threading.Lock()
        self._running: dict[CompiledUpstream, Prober] = {}

    def watch(self, upstreams: Iterable[CompiledUpstream]) -> None:
        """Ask these upstreams from now on, as far as they say what to ask for, and no others."""
        wanted = {u for u in upstreams if u.declared.health is not None}
        with self._lock:
            for upstream in self._running.keys() - wanted:
                self._running.pop(upstream).stop()
            for upstream in wanted - self._running.keys():
                prober = Prober(self._state(upstream), self._make(upstream), self._waited_for, self._found)
                self._running[upstream] = prober

    def hurry(self) -> None:
        """Ask at once, for routes that wait."""
        for prober in tuple(self._running.values()):
            prober.hurry()

    def stop(self) -> None:
        """Stop all."""
        self.watch(())

    def reset_after_fork(self) -> None:
        """Forget the parent's threads."""
        self._lock = threading.Lock()
        self._running = {}
