"""Bulkhead, breaker, health and fallback budget, step by step; time is a number that the test says."""

import math

import pytest

from strangle_mw.core.model import Breaker
from strangle_mw.core.resilience import CircuitBreaker, EndpointHealth, FallbackBudget, Places, Window


def breaker(jitter=lambda: 1.0, **settings):
    return CircuitBreaker(Breaker(**settings), jitter)


def run(machine, outcomes, now=0.0):
    """Ask and record one after the other; return the changes of state."""
    changes = []
    for outcome in outcomes:
        permit = machine.admit(now)
        assert permit is not None
        changes.append(machine.record(permit, outcome, now))
    return [c for c in changes if c]


def opened(now=0.0, **settings):
    machine = breaker(**{"failures": 1, **settings})
    assert run(machine, ["connect"], now) == ["open"]
    return machine


# Places


def test_who_comes_first_goes_first():
    places = Places(2)
    assert [places.enter() for _ in range(3)] == [True, True, False]
    assert [places.wait(token) for token in "abc"] == [True, True, False]
    assert [places.leave() for _ in range(4)] == ["a", "b", None, None]
    assert (places.taken, places.waiting) == (0, 0)


def test_who_withdraws_is_passed_over():
    places = Places(2)
    places.enter()
    places.enter()
    for token in "ab":
        places.wait(token)
    assert (places.withdraw("a"), places.withdraw("a")) == (True, False)
    assert places.leave() == "b"
    assert places.withdraw("b") is False
    assert (places.taken, places.waiting) == (2, 0)


# CircuitBreaker: what opens it

OPENING = {
    "connect failures in a row": (["connect"] * 5, {}, True),
    "one too few": (["connect"] * 4, {}, False),
    "a good one between": ([*["connect"] * 4, "good", *["connect"] * 4], {}, False),
    "a bad answer between: it was connected to": ([*["connect"] * 4, "bad", *["connect"] * 4], {}, False),
    "the first rule off": (["connect"] * 19, {"failures": 0}, False),
    "connect counts as bad, too": (["connect"] * 20, {"failures": 0}, True),
    "half of twenty": (["good", "bad"] * 10, {}, True),
    "half of nineteen": (["bad", *["good", "bad"] * 9], {}, False),
    "less than half of many": ([*["good"] * 51, *["good", "bad"] * 50], {}, False),
    "a row after a long good time": ([*["good"] * 10_000, *["bad"] * 20], {}, True),
    "a row that is one too short": ([*["good"] * 10_000, *["bad"] * 19, "good", *["bad"] * 19], {}, False),
    "judged when something bad happens": ([*["bad"] * 19, "good"], {}, False),
    "and then": ([*["bad"] * 19, "good", "bad"], {}, True),
    "ratio 0 is off": (["bad"] * 1000, {"ratio": 0}, False),
    "ratio 0 leaves the first rule": (["connect"] * 5, {"ratio": 0}, True),
    "ratio 1": ([*["good"], *["bad"] * 20], {"ratio": 1.0}, True),
    "a share as it is written": ([*["good"] * 93, *["bad"] * 7], {"ratio": 0.07, "minimum": 100}, True),
    "everything off": (["connect"] * 1000, {"failures": 0, "ratio": 0}, False),
    "good alone": (["good"] * 1000, {"failures": 1, "minimum": 1}, False),
    "minimum 1": (["good", "bad"], {"minimum": 1}, True),
}


@pytest.mark.parametrize(("outcomes", "settings", "opens"), OPENING.values(), ids=OPENING)
def test_what_opens_it(outcomes, settings, opens):
    machine = breaker(**settings)
    assert run(machine, outcomes) == (["open"] if opens else [])
    assert machine.state(0.0) == ("open" if opens else "closed")
    assert machine.admits(0.0) is not opens


def test_what_is_older_than_the_window_does_not_count():
    machine = breaker()
    assert run(machine, ["good"] + ["bad"] * 18, now=5.0) == []
    assert run(machine, ["good", "bad"], now=15.0) == []
    assert run(machine, ["bad"] * 10, now=15.5) == []
    assert run(machine, ["bad"] * 8, now=24.0) == ["open"]


def test_a_row_counts_however_long_it_took():
    machine = breaker(minimum=3)
    assert [run(machine, ["bad"], now=t) for t in (0.0, 100.0, 1e6)] == [[], [], ["open"]]


# CircuitBreaker: open, half-open, closed again


def test_one_probe_decides():
    machine = opened(open=5.0)
    assert [machine.state(t) for t in (0.0, 4.99, 5.0, 99.0)] == ["open", "open", "half-open", "half-open"]
    assert [machine.retry_after(t) for t in (0.0, 4.0, 5.0, 9.0)] == [5.0, 1.0, 0.0, 0.0]
    assert (machine.admits(4.99), machine.admit(4.99)) == (False, None)
    assert machine.admits(5.0)
    probe = machine.admit(5.0)
    assert probe is not None
    assert (machine.admits(5.0), machine.admit(6.0), machine.state(6.0)) == (False, None, "half-open")
    assert machine.record(probe, "good", 6.0) == "closed"
    assert machine.state(6.0) == "closed"
    assert machine.retry_after(6.0) == 0.0


@pytest.mark.parametrize("outcome", ["bad", "connect"])
def test_each_failed_probe_doubles_the_time_up_to_a_minute(outcome):
    machine, now, lengths = opened(open=5.0), 0.0, []
    for _ in range(7):
        lengths.append(machine.retry_after(now))
        now += lengths[-1]
        assert machine.record(machine.admit(now), outcome, now) == "open"
    assert lengths == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0]
    assert machine.record(machine.admit(now + 60), "good", now + 60) == "closed"
    assert run(machine, ["connect"], now + 60) == ["open"]
    assert machine.retry_after(now + 60) == 5.0


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 2.5), (0.5, 3.75), (1.0, 5.0)])
def test_half_of_the_time_is_by_chance(chance, seconds):
    assert opened(open=5.0, jitter=lambda: chance).retry_after(0.0) == seconds


def test_closing_forgets_the_past():
    machine = breaker(minimum=4, open=1.0)
    run(machine, ["bad"] * 4)
    machine.record(machine.admit(1.0), "good", 1.0)
    assert run(machine, ["bad"] * 3, now=1.0) == []
    assert run(machine, ["bad"], now=1.0) == ["open"]


def test_late_answers_change_nothing():
    machine = breaker(failures=1, open=5.0)
    early = [machine.admit(0.0) for _ in range(4)]
    assert machine.record(early[0], "connect", 0.0) == "open"
    assert machine.record(early[1], "good", 1.0) is None
    assert machine.state(1.0) == "open"
    probe = machine.admit(5.0)
    assert machine.record(early[2], "good", 5.0) is None
    assert machine.record(early[3], "connect", 5.0) is None
    machine.forget(early[3])
    assert (machine.state(5.0), machine.admits(5.0)) == ("half-open", False)
    assert machine.record(probe, "good", 5.0) == "closed"
    assert machine.record(probe, "connect", 5.0) is None
    assert machine.record(early[3], "connect", 5.0) is None
    assert machine.state(5.0) == "closed"


def test_a_probe_that_says_nothing_makes_room():
    machine = opened(open=5.0)
    gone = machine.admit(5.0)
    machine.forget(gone)
    assert machine.record(gone, "good", 5.0) is None
    assert machine.state(5.0) == "half-open"
    probe = machine.admit(5.0)
    assert probe is not None
    assert machine.record(gone, "good", 5.0) is None
    machine.forget(gone)
    assert machine.admit(5.0) is None
    assert machine.record(probe, "good", 5.0) == "closed"


def test_a_probe_of_which_nothing_is_heard_for_a_minute_is_replaced():
    machine = opened(open=5.0)
    slow = machine.admit(5.0)
    assert machine.admit(64.9) is None
    second = machine.admit(65.0)
    assert second is not None
    assert machine.admit(65.0) is None
    assert machine.record(slow, "good", 65.0) is None
    assert machine.record(second, "bad", 66.0) == "open"


def test_a_forgotten_request_leaves_a_closed_breaker_as_it_is():
    machine = breaker(failures=2)
    first, second = machine.admit(0.0), machine.admit(0.0)
    machine.forget(first)
    assert machine.record(second, "connect", 0.0) is None
    assert run(machine, ["connect"]) == ["open"]


def test_a_permit_is_true_in_itself():
    assert breaker().admit(0.0)


# Window


def test_a_window_looks_back_by_whole_slots():
    window = Window(10.0)
    for now in (0.0, 0.99, 1.0):
        window.add(now)
    assert [window.total(t) for t in (9.99, 10.0, 11.0, 1e9)] == [3, 1, 0, 0]


@pytest.mark.parametrize("seconds", [1e-320, 0.1, 3600])
def test_time_may_stand_still_or_step_back_a_little(seconds):
    window = Window(seconds)
    for now in (1e6, 1e6, math.nextafter(1e6, 0), 1e6 - 0.001):
        window.add(now)
    assert window.total(1e6) == 4


# EndpointHealth


@pytest.mark.parametrize(
    ("probes", "state"),
    [
        ("", "unknown"),
        ("-", "unknown"),
        ("--", "unhealthy"),
        ("+", "healthy"),
        ("-+-", "healthy"),
        ("+-", "healthy"),
        ("+--", "unhealthy"),
        ("--+", "healthy"),
        ("+-+-+-", "healthy"),
    ],
)
def test_health_follows_the_last_probes(probes, state):
    health = EndpointHealth()
    for now, probe in enumerate(probes):
        health.probed(probe == "+", float(now))
    assert health.state == state
    assert health.usable is (state != "unhealthy")
    assert health.last_good == (float(probes.rindex("+")) if "+" in probes else None)


def test_health_tells_a_change_once():
    health = EndpointHealth(fall=2, rise=3)
    told = [health.probed(p == "+", 0.0) for p in "--- +++ + --".replace(" ", "")]
    assert [c for c in told if c] == ["unhealthy", "healthy", "unhealthy"]
    assert [at for at, c in enumerate(told) if c] == [1, 5, 8]


# FallbackBudget


def spend(budget, now, times=10_000):
    return sum(budget.spend(now) for _ in range(times))


def test_the_reserve_is_there_without_any_traffic():
    budget = FallbackBudget()
    assert spend(budget, 0.0) == 100
    assert spend(budget, 10.9) == 0
    assert spend(budget, 11.0) == 100


def test_a_fifth_of_the_requests_of_the_last_ten_seconds():
    budget = FallbackBudget(reserve=0.0)
    for _ in range(1000):
        budget.request(0.5)
    assert spend(budget, 9.9) == 200
    for _ in range(1000):
        budget.request(10.0)
    assert spend(budget, 10.0) == 0, "the first thousand are too old, the fallbacks are not"
    for _ in range(500):
        budget.request(10.5)
    assert spend(budget, 10.5) == 100


def test_without_share_and_reserve_nothing_falls_back():
    budget = FallbackBudget(share=0.0, reserve=0.0)
    budget.request(0.0)
    assert budget.spend(0.0) is False


def test_a_storm_opens_the_breaker_before_the_budget_is_used_up():
    """What the row of bad ones is for: nobody has seen an error by then."""
    machine, budget = breaker(), FallbackBudget()
    for number in range(10_000):
        budget.request(number / 1000)
        machine.record(machine.admit(number / 1000), "good", number / 1000)
    fell_back = 0
    while (permit := machine.admit(10.0)) is not None:
        budget.request(10.0)
        machine.record(permit, "bad", 10.0)
        assert budget.spend(10.0)
        fell_back += 1
    assert fell_back == 20
