"""What `breaker` and `health` of an upstream may say, and what they are if nothing is said."""

import math

import httpx2
import pytest

from strangle_mw import ConfigError, HttpxUpstream, Route, Upstream
from strangle_mw.config import load
from strangle_mw.core.model import Breaker, Health

M = "http://m"
OUT_OF_RANGE = {
    "failures": [-1],
    "ratio": [-0.1, 1.01, math.nan],
    "minimum": [0, -1],
    "window": [0, -1, 3601, math.inf, math.nan],
    "open": [0, -1, 60.5, math.inf, math.nan],
}
EDGES = {
    "failures": [0, 10**9],
    "ratio": [0, 1, 0.001],
    "minimum": [1, 10**9],
    "window": [0.001, 3600],
    "open": [0.001, 60],
}


def flat(table):
    return [(name, value) for name, values in table.items() for value in values]


def problems(upstream):
    with pytest.raises(ConfigError) as caught:
        load([Route("/a", to=upstream)])
    assert all(len(p.what) > 5 for p in caught.value.problems)
    return [(p.where, p.id) for p in caught.value.problems]


def declared(upstream):
    return load([Route("/a", to=upstream)]).table.routes[0].action.upstreams[0].declared


@pytest.mark.parametrize(("name", "value"), flat(OUT_OF_RANGE))
def test_a_breaker_out_of_range(name, value):
    found = problems(Upstream(url=M, breaker=Breaker(**{name: value})))
    assert found == [(f"routes[0].to.breaker.{name}", "upstream-range")]


@pytest.mark.parametrize(("name", "value"), flat(EDGES))
def test_the_edges_of_a_breaker_are_in_range(name, value):
    assert getattr(declared(Upstream(url=M, breaker=Breaker(**{name: value}))).breaker, name) == value


@pytest.mark.parametrize(
    "upstream", [M, Upstream(url=M), Upstream(url=M, http="2"), HttpxUpstream(httpx2.MockTransport(print))]
)
def test_each_upstream_has_a_breaker_with_the_documented_numbers(upstream):
    assert declared(upstream).breaker == Breaker(failures=5, ratio=0.5, minimum=20, window=10.0, open=5.0)


def test_a_breaker_may_be_given_in_part_in_a_table():
    table = {
        "upstreams": {"m": {"url": M, "breaker": {"failures": 0}}},
        "routes": [{"path": "/a", "to": "m"}],
    }
    assert load(table).upstreams["m"].declared.breaker == Breaker(failures=0)


def test_a_breaker_that_is_none_is_no_breaker():
    assert problems(Upstream(url=M, breaker=None)) == [("routes[0].to.breaker", "type")]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "health",
        "http://m/h",
        "/a b",
        "/a\tb",
        "/a\r\nX: y",
        "/a\x00",
        "/a\x7f",
        "/a#b",
        "/\u00e9",
        "/a\n",
    ],
)
def test_a_health_path_that_cannot_be_asked_for(path):
    assert problems(Upstream(url=M, health=Health(path=path))) == [
        ("routes[0].to.health.path", "health-path")
    ]


@pytest.mark.parametrize("path", ["/", "/healthz", "/h?deep=1&x=%20", "/a/b.txt", "/~x;y='z'\"{}|"])
def test_a_health_path_that_can_be_asked_for(path):
    assert declared(Upstream(url=M, health=Health(path=path))).health == Health(path=path, interval=5.0)


@pytest.mark.parametrize("interval", [0, 0.05, -1, 86_401, math.inf, math.nan])
def test_a_health_interval_out_of_range(interval):
    found = problems(Upstream(url=M, health=Health(path="/", interval=interval)))
    assert found == [("routes[0].to.health.interval", "upstream-range")]


@pytest.mark.parametrize("interval", [0.1, 86_400])
def test_the_edges_of_a_health_interval_are_in_range(interval):
    assert declared(Upstream(url=M, health=Health(path="/", interval=interval))).health.interval == interval


@pytest.mark.parametrize(
    "upstream",
    [
        Upstream(url=M, http="2", health=Health(path="/")),
        HttpxUpstream(httpx2.MockTransport(print), url=M, health=Health(path="/")),
    ],
)
def test_probes_go_over_the_own_client_alone(upstream):
    assert problems(upstream) == [("routes[0].to.health", "health-transport")]


def test_all_at_once_and_by_the_name_of_the_upstream():
    breaker = {"failures": -1, "ratio": 2, "minimum": 0, "window": 0, "open": 61}
    upstream = {"url": M, "breaker": breaker, "health": {"path": "x", "interval": 0}}
    with pytest.raises(ConfigError) as caught:
        load({"upstreams": {"m": upstream}, "routes": [{"path": "/a", "to": "m"}]})
    assert {p.where for p in caught.value.problems} == {
        *(f"upstreams.m.breaker.{name}" for name in breaker),
        "upstreams.m.health.path",
        "upstreams.m.health.interval",
    }
