"""The compiled matcher against the naive form of the rule, and what follows from the rule."""

import naive
from hypothesis import given, note
from hypothesis import strategies as st
from strategies import Asked, compile_routes, requests, routes, table, tables

from strangle_mw import Route
from strangle_mw.core.decision import Snapshot
from strangle_mw.core.explain import candidates
from strangle_mw.core.routing import NEEDS_HEAD, RouteTable


def answer(compiled, asked):
    found = compiled.match(asked.path.encode(), asked.method, asked.head())
    return None if found is None else found.index


@given(tables, requests())
def test_compiled_matcher_equals_naive_specification(declared, asked):
    assert answer(table(declared), asked) == naive.match(declared, asked)


@given(tables, requests())
def test_the_fast_way_for_plain_paths_gives_the_same_answer(declared, asked):
    compiled = table(declared)
    found = compiled.match_plain(asked.path, asked.method)
    if found is NEEDS_HEAD:
        found = compiled.match_plain(asked.path, asked.method, asked.head())
    assert (None if found is None else found.index) == naive.match(declared, asked)


@given(tables, requests(), st.randoms(use_true_random=False))
def test_order_matters_only_between_true_ties(declared, asked, random):
    shuffled = list(declared)
    random.shuffle(shuffled)
    first, second = answer(table(declared), asked), answer(table(shuffled), asked)
    assert (first is None) == (second is None)
    if first is None:
        return
    keys = [naive.key(r, asked.method, asked.host) for r in declared if naive.fits(r, asked)]
    best = naive.key(declared[first], asked.method, asked.host)
    note(f"{first=} {second=} {best=}")
    assert naive.key(shuffled[second], asked.method, asked.host) == best
    if keys.count(best) == 1:
        assert shuffled[second] is declared[first]


@given(tables, routes(), requests(), st.integers(0, 8))
def test_a_route_changes_nothing_for_requests_that_it_does_not_match(declared, extra, asked, at):
    more = [*declared[:at], extra, *declared[at:]]
    before, after = answer(table(declared), asked), answer(table(more), asked)
    if not naive.fits(extra, asked):
        assert (None if before is None else declared[before]) is (None if after is None else more[after])


@given(tables, requests())
def test_explain_names_the_route_that_is_taken(declared, asked):
    compiled = compile_routes(declared)
    found = candidates(Snapshot(RouteTable(compiled), {}), asked.head())
    taken = next((c.route.index for c in found if c.refused is None), None)
    assert taken == naive.match(declared, asked)


@given(st.lists(routes(conditional=False), max_size=6), requests())
def test_ignored_trailing_slash_equals_naive_on_both_spellings(declared, asked):
    bare = [
        r
        if r.path is None or not r.path.endswith("/") or r.path == "/"
        else Route(path=r.path[:-1], methods=r.methods, to=r.to)
        for r in declared
    ]
    compiled = RouteTable(compile_routes(declared, loose_slash=True), loose_slash=True)
    path = asked.path if asked.path == "/" else asked.path.removesuffix("/")
    expected = naive.match(bare, Asked(asked.method, path or "/", asked.host))
    for spelling in (path or "/", (path or "/").rstrip("/") + "/"):
        found = compiled.match(spelling.encode(), asked.method, asked.head())
        assert (None if found is None else found.index) == expected
