"""The table of stages, cell by cell: who answers, what is counted besides, what a failure leads to.

Both drivers without a server first, then the main cells under real servers. WebSockets are in `test_websocket`,
the matrix of fallbacks in `test_fallback`.
"""

import logging
import re
from collections import Counter
from hashlib import blake2b, sha256

import pytest
from faulty_fronts import until
from tests.transports.upstream import ScriptedUpstream, forever, head, reset, send, until_gone

from promises.drive import PATIENCE, SIDES, address
from servers import free_port, request, serve, talk
from strangle_mw import Breaker, ConfigError, Pin, Redirect, Respond, Route, Shadow, Upstream
from strangle_mw.config import load
from strangle_mw.core.sticky import make_pin

MODERN = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nmodern"
SERVE = [forever(head(), send(MODERN))]
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
SECRET = "0123456789abcdef"
COOKIE = re.compile(
    rb"strangle_id=([0-9a-f]{32}); Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax(; Secure)?"
)


def bucket(group, key):
    """The formula of design section 4.1, written anew."""
    digest = blake2b(f"{len(group)}:{group}{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") * 10_000 // 2**64


def side_of(seen):
    assert (seen.error, seen.ended) == (None, True)
    return {(299, b"legacy"): "legacy", (200, b"modern"): "modern"}[seen.status, seen.body]


def counted(side):
    """What was counted since the last time, whatever the route."""
    found = Counter()
    for key, number in side.app.engine.states.take_counts().items():
        found[key[1:]] += number
    return found


def events(side):
    return [(e.kind, e.route) for e in side.app.engine.states.take_events()]


# --- who answers, and what is counted

CELLS = {
    "legacy": ({"stage": "legacy"}, "legacy", {("legacy", 0, "legacy", "passed"): 1}),
    "legacy, of another weight": ({"stage": "legacy", "weight": 50}, "legacy", {("legacy", 0, "legacy", "passed"): 1}),
    "shadow": ({"stage": "shadow"}, "legacy", {("shadow", 0, "legacy", "passed"): 1, ("shadow", 0, "shadow", "not-compared"): 1}),
    "canary of nobody": ({"stage": "canary", "weight": 0}, "legacy", {("canary", 0, "legacy", "2xx"): 1}),
    "canary of all": ({"stage": "canary", "weight": 100}, "modern", {("canary", 10_000, "modern", "2xx"): 1}),
    "modern": ({"stage": "modern"}, "modern", {("modern", 10_000, "modern", "2xx"): 1}),
    "retired": ({"stage": "retired"}, "modern", {("retired", 10_000, "modern", "2xx"): 1}),
}  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(("fields", "who", "counts"), CELLS.values(), ids=CELLS)
def test_who_answers(strangled, fields, who, counts, method):
    if method not in ("GET", "HEAD"):  # an unsafe method follows the same bucket, and makes no copy
        counts = {k: n for k, n in counts.items() if k[2] != "shadow"}
    answer = MODERN.removesuffix(b"modern") if method == "HEAD" else MODERN
    with ScriptedUpstream([forever(head(), send(answer))]) as server:
        side = strangled([Route("/m/*", to=address(server), **fields)])
        seen = side.ask(method=method)
        assert (seen.status, len(side.legacy)) == ((299, 1) if who == "legacy" else (200, 0))
        assert len(server.heads) == (who == "modern")
        assert counted(side) == counts
        side.close()


@pytest.mark.parametrize("stage", ["legacy", "shadow"])
def test_a_stage_that_is_legacy_hands_on_the_very_request(strangled, stage):
    side = strangled([Route("/m/*", to="http://127.0.0.1:1", stage=stage)])
    sent = ((b"x-two", b"1"), (b"cookie", b"a=1"))
    assert side_of(side.ask("/m/a%2Fb?q", headers=sent)) == "legacy"
    (seen,) = side.legacy
    assert not [k for k in seen if k.startswith("strangle")]
    if strangled.kind == "asgi":
        assert (seen["raw_path"], seen["query_string"]) == (b"/m/a%2Fb", b"q")
        assert seen["headers"] == [(b"host", b"h.example"), *sent]
    else:
        assert (seen["RAW_URI"], seen["HTTP_X_TWO"], seen["HTTP_COOKIE"]) == ("/m/a%2Fb?q", "1", "a=1")


FAILURES = {
    "refused": None,
    "reset": [head(), reset()],
    "silence": [head(), until_gone()],
    "busy": [head(), send(BUSY), until_gone()],
}
LEGACY = 299
AFTER = {  # what follows from each failure: for GET, for POST
    "legacy": dict.fromkeys(FAILURES, (LEGACY, LEGACY)),
    "shadow": dict.fromkeys(FAILURES, (LEGACY, LEGACY)),
    "canary": {"refused": (LEGACY, LEGACY), "reset": (LEGACY, 502), "silence": (LEGACY, 504), "busy": (LEGACY, 503)},
    "modern": {"refused": (LEGACY, LEGACY), "reset": (502, 502), "silence": (504, 504), "busy": (503, 503)},
    "retired": {"refused": (502, 502), "reset": (502, 502), "silence": (504, 504), "busy": (503, 503)},
}  # fmt: skip


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("stage", AFTER)
def test_a_failure_of_the_modern_side(strangled, stage, failure):
    script = FAILURES[failure]
    for method, status in zip(("GET", "POST"), AFTER[stage][failure], strict=True):
        with ScriptedUpstream(script or [until_gone()]) as server:
            to = address(server) if script else f"http://127.0.0.1:{free_port()}"
            weight = {"weight": 100} if stage == "canary" else {}
            side = strangled([Route("/m/*", to=to, stage=stage, timeout=0.1, **weight)])
            assert side.ask(method=method).status == status
            assert len(side.legacy) == (status == LEGACY)
            asked = script is not None and stage not in ("legacy", "shadow")
            assert len(server.heads) == asked
            side.close()


# --- retired: the old code must not run


def test_retired_without_a_place_or_with_an_open_breaker_is_a_503(strangled):
    dead = Upstream(url=f"http://127.0.0.1:{free_port()}", breaker=Breaker(failures=1, open=60))
    with ScriptedUpstream([head(), until_gone()]) as server:
        full = Upstream(url=address(server), max_in_flight=1, pool_timeout=0.0, timeout=PATIENCE)
        routes = [Route("/full", to=full, stage="retired"), Route("/dead", to=dead, stage="retired")]
        side = strangled(routes)
        hangs = side.start("/full")
        until(lambda: server.heads)
        refused = [side.ask("/full"), side.ask("/dead"), side.ask("/dead")]
        assert [s.status for s in refused] == [503, 502, 503]
        assert all(s.header(b"retry-after") for s in refused if s.status == 503)
        assert side.legacy == []
        server.peers[0].sock.shutdown(2)
        assert hangs.result(PATIENCE).status == 502
        side.close()


@pytest.mark.parametrize("fallback", ["auto", "connect"])
def test_a_retired_route_can_have_no_fallback(fallback):
    with pytest.raises(ConfigError, match="never runs the old code"):
        load([Route("/m", to="http://m", stage="retired", fallback=fallback)])


@pytest.fixture
def minutes(monkeypatch):
    """The clock that hits on old code are told by; a test turns it."""
    now = [1000.0]
    monkeypatch.setattr("strangle_mw.states.monotonic", lambda: now[0])
    return now


def hit_by_switch(monkeypatch, strangled):
    monkeypatch.setenv("STRANGLE_ALL", "legacy")
    return strangled([Route("/m/*", name="old", to="http://127.0.0.1:1", stage="retired")]), "/m/x"


def hit_by_ambiguous_path(monkeypatch, strangled):
    route = Route("/m/*", name="old", to="http://127.0.0.1:1", stage="retired")
    return strangled({"ambiguous": "legacy", "routes": [route]}), "/m/a/..%2f..%2fx"


@pytest.mark.parametrize("hit", [hit_by_switch, hit_by_ambiguous_path])
def test_a_hit_on_retired_code_is_an_event_once_a_minute(strangled, monkeypatch, minutes, hit):
    side, target = hit(monkeypatch, strangled)
    for now, told in [(1000.0, 1), (1000.0, 0), (1059.9, 0), (1060.0, 1), (1061.0, 0), (1120.0, 1)]:
        minutes[0] = now
        assert side_of(side.ask(target)) == "legacy"
        assert events(side) == [("retired-hit", "old")] * told, now
    assert sum(counted(side).values()) == 6


def test_a_hit_on_code_that_is_not_retired_is_no_event(strangled, monkeypatch):
    monkeypatch.setenv("STRANGLE_ALL", "legacy")
    side = strangled([Route("/m/*", to="http://127.0.0.1:1")])
    assert side_of(side.ask()) == "legacy"
    assert events(side) == []


# --- canary


@pytest.mark.parametrize(
    ("weight", "who"), [(0, "legacy"), (50, "legacy"), (99.99, "legacy"), (100, "modern")]
)
def test_a_new_client_gets_an_id_on_either_arm(strangled, weight, who):
    with ScriptedUpstream(SERVE) as server:
        side = strangled([Route("/m/*", to=address(server), stage="canary", weight=weight)])
        found = set()
        for _ in range(3):
            seen = side.ask()
            assert side_of(seen) == who
            (cookie,) = seen.all(b"set-cookie")
            found.add(COOKIE.fullmatch(cookie)[1])
            assert not COOKIE.fullmatch(cookie)[2]
            assert vary(seen) == {b"cookie"}
        assert len(found) == 3
        side.close()


def vary(seen):
    return {name.strip().lower() for value in seen.all(b"vary") for name in value.split(b",") if name}


def test_the_id_decides_from_then_on_and_is_given_once(strangled):
    with ScriptedUpstream(SERVE) as server:
        route = Route("/m/*", to=address(server), stage="canary", weight=50, group="checkout")
        side = strangled([route])
        sides = Counter()
        for _ in range(30):
            own = COOKIE.fullmatch(side.ask().header(b"set-cookie"))[1]
            expected = "modern" if bucket("checkout", own.decode()) < 5000 else "legacy"
            for _ in range(2):
                seen = side.ask(headers=((b"cookie", b"a=1; strangle_id=" + own),))
                assert side_of(seen) == expected
                assert (seen.all(b"set-cookie"), vary(seen)) == ([], {b"cookie"})
            sides[expected] += 1
        assert set(sides) == {"legacy", "modern"}
        side.close()


@pytest.mark.parametrize("weight", [0, 100])
def test_the_id_is_secure_over_tls(strangled, weight):
    with ScriptedUpstream(SERVE) as server:
        route = Route("/m/*", to=address(server), stage="canary", weight=weight)
        side = strangled([route], trusted_proxies=["192.0.2.7"])
        told = ((b"x-forwarded-proto", b"https"),)
        asks = [{"scheme": "https"}, {"headers": told, "peer": "192.0.2.7"}, {"headers": told}]
        found = [COOKIE.fullmatch(side.ask(**ask).header(b"set-cookie"))[2] for ask in asks]
        assert found == [b"; Secure", b"; Secure", None]
        side.close()


@pytest.mark.parametrize("weight", [0, 100])
def test_what_the_answer_brings_is_kept(strangled, weight):
    own = [
        (b"set-cookie", b"a=1"),
        (b"vary", b"Accept"),
        (b"set-cookie", b"b=2"),
        (b"cache-control", b"max-age=60"),
    ]
    fields = b"".join(n + b": " + v + b"\r\n" for n, v in own)
    with ScriptedUpstream([forever(head(), send(MODERN.replace(b"OK\r\n", b"OK\r\n" + fields)))]) as server:
        side = strangled([Route("/m/*", to=address(server), stage="canary", weight=weight)])
        side.answer = own
        seen = side.ask()
        assert [(n.lower(), v) for n, v in seen.headers if n.lower() != b"content-length"][:4] == own
        cookies = seen.all(b"set-cookie")
        assert cookies[:2] == [b"a=1", b"b=2"]
        assert COOKIE.fullmatch(cookies[2])
        assert vary(seen) == {b"accept", b"cookie"}
        # A cache that may keep the answer must not give one client's id to all.
        assert seen.all(b"cache-control") == [b"max-age=60", b'no-cache="set-cookie"']
        side.close()


KEYS = {  # where a key stands, and what an answer has to vary by
    "query:u": ({"target": "/m/x?a=b&u=u1"}, set()),
    "header:X-Tenant": ({"headers": ((b"x-tenant", b"u1"),)}, {b"x-tenant"}),
    "cookie:sid": ({"headers": ((b"cookie", b"a=1; sid=u1"),)}, {b"cookie"}),
    "user": ({"headers": ((b"x-user", b"u1"),)}, {b"cookie", b"authorization"}),
}


@pytest.mark.parametrize(("weight", "who"), [(67.47, "legacy"), (67.48, "modern")])
@pytest.mark.parametrize(("source", "ask", "varies"), [(s, *k) for s, k in KEYS.items()], ids=KEYS)
def test_a_key_has_its_bucket_wherever_it_stands(strangled, source, ask, varies, weight, who):
    """Bucket 6747 is that of the published vector (`checkout`, `u1`)."""
    with ScriptedUpstream(SERVE) as server:
        route = Route(
            "/m/*", to=address(server), stage="canary", weight=weight, group="checkout", sticky=[source]
        )
        side = strangled([route], identify=lambda asked: asked.header("x-user"))
        seen = side.ask(**ask)
        assert (side_of(seen), vary(seen), seen.all(b"set-cookie")) == (who, varies, [])
        side.close()


def test_sources_are_tried_in_order(strangled):
    keys = [f"k{n}" for n in range(40)]
    with ScriptedUpstream(SERVE) as server:
        sticky = ["header:X-First", "query:u"]
        side = strangled(
            [Route("/m/*", to=address(server), stage="canary", weight=50, group="g", sticky=sticky)]
        )
        for key, other in zip(keys, reversed(keys), strict=True):
            first = "modern" if bucket("g", key) < 5000 else "legacy"
            assert side_of(side.ask(f"/m/x?u={other}", headers=((b"x-first", key.encode()),))) == first
            assert side_of(side.ask(f"/m/x?u={key}")) == first
        side.close()


def test_neither_an_address_nor_anything_else_makes_a_key(strangled):
    with ScriptedUpstream([until_gone()]) as server:
        side = strangled(
            [Route("/m/*", to=address(server), stage="canary", weight=99.99, sticky=["query:u"])]
        )
        for number in range(50):
            seen = side.ask(
                f"/m/{number}", peer=f"192.0.2.{number}", headers=((b"user-agent", b"%d" % number),)
            )
            assert side_of(seen) == "legacy"
            assert (seen.all(b"set-cookie"), seen.all(b"vary")) == ([], [])
        side.close()


@pytest.mark.parametrize(("weight", "who"), [(0, "legacy"), (100, "modern")])
def test_the_ends_are_exact(strangled, weight, who):
    with ScriptedUpstream(SERVE) as server:
        side = strangled(
            [Route("/m/*", to=address(server), stage="canary", weight=weight, sticky=["query:u"])]
        )
        assert {side_of(side.ask(f"/m/x?u={n}")) for n in range(100)} == {who}
        assert side_of(side.ask()) == who
        side.close()


def test_a_user_is_on_the_same_side_whoever_serves():
    found = []
    with ScriptedUpstream(SERVE) as server:
        route = Route("/m/*", to=address(server), stage="canary", weight=30, group="g", sticky=["query:u"])
        for make in SIDES.values():
            side = make([route])
            try:
                found.append([side_of(side.ask(f"/m/x?u={n}")) for n in range(60)])
            finally:
                side.close()
    assert found[0] == found[1]
    assert found[0] == ["modern" if bucket("g", str(n)) < 3000 else "legacy" for n in range(60)]


@pytest.mark.parametrize(("weight", "who"), [(0, "legacy"), (100, "modern")])
def test_an_identify_that_raises_is_nobody_and_told_once(strangled, caplog, weight, who):
    def identify(_):
        raise ZeroDivisionError

    caplog.set_level(logging.ERROR)
    with ScriptedUpstream(SERVE) as server:
        side = strangled(
            [Route("/m/*", to=address(server), stage="canary", weight=weight)], identify=identify
        )
        for _ in range(3):
            seen = side.ask()
            assert side_of(seen) == who
            assert COOKIE.fullmatch(seen.header(b"set-cookie"))
        assert caplog.text.count("identify raised; taken for nobody") == 1
        side.close()


def test_a_user_goes_before_the_cookie(strangled):
    with ScriptedUpstream(SERVE) as server:
        route = Route("/m/*", to=address(server), stage="canary", weight=50, group="g")
        side = strangled([route], identify=lambda asked: asked.header("x-user"))
        for number in range(20):
            cookie = b"strangle_id=%032x" % number
            seen = side.ask(headers=((b"x-user", b"%d" % number), (b"cookie", cookie)))
            assert side_of(seen) == ("modern" if bucket("g", str(number)) < 5000 else "legacy")
            assert seen.all(b"set-cookie") == []
            assert vary(seen) == {b"cookie", b"authorization"}
        side.close()


def pin(name, *, secret=SECRET, until=2**40):
    return make_pin(secret.encode(), name, until).encode()


PINS = {  # a header, and the sides it leads to at weight 0 and 100
    "modern": (pin("modern"), ("modern", "modern")),
    "legacy": (pin("legacy"), ("legacy", "legacy")),
    "expired": (pin("modern", until=1_000_000), ("legacy", "modern")),
    "of another secret": (pin("modern", secret="f" * 16), ("legacy", "modern")),
    "changed": (pin("legacy").replace(b"legacy", b"modern"), ("legacy", "modern")),
    "cut": (pin("modern")[:-1], ("legacy", "modern")),
    "the side alone": (b"modern", ("legacy", "modern")),
    "empty": (b"", ("legacy", "modern")),
}


@pytest.mark.parametrize(("value", "sides"), PINS.values(), ids=PINS)
def test_a_tester_chooses_the_side_with_a_pin(strangled, value, sides):
    with ScriptedUpstream(SERVE) as server:
        routes = [Route(f"/m/{w}", to=address(server), stage="canary", weight=w) for w in (0, 100)]
        side = strangled(routes, pin=Pin(secret=SECRET))
        for weight, who in zip((0, 100), sides, strict=True):
            seen = side.ask(f"/m/{weight}", headers=((b"strangle-pin", value),))
            assert side_of(seen) == who
            assert vary(seen) == {b"cookie", b"strangle-pin"}
        assert b"strangle-pin" not in b"".join(server.heads).lower()
        side.close()


@pytest.mark.parametrize("stage", ["legacy", "modern", "retired"])
def test_a_pin_acts_on_canaries_alone(strangled, stage):
    with ScriptedUpstream(SERVE) as server:
        side = strangled([Route("/m/*", to=address(server), stage=stage)], pin=Pin(secret=SECRET))
        for name in ("modern", "legacy"):
            seen = side.ask(headers=((b"strangle-pin", pin(name)),))
            assert side_of(seen) == ("legacy" if stage == "legacy" else "modern")
            assert (seen.all(b"vary"), seen.all(b"set-cookie")) == ([], [])
        side.close()


def test_without_a_secret_there_are_no_pins(strangled):
    side = strangled([Route("/m/*", to="http://127.0.0.1:1", stage="canary", weight=0)])
    seen = side.ask(headers=((b"strangle-pin", pin("modern")),))
    assert (side_of(seen), vary(seen)) == ("legacy", {b"cookie"})


LIBRARYS = {
    "redirect": ({"redirect": Redirect(to="/new/{*}")}, 308),
    "respond": ({"respond": Respond(status=410, body="gone")}, 410),
}


@pytest.mark.parametrize(("fields", "status"), LIBRARYS.values(), ids=LIBRARYS)
def test_a_redirect_or_a_fixed_answer_can_be_a_canary(strangled, fields, status):
    side = strangled([Route("/m/*", stage="canary", weight=50, group="g", sticky=["query:u"], **fields)])
    found = Counter()
    for number in range(40):
        seen = side.ask(f"/m/x?u={number}")
        modern = bucket("g", str(number)) < 5000
        assert seen.status == (status if modern else 299)
        if status == 308 and modern:
            assert seen.header(b"location") == b"/new/x?u=%d" % number
        found["modern" if modern else "legacy", f"{seen.status // 100}xx"] += 1
    assert len(found) == 2
    assert {k[2:]: n for k, n in counted(side).items()} == found


@pytest.mark.parametrize(("fields", "status"), LIBRARYS.values(), ids=LIBRARYS)
def test_both_arms_of_such_a_canary_are_marked(strangled, fields, status):
    routes = [Route(f"/m/{w}/*", stage="canary", weight=w, **fields) for w in (0, 100)]
    side = strangled(routes)
    for weight, expected in ((0, 299), (100, status)):
        seen = side.ask(f"/m/{weight}/x")
        assert (seen.status, vary(seen)) == (expected, {b"cookie"})
        assert COOKIE.fullmatch(seen.header(b"set-cookie"))


def test_a_fallback_of_a_canary_is_marked_like_any_answer(strangled):
    side = strangled([Route("/m/*", to="http://127.0.0.1:1", stage="canary", weight=100)])
    side.answer = [(b"set-cookie", b"a=1")]
    seen = side.ask()
    assert side_of(seen) == "legacy"
    cookies = seen.all(b"set-cookie")
    assert cookies[0] == b"a=1"
    assert COOKIE.fullmatch(cookies[1])
    assert vary(seen) == {b"cookie"}
    assert counted(side) == {("canary", 10_000, "legacy", "fallback:connect"): 1}


# --- shadow


@pytest.mark.parametrize(
    ("shadow", "method", "low", "high"),
    [
        (None, "GET", 300, 300),
        (None, "POST", 0, 0),
        (Shadow(unsafe=True), "POST", 300, 300),
        (Shadow(sample=0), "GET", 0, 0),
        (Shadow(sample=50), "GET", 75, 225),
        (Shadow(sample=0, unsafe=True), "DELETE", 0, 0),
    ],
)
def test_copies_are_counted_where_they_would_be_made(strangled, shadow, method, low, high):
    """Of a sample of 50 % not to be in these bounds has a probability under 1e-17."""
    with ScriptedUpstream([until_gone()]) as server:
        side = strangled([Route("/m/*", to=address(server), stage="shadow", shadow=shadow)])
        assert {side_of(side.ask(method=method)) for _ in range(300)} == {"legacy"}
        counts = counted(side)
        assert counts.pop(("shadow", 0, "legacy", "passed")) == 300
        assert low <= sum(counts.values()) <= high
        assert {k[2:] for k in counts} <= {("shadow", "not-compared")}
        assert server.connections == 0
        side.close()


# --- the switch of the environment


@pytest.mark.parametrize("value", ["legacy", "LEGACY", " Legacy\n"])
@pytest.mark.parametrize("stage", ["canary", "modern", "retired"])
def test_the_environment_turns_everything_off(strangled, monkeypatch, value, stage):
    monkeypatch.setenv("STRANGLE_ALL", value)
    with ScriptedUpstream([until_gone()]) as server:
        weight = {"weight": 100} if stage == "canary" else {}
        routes = [
            Route("/m/*", name="m", to=address(server), stage=stage, **weight),
            Route("/gone", name="gone", respond=Respond(status=410)),
        ]
        side = strangled(routes)
        for target in ("/m/x", "/m/a%2fb", "/gone", "/other"):
            seen = side.ask(target)
            assert (side_of(seen), seen.headers) == ("legacy", [])
        assert counted(side) == {("legacy", 0, "legacy", "passed"): 3}  # the default route counts nothing
        assert server.connections == 0
        side.close()


@pytest.mark.parametrize("value", ["modern", "off", "legacy,", "1"])
def test_any_other_value_is_refused(strangled, monkeypatch, value):
    monkeypatch.setenv("STRANGLE_ALL", value)
    with pytest.raises(ConfigError, match="STRANGLE_ALL"):
        strangled([])


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_value_is_none(strangled, monkeypatch, value):
    monkeypatch.setenv("STRANGLE_ALL", value)
    side = strangled([Route("/m/*", respond=Respond(status=410))])
    assert side.ask().status == 410


def test_a_broken_table_does_not_keep_the_legacy_app_from_serving(strangled, monkeypatch, tmp_path, caplog):
    broken = tmp_path / "strangle.toml"
    broken.write_text('[[routes]]\npath = "no slash"\n')
    with pytest.raises(ConfigError):
        strangled(broken)
    monkeypatch.setenv("STRANGLE_ALL", "legacy")
    side = strangled(broken)
    assert side_of(side.ask()) == "legacy"
    assert "STRANGLE_ALL=legacy" in caplog.text
    assert "path-pattern" in caplog.text


# --- under real servers, all of them


def legacys(reply):
    return reply.status == 200 and reply.json().get("from") == "legacy"


def cookie_of(reply):
    found = [c for c in reply.all("set-cookie") if c.startswith("strangle_id=")]
    assert all(COOKIE.fullmatch(c.encode()) for c in found)
    return found


def test_served_a_canary_is_split_by_the_key(server, echo):
    for number in range(12):
        reply = talk(server, request("GET", f"/canary/x?u={number}"))
        assert legacys(reply) is (bucket("checkout", str(number)) >= 5000)
        assert reply.status == 200
        assert cookie_of(reply) == []


def test_served_a_canary_gives_a_new_client_an_id_that_decides(server):
    first = talk(server, request("GET", "/canary/x"))
    assert legacys(first)
    assert {"a=1", "b=2"} <= set(first.all("set-cookie"))
    (cookie,) = cookie_of(first)
    assert "cookie" in ",".join(first.all("vary")).lower()
    own = cookie.partition(";")[0]
    for method, headers, body in [("GET", (), b""), ("POST", [("Content-Length", "3")], b"abc")]:
        reply = talk(server, request(method, "/canary/x", [("Cookie", own), *headers], body))
        assert legacys(reply) is (bucket("checkout", own.partition("=")[2]) >= 5000)
        assert reply.json()["length"] == len(body)
        assert cookie_of(reply) == []


def test_served_a_shadow_is_legacys(server, echo):
    before = echo.requests
    reply = talk(server, request("POST", "/shadow/x", [("Content-Length", "3")], b"abc"))
    assert legacys(reply)
    assert reply.json()["sha256"] == sha256(b"abc").hexdigest()
    assert echo.requests == before


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_served_a_retired_route_never_runs_the_old_code(server, method):
    reply = talk(server, request(method, "/retired/x"))
    assert reply.status == 502
    assert reply.json()["type"] == "urn:strangle-mw:upstream-connect"


@pytest.mark.parametrize("name", ["uvicorn-httptools", "gunicorn-gthread"])
def test_served_with_the_switch_everything_is_legacys(echo, name):
    before = echo.requests
    with serve(name, "drivers.strangled", STRANGLE_TEST_UPSTREAM=echo.address, STRANGLE_ALL="Legacy") as port:
        for target in ("/m/x", "/canary/x", "/retired/x", "/gone", "/old/x", "/other", "/m/a%2fb"):
            reply = talk(port, request("GET", target))
            assert legacys(reply), target
            assert cookie_of(reply) == []
    assert echo.requests == before
