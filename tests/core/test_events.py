import json

import pytest

from strangle_mw.core.events import KINDS, CounterKey, Event, counter_prefix, read_event, safe_text

HOSTILE = "\x1b[31m\r\n\x00\x9b\u202e\u2066\u2028\ud800"


def test_an_event_keeps_what_is_harmless():
    event = Event(1764000000.5, "override", "stage 'canary', 5 % für alle", "GET /a b", "ann", "w1")
    assert event.as_dict() == {
        "at": 1764000000.5,
        "kind": "override",
        "what": "stage 'canary', 5 % für alle",
        "route": "GET /a b",
        "by": "ann",
        "worker": "w1",
    }
    assert read_event(json.loads(json.dumps(event.as_dict()))) == event


def test_empty_texts_are_not_kept():
    event = Event(1.0, "kill", "everything")
    assert event.as_dict().keys() == {"at", "kind", "what"}
    assert read_event(event.as_dict()) == event


@pytest.mark.parametrize("field", ["what", "route", "by", "worker"])
def test_texts_are_escaped_and_cut(field):
    shown = getattr(Event(1.0, "kill", **{"what": "", field: HOSTILE}), field)
    assert shown == r"\x1b[31m\r\n\x00\x9b\u202e\u2066\u2028\ud800"
    longest = {"what": 500, "route": 500, "by": 200, "worker": 200}[field]
    for long in ("a" * 10_000, "\x1b" * 10_000):
        cut = getattr(Event(1.0, "kill", **{"what": "", field: long}), field)
        assert len(cut) == longest
        assert cut.endswith("\u2026")


@pytest.mark.parametrize("text", ["", "a", "aa", "a" * 9, "\n" * 9, HOSTILE, "a\n" * 3])
@pytest.mark.parametrize("limit", [1, 2, 5, 8])
def test_safe_text_is_short_and_stays_as_it_is(text, limit):
    once = safe_text(text, limit)
    assert len(once) <= limit
    assert once.isprintable()
    assert safe_text(once, limit) == once


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"at": 1.0},
        {"at": 1.0, "kind": "unknown", "what": ""},
        {"at": 1.0, "kind": ["kill"], "what": ""},
        {"at": True, "kind": "kill", "what": ""},
        {"at": "1", "kind": "kill", "what": ""},
        {"at": float("nan"), "kind": "kill", "what": ""},
        {"at": 1e300, "kind": "kill", "what": ""},
        {"at": -1, "kind": "kill", "what": ""},
        {"at": 1.0, "kind": "kill", "what": 7},
        {"at": 1.0, "kind": "kill", "what": "", "route": None},
    ],
)
def test_what_is_no_event_is_none(data):
    assert read_event(data) is None


def test_events_of_every_kind_can_be_read_and_further_keys_do_no_harm():
    for kind in KINDS:
        assert read_event({"at": 1, "kind": kind, "what": HOSTILE, "more": {}}).kind == kind


KEYS = [
    CounterKey("GET /a", "canary", 500, "modern", "ok"),
    CounterKey("", "legacy", 0, "legacy", "fallback:breaker-open"),
    CounterKey("a\tb", "modern", 10_000, "modern", "5xx"),
    CounterKey("s", "shadow", 0, "shadow", "not-compared"),
    CounterKey("a\\tb", "modern", 10_000, "modern", "5xx"),
    CounterKey("\\\t\\\\\n世", "retired", 10_000, "modern", "502"),
]


@pytest.mark.parametrize("key", KEYS)
def test_a_counter_is_found_by_its_field(key):
    assert CounterKey.parse(key.field()) == key
    assert key.field().startswith(counter_prefix(key.route))


def test_no_two_counters_share_a_field_and_no_two_routes_a_prefix():
    assert len({k.field() for k in KEYS}) == len(KEYS)
    prefixes = [counter_prefix(k.route) for k in KEYS]
    assert not any(a != b and a.startswith(b) for a in prefixes for b in prefixes)


@pytest.mark.parametrize(
    "field",
    [
        "",
        "a",
        "a\tcanary\t500\tmodern",
        "a\tcanary\t500\tmodern\tok\tmore",
        "a\tlive\t500\tmodern\tok",
        "a\tcanary\t-1\tmodern\tok",
        "a\tcanary\t10001\tmodern\tok",
        "a\tcanary\t0500\tmodern\tok",
        "a\tcanary\t 500\tmodern\tok",
        "a\tcanary\t\u0665\tmodern\tok",
        "a\tcanary\t500\tboth\tok",
        "a\tcanary\t500\tmodern\t",
        "a\tcanary\t500\tmodern\tOK\n",
        "a\\x\tcanary\t500\tmodern\tok",
        "a\tcanary\t500\tmodern\t" + "o" * 65,
    ],
)
def test_fields_of_somebody_else_are_not_counted(field):
    assert CounterKey.parse(field) is None
