"""P16: regular expressions match whole ASCII values, are checked at load, and never see a long path."""

import pytest

from strangle_mw import Condition, ConfigError, Route
from strangle_mw.config import load
from strangle_mw.core.model import MAX_REGEX_PATH
from strangle_mw.inspection import explain

M = "http://m"


def taken(route, path):
    return any(c.refused is None for c in explain(load([route]), "GET", path).candidates)


@pytest.mark.parametrize(
    ("path", "fits"),
    [("/re/12", True), ("/re/12x", False), ("/x/re/12", False), ("/re/12%0a", False), ("/re/%D9%A1", False)],
)
def test_a_regex_matches_the_whole_path_and_ascii_only(path, fits):
    assert taken(Route(regex=r"/re/\d+", to=M), path) is fits


def test_a_nested_quantifier_is_told_at_load_and_by_check():
    snapshot = load([Route(regex="/(a+)+x", to=M)])
    assert [(w.where, w.id) for w in snapshot.warnings] == [("routes[0].regex", "regex-nested")]


def test_a_hostile_path_is_bounded():
    # On a matching engine that backtracks this takes 2**4000 steps; the test ends because it is not tried.
    route = Route(regex="/(a+)+x", to=M)
    assert not taken(route, "/" + "a" * MAX_REGEX_PATH)


@pytest.mark.parametrize(
    "route", [Route(regex="(", to=M), Route("/a", headers={"X": Condition(regex="[")}, to=M)]
)
def test_a_broken_regex_does_not_load(route):
    with pytest.raises(ConfigError, match="regex-syntax"):
        load([route])
