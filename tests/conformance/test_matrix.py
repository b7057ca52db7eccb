"""The page holds what the table declares, and the table is sound."""

from collections import Counter

from tests.conformance.matrix import END, START, declared, read, render, title, write
from tests.conformance.table import CASES
from tests.servers import SERVERS


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
