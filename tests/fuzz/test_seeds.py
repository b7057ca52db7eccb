"""Each harness holds over its seed corpus, and fails where a promise is broken."""

import pytest
from tests.fuzz import harnesses
from tests.fuzz.harnesses import HARNESSES
from tests.fuzz.seeds import SEEDS


def test_each_harness_has_seeds():
    assert SEEDS.keys() == HARNESSES.keys()
    assert all(len(seeds) == len(set(seeds)) >= 10 for seeds in SEEDS.values())


@pytest.mark.parametrize("name", HARNESSES)
def test_the_harness_holds_over_its_seeds(name):
    for seed in SEEDS[name]:
        for data in (seed, seed[:-1], seed + seed, seed[::-1], seed + b"\r\n"):
            HARNESSES[name](data)


def all_of(name):
    for seed in SEEDS[name]:
        HARNESSES[name](seed)


BROKEN = {
    "response_parser": ("outcome", lambda segments, _method: len(segments)),
    "path_confusion": ("naive_route", lambda _declared, _reading: -1),
    "request_headers": ("forward_headers", lambda head, _hygiene: (b"a: b\rc\r\n\r\n", 0)),
    "answer_fields": ("answer_headers", lambda _headers, _status: [(b"server", b"x")]),
}


@pytest.mark.parametrize("name", HARNESSES)
def test_the_harness_can_fail(monkeypatch, name):
    monkeypatch.setattr(harnesses, *BROKEN[name])
    with pytest.raises(AssertionError):
        all_of(name)
