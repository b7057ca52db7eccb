"""The commands that act on a running app: what they print, and what it follows."""

import json
import os
import pty
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, timedelta, timezone

import click
import pytest
from click.testing import CliRunner
from flask import Flask
from load import ask, until

from echo import Echo
from servers import serve
from stores.redis_servers import RedisServer
from strangle_mw import Pin
from strangle_mw.cli import main
from strangle_mw.cli_status import event_lines, moment, status_lines, step_lines
from strangle_mw.config import load
from strangle_mw.core.dials import Dial
from strangle_mw.core.events import Event
from strangle_mw.core.model import Stage
from strangle_mw.core.overrides import Kill, Override, Overrides
from strangle_mw.core.sticky import read_pin
from strangle_mw.engine import Engine
from strangle_mw.flask import Strangle
from strangle_mw.reach import Held, Known, read_worker
from strangle_mw.rollout import Step
from strangle_mw.status import Status, judge
from strangle_mw.stores import open_store

TABLE = """
[strangle]
store = "sqlite:///live.db"

[upstreams.leads]
url = "http://127.0.0.1:{port}"

[[routes]]
pattern = "GET /m/leads"
to = "leads"
stage = "legacy"

[[routes]]
path = "/m/*"
to = "leads"

[[routes]]
path = "/m/fixed"
to = "legacy"
"""
NOBODY = "warning no worker is known to this store; one that uses it follows from its first request on\n"
NOW = 1_764_000_000.0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("STRANGLE_FILE", "STRANGLE_STORE", "STRANGLE_STORE_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "strangle.toml").write_text(TABLE.format(port=1))
    return tmp_path


@pytest.fixture
def run(folder):
    def call(*arguments, **environment):
        return CliRunner(env=environment).invoke(main, arguments, catch_exceptions=False)

    return call


@pytest.fixture
def store(folder):
    opened = open_store("sqlite:///live.db")
    yield opened
    opened.close()


# --- what the commands print


def test_one_route_from_the_first_users_to_the_end(run):
    done = run("set", "GET /m/leads", "stage=canary", "weight=5", "--by", "ann", "--reason", "try it")
    assert (done.exit_code, done.stderr) == (0, NOBODY)
    assert done.stdout == "GET /m/leads: legacy -> canary 5 % (by ann: try it)\n"
    done = run("set", "GET /m/leads", "weight=12.5", "--by", "ann")
    assert done.stdout == "GET /m/leads: canary 5 % -> canary 12.5 % (by ann)\n"
    done = run("promote", "GET /m/leads", "--yes", "--by", "bob")
    assert done.stdout.splitlines() == [
        "GET /m/leads: canary 12.5 % -> modern",
        "  who answers: modern for 12.5 % of the users, legacy for the others -> modern for everybody",
        "  fallback: auto -> connect",
        "GET /m/leads: canary 12.5 % -> modern (by bob)",
    ]
    done = run("rollback", "GET /m/leads", "--by", "bob", "--reason", "slow")
    assert done.stdout == "GET /m/leads: modern -> legacy (by bob: slow)\n"
    done = run("rollback", "GET /m/leads", "--to-file", "--by", "bob")
    assert done.stdout == "GET /m/leads: legacy -> legacy (by bob)\n"
    lines = run("events").stdout.splitlines()
    assert [line.split()[3] for line in lines] == ["override", "override", "promote", "rollback", "rollback"]
    assert lines[0].endswith("override  GET /m/leads: legacy -> canary 5 %: try it (by ann)")
    assert [e["kind"] for e in json.loads(run("events", "-n", "2", "--json").stdout)] == ["rollback"] * 2


def test_all_and_the_kill_switch(run):
    done = run("rollback", "--all", "--by", "ann")
    assert done.stdout == "/m/*: modern -> legacy (by ann)\n"
    done = run("rollback", "--all")
    assert (done.exit_code, done.stderr) == (0, "warning every route is legacy already\n")
    done = run("kill", "--reason", "fire", "--by", "ann")
    assert (done.exit_code, done.stdout) == (0, "the kill switch is on: every route is legacy\n")
    done = run("kill", "--by", "bob")
    assert (done.exit_code, done.stderr) == (0, "warning the kill switch is on already, by ann\n")
    first, *_ = run("status").stdout.splitlines()
    assert first.startswith("THE KILL SWITCH IS ON: every route is legacy (by ann, ")
    assert first.endswith(": fire)")
    done = run("set", "/m/*", "stage=modern")
    assert "kill switch is on: every route stays legacy until `strangle unkill`" in done.stderr
    done = run("unkill")
    assert done.stdout == "the kill switch is off: stages and weights are in force as before\n"
    assert run("unkill").stderr == "warning the kill switch is off already\n"


def test_who_is_the_login_by_default(run):
    assert "(by eve)" in run("set", "/m/*", "stage=legacy", LOGNAME="eve").stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["set", "/m/*"], "Missing argument"),
        (["set", "/m/*", "canary"], "'canary' is not understood: write stage=STAGE or weight=PERCENT"),
        (["set", "/m/*", "wieght=5"], "'wieght=5' is not understood"),
        (["set", "/m/*", "stage=canery"], "'canery' is no stage; they are legacy, shadow, canary, modern"),
        (["set", "/m/*", "stage=legacy", "stage=modern"], "stage is given twice"),
        (["set", "/m/*", "weight=101"], "'101' is no weight: write percent, 0 to 100"),
        (["set", "/m/*", "weight=-1"], "'-1' is no weight"),
        (["set", "/m/*", "weight=0.001"], "'0.001' is no weight"),
        (["set", "/m/*", "weight=nan"], "'nan' is no weight"),
        (["set", "/m/*", "weight=inf"], "'inf' is no weight"),
        (["set", "/m/*", "weight=1e999999999999999999"], "is no weight"),
        (["set", "/m/*", "weight=five"], "'five' is no weight"),
        (["promote", "GET /m/leads", "--weight", "x"], "'x' is no weight"),
        (["rollback"], "name routes, or give --all"),
        (["rollback", "/m/*", "--all"], "name routes, or give --all"),
        (["promote", "/m/*"], "nobody can be asked here, this is no terminal: add --yes"),
        (["pin", "both"], "'both' is not one of 'modern', 'legacy'"),
        (["pin", "modern", "--hours", "0"], "is not in the range"),
        (["events", "-n", "0"], "is not in the range"),
    ],
)
def test_wrong_use_exits_with_2_and_changes_nothing(run, store, arguments, says):
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert store.read(-1) == b""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["set", "GET /m/lead", "stage=modern"], "strangle.toml has no route 'GET /m/lead'; did you mean 'GET /m/leads'?"),
        (["set", "GET /m/leads", "stage=canary"], "stage 'canary' needs a weight, and GET /m/leads has none: add weight=5, say"),
        (["set", "GET /m/leads", "weight=5"], "a weight acts in stage 'canary', and GET /m/leads is 'legacy': add stage=canary"),
        (["promote", "/m/fixed"], '/m/fixed has no modern side: the table says to = "legacy"'),
        (["rollback", "/m/*", "--to-file"], "/m/* has no override: the table's own stage is in force"),
        (["rollback", "/x"], "strangle.toml has no route '/x'; `strangle status --all` lists them"),
        (["pin", "modern"], 'the table has no pin: add pin = { secret = "..." } under [strangle]'),
        (["status", "--store", "memory:"], "the store 'memory:' lives inside each process, where no command reaches it: use sqlite:///path.db for one host, redis://host for many"),
        (["status", "--store", "mysql://h"], "a store must be 'memory:', 'sqlite:///path.db' or 'redis://host:6379/0'"),
        (["status", "--store", "sqlite:///no/where.db"], "cannot be opened: there is no such folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence_and_exits_with_1(run, arguments, says):
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error ")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


# --- which store, which table


def test_where_the_store_is_from(run, folder):
    (folder / "other.toml").write_text(TABLE.format(port=1).replace("live.db", "other.db"))
    run("kill")
    assert "THE KILL" not in run("status", "--file", "other.toml").stdout
    assert "other.db" in run("status", STRANGLE_FILE="other.toml").stdout
    assert "third.db" in run("status", STRANGLE_STORE="sqlite:///third.db").stdout
    assert "fourth.db" in run("status", "--store", "sqlite:///fourth.db", STRANGLE_STORE="memory:").stdout
    (folder / "strangle.toml").write_text(TABLE.format(port=1).replace("store =", "# store ="))
    for result in (run("status"), run("kill"), run("events")):
        assert (result.exit_code, result.stdout) == (1, "")
        assert (
            "give --store URL, set STRANGLE_STORE, or name one as `store` under [strangle]" in result.stderr
        )


def test_without_a_file_the_workers_table_counts(run, folder, store):
    (folder / "strangle.toml").unlink()
    url = ("--store", "sqlite:///live.db")
    result = run("set", "/m/*", "stage=legacy", *url)
    assert (result.exit_code, "give --file PATH" in result.stderr) == (1, True)
    assert run("kill", *url).exit_code == 0  # needs no table
    assert run("unkill", *url).exit_code == 0
    engine = Engine({"routes": [{"path": "/m/*", "to": "http://m"}]}, store="sqlite:///live.db")
    engine.look()
    until(store.workers)
    result = run("set", "/m/*", "stage=legacy", "--by", "ann", *url)
    assert result.stdout == "/m/*: modern -> legacy (by ann)\n1 of 1 worker follows\n"
    result = run("set", "/m", "stage=legacy", *url)
    assert "the table of the workers has no route '/m'; did you mean '/m/*'?" in result.stderr
    engine.close()


def test_a_file_of_no_use_stops_nobody_in_an_incident(run, folder, store):
    engine = Engine("strangle.toml")
    engine.look()
    until(store.workers)
    broken = TABLE.format(port=1).replace('to = "leads"', 'to = "laeds"', 1)
    (folder / "strangle.toml").write_text(broken)
    result = run("rollback", "--all", "--by", "ann")
    assert result.stdout == "/m/*: modern -> legacy (by ann)\n1 of 1 worker follows\n"
    assert "warning strangle.toml cannot be used, so what counts is the table of the workers" in result.stderr
    assert "there is no upstream 'laeds'" in result.stderr
    assert "cannot be used, so what counts is the table of the workers" in run("status").stdout
    assert run("kill").exit_code == 0
    (folder / "strangle.toml").write_text("[strangle")
    result = run("unkill")
    assert (result.exit_code, "is not TOML" in result.stderr) == (1, True)
    assert run("unkill", "--store", "sqlite:///live.db").exit_code == 0
    engine.close()


def test_a_file_that_is_not_there_is_told(run):
    result = run("status", "--file", "strangel.toml")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "did you mean 'strangle.toml'?" in result.stderr


def test_a_document_of_no_use(run, store):
    run("set", "GET /m/leads", "stage=modern")
    with store._writing() as connection:
        connection.execute("UPDATE strangle_overrides SET document = ?", (b'{"format": 9}',))
    result = run("set", "GET /m/leads", "stage=legacy")
    assert result.exit_code == 1
    assert "`strangle rollback --all` replaces them" in result.stderr
    first, second, *_ = run("status").stdout.splitlines()
    assert first.startswith("THE STORED OVERRIDES ARE REFUSED: ")
    assert "`strangle rollback --all` replaces" in second
    assert json.loads(run("status", "--json").stdout)["refused"]
    result = run("rollback", "--all", "--by", "ann")
    assert (result.exit_code, result.stdout) == (0, "/m/*: modern -> legacy (by ann)\n")
    assert "could not be used and are gone" in result.stderr
    assert "REFUSED" not in run("status").stdout


def test_signed_overrides(run):
    key = {"STRANGLE_STORE_KEY": "k" * 32}
    assert run("set", "GET /m/leads", "stage=shadow", **key).exit_code == 0
    result = run("set", "GET /m/leads", "stage=modern")
    assert (result.exit_code, result.stderr) == (
        1,
        "error the overrides in the store are signed: set STRANGLE_STORE_KEY to the workers' key\n",
    )
    assert "shadow" in run("status").stdout  # looking is free
    assert run("set", "GET /m/leads", "stage=modern", **key).exit_code == 0
    assert "kkkk" not in run("status", "--json", **key).stdout


# --- asking


def test_promote_asks_on_a_terminal(folder):
    for answer, moved in ((b"n\n", False), (b"y\n", True)):
        ours, theirs = pty.openpty()
        child = subprocess.Popen(
            [sys.executable, "-m", "strangle_mw.cli", "promote", "/m/*", "--by", "ann"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        os.write(ours, answer)
        told = child.communicate(timeout=20)[0].decode()
        os.close(ours)
        os.close(theirs)
        assert "  the old code will not run any more\nGo on? [y/N]: " in told
        assert ("/m/*: modern -> retired (by ann)" in told) is moved
        assert child.returncode == (0 if moved else 1)


# --- a pin


def test_pin(run, folder):
    secret = "a secret of some length"
    table = TABLE.format(port=1).replace("[strangle]", f'[strangle]\npin = {{ secret = "{secret}" }}')
    (folder / "strangle.toml").write_text(table)
    for side in ("modern", "legacy"):
        result = run("pin", side, "--hours", "0.5")
        token, line = result.stdout.splitlines()
        assert line == f"Strangle-Pin: {token}"
        until_ = int(token.split(".")[1])
        assert read_pin(token, secret.encode(), until_ - 1) == side
        assert read_pin(token, secret.encode(), until_) is None
        assert result.stderr.startswith("good until ")
        assert secret not in result.output
    (folder / "strangle.toml").unlink()
    assert "give --file PATH" in run("pin", "modern").stderr


# --- workers


@contextmanager
def four_workers(folder, monkeypatch):
    """Run gunicorn with 4 workers on the folder's table, each of which has been asked once."""
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    echo = Echo()
    (folder / "strangle.toml").write_text(TABLE.format(port=echo.port))
    store = open_store("sqlite:///live.db")
    with serve(
        "gunicorn-gthread", "live.live_app", LIVE_TABLE=str(folder / "strangle.toml"),
        LIVE_STORE=f"sqlite:///{folder}/live.db",
    ) as port:  # fmt: skip
        until(lambda: ask(port, "/other") and len(store.workers()) == 4)
        yield port
    store.close()
    echo.close()


def test_four_workers_follow_the_commands(run, folder, monkeypatch):
    with four_workers(folder, monkeypatch) as port:

        def sides():
            return {ask(port, "/m/leads") for _ in range(12)}

        assert sides() == {(200, "legacy")}
        result = run("set", "GET /m/leads", "stage=canary", "weight=100", "--by", "ann", "--wait", "20")
        assert result.stdout.splitlines()[1:] == ["4 of 4 workers follow"]
        assert sides() == {(200, "modern")}
        until(lambda: " 100.0 %  12 " in run("status").stdout)
        result = run("kill", "--wait", "20")
        assert result.stdout.splitlines()[1:] == ["4 of 4 workers follow"]
        assert sides() == {(200, "legacy")}
        run("unkill", "--wait", "20")
        assert sides() == {(200, "modern")}
        run("rollback", "--all", "--wait", "20")
        assert sides() == {(200, "legacy")}
        status = run("status").stdout
        assert "workers: 4" in status
        assert "behind" not in status
        found = json.loads(run("status", "--json").stdout)
        assert {w["overrides"] for w in found["workers"]} == {found["revision"]}


def test_who_does_not_follow_is_named(run, store):
    store.beat("stuck", {"overrides": 1, "problems": ["the store's overrides are refused: too old"]}, 60)
    result = run("set", "/m/*", "stage=legacy", "--wait", "0")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "0 of 1 worker follows")
    assert result.stderr == "warning stuck does not follow: the store's overrides are refused: too old\n"


def test_a_route_that_waits_or_is_not_there_is_told(run, folder):
    health = '[upstreams.leads]\nhealth = { path = "/healthz", interval = 60 }'
    (folder / "strangle.toml").write_text(TABLE.format(port=1).replace("[upstreams.leads]", health))
    engine = Engine("strangle.toml")
    engine.look()
    other = Engine({"routes": [{"path": "/other", "to": "http://m"}]}, store="sqlite:///live.db")
    other.look()
    opened = open_store("sqlite:///live.db")
    until(lambda: len(opened.workers()) == 2)
    result = run("set", "GET /m/leads", "stage=modern", "--wait", "20")
    assert result.stdout.splitlines()[-1] == "2 of 2 workers follow"
    assert "GET /m/leads waits for a good health answer of its upstream; --force does not" in result.stderr
    assert "override of 'GET /m/leads': the table has no such route" in result.stderr
    assert "1 of 2 workers wait for a good health answer" in run("status").stdout
    result = run("set", "GET /m/leads", "stage=modern", "--force", "--wait", "20")
    assert "waits" not in result.stderr
    assert engine.snapshot.dials["GET /m/leads"] == Dial(Stage.MODERN)
    for made in (engine, other, opened):
        made.close()


@pytest.fixture
def redis_server():
    server = RedisServer()
    yield server
    server.close()


def test_redis_and_redis_away(run, folder, redis_server):
    url = redis_server.url(user=":s3cret@", socket_timeout=5)
    result = run("status", "--store", url)
    assert (result.exit_code, "s3cret" in result.output) == (1, False)  # no password is wanted
    url = redis_server.url(socket_timeout=5)
    engines = [Engine("strangle.toml", store=url) for _ in range(3)]
    for engine in engines:
        engine.look()
    opened = open_store(url)
    until(lambda: len(opened.workers()) == 3)
    result = run("set", "GET /m/leads", "stage=canary", "weight=5", "--store", url, "--wait", "20")
    assert result.stdout.splitlines()[-1] == "3 of 3 workers follow"
    assert {e.snapshot.dials["GET /m/leads"] for e in engines} == {Dial(Stage.CANARY, 500)}
    assert "canary 5 %" in run("status", "--store", url).stdout
    for engine in engines:
        engine.close()
    opened.close()
    redis_server.kill()
    for command in (["status"], ["kill"], ["set", "/m/*", "stage=legacy"], ["rollback", "--all"], ["events"]):
        result = run(*command, "--store", url.replace("redis://", "redis://ann:s3cret@"))
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("error the store redis://***@127.0.0.1:")
        assert "s3cret" not in result.stderr
        assert len(result.stderr.splitlines()) == 1


# --- how things stand, as text

ROUTES = [
    {"path": "/old", "to": "http://m", "stage": "legacy"},
    {"path": "/split", "to": "http://m", "stage": "canary", "weight": 5},
    {"path": "/new", "to": "http://m"},
    {"path": "/copied", "to": "http://m", "stage": "shadow"},
    {"path": "/fixed", "to": "legacy"},
]


def counted(*parts):
    return "\t".join(map(str, parts))


SEVENTH = Overrides(7)
COUNTS = {
    counted("/split", "canary", 500, "modern", "2xx"): 49,
    counted("/split", "canary", 500, "modern", "5xx"): 2,
    counted("/split", "canary", 500, "modern", "failed"): 1,
    counted("/split", "canary", 500, "legacy", "2xx"): 945,
    counted("/split", "canary", 500, "legacy", "fallback:timeout"): 3,
    counted("/split", "canary", 500, "legacy", "fallback:connect"): 1,
    counted("/new", "modern", 10000, "modern", "2xx"): 7,
    counted("/copied", "shadow", 0, "legacy", "passed"): 20,
    counted("/copied", "shadow", 0, "shadow", "not-compared"): 11,
}
EVENTS = (
    Event(NOW - 60, "override", "legacy -> canary 10 %: try it", "/old", "ann"),
    Event(NOW - 30, "breaker-open", "upstream 'm', endpoint 2 of 2", worker="h:1:a"),
)


def worker(name, ago=1.0, **said):
    return read_worker(name, {"seen": NOW - ago, "table": "abc", "overrides": 7, **said})


def status(overrides=SEVENTH, counts=COUNTS, workers=(), events=EVENTS, routes=ROUTES):
    known = Known("abc", "strangle.toml", load(routes).table)
    found, strays = judge(known, overrides, counts, workers)
    return Status(NOW, "sqlite:///live.db", known, Held(overrides), found, strays, tuple(workers), events)


def text(*args, everything=False, **more):
    lines = status_lines(status(*args, **more), everything=everything, tz=UTC)
    return click.unstyle("\n".join(lines))


def override(stage, points=None, declared=None, why=""):
    return Override(Stage(stage), points, "ann", NOW - 3600, why, declared=declared)


def test_status_of_a_quiet_day():
    workers = [
        worker("h:1:a", 0.2, versions={"m": {"7": 38, "8": 2}}),
        worker("h:2:b", 2.4, upstreams={"m": [{}, {}]}, versions={"m": {"7": 57, "8": 3}}),
    ]
    assert (
        text(workers=workers)
        == """\
store sqlite:///live.db, overrides 7
table abc (strangle.toml)

ROUTE    STAGE       ACTUAL  MODERN  LEGACY  5XX  FAILED  NOT COMPARED  FALLBACKS
/old     legacy
/split   canary 5 %  5.6 %   52      949     2    1                     connect 1, timeout 3
/new     modern              7       0
/copied  shadow              0       20                   11
/fixed   legacy

upstreams: no breaker is open (1 in use)
  m: 100 calls by version 7 95.0%, 8 5.0%
workers: 2
  h:1:a  table abc  overrides 7  seen just now
  h:2:b  table abc  overrides 7  seen 2 s ago
last events
  2025-11-24 15:59:00 +0000  override      /old: legacy -> canary 10 %: try it (by ann)
  2025-11-24 15:59:30 +0000  breaker-open  upstream 'm', endpoint 2 of 2 (worker h:1:a)"""
    )


def test_status_in_trouble():
    changes = {
        "/old": override("canary", 1000, Dial(Stage.LEGACY, 0), "try it"),
        "/new": override("legacy", None, Dial(Stage.CANARY, 500), "slow"),
        "/split": override("canary", 500, Dial(Stage.LEGACY, 0)),
        "/fixed": override("modern"),
        "/lost": override("modern"),
    }
    open_ = {"breaker": "open"}
    workers = [
        worker("h:1:a", upstreams={"m": [open_, {}]}, waiting=["/old"], off=True),
        worker("h:2:b", 9, upstreams={"m": [open_, {"health": "unhealthy"}], "n": [{}]}, overrides=6),
        worker("h:3:c", table="xyz", problems=["the file is not in force: 1 problem"]),
        read_worker("h:4:d", {"seen": "x"}),
    ]
    assert (
        text(Overrides(7, None, changes), {}, workers, ())
        == """\
STRANGLE_ALL=legacy in 1 of 4 workers: every route is legacy there
store sqlite:///live.db, overrides 7
table abc (strangle.toml)

ROUTE    STAGE
/old     canary 10 %
  set by ann, 2025-11-24 15:00:00 +0000: try it
  1 of 4 workers wait for a good health answer; set --force does not
/split   canary 5 %
  set by ann, 2025-11-24 15:00:00 +0000
  the table says canary 5 % itself now; the override can go (rollback --to-file)
/new     legacy
  set by ann, 2025-11-24 15:00:00 +0000: slow
  the table says modern now; it said canary 5 % when the override was made
/copied  shadow
/fixed   legacy
  set by ann, 2025-11-24 15:00:00 +0000
  does not act: the route has no modern side; the override is ignored
override of /lost: the table has no such route; the override is ignored

upstreams
  m: 2 of 4 workers: endpoint 1 open; 1 of 4 workers: endpoint 2 unhealthy
workers: 4
  they have 3 tables: abc in 2, xyz in 1, ? in 1
  h:1:a  table abc  overrides 7     seen 1 s ago
  h:2:b  table abc  overrides 6     seen 9 s ago  behind
  h:3:c  table xyz  overrides 7     seen 1 s ago
    the file is not in force: 1 problem
  h:4:d  table ?    overrides none  behind
    what it says of itself cannot be read: is it of another version?"""
    )


def test_status_killed():
    killed = Overrides(7, Kill("ann", NOW, "fire"), {})
    counts = {**COUNTS, counted("/split", "legacy", 0, "legacy", "passed"): 5}
    assert (
        text(killed, counts, (), ())
        == """\
THE KILL SWITCH IS ON: every route is legacy (by ann, 2025-11-24 16:00:00 +0000: fire)
store sqlite:///live.db, overrides 7
table abc (strangle.toml)

ROUTE    STAGE                        MODERN  LEGACY
/old     legacy
/split   legacy (killed; canary 5 %)  0       5
/new     legacy (killed; modern)
/copied  legacy (killed; shadow)
/fixed   legacy

workers: none is known to this store (each is from its first request on)"""
    )


def test_of_many_routes_those_are_shown_that_there_is_something_to_say_of():
    many = [{"path": f"/r{n}", "to": "http://m", "stage": "legacy"} for n in range(60)] + ROUTES
    changes = Overrides(7, None, {"/r3": override("legacy")})
    counts = {counted("/r9", "canary", 100, "modern", "2xx"): 1}
    shown = text(changes, counts, routes=many)
    assert [n for n in range(60) if f"/r{n} " in shown] == [3, 9]
    assert "60 more routes are legacy and idle; --all shows them" in shown
    assert all(r["path"] in shown for r in ROUTES[1:4])
    shown = text(changes, counts, routes=many, everything=True)
    assert all(f"/r{n} " in shown for n in range(60))
    assert "--all" not in shown


def test_nobody_has_this_table():
    assert "no worker has the table abc" in text(workers=[worker("w", table="xyz")])
    assert "no worker has" not in text(workers=[worker("w", table="xyz"), worker("v")])


def test_the_whole_as_data():
    found = status(
        Overrides(7, Kill("ann", NOW, "fire"), {"/old": override("canary", 1000)}), COUNTS, [worker("w")]
    )
    data = json.loads(json.dumps(found.as_dict()))
    assert data["kill"] == {"by": "ann", "at": NOW, "why": "fire"}
    split = data["routes"][1]
    assert (split["route"], split["stage"], split["weight"]) == ("/split", "canary", 5.0)
    assert split["total"]["fallbacks"] == {"connect": 1, "timeout": 3}
    assert split["total"]["share"] == pytest.approx(100 * 56 / 1001)
    assert data["routes"][0]["override"]["weight"] == 10.0
    assert data["workers"][0]["id"] == "w"
    assert data["events"][1]["kind"] == "breaker-open"


def test_times_are_local_and_have_their_zone():
    assert moment(NOW, timezone(timedelta(hours=2))) == "2025-11-24 18:00:00 +0200"
    assert moment(253_402_300_799.0, timezone(timedelta(hours=2))) == "at 253402300799"
    assert event_lines([], UTC) == []


@pytest.mark.parametrize(
    ("before", "after", "more", "says"),
    [
        ((Stage.LEGACY, 0), (Stage.SHADOW, 0), {}, ["who answers: legacy for everybody -> legacy for everybody; copies go to modern"]),
        ((Stage.SHADOW, 0), (Stage.CANARY, 100), {}, ["modern for 1 % of the users, legacy for the others", "fallback: none -> auto"]),
        ((Stage.CANARY, 100), (Stage.MODERN, 10000), {}, ["fallback: auto -> connect"]),
        ((Stage.CANARY, 100), (Stage.MODERN, 10000), {"fallback": "auto"}, []),
        ((Stage.CANARY, 100), (Stage.MODERN, 10000), {"fallback_until": "2020-01-01"}, []),
        ((Stage.MODERN, 10000), (Stage.RETIRED, 10000), {}, ["modern for everybody, as before", "fallback: connect -> never", "the old code will not run any more"]),
    ],
)  # fmt: skip
def test_what_a_step_changes(before, after, more, says):
    route = load([{"path": "/a", "to": "http://m", **more}]).table.routes[0]
    told = "\n".join(step_lines(Step(route, Dial(*before), Dial(*after), None, None), NOW))
    assert all(part in told for part in says)
    assert ("fallback" in told) is any("fallback" in part for part in says)


# --- Flask


@pytest.fixture
def flask_app(folder):
    app = Flask("shop", root_path=str(folder))
    app.config.update(STRANGLE_ROUTES="strangle.toml", STRANGLE_PIN=Pin(secret="a secret of some length"))
    Strangle(app)
    yield app
    app.extensions["strangle"].close()


def test_flask_has_the_same_commands(flask_app):
    run = flask_app.test_cli_runner().invoke
    listed = run(args=["strangle", "--help"]).output
    assert all(
        f"\n  {name} " in listed
        for name in main.commands
        if name not in ("check", "schema", "import", "lambda-dev")
    )
    result = run(args=["strangle", "set", "GET /m/leads", "stage=canary", "weight=5", "--by", "ann"])
    assert result.output == f"GET /m/leads: legacy -> canary 5 % (by ann)\n{NOBODY}"
    assert "canary 5 %" in run(args=["strangle", "status"]).output
    assert "(the app)" in run(args=["strangle", "status"]).output
    result = run(args=["strangle", "set", "GET /m/lead", "stage=legacy"])
    assert (result.exit_code, "did you mean 'GET /m/leads'?" in result.output) == (1, True)
    assert "Strangle-Pin: modern." in run(args=["strangle", "pin", "modern"]).output
    assert run(args=["strangle", "status", "--store", "x"]).exit_code == 2  # the app's own counts


@pytest.mark.parametrize(
    ("store", "says"), [(None, "set STRANGLE_STORE in the app's config"), ("memory:", "lives inside each")]
)
def test_flask_without_a_store(folder, store, says):
    app = Flask("shop")
    app.config.update(STRANGLE_ROUTES=[], STRANGLE_STORE=store)
    Strangle(app)
    result = app.test_cli_runner().invoke(args=["strangle", "kill"])
    assert (result.exit_code, says in result.output) == (1, True)
