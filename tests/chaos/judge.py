"""What is right and what is not, for each request and for a run as a whole."""

from collections import Counter

from chaos.service import digest
from chaos.strangled import ROUTE, TIMEOUT
from strangle_mw.core.events import CounterKey
from strangle_mw.core.fallback import REASONS
from strangle_mw.stores import open_store

SLACK = TIMEOUT
"""What an answer may take beyond the modern side's timeout and the legacy app's own time: clocks are coarse,
and a machine that tests is busy."""
UNAFFECTED = TIMEOUT / 2
"""Seconds in which 99 % of those are answered who have nothing to do with the modern side."""


def is_right(seen, *, rolled_back=False):
    """Tell whether one request has got what it may get; `rolled_back`: its route may be legacy for all."""
    request = seen.request
    if seen.trouble:
        return False
    if request.kind == "canary" and request.method != "GET" and seen.status in (502, 503, 504):
        return True  # it was sent, so nobody may send it again
    told = {"method": request.method, "path": request.path, "user": request.user}
    told["digest"] = digest(request.body)
    if seen.status != 200 or not told.items() <= seen.answer.items():
        return False
    if request.kind != "canary":
        return seen.side == "legacy" and not seen.fallback
    return seen.side == "modern" or seen.fallback in REASONS or (rolled_back and not seen.fallback)


def quantile(seconds, share):
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def readers(seen):
    """Return how long those had to wait who read from the modern side, or would have."""
    return [s.seconds for s in seen if s.request.kind == "canary" and s.request.method == "GET"]


def unaffected(seen):
    """Return how long all others had to wait."""
    return [s.seconds for s in seen if s.request.kind != "canary"]


def describe(seen):
    """Say in one line what became of the requests of a phase."""
    found = Counter(s.fallback or s.side or str(s.status) for s in seen if s.request.kind == "canary")
    times = [f"{1000 * quantile(of(seen), 0.99):4.0f} ms" for of in (readers, unaffected)]
    what = ", ".join(f"{n} {name}" for name, n in found.most_common())
    return f"{len(seen):5} requests, 99 %: readers {times[0]}, others {times[1]}; canary: {what}"


def assert_soon_enough(phases):
    """Nobody waits longer than the timeout and the legacy app take; others do not wait for it at all.

    In one phase the 99th percentile is the slowest request, so there the others get twice the time: still none
    of them has waited for the modern side.
    """
    seen = [s for _, found in phases for s in found]
    legacy = quantile(unaffected(seen), 0.99)
    assert legacy <= UNAFFECTED
    for name, found in [("all", seen), *phases]:
        assert quantile(readers(found), 0.99) <= TIMEOUT + legacy + SLACK, name
        assert quantile(unaffected(found), 0.99) <= 2 * UNAFFECTED, name


def assert_nothing_is_done_twice(seen, stand):
    """Each write is carried out by one side at most, and by one if it was answered by 200."""
    modern, legacy = stand.executed("modern"), stand.executed("legacy")
    times = Counter(path for method, path, _ in [*modern, *legacy] if method != "GET")
    writes = {s.request.path: s for s in seen if s.request.method != "GET"}
    assert [writes[path] for path, n in times.items() if n > 1] == []
    assert [s for s in writes.values() if s.status == 200 and times[s.request.path] != 1] == []
    canary = {s.request.path for s in seen if s.request.kind == "canary"}
    assert [path for _, path, _ in modern if path not in canary] == []
    return times


def assert_all_is_counted(seen, store):
    """The store has counted every request of the route once, for what became of it."""
    opened = open_store(store)
    counts, events = opened.counts(), opened.events(1000)
    opened.close()
    found = Counter()
    for field, number in counts.items():
        key = CounterKey.parse(field)
        if key.route == ROUTE:
            found[key.side, "2xx" if key.outcome == "passed" else key.outcome] += number
    expected = Counter(_outcome(s) for s in seen if s.request.kind in ("canary", "control"))
    assert found == expected, (dict(found - expected), dict(expected - found))
    assert {"breaker-open", "breaker-closed"} <= {event["kind"] for event in events}


def _outcome(seen):
    if not seen.side:
        return "modern", "failed"
    return seen.side, f"fallback:{seen.fallback}" if seen.fallback else f"{seen.status // 100}xx"
