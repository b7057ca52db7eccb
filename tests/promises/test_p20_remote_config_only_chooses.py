"""P20: a document in the store chooses a stage or weight of a route that code or file defines, and nothing else."""

import ast
import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hostile_overrides import EMPOWERING, GOOD, HOSTILE, override, text

import strangle_mw
from parsing import parsed
from stores.kinds import InSqlite
from strangle_mw import Respond, Route
from strangle_mw.config import load
from strangle_mw.core.dials import Dial
from strangle_mw.core.model import Stage
from strangle_mw.core.overrides import (
    Override,
    Overrides,
    OverridesError,
    apply_overrides,
    encode_overrides,
    parse_overrides,
    without,
)
from strangle_mw.engine import Engine
from strangle_mw.stores import StoreError, open_store

KEY = b"the store's key"
ROUTES = [
    Route("GET /leads/{id:int}", name="leads", to="http://leads.example", stage=Stage.LEGACY, weight=5),
    Route("/events/*", name="events", to="http://events.example", stage=Stage.CANARY, weight=50),
    Route("/old", name="gone", respond=Respond(status=410)),
    Route("/leads/9", name="exception", to="legacy"),
]


def turned(stage, points=None):
    return Override(stage, points, "ann", 1.0, "")


@pytest.fixture
def kept(tmp_path):
    data = InSqlite(tmp_path)
    yield data
    data.close()


@contextmanager
def following(kept):
    """An engine that follows the store, when it is told to."""
    engine = Engine(ROUTES, store=kept.url)
    try:
        yield engine
    finally:
        engine.close()


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_document_is_refused_whole(hostile):
    with pytest.raises(OverridesError):
        parse_overrides(hostile)


def test_what_was_in_force_stays_whatever_the_store_holds(kept):
    """Most of these documents also hold a good override, and a newer revision."""
    in_force = {"leads": Dial(Stage.CANARY, 100)}
    good = Overrides(1, None, {"leads": turned(Stage.CANARY, 100)})
    kept.plant(encode_overrides(good), 1)
    with following(kept) as engine:
        for number, (name, hostile) in enumerate(HOSTILE.items(), 2):
            kept.plant(hostile, 2 * number)
            engine.sync()
            assert engine.snapshot.dials == in_force, name
            assert engine.follower.refused or engine.follower.error, name
            kept.plant(encode_overrides(replace(good, revision=2 * number + 1)), 2 * number + 1)
            engine.sync()
            assert (engine.follower.refused, engine.follower.error) == ("", ""), name
        kept.plant(encode_overrides(Overrides(1000, None, {"events": turned(Stage.LEGACY)})), 1000)
        engine.sync()
        assert engine.snapshot.dials == {"events": Dial(Stage.LEGACY, 0)}


@pytest.mark.parametrize("member", EMPOWERING)
@pytest.mark.parametrize("place", ["document", "override", "declared", "kill"])
def test_a_document_cannot_name_a_target_or_code(member, place):
    data = json.loads(text({**GOOD, "kill": {"by": "ann", "at": 1.0, "why": ""}}))
    leads = data["overrides"]["leads"]
    at = {"document": data, "override": leads, "declared": leads["declared"], "kill": data["kill"]}[place]
    at[member] = EMPOWERING[member]
    with pytest.raises(OverridesError, match="unknown key|nested more"):
        parse_overrides(text(data))


@pytest.mark.parametrize(
    "name", ["/admin/*", "GET /leads/{id}", "LEADS", "leads ", "lambda:evil", "http://evil.example", "*"]
)
def test_a_document_cannot_define_a_route(name):
    table = load(ROUTES).table
    applied = apply_overrides(table, Overrides(1, None, {name: turned(Stage.MODERN)}))
    assert applied.dials == {}
    assert [p.id for p in applied.problems] == ["override-route"]


@pytest.mark.parametrize("stage", Stage)
def test_only_stage_and_weight_of_defined_routes_change(stage):
    """The table itself is the same object after any document; only dials come out."""
    snapshot = load(ROUTES)
    before = [repr(r.declared) for r in snapshot.table.routes]
    actions = [r.action for r in snapshot.table.routes]
    names = [*(r.name for r in ROUTES), "nobody"]
    applied = apply_overrides(snapshot.table, Overrides(1, None, dict.fromkeys(names, turned(stage, 123))))
    assert applied.dials.keys() == {"leads", "events", "gone"}
    assert {type(d) for d in applied.dials.values()} == {Dial}
    assert {(d.stage, d.points if stage is Stage.CANARY else 123) for d in applied.dials.values()} == {
        (stage, 123)
    }
    assert [repr(r.declared) for r in snapshot.table.routes] == before
    assert all(r.action is a for r, a in zip(snapshot.table.routes, actions, strict=True))


@pytest.mark.parametrize("key", [b"", KEY])
def test_an_old_document_cannot_be_played_again(kept, monkeypatch, key):
    """A signed one neither: it was good once. What is newer is put back into the store."""
    monkeypatch.setenv("STRANGLE_STORE_KEY", key.decode())
    canary = Overrides(5, None, {"leads": turned(Stage.CANARY, 9_999)})
    rolled_back = without(canary, ["leads"], 0.0)
    kept.plant(encode_overrides(rolled_back, key), 6)
    with following(kept) as engine:
        kept.plant(encode_overrides(canary, key), 5)
        engine.sync()
        assert engine.snapshot.dials == {}
        assert parse_overrides(kept.open().read(0), key) == rolled_back


def test_with_a_key_nobody_else_can_choose(kept, monkeypatch):
    monkeypatch.setenv("STRANGLE_STORE_KEY", KEY.decode())
    signed = encode_overrides(parse_overrides(text(GOOD)), KEY)
    assert parse_overrides(signed, KEY) == parse_overrides(text(GOOD))
    for forged in (
        text(GOOD),
        signed.replace(b'"weight":500', b'"weight":9999'),
        text(override(mac="0" * 64)),
    ):
        with pytest.raises(OverridesError):
            parse_overrides(forged, KEY)
        kept.plant(forged, 7)
        with following(kept) as engine:
            assert engine.snapshot.dials == {}
            assert "signed" in engine.follower.refused
            kept.plant(signed, 7)
            engine.sync()
            assert engine.snapshot.dials == {"leads": Dial(Stage.CANARY, 500)}


@pytest.mark.parametrize("url", ["memory:", "sqlite:///{folder}/store.db"])
def test_a_store_never_holds_half_a_change(tmp_path, url):
    store = open_store(url.format(folder=tmp_path))
    good = encode_overrides(parse_overrides(text(GOOD)))
    store.edit(lambda raw: good)
    for hostile in HOSTILE.values():
        with pytest.raises(StoreError, match="only a document of overrides is stored"):
            store.edit(lambda raw, hostile=hostile: hostile)
        assert store.read(0) == good
    store.close()


READERS = [
    "core/overrides.py",
    "core/dials.py",
    "core/events.py",
    *(f"stores/{n}.py" for n in ("__init__", "base", "memory", "sqlite", "redis", "urls")),
]
EXECUTING = {"eval", "exec", "compile", "__import__", "import_module", "getattr", "loads"}


@pytest.mark.parametrize("path", READERS)
def test_what_reads_the_store_can_read_json_only(path):
    tree = parsed(Path(strangle_mw.__file__).parent / path)
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    modules |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert modules.isdisjoint(
        {"pickle", "marshal", "shelve", "yaml", "importlib", "subprocess", "runpy", "code"}
    )
    called = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    assert {c for c in called if c.split(".")[-1] in EXECUTING} <= {"json.loads", "re.compile", "getattr"}
