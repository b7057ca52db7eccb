"""Who is protected from a failing upstream, and when: bulkhead, breaker, health and fallback budget (design
section 4.2).

State machines without a clock, lock or thread: the time, `now`, is an argument in monotonic seconds, and
chance is a function that is passed in. Where several threads use one, the CALLER holds a lock around each
call; nothing here waits, so it is held for about a microsecond. A `now` that is a little older than the one
before, because it was read before the lock was taken, does no harm. Who sends, waits, logs is elsewhere.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from strangle_mw.core.model import Breaker

BreakerState = Literal["closed", "open", "half-open"]
"""Closed: all requests pass. Open: none does. Half-open: one does, and its outcome decides."""

HealthState = Literal["unknown", "healthy", "unhealthy"]
"""What the active probes of one endpoint say; unknown until the first ones have ended."""

Outcome = Literal["good", "bad", "connect"]
"""What one request says about its endpoint; `connect`, it could not be connected to, counts as bad, too."""

Permit = int
"""Leave to send one request to an endpoint, 1 or more: which state of its breaker the request belongs to."""

MAX_OPEN = 60.0
"""The most seconds that a breaker stays open (design section 4.2), or that a probe keeps others away."""

SLOTS = 10
"""Into how many parts a window is divided."""

T = TypeVar("T", bound="Hashable")


class Places(Generic[T]):
    """The bulkhead's bookkeeping: `limit` places, and a line for whoever finds them `taken`.

    First come, first served; each token stands for another one that waits. No more may wait than there are
    places: a longer line only fills the memory while an upstream hangs (promise P15). Somebody waits only
    while every place is taken.
    """

    __slots__ = ("_line", "limit", "taken")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._line: OrderedDict[T, None] = OrderedDict()  # tokens leave from the middle, too

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def enter(self) -> bool:
        """Take a free place; False if there is none."""
        if self.taken < self.limit:
            self.taken += 1
            return True
        return False

    def wait(self, token: T) -> bool:
        """Stand in line; False if that is full. Only for one to whom `enter` has just said no."""
        if len(self._line) >= self.limit:
            return False
        self._line[token] = None
        return True

    def leave(self) -> T | None:
        """Give a place back; return the token that has it now, if one waited.

        If that token can do nothing with it any more, another `leave` passes the place on.
        """
        if self._line:
            return self._line.popitem(last=False)[0]
        self.taken -= 1
        return None

    def withdraw(self, token: T) -> bool:
        """Stop waiting; False if the token is not in line: then it may have a place, to be given back."""
        if token in self._line:
            del self._line[token]
            return True
        return False


class Window:
    """How often something happened in the last seconds, in fixed memory.

    Time is cut into `SLOTS` equal slots a window, at multiples of their width; the sum is over the slot of
    `now` and those before it, `slots` in all. By default it looks back over the window less at most one slot;
    with `SLOTS + 1` over the window and at most one slot more.
    """

    __slots__ = ("_at", "_counts", "_end", "_slot", "_sum", "_width")

    def __init__(self, seconds: float, slots: int = SLOTS) -> None:
        self._width = max(seconds / SLOTS, 1e-6)  # no clock tells finer; and slot numbers stay finite
        self._counts = [0] * slots
        self._slot = self._at = 0  # the number of the slot of now, and its place in `_counts`
        self._end = float("-inf")
        self._sum = 0

    def add(self, now: float) -> None:
        """Count one more."""
        if now >= self._end:
            self._turn(now)
        self._counts[self._at] += 1
        self._sum += 1

    def total(self, now: float) -> int:
        """Return the sum."""
        if now >= self._end:
            self._turn(now)
        return self._sum

    def _turn(self, now: float) -> None:
        slot, slots = int(now // self._width), len(self._counts)
        for passed in range(max(self._slot, slot - slots) + 1, slot + 1):
            self._sum -= self._counts[passed % slots]
            self._counts[passed % slots] = 0
        self._slot = max(self._slot, slot)
        self._at = self._slot % slots
        self._end = (self._slot + 1) * self._width


class CircuitBreaker:
    """Leaves one endpoint alone while it fails, and finds out by single requests when it no longer does.

    Opens (judged whenever something bad happens, never by something good) after

    - `failures` failures to connect, one after the other; or
    - when at least `minimum` requests ended in the last `window` seconds (see `Window`), of which the share
      `ratio` or more was bad; or
    - after `minimum` bad ones in a row, however long that took. After a long good time the window holds
      thousands of good ones, and the share would pass `ratio` only when the fallback budget is used up and
      clients see errors; a row is seen at once.

    `failures = 0` switches the first rule off, `ratio = 0` the others. It stays open for `open` seconds; each
    failed probe doubles that, up to `MAX_OPEN`. Of each such time the first half is fixed and the second by
    chance ("equal jitter": times 0.5 to 1), so that the processes of a fleet do not probe together. Then it
    is half-open: one request is the probe. A good outcome closes the breaker and forgets the past, a bad one
    opens it again. A probe of which nothing was heard for `MAX_OPEN` seconds (a client that uploads slowly)
    no longer keeps others away: the next one takes its place.

    Each permit ends in one `record` or `forget`. What is recorded for a permit from before the last change of
    state changes nothing: late answers do not make it flap. `jitter` returns a number from 0 to 1.
    """

    __slots__ = (
        "_bad",
        "_generation",
        "_good",
        "_jitter",
        "_length",
        "_off",
        "_probing",
        "_refused",
        "_row",
        "_settings",
        "_until",
    )

    def __init__(self, settings: Breaker, jitter: Callable[[], float]) -> None:
        self._settings = settings
        self._jitter = jitter
        self._off = not settings.failures and not settings.ratio
        self._generation: Permit = 1
        self._until: float | None = None
        self._probing = float("-inf")
        self._forget_the_past()

    def state(self, now: float) -> BreakerState:
        """Return the state at this time."""
        if self._until is None:
            return "closed"
        return "open" if now < self._until else "half-open"

    def admits(self, now: float) -> bool:
        """Return whether `admit` would give a permit; changes nothing."""
        return self._until is None or (now >= self._until and now - self._probing >= MAX_OPEN)

    def admit(self, now: float) -> Permit | None:
        """Give a permit for one request; None if it has to go elsewhere."""
        if self._until is not None:
            if not self.admits(now):
                return None
            self._generation += 1
            self._probing = now
        return self._generation

    def record(self, permit: Permit, outcome: Outcome, now: float) -> BreakerState | None:
        """Note how a request ended; return the new state if that changed it."""
        if permit != self._generation or self._off:
            return None
        if self._until is not None:
            return self._close() if outcome == "good" else self._open(now, self._length * 2)
        if outcome == "good":
            self._good.add(now)
            self._refused = self._row = 0
            return None
        self._bad.add(now)
        self._row += 1
        self._refused = self._refused + 1 if outcome == "connect" else 0
        return self._open(now, self._length) if self._too_bad(now) else None

    def forget(self, permit: Permit) -> None:
        """Take back the permit of a request that says nothing about the endpoint: its client left, say.

        If it was the probe, the next request is.
        """
        if permit == self._generation and self._until is not None:
            self._generation += 1
            self._probing = float("-inf")

    def retry_after(self, now: float) -> float:
        """Return the seconds until the next probe; 0 if there may be one, or is one."""
        return 0.0 if self._until is None else max(0.0, self._until - now)

    def _too_bad(self, now: float) -> bool:
        settings = self._settings
        if settings.failures and self._refused >= settings.failures:
            return True
        if not settings.ratio:
            return False
        if self._row >= settings.minimum:
            return True
        bad = self._bad.total(now)
        ended = bad + self._good.total(now)
        return ended >= settings.minimum and bad / ended >= settings.ratio

    def _open(self, now: float, length: float) -> BreakerState:
        self._length = min(length, MAX_OPEN)
        self._until = now + self._length * (0.5 + 0.5 * self._jitter())
        self._probing = float("-inf")
        self._generation += 1
        return "open"

    def _close(self) -> BreakerState:
        self._until = None
        self._generation += 1
        self._forget_the_past()
        return "closed"

    def _forget_the_past(self) -> None:
        self._length = self._settings.open
        self._good, self._bad = Window(self._settings.window), Window(self._settings.window)
        self._row = self._refused = 0


class EndpointHealth:
    """What active probes say of one endpoint.

    Unhealthy after `fall` bad probes in a row, healthy after `rise` good ones; until then it stays what it
    was, at first `unknown`, which is used like a healthy one: a process that has just started serves at once.
    """

    __slots__ = ("_fall", "_rise", "_row", "_was_good", "last_good", "state")

    def __init__(self, fall: int = 2, rise: int = 1) -> None:
        self.state: HealthState = "unknown"
        self.last_good: float | None = None
        """When the last good probe ended."""
        self._fall = fall
        self._rise = rise
        self._was_good = False
        self._row = 0

    @property
    def usable(self) -> bool:
        """Whether requests may be sent to it."""
        return self.state != "unhealthy"

    def probed(self, ok: bool, now: float) -> HealthState | None:
        """Note the end of one probe; return the new state if that changed it."""
        self._row = self._row + 1 if ok is self._was_good else 1
        self._was_good = ok
        if ok:
            self.last_good = now
        state: HealthState = "healthy" if ok else "unhealthy"
        if state == self.state or self._row < (self._rise if ok else self._fall):
            return None
        self.state = state
        return state


class FallbackBudget:
    """How many requests of one route may fall back to legacy after they were sent.

    In any `window` seconds that end with a fallback these are at most `share` of the route's requests plus
    `reserve` a second (design section 4.2 rule 4; the numbers of Finagle's retry budget): when the modern
    side fails altogether, legacy, which may have been scaled down already, does not get all load at once.
    Requests are counted over at most `window` seconds and fallbacks over at least as many, the difference
    being a slot (see `Window`), so that the bound holds.
    """

    __slots__ = ("_requests", "_reserve", "_share", "_spent")

    def __init__(self, share: float = 0.2, reserve: float = 10.0, window: float = 10.0) -> None:
        self._share = share
        self._reserve = reserve * window
        self._requests = Window(window)
        self._spent = Window(window, SLOTS + 1)

    def request(self, now: float) -> None:
        """Count a request of the route that is sent to the modern side."""
        self._requests.add(now)

    def spend(self, now: float) -> bool:
        """Count one more fallback if the budget allows it; else return False."""
        if self._spent.total(now) + 1 > self._share * self._requests.total(now) + self._reserve:
            return False
        self._spent.add(now)
        return True
