"""What is done to the modern side, step by step, and what the load must have shown before the next step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from chaos.strangled import ROUTE, TIMEOUT
from strangle_mw.core.model import Stage
from strangle_mw.core.overrides import Override, encode_overrides, parse_overrides, with_override, without
from strangle_mw.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST = 24
"""Requests in each phase; also how many tell that all connections, so all workers, are back to normal."""


class Step(NamedTuple):
    act: Callable  # gets the Stand
    shows: Callable  # gets the requests of the phase, tells whether it has come to what it is for


def _canaries(seen):
    return [s for s in seen if s.request.kind == "canary"]


def _shows(effect):
    """Wait for an effect of a fault, and for the breaker to be open.

    The effect on any kind of request will do: it may be open already, and then each of its probes, that are
    less and less frequent, shows one.
    """

    def shows(seen):
        found = _canaries(seen)
        return len(seen) >= LEAST and any(map(effect, found)) and any(s.fallback == "breaker" for s in found)

    return shows


def _was_refused(seen):
    return seen.fallback == "connect"


def _was_awaited(seen):
    return seen.seconds > TIMEOUT


def _was_turned_away(seen):
    return seen.status == 503 or seen.fallback == "status-503"


def _is_busy(seen):
    return sum(s.side == "modern" for s in seen) >= LEAST


def _recent(seen, good):
    found = _canaries(seen)[-LEAST:]
    return len(found) == LEAST and all(good(s) for s in found)


def _recovered(seen):
    return _recent(seen, lambda s: s.side == "modern" and s.status == 200)


def _rolled_back(seen):
    return _recent(seen, lambda s: s.side == "legacy" and not s.fallback)


def _restart_at_once(stand):
    stand.modern.kill()
    stand.modern.start()


def _roll_back(stand):
    """Do what `strangle rollback` does."""
    override = Override(Stage.LEGACY, None, "ann", time.time(), "the modern side fails")
    _edit(stand, lambda found: with_override(found, ROUTE, override, time.time()))


def _move_again(stand):
    _edit(stand, lambda found: without(found, {ROUTE}, time.time()))


def _edit(stand, change):
    store = open_store(stand.store)
    store.edit(lambda raw: encode_overrides(change(parse_overrides(raw))))
    store.close()


STEPS = {
    "begins": Step(lambda stand: None, _recovered),
    "killed": Step(lambda stand: stand.modern.kill(), _shows(_was_refused)),
    "started": Step(lambda stand: stand.modern.start(), _recovered),
    "stopped": Step(lambda stand: stand.modern.stop(), _shows(_was_awaited)),
    "goes on": Step(lambda stand: stand.modern.go_on(), _recovered),
    "busy": Step(lambda stand: stand.modern.answer("busy"), _is_busy),
    "slow": Step(lambda stand: stand.modern.answer("slow"), _shows(_was_awaited)),
    "unavailable": Step(lambda stand: stand.modern.answer("unavailable"), _shows(_was_turned_away)),
    "good": Step(lambda stand: stand.modern.answer("good"), _recovered),
    "killed and started": Step(_restart_at_once, _recovered),
    "rolled back": Step(_roll_back, _rolled_back),
    "good, rolled back": Step(lambda stand: stand.modern.answer("good"), _rolled_back),
    "moved again": Step(_move_again, _recovered),
}

FIRST = ("begins", "busy", "killed", "started", "stopped", "goes on", "slow", "good", "unavailable", "good")
"""What the test suite has time for; a busy service has requests in hand when it is killed."""

ROLLED_BACK = {"rolled back", "good, rolled back", "moved again"}
"""Where the route may be legacy for all."""

SCENES = [
    ("busy", "killed", "started"),
    ("busy", "stopped", "killed", "started"),
    ("stopped", "goes on"),
    ("slow", "good"),
    ("unavailable", "good"),
    ("busy", "killed and started"),
    ("slow", "killed", "started"),
    ("unavailable", "stopped", "killed", "started"),
    ("unavailable", "slow", "good"),
    ("slow", "rolled back", "good, rolled back", "moved again"),
]
"""Each begins and ends with a modern side that is well."""
