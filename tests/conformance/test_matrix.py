"""The page holds what the table declares, and the table is sound."""

from collections import Counter

import pytest
from tests.conformance.checks import body, status
from tests.conformance.matrix import END, START, declared, read, render, title, write
from tests.conformance.model import Case, Exchange, differ, surprises
from tests.conformance.table import CASES
from tests.servers import SERVERS, Reply


def test_the_page_holds_the_declared_matrix():
    assert read() == render(declared()), "run `make conformance`"


def test_every_case_has_an_id_of_its_own_and_something_to_check():
    assert [i for i, count in Counter(c.id for c in CASES).items() if count > 1] == []
    assert [c.id for c in CASES if not (c.upstream or c.client)] == []
    assert [c.id for c in CASES for d in c.differs if not (d.upstream or d.client)] == []


def test_differences_name_servers_that_exist_and_each_once():
    for case in CASES:
        named = [s for d in case.differs for s in d.servers]
        assert len(named) == len(set(named)), case.id
        assert set(named) <= set(SERVERS), case.id
        assert set(named) != set(SERVERS), f"{case.id}: nobody does what the row says"


def test_titles_are_told_apart():
    assert len({title(s) for s in SERVERS}) == len(SERVERS) == 12


def test_a_word_of_a_server_stands_in_its_cell():
    words = {**declared(), ("path-bytes", "cheroot"): "other"}
    row = next(line for line in render(words).splitlines() if "path arrives" in line)
    assert row.split(" | ")[list(SERVERS).index("cheroot") + 1] == "other"


def test_writing_touches_nothing_but_the_matrix(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{START}\n\nold\n\n{END}\n\nafter\n")
    write("new", page)
    assert page.read_text() == f"before\n\n{START}\n\nnew\n\n{END}\n\nafter\n"
    assert read(page) == "new"


@pytest.mark.parametrize(
    ("server", "found", "told"),
    [
        ("waitress", b"right", []),
        ("waitress", b"wrong", ["client: body b'right'"]),
        ("cheroot", b"wrong", []),
        (
            "cheroot",
            b"right",
            ["client: body b'wrong'", "not 'mixed up' any more: it does what the row says"],
        ),
        ("cheroot", b"neither", ["client: body b'wrong'"]),
    ],
)
def test_worse_and_better_than_declared_are_both_surprises(server, found, told):
    difference = differ("cheroot", "mixed up", "it mixes them up", client=[body(b"wrong")])
    case = Case(id="x", what="x", send=b"", client=[status(200), body(b"right")], differs=[difference])
    assert surprises(case, server, Exchange(Reply(200, [], found, True))) == told


def test_what_has_no_answer_holds_nothing():
    case = Case(id="x", what="x", send=b"", client=[status(200)])
    assert surprises(case, "cheroot", Exchange(None)) == ["client: status (200,)"]
