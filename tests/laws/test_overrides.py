"""Overrides for any bytes, any JSON and any change of a good document: read back, or refused, and nothing else."""

import json
from contextlib import suppress

from hostile_overrides import GOOD, text
from hypothesis import given, settings
from hypothesis import strategies as st

from strangle_mw.core.dials import make_dial
from strangle_mw.core.events import UNSAFE, CounterKey, Event, read_event
from strangle_mw.core.model import Stage
from strangle_mw.core.overrides import (
    MAX_REVISION,
    Kill,
    Override,
    Overrides,
    OverridesError,
    encode_overrides,
    parse_overrides,
    with_kill,
    with_override,
    without,
)

SOME = settings(max_examples=100)


_UNSAFE = "".join(c for c in map(chr, range(0x2100)) if UNSAFE.search(c))


def texts(limit, minimum=0):
    return st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters=_UNSAFE), min_size=minimum, max_size=limit
    )


times = st.floats(0, 253_402_300_799)
points = st.integers(0, 10_000)
who = {"by": texts(20), "at": times, "why": texts(40)}
targets = st.one_of(
    st.tuples(st.sampled_from(Stage), st.none() | points),
    st.tuples(st.none() | st.sampled_from(Stage), points),
)
dials = st.builds(make_dial, st.sampled_from(Stage), points)
overrides_of_one = targets.flatmap(
    lambda t: st.builds(
        Override, st.just(t[0]), st.just(t[1]), **who, force=st.booleans(), declared=st.none() | dials
    )
)
documents = st.builds(
    Overrides,
    st.integers(1, MAX_REVISION),
    st.none() | st.builds(Kill, **who),
    st.dictionaries(texts(20, 1), overrides_of_one, max_size=4),
)
keys = st.sampled_from([b"", b"a key"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*GOOD, *GOOD["overrides"]["leads"], "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


def read_or_refused(raw, key=b""):
    """Nothing but `OverridesError` may come, and what is read is within the bounds."""
    with suppress(OverridesError):
        found = parse_overrides(raw, key)
        assert not raw or parse_overrides(encode_overrides(found)) == found
        assert all(o.stage is not None or o.points is not None for o in found.routes.values())
        return found
    return None


@SOME
@given(documents, keys)
def test_what_is_written_is_read_again(overrides, key):
    written = encode_overrides(overrides, key)
    assert parse_overrides(written, key) == overrides
    assert encode_overrides(parse_overrides(written, key), key) == written


@SOME
@given(st.binary(max_size=200), keys)
def test_any_bytes(raw, key):
    assert read_or_refused(raw, key) in (None, Overrides())


@SOME
@given(json_values, keys)
def test_any_json(value, key):
    assert read_or_refused(json.dumps(value).encode(), key) is None


@SOME
@given(st.sampled_from([*GOOD, *GOOD["overrides"]["leads"]]), json_values, st.booleans())
def test_a_good_document_with_any_member(name, value, inside):
    data = json.loads(text(GOOD))
    (data["overrides"]["leads"] if inside else data)[name] = value
    read_or_refused(json.dumps(data).encode())


@SOME
@given(documents, st.data())
def test_a_signed_document_with_any_byte_changed(overrides, data):
    written = bytearray(encode_overrides(overrides, b"a key"))
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] = data.draw(st.integers(0, 255))
    found = read_or_refused(bytes(written), b"a key")
    # A byte that means the same (an escape in capitals) is no change.
    assert found in (None, overrides)
    read_or_refused(bytes(written))
    read_or_refused(bytes(written[:at]))


changes = st.one_of(
    st.tuples(st.just(with_override), texts(3, 1), overrides_of_one),
    st.tuples(st.just(without), st.none() | st.lists(texts(3, 1), max_size=2)),
    st.tuples(st.just(with_kill), st.none() | st.builds(Kill, **who)),
)


@SOME
@given(st.lists(st.tuples(changes, st.floats(0, 1e10)), max_size=6))
def test_every_change_makes_a_newer_document_that_can_be_written(steps):
    current = Overrides()
    for (change, *arguments), now in steps:
        changed = change(current, *arguments, now)
        assert changed.revision > current.revision
        assert parse_overrides(encode_overrides(changed)) == changed
        current = changed


@SOME
@given(st.text(), st.text(), st.text(), st.text(), times)
def test_every_event_can_be_shown_and_kept(what, route, by, worker, at):
    event = Event(at, "kill", what, route, by, worker)
    assert not UNSAFE.search(event.what + event.route + event.by + event.worker)
    assert read_event(json.loads(json.dumps(event.as_dict()))) == event


@SOME
@given(st.text(), st.sampled_from(Stage), points, st.sampled_from(["legacy", "modern"]))
def test_every_counter_is_found_by_its_field(route, stage, weight, side):
    key = CounterKey(route, stage.value, weight, side, "ok")
    assert CounterKey.parse(key.field()) == key


@SOME
@given(st.text("\t\\\nab05-", max_size=30))
def test_any_field_is_a_counter_or_none(field):
    key = CounterKey.parse(field)
    assert key is None or key.field() == field
