"""What a process keeps longer than a request: the versions of functions, and what was told of failures."""

import logging

import pytest

from strangle_mw.config import load
from strangle_mw.errors import ForwardError
from strangle_mw.states import MAX_VERSIONS, States


def upstreams(*names):
    declared = {name: {"lambda": name} for name in names}
    routes = [{"path": f"/{name}", "to": name} for name in names]
    return load({"upstreams": declared, "routes": routes}).upstreams.values()


def test_versions_are_few_and_go_with_their_upstream():
    states = States()
    for number in range(MAX_VERSIONS + 3):
        states.executed("a", str(number))
    states.executed("b", "1")
    assert list(states.versions()["a"]) == [str(n) for n in range(3, MAX_VERSIONS + 3)]
    states.keep(upstreams("b"), ["b"])
    assert states.versions() == {"b": {"1": 1}}


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("strangle_mw.states.monotonic", lambda: now[0])
    return now


def test_a_failure_for_which_legacy_answers_is_logged_once_a_minute(clock, caplog):
    states, refused = States(), ForwardError("connect", "refused")

    def lines():
        caplog.clear()
        for route, error in (
            ("r", refused),
            ("r", refused),
            ("r", ForwardError("head", "reset", request_sent=True)),
            ("s", refused),
        ):
            states.replaced(route, "u", error)
        assert all(r.levelno == logging.WARNING for r in caplog.records)
        return [r.getMessage() for r in caplog.records]

    expected = [
        "fallback on route 'r': upstream 'u': connect: refused",
        "fallback on route 'r': upstream 'u': head: reset",
        "fallback on route 's': upstream 'u': connect: refused",
    ]
    assert lines() == expected
    clock[0] += 59
    assert lines() == []
    clock[0] += 1
    assert lines() == expected
    states.keep([], ["s"])
    assert lines() == expected[:2], "a route that is gone is forgotten"
