"""A changed file: polled, compiled beside the requests, put in force whole; a bad one changes nothing."""

import os
import threading

import pytest
from load import until

from calls import call
from echo import Echo
from strangle_mw import ConfigError, strangle
from strangle_mw.transports import registry
from strangle_mw.wsgi import WSGIStrangler

TABLE = """
[upstreams.one]
url = "http://127.0.0.1:{port}"
[[routes]]
path = "/m/*"
to = "one"
stage = "{stage}"
"""


def legacy(environ, start_response):
    start_response("200 OK", [])
    return [b"legacy"]


@pytest.fixture
def table(tmp_path, modern):
    path = tmp_path / "strangle.toml"

    def write(stage="modern", *, port=modern.port, more="", to=path):
        new = to.with_suffix(".new")
        new.write_text(TABLE.format(port=port, stage=stage) + more)
        old(new)
        new.replace(to)

    write.path = path
    write()
    return write


def old(path):
    """Make a file look as if it had been left alone for a while: nothing waits for that here."""
    stamp = path.stat().st_mtime_ns - 5 * 10**9 - next(_ticks) * 1000
    os.utime(path, ns=(stamp, stamp))


_ticks = iter(range(10**6))


@pytest.fixture
def app(table):
    made = strangle(legacy, table.path)
    yield made
    made.engine.close()


def look(app):
    app.engine.due = 0.0
    call(app, "/other")
    until(lambda: not app.engine.live._reloading)


def stage(app):
    return app.engine.snapshot.table.routes[0].staging.dial.stage.value


def test_a_changed_file_is_followed(app, table, modern):
    assert b"line" in call(app)
    table("legacy")
    look(app)
    assert call(app) == b"legacy"
    table("modern")
    look(app)
    assert b"line" in call(app)


def test_it_is_looked_at_once_a_second_and_not_with_every_request(app, table, monkeypatch):
    looks = []
    monkeypatch.setattr(app.engine.live, "look", lambda: looks.append(1) or 1.0)
    for _ in range(50):
        call(app, "/other")
    assert len(looks) == 1


def test_no_file_no_look(modern):
    app = strangle(legacy, {"routes": [{"path": "/m/*", "to": modern.address}]})
    call(app)
    assert app.engine.due == float("inf")
    app.engine.close()


@pytest.mark.parametrize("text", ["[[routes", "[[routes]]\npath = '/m/*'\nto = 'nowhere'\n", ""])
def test_a_bad_file_changes_nothing_and_is_told_once(app, table, caplog, text):
    before = app.engine.snapshot
    table.path.write_text(text or "x")
    old(table.path)
    for _ in range(3):
        look(app)
    assert app.engine.snapshot is before
    assert app.engine.live.reload_error
    assert len([r for r in caplog.records if "the table in force stays" in r.message]) == 1
    assert [e.kind for e in app.engine.states.take_events()] == ["reload-failed"]
    table("legacy")
    look(app)
    assert stage(app) == "legacy"
    assert not app.engine.live.reload_error


def test_a_file_that_is_gone_changes_nothing(app, table):
    before = app.engine.snapshot
    table.path.unlink()
    look(app)
    assert app.engine.snapshot is before
    assert "there is no such file" in app.engine.live.reload_error
    table("legacy")
    look(app)
    assert stage(app) == "legacy"


def test_a_file_that_is_being_written_is_left_alone(app, table):
    table.path.write_text(TABLE.format(port=1, stage="legacy"))  # now
    app.engine.due = 0.0
    call(app, "/other")
    assert stage(app) == "modern"  # it is noticed, and read a little later
    assert app.engine.due < float("inf")
    until(lambda: call(app, "/other") and stage(app) == "legacy")


def test_a_link_that_points_elsewhere_is_followed(tmp_path, table, modern):
    """Kubernetes replaces a ConfigMap by turning a link."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    table("modern", to=tmp_path / "a" / "strangle.toml")
    table("legacy", to=tmp_path / "b" / "strangle.toml")
    link = tmp_path / "data"
    link.symlink_to("a")
    app = strangle(legacy, tmp_path / "data" / "strangle.toml")
    assert stage(app) == "modern"
    turned = tmp_path / "turned"
    turned.symlink_to("b")
    turned.replace(link)
    look(app)
    assert stage(app) == "legacy"
    app.engine.close()


def test_what_is_declared_as_before_keeps_its_connections_and_breakers(app, table, modern):
    call(app)
    upstream = app.engine.snapshot.upstreams["one"]
    pools, state = app.engine.blocking_pools(upstream), app.engine.states.upstream(upstream)
    table("modern", more='[[routes]]\npath = "/n"\nto = "one"\n')
    look(app)
    assert len(app.engine.snapshot.table.routes) == 2
    again = app.engine.snapshot.upstreams["one"]
    assert app.engine.blocking_pools(again) is pools
    assert app.engine.states.upstream(again) is state
    call(app)
    assert modern.connections == 1


def test_what_is_declared_otherwise_begins_anew_and_the_old_is_closed(app, table, modern, monkeypatch):
    call(app)
    old_upstream = app.engine.snapshot.upstreams["one"]
    [pool] = app.engine.blocking_pools(old_upstream)
    assert pool.idle == 1
    other = Echo()
    table("modern", port=other.port)
    look(app)
    assert app.engine.snapshot.upstreams["one"] is not old_upstream
    call(app)
    assert other.requests == 1
    monkeypatch.setattr(registry, "GRACE", 0.0)
    look(app)
    assert pool.idle == 0
    other.close()


def test_what_is_gone_is_forgotten(app, table):
    states = app.engine.states
    table("canary", more="weight = 100\n")
    look(app)
    call(app)
    assert [*states._budgets] == ["/m/*"]
    table("canary", more='weight = 100\nname = "m"\n')
    look(app)
    assert not states._budgets


def test_a_request_ends_with_the_snapshot_it_began_with(table, modern):
    started, go_on = threading.Event(), threading.Event()

    class Slow(WSGIStrangler):
        def _forward(self, *arguments):
            started.set()
            go_on.wait(20)
            return super()._forward(*arguments)

    made = strangle(legacy, table.path)
    app = Slow(legacy, made.engine)
    found = []
    thread = threading.Thread(target=lambda: found.append(call(app)))
    thread.start()
    started.wait(20)
    other = Echo()
    table("modern", port=other.port)
    look(app)
    go_on.set()
    thread.join(20)
    assert b"line" in found[0]
    assert (modern.requests, other.requests) == (1, 0)
    other.close()
    made.engine.close()


def test_the_same_content_is_no_new_table(app, table):
    before = app.engine.snapshot
    table("modern")
    look(app)
    assert app.engine.snapshot is before


def test_settings_that_need_a_start_are_told(app, table, caplog):
    table("legacy", more='[strangle]\nstore = "memory:"\n')
    look(app)
    assert "takes effect at the next start" in caplog.text
    assert stage(app) == "legacy"


def test_a_reload_tells_of_itself(app, table):
    table("legacy")
    look(app)
    assert [e.kind for e in app.engine.states.take_events()] == ["reload"]


# --- the switch in the environment


@pytest.mark.parametrize("value", ["legacy", "LEGACY", " legacy "])
def test_the_switch_beats_everything(table, monkeypatch, value):
    monkeypatch.setenv("STRANGLE_ALL", value)
    app = strangle(legacy, table.path)
    assert call(app) == b"legacy"
    table("retired")
    look(app)
    assert call(app) == b"legacy"
    app.engine.close()


def test_with_the_switch_a_table_of_no_use_starts(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("STRANGLE_ALL", "legacy")
    app = strangle(legacy, [{"path": "/m", "to": "nowhere"}])
    assert call(app, "/m") == b"legacy"
    assert "there is no upstream 'nowhere'" in caplog.text
    app.engine.close()


def test_a_switch_that_says_something_else_is_refused(table, monkeypatch):
    monkeypatch.setenv("STRANGLE_ALL", "modern")
    with pytest.raises(ConfigError, match="STRANGLE_ALL: must be 'legacy' or not set"):
        strangle(legacy, table.path)


def test_decisions_under_the_switch_are_counted(table, monkeypatch):
    monkeypatch.setenv("STRANGLE_ALL", "legacy")
    app = strangle(legacy, table.path)
    call(app)
    [(key, number)] = app.engine.states.take_counts().items()
    assert (key.route, key.stage, key.side, number) == ("/m/*", "legacy", "legacy", 1)
    app.engine.close()
