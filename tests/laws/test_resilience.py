"""Each state machine of protection beside a naive form of its rule: all that happened, in a list, read anew."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from strangle_mw.core.model import Breaker
from strangle_mw.core.resilience import (
    MAX_OPEN,
    SLOTS,
    CircuitBreaker,
    EndpointHealth,
    FallbackBudget,
    Places,
)

WINDOW = 10.0  # so that a slot is a second
# In eighths of a second, so that sums of times are exact, and meet the edges of slots and windows.
STEPS = st.sampled_from([0.125, 0.5, 1.0, 3.0, 9.0, 9.875, 10.0, 10.125, 11.0, 59.875, 60.0, 1000.0])
OUTCOMES = st.lists(st.sampled_from(["good", "bad", "connect"]), min_size=1, max_size=8)


class PlacesMachine(RuleBasedStateMachine):
    """Never more inside than the limit; first come, first served; no place is lost."""

    @initialize(limit=st.integers(1, 4))
    def start(self, limit):
        self.limit = limit
        self.places = Places(limit)
        self.inside = []
        self.line = []
        self.came = 0

    @rule()
    def come(self):
        self.came += 1
        if self.places.enter():
            assert len(self.inside) < self.limit
            assert self.line == []
            self.inside.append(self.came)
        elif self.places.wait(self.came):
            assert len(self.inside) == self.limit
            self.line.append(self.came)
        else:
            assert len(self.line) == self.limit

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def leave(self, data):
        self.inside.remove(data.draw(st.sampled_from(self.inside)))
        expected = self.line.pop(0) if self.line else None
        assert self.places.leave() == expected
        if expected is not None:
            self.inside.append(expected)

    @precondition(lambda self: self.came)
    @rule(data=st.data())
    def withdraw(self, data):
        token = data.draw(st.sampled_from(self.line or [1]))
        assert self.places.withdraw(token) is (token in self.line)
        if token in self.line:
            self.line.remove(token)

    @invariant()
    def nothing_is_lost(self):
        assert (self.places.taken, self.places.waiting) == (len(self.inside), len(self.line))
        assert self.places.taken <= self.limit
        assert not self.line or self.places.taken == self.limit

    def teardown(self):
        for _ in range(len(self.inside) + len(self.line)):
            self.places.leave()
        assert (self.places.taken, self.places.waiting) == (0, 0)


class BreakerMachine(RuleBasedStateMachine):
    """Opens by the rule and not otherwise, lets one probe through, and closes once things are good again."""

    @initialize(
        failures=st.integers(0, 3),
        ratio=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
        minimum=st.integers(1, 6),
        length=st.sampled_from([0.5, 5.0, 60.0]),
        now=st.sampled_from([0.0, 7.5, 1e6]),
    )
    def start(self, failures, ratio, minimum, length, now):
        self.settings = Breaker(failures=failures, ratio=ratio, minimum=minimum, window=WINDOW, open=length)
        self.chance = 0.0
        self.breaker = CircuitBreaker(self.settings, lambda: self.chance)
        self.now = now
        self.until = None  # when the time it is open ends; None: closed
        self.length = length
        self.probe = None  # permit, since when
        self.past = []  # (slot, outcome) since it closed
        self.current = set()  # permits of this state
        self.stale = set()  # and of those before

    @rule(seconds=STEPS)
    def time_passes(self, seconds):
        self.now += seconds

    @precondition(lambda self: self.until is not None)
    @rule(outcome=st.sampled_from(["good", "bad", "connect", None]), chance=st.sampled_from([0.0, 0.5, 1.0]))
    def its_time_comes(self, outcome, chance):
        self.now += self.breaker.retry_after(self.now)
        assert self.breaker.state(self.now) == "half-open"
        if self._ask() is not None and outcome:
            self._end([outcome], chance)

    @rule(outcomes=OUTCOMES, chance=st.sampled_from([0.0, 0.5, 1.0]))
    def requests_come_and_end(self, outcomes, chance):
        for outcome in outcomes:
            if self._ask() is not None:
                self._end([outcome], chance)

    @rule()
    def a_request_comes(self):
        self._ask()

    @precondition(lambda self: self.current)
    @rule(outcomes=OUTCOMES, chance=st.sampled_from([0.0, 0.5, 1.0]))
    def requests_end(self, outcomes, chance):
        self._end(outcomes, chance)

    @precondition(lambda self: self.stale)
    @rule(data=st.data(), outcome=st.sampled_from(["good", "bad", "connect"]))
    def a_late_answer_changes_nothing(self, data, outcome):
        permit = data.draw(st.sampled_from(sorted(self.stale)))
        assert self.breaker.record(permit, outcome, self.now) is None
        self.breaker.forget(permit)

    @precondition(lambda self: self.current)
    @rule()
    def a_request_says_nothing(self):
        self.breaker.forget(max(self.current))
        if self.until is not None:
            self._changed()

    @invariant()
    def the_state_is_what_the_rule_says(self):
        state = self.breaker.state(self.now)
        assert state == ("closed" if self.until is None else "open" if self.now < self.until else "half-open")
        assert self.breaker.retry_after(self.now) == (self.until - self.now if state == "open" else 0.0)
        assert state != "open" or not self.breaker.admits(self.now)
        assert len(self.current) <= 1  # in a closed breaker all have the same permit

    def teardown(self):
        """One good probe, as soon as there may be one, closes it."""
        if getattr(self, "until", None) is not None:
            self.now += self.breaker.retry_after(self.now)
            if not self.breaker.admits(self.now):
                self.now += MAX_OPEN
            assert self.breaker.record(self.breaker.admit(self.now), "good", self.now) == "closed"
            assert self.breaker.state(self.now) == "closed"

    def _ask(self):
        expected, may = self.breaker.state(self.now), self.breaker.admits(self.now)
        permit = self.breaker.admit(self.now)
        assert (permit is not None) is may
        assert self.breaker.state(self.now) == expected
        if self.until is None:
            assert permit is not None
        elif self.now < self.until:
            assert permit is None
        else:
            busy = self.probe is not None and self.now - self.probe[1] < MAX_OPEN
            assert (permit is None) is busy
            if permit is not None:
                self._changed()
                self.probe = permit, self.now
        if permit is not None:
            assert permit not in self.stale
            self.current.add(permit)
        return permit

    def _end(self, outcomes, chance):
        self.chance = chance
        permit = max(self.current)
        for outcome in outcomes:
            told = self.breaker.record(permit, outcome, self.now)
            assert told == (self._judge(outcome) if permit in self.current else None)

    def _changed(self):
        self.stale |= self.current
        self.current = set()
        self.probe = None

    def _judge(self, outcome):
        if self.until is not None:
            self._changed()
            if outcome == "good":
                self.until, self.length, self.past = None, self.settings.open, []
                return "closed"
            self.length = min(self.length * 2, MAX_OPEN)
            return self._opens()
        self.past.append((int(self.now), outcome))
        return self._opens() if outcome != "good" and self._too_bad() else None

    def _opens(self):
        self._changed()
        self.until = self.now + self.length * (0.5 + 0.5 * self.chance)
        return "open"

    def _too_bad(self):
        outcomes = [o for _, o in self.past]
        recent = [o != "good" for slot, o in self.past if slot > int(self.now) - SLOTS]
        failures, ratio, minimum = self.settings.failures, self.settings.ratio, self.settings.minimum
        in_a_row = len(outcomes) >= minimum and "good" not in outcomes[-minimum:]
        share = len(recent) >= minimum and sum(recent) / len(recent) >= ratio
        refused = len(outcomes) >= failures > 0 and set(outcomes[-failures:]) == {"connect"}
        return refused or (ratio > 0 and (in_a_row or share))


class HealthMachine(RuleBasedStateMachine):
    """The last run of probes that was long enough tells the state."""

    @initialize(fall=st.integers(1, 4), rise=st.integers(1, 4))
    def start(self, fall, rise):
        self.fall, self.rise = fall, rise
        self.health = EndpointHealth(fall, rise)
        self.now = 0.0
        self.past = []

    @rule(ok=st.booleans(), seconds=STEPS)
    def probed(self, ok, seconds):
        before = self._state()
        self.now += seconds
        self.past.append((ok, self.now))
        told = self.health.probed(ok, self.now)
        assert told == (None if self._state() == before else self._state())

    @invariant()
    def the_state_is_what_the_rule_says(self):
        assert self.health.state == self._state()
        assert self.health.usable is (self._state() != "unhealthy")
        assert self.health.last_good == max((t for ok, t in self.past if ok), default=None)

    def _state(self):
        results = [ok for ok, _ in self.past]
        for end in range(len(results), 0, -1):
            if end >= self.fall and not any(results[end - self.fall : end]):
                return "unhealthy"
            if end >= self.rise and all(results[end - self.rise : end]):
                return "healthy"
        return "unknown"


class BudgetMachine(RuleBasedStateMachine):
    """In no ten seconds more fall back than allowed; what is kept in reserve is always there.

    The bound is exact for any ten seconds that end with a fallback. The reserve comes back after eleven: by
    how much more than ten seconds a fallback is remembered is a matter of slots of one second.
    """

    @initialize(
        share=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
        reserve=st.sampled_from([0.0, 0.1, 0.3]),
        now=st.sampled_from([0.0, 7.5, 1e6]),
    )
    def start(self, share, reserve, now):
        self.share, self.kept = share, reserve * WINDOW
        self.budget = FallbackBudget(share, reserve, WINDOW)
        self.now = now
        self.requests, self.spent = [], []

    @rule(seconds=STEPS)
    def time_passes(self, seconds):
        self.now += seconds

    @rule(count=st.integers(1, 12))
    def requests_come(self, count):
        for _ in range(count):
            self.budget.request(self.now)
        self.requests += [self.now] * count

    @rule(count=st.integers(1, 12))
    def requests_fail(self, count):
        for _ in range(count):
            allowed = self.budget.spend(self.now)
            assert allowed is self._expected()
            if allowed:
                self.spent.append(self.now)
                bound = self.share * self._within(self.requests, WINDOW) + self.kept
                assert self._within(self.spent, WINDOW) <= bound
            else:
                assert self._within(self.spent, WINDOW + 1) + 1 > self.kept

    def _within(self, times, seconds):
        return sum(self.now - seconds < t <= self.now for t in times)

    def _expected(self):
        requests = sum(int(t) > int(self.now) - SLOTS for t in self.requests)
        spent = sum(int(t) >= int(self.now) - SLOTS for t in self.spent)
        return spent + 1 <= self.share * requests + self.kept


MACHINES = [PlacesMachine, BreakerMachine, HealthMachine, BudgetMachine]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.__name__)
def test_the_machine_does_what_the_rule_says(machine):
    examples = max(1, settings().max_examples // 3)
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=30, deadline=None)
    )
