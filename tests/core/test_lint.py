import pytest

from strangle_mw import Condition, ConfigError, Route
from strangle_mw.config import load
from strangle_mw.core.lint import has_nested_quantifier

M = "http://m"


def problems(*routes):
    try:
        load(list(routes))
    except ConfigError as exc:
        return [(p.where, p.id) for p in exc.problems]
    return []


def warnings(*routes):
    return [(p.where, p.id) for p in load(list(routes)).warnings]


UNREACHABLE = {
    "the same": (Route("/a", name="x", to=M), Route("/a", name="y", to=M)),
    "other parameter name": (Route("/{a}", to=M), Route("/{b}", to=M)),
    "fewer methods": (Route("GET,POST /a", to=M), Route("GET /a", to=M)),
    "typed inside typed": (Route("/{a:slug}", to=M), Route("/{a:int}", to=M)),
    "same condition": (
        Route("/a", headers={"X": "1"}, name="x", to=M),
        Route("/a", headers={"X": "1"}, name="y", to=M),
    ),
    "fewer hosts": (Route("/a", hosts=["h", "i"], to=M), Route("/a", hosts=["h"], to=M)),
    "same regex": (Route(regex="/a", name="x", to=M), Route(regex="/a", name="y", to=M)),
    "regex behind everything": (Route("/*", to=M), Route(regex="/x", to=M)),
    "same when": (Route("/a", name="x", to=M), Route("GET /b", to=M), Route("/a", name="y", to=M)),
}
REACHABLE = {
    "more specific path": (Route("/a/*", to=M), Route("/a/b", to=M)),
    "method given": (Route("/a", to=M), Route("GET /a", to=M)),
    "more methods": (Route("GET /a", to=M), Route("GET,POST /a", to=M)),
    "more conditions": (Route("/a", to=M), Route("/a", headers={"X": "1"}, to=M)),
    "other value": (Route("/a", headers={"X": "1"}, to=M), Route("/a", headers={"X": "2"}, to=M)),
    "a when decides": (Route("/a", when=lambda _: False, to=M), Route("/a", to=M)),
    "other hosts": (Route("/a", hosts=["h"], to=M), Route("/a", hosts=["i"], to=M)),
    "exact host and any": (Route("/a", hosts=["h"], to=M), Route("/a", to=M)),
    "wide type after narrow": (Route("/{a:int}", to=M), Route("/{a:slug}", to=M)),
}


@pytest.mark.parametrize("routes", UNREACHABLE.values(), ids=UNREACHABLE)
def test_unreachable(routes):
    assert problems(*routes) == [(f"routes[{len(routes) - 1}]", "route-unreachable")]


@pytest.mark.parametrize("routes", REACHABLE.values(), ids=REACHABLE)
def test_reachable(routes):
    assert problems(*routes) == []


def test_duplicate_names():
    assert problems(Route("/a", name="x", to=M), Route("/b", name="x", to=M)) == [
        ("routes[1].name", "name-twice")
    ]


TIES = {
    "other headers": (Route("/a", headers={"X": "1"}, to=M), Route("/a", headers={"Y": "1"}, to=M)),
    "overlapping methods": (Route("GET,POST /a", to=M), Route("GET,PUT /a", to=M)),
    "overlapping partials": (Route("/a{x}", to=M), Route("/{x}b", to=M)),
    "value and prefix": (
        Route("/a", headers={"X": "12"}, to=M),
        Route("/a", headers={"X": Condition(prefix="1")}, to=M),
    ),
    "two whens": (
        Route("/a", when=lambda _: True, name="x", to=M),
        Route("/a", when=lambda _: True, name="y", to=M),
    ),
    "narrow type before wide": (Route("/{a:int}", to=M), Route("/{a:slug}", to=M)),
}
NO_TIES = {
    "other values of one header": (
        Route("/a", headers={"X": "1"}, to=M),
        Route("/a", headers={"X": "2"}, to=M),
    ),
    "other methods": (Route("GET /a", to=M), Route("POST /a", to=M)),
    "more conditions": (Route("/a", to=M), Route("/a", headers={"X": "1"}, to=M)),
    "other literals": (Route("/a{x}", to=M), Route("/b{x}", to=M)),
    "other types": (Route("/{a:int}", to=M), Route("/{a:uuid}", to=M)),
}


@pytest.mark.parametrize("routes", TIES.values(), ids=TIES)
def test_tie_is_told_and_loads(routes):
    assert warnings(*routes) == [("routes[1]", "route-tie")]


@pytest.mark.parametrize("routes", NO_TIES.values(), ids=NO_TIES)
def test_no_tie(routes):
    assert warnings(*routes) == []


@pytest.mark.parametrize(
    "text",
    ["(" * 150 + "a" + ")" * 150, "(a+)+", "(a*)*b", "((a|b)+c?)*", "(?:x+y*)+", "(a+){2,}", "(?P<x>a+?)+?"],
)
def test_nested_quantifier(text):
    assert has_nested_quantifier(text)


@pytest.mark.parametrize("text", ["a+", "(ab)+c*", "[a-z]+/[0-9]+", "(a+)?", "(a|b)*", "(?:/[a-z])+", "("])
def test_no_nested_quantifier(text):
    assert not has_nested_quantifier(text)


def test_nested_quantifiers_are_warned_of_wherever_they_stand():
    found = warnings(
        Route(regex="/(a+)+", to=M),
        Route("/b", headers={"X": Condition(regex="(b*)*")}, to=M),
        Route(regex="/c+", to=M),
    )
    assert found == [("routes[0].regex", "regex-nested"), ("routes[1].header.X", "regex-nested")]


def test_many_hosts_load_in_time_that_grows_with_them_not_with_their_pairs():
    from strangle_mw.core.lint import _rivals

    routes = load([Route("/*", hosts=[f"h{n}.example"], to=M) for n in range(50)]).table.routes
    assert list(_rivals(routes)) == []
