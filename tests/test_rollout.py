"""Live changes on a store: what each operation stores, refuses and reports; what a store's contents may do."""

import json
import threading

import pytest
from load import until

from strangle_mw import Route
from strangle_mw.config import load
from strangle_mw.core.dials import Dial, dial_words
from strangle_mw.core.model import Stage
from strangle_mw.core.overrides import (
    MAX_REVISION,
    Kill,
    Override,
    Overrides,
    encode_overrides,
    parse_overrides,
)
from strangle_mw.engine import Engine
from strangle_mw.follower import LIFE, describe_table
from strangle_mw.reach import FileTarget, Known, RolloutError, read_table, read_worker
from strangle_mw.rollout import Rollout, Who
from strangle_mw.status import judge, read_events
from strangle_mw.stores import StoreError, open_store
from strangle_mw.stores.memory import MemoryStore

ROUTES = [
    Route("/old", to="http://m", stage="legacy"),
    Route("/split", to="http://m", stage="canary", weight=5),
    Route("/new", to="http://m"),
    Route("/gone", to="http://m", stage="retired"),
    Route("/fixed", to="legacy"),
]
ANN = Who("ann", "try it")
NOW = 1_764_000_000.0


def known(routes=ROUTES):
    snapshot = load(routes)
    return Known(snapshot.revision, "the table", snapshot.table)


def document(revision=1, kill=None, key=b"", **routes):
    return encode_overrides(Overrides(revision, kill, routes), key)


def override(stage=None, points=None, by="bob"):
    return Override(stage and Stage(stage), points, by, 1.0, "")


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/live.db")
    yield opened
    opened.close()


@pytest.fixture
def rollout(store):
    return Rollout(store, known, now=lambda: NOW)


def stored(store, key=b""):
    return parse_overrides(store.read(-1), key)


def told(store):
    return [(e.kind, e.route, e.what, e.by) for e in read_events(store, 10)]


def plant(store, raw):
    """Put bytes where the document is, past the checks."""
    store.edit(lambda _: document())
    with store._writing() as connection:
        connection.execute("UPDATE strangle_overrides SET document = ?", (raw,))


# --- set


@pytest.mark.parametrize(
    ("route", "before", "stage", "points", "words", "kept"),
    [
        ("/old", None, "canary", 500, "legacy -> canary 5 %", (Stage.CANARY, 500)),
        ("/old", None, "modern", None, "legacy -> modern", (Stage.MODERN, None)),
        ("/old", None, "shadow", None, "legacy -> shadow", (Stage.SHADOW, None)),
        ("/old", ("canary", 500), None, 1000, "canary 5 % -> canary 10 %", (Stage.CANARY, 1000)),
        ("/old", ("canary", 500), "modern", None, "canary 5 % -> modern", (Stage.MODERN, 500)),
        ("/old", ("modern", 500), "canary", None, "modern -> canary 5 %", (Stage.CANARY, 500)),
        ("/split", None, None, 525, "canary 5 % -> canary 5.25 %", (None, 525)),
        ("/split", None, "legacy", None, "canary 5 % -> legacy", (Stage.LEGACY, None)),
        ("/split", ("legacy", None), "canary", None, "legacy -> canary 5 %", (Stage.CANARY, None)),
        ("/new", None, "canary", 0, "modern -> canary 0 %", (Stage.CANARY, 0)),
        ("/gone", None, "modern", None, "retired -> modern", (Stage.MODERN, None)),
    ],
)
def test_set(rollout, store, route, before, stage, points, words, kept):
    if before is not None:
        store.edit(lambda _: document(**{route: override(*before)}))
    done = rollout.set(route, stage and Stage(stage), points, ANN, force=True)
    assert [str(c) for c in done.changes] == [words]
    found = stored(store)
    made = found.routes[route]
    assert (made.stage, made.points) == kept
    declared = next(r.staging.dial for r in rollout.known.table.routes if r.name == route)
    assert (made.by, made.at, made.why, made.force, made.declared) == ("ann", NOW, "try it", True, declared)
    assert done.revision == found.revision == int(NOW * 1000)
    assert told(store) == [("override", route, f"{words}: try it", "ann")]


@pytest.mark.parametrize(
    ("route", "stage", "points", "says"),
    [
        ("/old", "canary", None, "needs a weight, and /old has none: add weight=5"),
        ("/old", None, 500, "a weight acts in stage 'canary', and /old is 'legacy': add stage=canary"),
        ("/new", None, 500, "and /new is 'modern'"),
        ("/new", "legacy", 500, "and /new is 'legacy'"),
        ("/split", "modern", 500, "and /split is 'modern'"),
        ("/fixed", "modern", None, "/fixed has no modern side"),
        ("/slit", "modern", None, "the table has no route '/slit'; did you mean '/split'?"),
        ("GET /nowhere", "modern", None, "`strangle status --all` lists them"),
        ("\x1b[31m", "modern", None, r"no route '\\x1b[31m'"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(rollout, store, route, stage, points, says):
    with pytest.raises(RolloutError) as told_:
        rollout.set(route, stage and Stage(stage), points, ANN)
    assert says in str(told_.value)
    assert store.read(-1) == b""
    assert told(store) == []


def test_what_others_have_stored_stays(rollout, store):
    kill = Kill("bob", 1.0, "fire")
    store.edit(lambda _: document(7, kill, **{"/new": override("legacy"), "/not ours": override("modern")}))
    done = rollout.set("/old", Stage.MODERN, None, ANN)
    found = stored(store)
    assert found.kill == kill
    assert found.routes.keys() == {"/new", "/not ours", "/old"}
    assert done.notes == ("the kill switch is on: every route stays legacy until `strangle unkill`",)


def test_edits_at_the_same_time_lose_nothing(tmp_path):
    stores = [open_store(f"sqlite:///{tmp_path}/live.db?timeout=20") for _ in range(4)]
    names = [f"/r{n}" for n in range(4)]
    table = known([Route(n, to="http://m", stage="legacy") for n in names])

    def move(store, name):
        for stage in (Stage.MODERN, Stage.LEGACY, Stage.SHADOW):
            Rollout(store, lambda: table).set(name, stage, None, ANN)
        store.close()

    threads = [threading.Thread(target=move, args=pair) for pair in zip(stores, names, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    store = open_store(f"sqlite:///{tmp_path}/live.db")
    assert {n: o.stage for n, o in stored(store).routes.items()} == dict.fromkeys(names, Stage.SHADOW)
    assert len(store.events(100)) == 12
    store.close()


def test_what_people_write_is_cut_and_escaped(rollout, store):
    rollout.set("/old", Stage.MODERN, None, Who("a" * 300, "\x1b[31m\n" + "w" * 2000))
    made = stored(store).routes["/old"]
    assert len(made.by) == 200
    assert made.why.startswith(r"\x1b[31m\n")
    assert len(made.why) == 1000


# --- promote


@pytest.mark.parametrize(
    ("route", "before", "points", "words", "kept"),
    [
        ("/old", None, None, "legacy -> shadow", None),
        ("/old", ("shadow", None), None, "shadow -> canary 1 %", 100),
        ("/old", ("shadow", 700), None, "shadow -> canary 7 %", 700),
        ("/old", ("shadow", 700), 20, "shadow -> canary 0.2 %", 20),
        ("/split", ("shadow", None), None, "shadow -> canary 5 %", 500),
        ("/split", None, None, "canary 5 % -> modern", None),
        ("/old", ("canary", 500), None, "canary 5 % -> modern", 500),
        ("/new", None, None, "modern -> retired", None),
    ],
)
def test_promote(rollout, store, route, before, points, words, kept):
    if before is not None:
        store.edit(lambda _: document(**{route: override(*before)}))
    step = rollout.next_step(route, points)
    unchanged = store.read(-1)
    done = rollout.promote(step, ANN)
    assert unchanged == (document(**{route: override(*before)}) if before else b"")
    assert [str(c) for c in done.changes] == [words]
    made = stored(store).routes[route]
    assert (made.stage, made.points) == (step.after.stage, kept)
    assert rollout.known.dials(stored(store))[route] == step.after
    assert told(store) == [("promote", route, f"{words}: try it", "ann")]


@pytest.mark.parametrize(
    ("route", "points", "says"),
    [
        ("/gone", None, "/gone is retired: there is no stage after it"),
        ("/new", 500, "the next stage of /new is 'retired'"),
        ("/fixed", None, "/fixed has no modern side"),
    ],
)
def test_no_next_stage(rollout, route, points, says):
    with pytest.raises(RolloutError, match=says):
        rollout.next_step(route, points)


@pytest.mark.parametrize("meanwhile", ["bob", None])
def test_who_was_asked_about_one_thing_does_not_do_another(rollout, store, meanwhile):
    store.edit(lambda _: document(**{"/old": override("canary", 500)}))
    step = rollout.next_step("/old")
    after = {"/old": override("legacy", by=meanwhile)} if meanwhile else {}
    store.edit(lambda _: document(2, **after))
    with pytest.raises(RolloutError, match=f"changed in the meantime .*{meanwhile or 'the table'}"):
        rollout.promote(step, ANN)
    assert stored(store).revision == 2


# --- rollback


def test_rollback_of_routes(rollout, store):
    store.edit(lambda _: document(**{"/split": override("canary", 5000), "/gone": override("modern")}))
    done = rollout.rollback(["/split", "/new"], ANN)
    assert [(c.route, str(c)) for c in done.changes] == [
        ("/split", "canary 50 % -> legacy"),
        ("/new", "modern -> legacy"),
    ]
    found = stored(store).routes
    assert (found["/split"].stage, found["/split"].points) == (Stage.LEGACY, None)  # no weight to come back
    assert found["/new"].declared == Dial(Stage.MODERN)
    assert found["/gone"].stage is Stage.MODERN
    assert [(kind, route) for kind, route, _, _ in told(store)] == [
        ("rollback", "/split"),
        ("rollback", "/new"),
    ]


def test_rollback_of_all_turns_also_what_only_other_tables_have(rollout, store):
    store.edit(lambda _: document(**{"/elsewhere": override("modern"), "/new": override("legacy")}))
    done = rollout.rollback(None, ANN)
    assert {c.route for c in done.changes} == {"/split", "/gone"}
    assert {n: o.stage for n, o in stored(store).routes.items()} == dict.fromkeys(
        ("/elsewhere", "/new", "/split", "/gone"), Stage.LEGACY
    )
    assert told(store) == [("rollback", "", "3 routes to legacy: try it", "ann")]
    again = rollout.rollback(None, ANN)
    assert (again.revision, again.notes) == (0, ("every route is legacy already",))


def test_rollback_to_the_table(rollout, store):
    store.edit(lambda _: document(**{"/new": override("legacy"), "/elsewhere": override("modern")}))
    assert [str(c) for c in rollout.rollback(["/new"], ANN, to_table=True).changes] == ["legacy -> modern"]
    assert stored(store).routes.keys() == {"/elsewhere"}
    assert rollout.rollback(["/elsewhere"], ANN, to_table=True).changes == ()  # the table has it no more
    assert stored(store).routes == {}
    assert rollout.rollback(None, ANN, to_table=True).revision == 0
    with pytest.raises(RolloutError, match="/new has no override"):
        rollout.rollback(["/new"], ANN, to_table=True)
    with pytest.raises(RolloutError, match="has no route '/elsewhere'"):
        rollout.rollback(["/elsewhere"], ANN)


def test_more_routes_than_a_document_holds_leave_the_kill_switch(store):
    long = [{**ROUTE, "name": f"{n} {'x' * 490}"} for n in range(8_000)]
    many = read_table(json.dumps({"revision": "abc", "routes": long}).encode())
    rollout = Rollout(store, lambda: many)
    with pytest.raises(RolloutError, match="nothing was changed: .* bytes.*strangle kill"):
        rollout.rollback(None, ANN)
    assert store.read(-1) == b""
    assert rollout.kill(ANN).revision


# --- the kill switch


def test_kill_and_unkill(rollout, store):
    store.edit(lambda _: document(**{"/new": override("legacy")}))
    assert rollout.unkill(ANN).notes == ("the kill switch is off already",)
    assert rollout.kill(ANN).notes == ()
    assert stored(store).kill == Kill("ann", NOW, "try it")
    assert rollout.kill(Who("bob")).notes == ("the kill switch is on already, by ann",)
    assert rollout.unkill(Who("bob")).notes == ()
    assert stored(store).kill is None
    assert stored(store).routes.keys() == {"/new"}
    assert [(kind, by) for kind, _, _, by in told(store)] == [("kill", "ann"), ("unkill", "bob")]


# --- documents of no use

HOSTILE = [
    b"{",
    b"\x80\x04\x95.",
    b'{"format": 1}',
    document(5).replace(b'"format":1', b'"format":2'),
    b"[" * 9,
]


@pytest.mark.parametrize("raw", HOSTILE)
@pytest.mark.parametrize("operation", ["rollback", "kill"])
def test_what_ends_an_incident_replaces_a_document_of_no_use(rollout, store, raw, operation):
    plant(store, raw)
    for refused in (
        lambda: rollout.set("/old", Stage.MODERN, None, ANN),
        lambda: rollout.next_step("/old"),
        lambda: rollout.rollback(["/new"], ANN),
        lambda: rollout.unkill(ANN),
    ):
        with pytest.raises(RolloutError, match="refused, .* keep the last good ones: .*rollback --all"):
            refused()
    store.beat("worker", {"overrides": 2_000_000_000_000}, 60)
    done = rollout.kill(ANN) if operation == "kill" else rollout.rollback(None, ANN)
    assert "that were there could not be used and are gone: " in done.notes[0]
    found = stored(store)
    assert found.revision == done.revision == 2_000_000_000_001  # else workers would put theirs back
    assert (found.kill is not None) is (operation == "kill")
    assert {n for n, o in found.routes.items() if o.stage is Stage.LEGACY} == (
        set() if operation == "kill" else {"/split", "/new", "/gone"}
    )


def test_a_revision_after_which_none_is_left_is_refused_and_replaced(rollout, store):
    """Nobody could turn the kill switch any more."""
    store.edit(lambda _: document(MAX_REVISION))
    store.beat("liar", {"overrides": MAX_REVISION}, 60)
    with pytest.raises(RolloutError, match="refused, .* a time to come: .*rollback --all"):
        rollout.set("/old", Stage.MODERN, None, ANN)
    done = rollout.kill(ANN)
    assert stored(store).revision == done.revision == int(NOW * 1000)
    assert stored(store).kill is not None


def test_rollback_of_all_to_the_table_replaces_it_with_an_empty_one(rollout, store):
    plant(store, b"{")
    done = rollout.rollback(None, ANN, to_table=True)
    assert (stored(store).routes, done.changes) == ({}, ())
    assert done.revision == int(NOW * 1000)


def test_signed_documents(store):
    key = b"k" * 32
    signed, unsigned = Rollout(store, known, key), Rollout(store, known)
    signed.set("/old", Stage.SHADOW, None, ANN)
    assert stored(store, key).routes["/old"].stage is Stage.SHADOW
    before = store.read(-1)
    for operation in (
        lambda: unsigned.set("/old", Stage.MODERN, None, ANN),
        lambda: unsigned.rollback(None, ANN),
        lambda: unsigned.kill(ANN),
    ):
        with pytest.raises(RolloutError, match="signed: set STRANGLE_STORE_KEY"):
            operation()
    with pytest.raises(RolloutError, match="signed with another key"):
        Rollout(store, known, b"other").set("/old", Stage.MODERN, None, ANN)
    assert store.read(-1) == before
    assert Rollout(store, known, b"other").rollback(None, ANN).revision  # and that is how a key is changed
    assert stored(store, b"other").routes["/new"].stage is Stage.LEGACY


# --- workers


@pytest.fixture
def engine(tmp_path, store):
    (tmp_path / "strangle.toml").write_text('[[routes]]\npath = "/old"\nto = "http://m"\nstage = "legacy"\n')
    made = Engine(tmp_path / "strangle.toml", store=f"sqlite:///{tmp_path}/live.db")
    made.look()
    until(store.workers)
    yield made
    made.close()


def test_who_follows(engine, store, tmp_path):
    rollout = Rollout(store, lambda: FileTarget(tmp_path / "strangle.toml", None).table(store))
    done = rollout.set("/old", Stage.CANARY, 500, ANN)
    found = rollout.follow(done.revision, 20)
    assert (len(found.workers), found.behind) == (1, ())
    assert engine.snapshot.dials == {"/old": Dial(Stage.CANARY, 500)}
    store.beat("stuck", {"overrides": 1}, 60)
    found = rollout.follow(done.revision, 0)
    assert [w.id for w in found.behind] == ["stuck"]


def test_a_worker_that_ends_is_forgotten_soon(engine, store):
    engine.close()
    until(lambda: store.workers() == {}, seconds=LIFE / 2)


def test_who_only_loads_an_app_is_no_worker(tmp_path, store):
    engine = Engine(ROUTES, store=f"sqlite:///{tmp_path}/live.db")
    engine.close()
    assert (store.workers(), store.tables()) == ({}, [])


class Forgetful(MemoryStore):
    """A store whose events cannot be written."""

    def add_events(self, events):
        raise StoreError("the store is full")


def test_a_change_that_cannot_be_told_is_made_all_the_same():
    store = Forgetful()
    done = Rollout(store, known).set("/old", Stage.MODERN, None, ANN)
    assert done.notes == ("it is not among the events: the store is full",)
    assert stored(store).routes["/old"].stage is Stage.MODERN


def test_what_a_worker_says_is_not_trusted():
    good = {
        "seen": 5.0,
        "table": "abc",
        "overrides": 7,
        "off": True,
        "waiting": ["/old"],
        "problems": ["\x1b[31m" + "x" * 1000],
        "upstreams": {"m\n": [{"breaker": "open", "health": "unknown", "more": 1}]},
        "versions": {"m\n": {"7\x1b": 3}},
        "pid": 1,
    }
    worker = read_worker("w\x1b", good)
    assert worker.id == r"w\x1b"
    assert worker.problems[0].startswith(r"\x1b[31m")
    assert len(worker.problems[0]) == 500
    assert worker.upstreams == {r"m\n": (("open", "unknown"),)}
    assert worker.versions == {r"m\n": {r"7\x1b": 3}}
    assert (worker.seen, worker.table, worker.overrides, worker.off) == (5.0, "abc", 7, True)


@pytest.mark.parametrize(
    "said",
    [
        {"seen": "now"},
        {"seen": 1e300},
        {"overrides": -1},
        {"overrides": 2**60},
        {"overrides": True},
        {"waiting": "all"},
        {"problems": [1]},
        {"upstreams": {"m": [{"breaker": "shut"}]}},
        {"upstreams": []},
        {"versions": {"m": {"7": -1}}},
        {"versions": {"m": ["7"]}},
    ],
)
def test_what_a_worker_cannot_say_is_shown_as_a_problem(said):
    worker = read_worker("w", said)
    assert (worker.overrides, worker.seen) == (0, 0.0)
    assert "cannot be read" in worker.problems[0]


# --- tables


def test_a_published_table_has_the_stages_of_the_one_it_describes(store):
    snapshot = load(ROUTES)
    own = Known(snapshot.revision, "the table", snapshot.table)
    text = describe_table(snapshot.revision, snapshot.table.routes)
    found = read_table(text)
    assert found.revision == snapshot.revision
    assert found.dials(Overrides()) == own.dials(Overrides())
    changes = {"/old": override("canary", 700), "/split": override("legacy"), "/fixed": override("modern")}
    assert found.dials(Overrides(routes=changes)) == own.dials(Overrides(routes=changes))
    Rollout(store, lambda: found).set("/old", Stage.CANARY, 500, ANN)
    with pytest.raises(RolloutError, match="/fixed has no modern side"):
        Rollout(store, lambda: found).set("/fixed", Stage.MODERN, None, ANN)


ROUTE = {"name": "/a", "stage": "modern", "weight": 10000, "legacy": False}


def described(**change):
    return json.dumps({"revision": "abc", "routes": [{**ROUTE, **change}]}).encode()


def test_a_description_that_says_more():
    found = read_table(described(percent=5, fallback="auto", later="x"))
    assert dial_words(found.dials(Overrides(routes={"/a": override("canary")}))["/a"]) == "canary 5 %"
    assert found.table.routes[0].staging.policies[Stage.MODERN].mode == "auto"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"revision": 1, "routes": []}',
        described(name=""),
        described(name="x" * 501),
        described(stage="over"),
        described(weight=10001),
        described(weight=True),
        described(percent=101),
        described(fallback="maybe"),
        json.dumps({"revision": "abc", "routes": [{"name": "/a"}]}).encode(),
    ],
)
def test_what_is_no_description_is_none(text):
    assert read_table(text) is None


def publish(store, name, routes=({},)):
    text = json.dumps({"revision": name, "routes": [{**ROUTE, **route} for route in routes]})
    store.publish_table(name, text.encode())


def test_the_table_of_the_workers_that_run_counts(store):
    target = FileTarget(None, None)
    with pytest.raises(RolloutError, match="there is no route table: give --file"):
        target.table(store)
    publish(store, "one")
    publish(store, "two")
    assert target.table(store).revision == "two"
    store.beat("w", {"table": "one"}, 60)
    assert target.table(store).revision == "one"
    store.publish_table("one", b"{")
    assert target.table(store).revision == "two"


def test_a_file_that_cannot_be_used_leaves_the_table_of_the_workers(store, tmp_path):
    path = tmp_path / "strangle.toml"
    path.write_text('[strangle]\nstore = "sqlite:///live.db"\n[[routes]]\npath = "/a"\nto = "nowhere"\n')
    with pytest.raises(Exception, match="there is no upstream 'nowhere'"):
        FileTarget(path, None).table(store)
    publish(store, "one")
    found = FileTarget(path, None).table(store)
    assert (found.revision, found.origin) == ("one", "the table of the workers")
    assert "cannot be used" in found.note
    assert "nowhere" in found.note


# --- numbers


def counted(*parts):
    return "\t".join(map(str, parts))


def test_the_numbers_of_the_stage_in_force():
    counts = {
        counted("/split", "canary", 500, "modern", "2xx"): 3,
        counted("/split", "canary", 500, "modern", "5xx"): 2,
        counted("/split", "canary", 500, "modern", "failed"): 1,
        counted("/split", "canary", 500, "modern", "cut"): 1,
        counted("/split", "canary", 500, "legacy", "2xx"): 90,
        counted("/split", "canary", 500, "legacy", "passed"): 1,
        counted("/split", "canary", 500, "legacy", "fallback:timeout"): 2,
        counted("/split", "canary", 100, "modern", "2xx"): 50,
        counted("/split", "legacy", 0, "legacy", "passed"): 1000,
        counted("/split", "shadow", 0, "shadow", "not-compared"): 9,
        counted("/split", "canary", 500, "modern", "\x1b"): 7,
        "nonsense": 1,
    }
    routes, strays = judge(known(), Overrides(), counts, [])
    found = next(r for r in routes if r.name == "/split")
    now = found.now
    assert (now.modern, now.legacy, now.errors, now.failed, now.fallbacks) == (7, 93, 2, 2, {"timeout": 2})
    assert now.share == pytest.approx(9.0)
    assert (found.total.modern, found.total.legacy, found.total.not_compared) == (57, 1093, 9)
    assert strays == ()
    assert all(r.now.share is None for r in routes if r.name != "/split")
    killed, _ = judge(known(), Overrides(1, Kill("ann", 1.0, "")), counts, [])
    assert next(r for r in killed if r.name == "/split").now.legacy == 1000


def test_overrides_that_do_not_act_or_are_contradicted():
    declared = Override(Stage.CANARY, 500, "ann", 1.0, "", declared=Dial(Stage.LEGACY, 0))
    routes, strays = judge(
        known(),
        Overrides(1, None, {"/new": declared, "/fixed": override("modern"), "/lost\x1b": override("modern")}),
        {},
        [read_worker("w", {"waiting": ["/new"]})],
    )
    found = {r.name: r for r in routes}
    assert (found["/new"].contradicted, found["/new"].problem, found["/new"].waiting) == (True, "", 1)
    assert "has no modern side" in found["/fixed"].problem
    assert [s.name for s in strays] == [r"/lost\x1b"]
    assert "no such route" in strays[0].problem
