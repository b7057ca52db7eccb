import json

import pytest
from hostile_overrides import GOOD, HOSTILE, KILL, document, override, text

from strangle_mw import Route
from strangle_mw.config import load
from strangle_mw.core.dials import Dial, basis_points, declared_dial, make_dial
from strangle_mw.core.model import Stage
from strangle_mw.core.overrides import (
    MAX_REVISION,
    NO_OVERRIDES,
    Kill,
    Override,
    Overrides,
    OverridesError,
    apply_overrides,
    encode_overrides,
    parse_overrides,
    with_kill,
    with_override,
    without,
)

M = "http://m"
KEY = b"a key of the store"
NOW = 1_764_000_000.123

PARSED = Overrides(
    7,
    None,
    {
        "leads": Override(
            Stage.CANARY, 500, "ann", 1764000000.5, "first users", declared=Dial(Stage.LEGACY, 0)
        )
    },
)


def turned(stage=None, points=None, **more):
    return Override(stage, points, "ann", 1.0, "", **more)


# --- reading and writing


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_document_is_refused(hostile):
    with pytest.raises(OverridesError) as caught:
        parse_overrides(hostile)
    assert len(caught.value.reason) < 300
    assert "the document" in caught.value.reason or "the override of '" in caught.value.reason
    assert caught.value.reason.isprintable()


GOOD_TEXTS = {
    "as it is": (GOOD, PARSED),
    "no overrides": (document(overrides={}), Overrides(7)),
    "killed": (document(overrides={}, kill=KILL), Overrides(7, Kill("ann", 1764000000.5, "smoke"))),
    "the highest revision": (document(revision=MAX_REVISION, overrides={}), Overrides(MAX_REVISION)),
    "a whole number of seconds": (
        override(at=1, declared=...),
        Overrides(7, None, {"leads": Override(Stage.CANARY, 500, "ann", 1.0, "first users")}),
    ),
    "a weight alone, forced": (
        override(stage=..., weight=0, force=True, by="", why="", declared=...),
        Overrides(7, None, {"leads": Override(None, 0, "", 1764000000.5, "", force=True)}),
    ),
    "a stage alone": (
        override(weight=..., stage="retired", why="Grüße, 世界 👩‍💻", by="é" * 200),
        Overrides(
            7,
            None,
            {
                "leads": Override(
                    Stage.RETIRED,
                    None,
                    "é" * 200,
                    1764000000.5,
                    "Grüße, 世界 👩‍💻",
                    declared=Dial(Stage.LEGACY, 0),
                )
            },
        ),
    ),
}


@pytest.mark.parametrize(("data", "expected"), GOOD_TEXTS.values(), ids=GOOD_TEXTS)
@pytest.mark.parametrize("key", [b"", KEY])
def test_what_is_read_is_what_was_written(data, expected, key):
    assert parse_overrides(text(data)) == expected
    written = encode_overrides(expected, key)
    assert parse_overrides(written, key) == expected
    assert written.isascii()
    assert json.loads(written).keys() == {*data, *(["mac"] if key else [])}


def test_no_bytes_are_no_overrides():
    assert parse_overrides(b"") is NO_OVERRIDES
    assert parse_overrides(b"", KEY) == Overrides(0, None, {})


UNWRITABLE = {
    "nothing was ever changed": NO_OVERRIDES,
    "too high": Overrides(MAX_REVISION + 1),
    "neither": Overrides(1, None, {"a": turned()}),
    "control": Overrides(1, Kill("a\n", 1.0, "")),
    "too long": Overrides(1, None, {"a": Override(Stage.MODERN, None, "", 1.0, "x" * 1001)}),
    "too much": Overrides(1, None, {f"{n}{'a' * 490}": turned(Stage.MODERN) for n in range(8000)}),
    "half a pair": Overrides(1, None, {"\ud800": turned(Stage.MODERN)}),
}


@pytest.mark.parametrize("overrides", UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_would_be_refused_is_not_written(overrides):
    with pytest.raises(OverridesError):
        encode_overrides(overrides)


SIGNED = encode_overrides(PARSED, KEY)
FORGED = {
    "not signed": encode_overrides(PARSED),
    "another key": encode_overrides(PARSED, b"another key"),
    "another weight": SIGNED.replace(b'"weight":500', b'"weight":501'),
    "another revision": SIGNED.replace(b'"revision":7', b'"revision":8'),
    "an empty mac": text(document(mac="")),
    "a mac that is a list": text(document(mac=["0" * 64])),
    "a mac that is not ASCII": text(document(mac="é" * 64)),
    "a mac of capitals": SIGNED.replace(SIGNED[-66:-2], SIGNED[-66:-2].upper()),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_with_a_key_only_signed_documents_are_read(forged):
    with pytest.raises(OverridesError):
        parse_overrides(forged, KEY)


def test_a_signature_is_over_what_the_document_says_not_how_it_is_written():
    respaced = json.dumps(json.loads(SIGNED), indent=2).encode()
    assert parse_overrides(respaced, KEY) == PARSED
    assert parse_overrides(SIGNED) == PARSED  # without a key a signature is not looked at


# --- dials


@pytest.mark.parametrize(
    ("percent", "points"),
    [(0, 0), (5, 500), (0.01, 1), (0.005, 1), (0.0049, 0), (0.29, 29), (1.15, 115), (33.33, 3333), (99.99, 9999),
     (100, 10_000), (-1, 0), (101, 10_000), (float("nan"), 0), (float("inf"), 10_000), (10**400, 10_000)],
)  # fmt: skip
def test_percent_become_basis_points(percent, points):
    assert basis_points(percent) == points


@pytest.mark.parametrize(
    ("route", "dial"),
    [
        (Route("/a", to=M), Dial(Stage.MODERN)),
        (Route("/a", to=M, stage=Stage.LEGACY, weight=5), Dial(Stage.LEGACY, 0)),
        (Route("/a", to=M, stage=Stage.SHADOW), Dial(Stage.SHADOW, 0)),
        (Route("/a", to=M, stage=Stage.CANARY, weight=2.5), Dial(Stage.CANARY, 250)),
        (Route("/a", to=M, stage=Stage.CANARY), Dial(Stage.CANARY, 0)),
        (Route("/a", to=M, stage=Stage.RETIRED), Dial(Stage.RETIRED, 10_000)),
        (Route("/a", to="legacy"), Dial(Stage.LEGACY, 0)),
    ],
)
def test_the_dial_that_a_table_declares(route, dial):
    assert declared_dial(route) == dial


def test_who_has_turned_a_dial_makes_it_no_other_dial():
    assert make_dial(Stage.MODERN, 3, overridden=True) == Dial(Stage.MODERN)
    assert make_dial(Stage.CANARY, 3, overridden=True).overridden


# --- applying

TABLE = load(
    [
        Route("/l", name="legacy", to=M, stage=Stage.LEGACY),
        Route("/w", name="weighted", to=M, stage=Stage.LEGACY, weight=2.5),
        Route("/c", name="canary", to=M, stage=Stage.CANARY, weight=5),
        Route("/m", name="modern", to=M),
        Route("/x/*", name="exception", to="legacy"),
    ]
).table

ACTING = [
    ("legacy", turned(Stage.MODERN), Dial(Stage.MODERN)),
    ("legacy", turned(Stage.CANARY, 1), Dial(Stage.CANARY, 1)),
    ("legacy", turned(Stage.SHADOW, 700), Dial(Stage.SHADOW, 0)),
    ("weighted", turned(Stage.CANARY), Dial(Stage.CANARY, 250)),
    ("canary", turned(points=0), Dial(Stage.CANARY, 0)),
    ("canary", turned(points=10_000), Dial(Stage.CANARY, 10_000)),
    ("canary", turned(Stage.CANARY), Dial(Stage.CANARY, 500)),
    ("canary", turned(Stage.LEGACY), Dial(Stage.LEGACY, 0)),
    ("modern", turned(Stage.RETIRED), Dial(Stage.RETIRED)),
    ("modern", turned(Stage.MODERN), Dial(Stage.MODERN)),
]
IDLE = [
    ("nobody", turned(Stage.MODERN), "override-route"),
    ("exception", turned(Stage.MODERN), "override-legacy"),
    ("exception", turned(points=1), "override-legacy"),
    ("legacy", turned(Stage.CANARY), "override-weight"),
    ("legacy", turned(points=500), "override-weight"),
    ("modern", turned(points=500), "override-weight"),
]


@pytest.mark.parametrize(("route", "override_", "dial"), ACTING)
def test_an_override_turns_a_dial(route, override_, dial):
    applied = apply_overrides(TABLE, Overrides(1, None, {route: override_}))
    assert applied.dials == {route: dial}
    assert applied.dials[route].overridden
    assert applied.problems == ()


@pytest.mark.parametrize(("route", "override_", "id_"), IDLE)
def test_an_override_that_cannot_act_is_told_and_the_others_act(route, override_, id_):
    rest = {"canary": turned(Stage.MODERN)}
    applied = apply_overrides(TABLE, Overrides(1, None, {route: override_, **rest}))
    assert applied.dials == {"canary": Dial(Stage.MODERN)}
    assert [p.id for p in applied.problems] == [id_]
    assert repr(route) in applied.problems[0].where


@pytest.mark.parametrize(
    ("route", "declared", "told"),
    [
        ("legacy", None, False),
        ("legacy", Dial(Stage.LEGACY, 0), False),
        ("legacy", Dial(Stage.SHADOW, 0), True),
        ("canary", Dial(Stage.CANARY, 500), False),
        ("canary", Dial(Stage.CANARY, 501), True),
        ("nobody", Dial(Stage.CANARY, 501), False),
    ],
)
def test_a_table_that_says_something_new_contradicts(route, declared, told):
    overrides = Overrides(1, None, {route: turned(Stage.MODERN, declared=declared)})
    assert apply_overrides(TABLE, overrides).contradicted == ({route} if told else set())


# --- changing


def test_changes_are_made_to_a_copy():
    first = with_override(NO_OVERRIDES, "a", turned(Stage.MODERN), NOW)
    second = with_override(first, "b", turned(points=1), NOW)
    third = with_override(second, "a", turned(Stage.LEGACY), NOW)
    assert NO_OVERRIDES.routes == {}
    assert [first.routes.keys(), second.routes.keys(), third.routes.keys()] == [{"a"}, {"a", "b"}, {"a", "b"}]
    assert first.routes["a"].stage is Stage.MODERN
    assert third.routes["a"].stage is Stage.LEGACY


def test_overrides_are_taken_away_one_by_one_or_all():
    both = Overrides(1, Kill("ann", 1.0, ""), {"a": turned(Stage.MODERN), "b": turned(Stage.MODERN)})
    assert without(both, ["a", "c"], NOW).routes.keys() == {"b"}
    assert without(both, [], NOW).routes == both.routes
    assert without(both, None, NOW).routes == {}
    assert without(both, None, NOW).kill == both.kill


def test_the_kill_switch_leaves_overrides_as_they_are():
    one = Overrides(1, None, {"a": turned(Stage.MODERN)})
    killed = with_kill(one, Kill("ann", NOW, "smoke"), NOW)
    assert killed.kill == Kill("ann", NOW, "smoke")
    assert with_kill(killed, None, NOW).kill is None
    assert killed.routes == one.routes


@pytest.mark.parametrize(
    ("before", "now", "after"),
    [
        (0, NOW, 1764000000123),
        (1764000000123, NOW, 1764000000124),
        (2_000_000_000_000, NOW, 2_000_000_000_001),
    ],
)
def test_revisions_are_the_time_and_only_grow(before, now, after):
    overrides = Overrides(before)
    changed = [
        with_override(overrides, "a", turned(Stage.MODERN), now),
        without(overrides, None, now),
        with_kill(overrides, None, now),
    ]
    assert [c.revision for c in changed] == [after] * 3
