"""Hits by day: their fields, how a process counts them, and how they come to a store and go."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strangle_mw import Route, strangle
from strangle_mw.core.events import UNSAFE, CounterKey
from strangle_mw.core.usage import (
    DAY,
    KEPT_DAYS,
    endpoint_field,
    outdated,
    read_usage,
    text_key,
    usage_fields,
)
from strangle_mw.states import MAX_RULES, OTHER_RULES, States
from strangle_mw.stores import StoreError


def counted(route="r", side="modern", outcome="2xx"):
    return CounterKey(route, "canary", 500, side, outcome)


def test_fields_of_a_day():
    counts = {counted(): 3, counted(outcome="5xx"): 2, counted(side="legacy"): 1, counted(side="shadow"): 9}
    fields = usage_fields({("GET", "/a\tb"): 4, ("GET", ""): 1}, counts, 7)
    assert fields == {
        "\tendpoint\t7\tGET\t/a\\tb": 4,
        "\tendpoint\t7\tGET\t": 1,
        "\troute\t7\tmodern\tr": 5,
        "\troute\t7\tlegacy\tr": 1,
    }
    assert all(CounterKey.parse(name) is None for name in fields)
    usage = read_usage({**fields, endpoint_field(5, "GET", ""): 2, counted().field(): 9})
    assert usage.endpoints == {("GET", "/a\\tb"): {7: 4}, ("GET", ""): {7: 1, 5: 2}}
    assert usage.routes == {("r", "modern"): {7: 5}, ("r", "legacy"): {7: 1}}
    assert usage.since == 5
    assert read_usage({}).since is None


@given(st.text(), st.text(), st.integers(0, 10**6 - 1))
@settings(max_examples=50, deadline=None)
def test_whatever_a_rule_is_called_it_comes_back_and_is_safe(rule, route, day):
    fields = usage_fields({("GET", rule): 1}, {counted(route): 2}, day)
    usage = read_usage(fields)
    assert usage.endpoints == {("GET", text_key(rule)): {day: 1}}
    assert usage.routes == {(text_key(route), "modern"): {day: 2}}
    assert not UNSAFE.search(text_key(rule))


@pytest.mark.parametrize(
    "name",
    ["", "\t", "\tendpoint", "\tendpoint\t7\tGET", "\tendpoint\t7\tGET\t/a\tb", "\tendpoint\t-7\tGET\t/", "\tendpoint\t\u0667\tGET\t/",
     f"\tendpoint\t{'9' * 5000}\tGET\t/", "\troute\t7\tshadowy\tr", "\tother\t7\tGET\t/", "r\tendpoint\t7\tGET\t/"],
)  # fmt: skip
def test_what_is_of_no_known_form_is_left_out(name):
    assert (read_usage({name: 1}).endpoints, read_usage({name: 1}).routes) == ({}, {})
    outdated([name], 20_000)


def test_what_is_too_old_or_still_to_come_goes():
    today = 20_000
    days = [today - KEPT_DAYS - 1, today - KEPT_DAYS, today, today + 1, today + 2]
    names = [endpoint_field(d, "GET", "/a") for d in days]
    prefixes = outdated([*names, counted().field()], today)
    assert [n for n in names if not n.startswith(tuple(prefixes))] == names[1:4]


def test_rules_and_methods_are_few():
    states = States()
    for number in range(MAX_RULES + 5):
        states.endpoint_hit("GET", f"/{number}")
    states.endpoint_hit("BREW", "/1")
    taken = states.take_endpoints()
    assert len(taken) == MAX_RULES + 2
    assert (taken["GET", OTHER_RULES], taken["other", "/1"]) == (5, 1)
    states.endpoint_hit("GET", "/1")
    states.endpoint_hit("WEBSOCKET", "/new")
    states.return_endpoints(taken)
    assert states.take_endpoints() == {**taken, ("GET", "/1"): 2, ("WEBSOCKET", OTHER_RULES): 1}


def test_no_hit_is_lost_between_threads():
    states, total = States(), 0
    threads = [
        threading.Thread(target=lambda: [states.endpoint_hit("GET", "/a") for _ in range(2000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads):
        total += sum(states.take_endpoints().values())
    assert total + sum(states.take_endpoints().values()) == 8000


# --- into a store


@pytest.fixture
def days(monkeypatch):
    """Let the test say what day it is."""
    now = [20_000 * DAY + 1.0]
    monkeypatch.setattr("strangle_mw.follower.time", lambda: now[0])
    return now


@pytest.fixture
def engine(tmp_path):
    found = strangle(
        lambda *_: [],
        [Route("/a", respond={"status": 410})],
        interface="wsgi",
        store=f"sqlite:///{tmp_path}/s.db",
    ).engine
    yield found
    found.close()


def usage_of(engine):
    return read_usage(engine.store.counts())


def test_hits_are_stored_by_day_and_forgotten_after_a_quarter(engine, days):
    for _ in range(2):
        engine.states.endpoint_hit("GET", "/a")
        engine.states.count("a", engine.snapshot.table.routes[0].staging.dial, "modern", "4xx")
        engine.sync()
    days[0] += DAY
    engine.states.endpoint_hit("GET", "/a")
    engine.sync()
    engine.sync()
    assert usage_of(engine).endpoints == {("GET", "/a"): {20_000: 2, 20_001: 1}}
    assert usage_of(engine).routes == {("a", "modern"): {20_000: 2}}
    days[0] += KEPT_DAYS * DAY
    engine.sync()
    assert usage_of(engine).endpoints == {("GET", "/a"): {20_001: 1}}
    assert usage_of(engine).routes == {}
    assert [k for k in map(CounterKey.parse, engine.store.counts()) if k]


def test_hits_wait_for_a_store_that_fails(engine, days, monkeypatch):
    def full(*_):
        raise StoreError("the store is full")

    engine.states.endpoint_hit("GET", "/a")
    with monkeypatch.context() as patched:
        patched.setattr(engine.store, "add_counts", full)
        engine.sync()
        assert engine.follower.error == "the store is full"
    engine.states.endpoint_hit("GET", "/a")
    engine.sync()
    assert usage_of(engine).endpoints == {("GET", "/a"): {20_000: 2}}


def test_forgetting_that_fails_is_tried_again(engine, days, monkeypatch):
    engine.store.add_counts({endpoint_field(1, "GET", "/old"): 1})
    with monkeypatch.context() as patched:
        patched.setattr(engine.store, "counts", lambda: (_ for _ in ()).throw(StoreError("no")))
        engine.sync()
    assert usage_of(engine).endpoints
    engine.sync()
    assert usage_of(engine).endpoints == {}
