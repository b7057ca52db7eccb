"""What is right and what is not, for each request and for a run as a whole."""

from collections import Counter

from chaos.service import digest
from chaos.strangled import ROUTE, TIMEOUT
from strangle_mw.core.events import CounterKey
from strangle_mw.core.fallback import REASONS

SLACK = TIMEOUT
"""What an answer may take beyond the modern side's timeout and the legacy app's own time: clocks are coarse."""
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


def too_late(phases, lateness):
    """Return what took too long: (phase, whom, seconds of 99 %, seconds allowed).

    Nobody waits longer than the timeout and the legacy app take, and the others do not wait for it at all. In
    one phase the 99th percentile is about the slowest request, so there the others get twice the time: still
    none of them has waited for the modern side. By `lateness` of the load itself a busy machine is allowed for:
    a request wakes three processes.
    """
    everything = [s for _, seen in phases for s in seen]
    legacy = quantile(unaffected(everything), 0.99)
    busy = 3 * quantile(lateness, 0.99)
    found = [("all", "others", legacy, UNAFFECTED + busy)]
    for name, seen in [("all", everything), *phases]:
        found.append((name, "readers", quantile(readers(seen), 0.99), TIMEOUT + legacy + SLACK + busy))
        found.append((name, "others", quantile(unaffected(seen), 0.99), 2 * UNAFFECTED + busy))
    return [entry for entry in found if entry[2] > entry[3]]


def wrongly_done(seen, modern, legacy):
    """Return the writes that were carried out twice, or not although they were answered by 200.

    `modern` and `legacy` are what each side has carried out. What the modern side has carried out for users
    that are not in the canary is returned, too.
    """
    times = Counter(path for method, path, _ in [*modern, *legacy] if method != "GET")
    writes = [s for s in seen if s.request.method != "GET"]
    others = {s.request.path for s in seen if s.request.kind != "canary"}
    wrong = [
        s for s in writes if times[s.request.path] > 1 or (s.status == 200 and not times[s.request.path])
    ]
    return wrong + [entry for entry in modern if entry[1] in others]


def outcomes(seen):
    """Return how often each (side, outcome) must have been counted for the route."""
    return Counter(_outcome(s) for s in seen if s.request.kind in ("canary", "control"))


def _outcome(seen):
    if not seen.side:
        return "modern", "failed"
    return seen.side, f"fallback:{seen.fallback}" if seen.fallback else f"{seen.status // 100}xx"


def counted(counts):
    """Return how often the store has counted each (side, outcome) of the route, whatever its stage was."""
    found = Counter()
    for key, number in ((CounterKey.parse(field), number) for field, number in counts.items()):
        if key is not None and key.route == ROUTE:  # the others are hits by day
            found[key.side, "2xx" if key.outcome == "passed" else key.outcome] += number
    return found
