"""Which side answers, by stage; which fallback a stage has; what of a route's stages is a mistake."""

from datetime import UTC, datetime

import pytest
from support import Reader, decide, request

from strangle_mw import Pin, Route, Split
from strangle_mw.config import load
from strangle_mw.core.decision import Answer, Forward, Legacy, prepare
from strangle_mw.core.dials import Dial
from strangle_mw.core.fallback import FallbackPolicy
from strangle_mw.core.model import Stage
from strangle_mw.core.sticky import bucket, make_pin

M = "http://m"
SECRET = "0123456789abcdef"


def canary(weight=50.0, **more):
    more.setdefault("sticky", ["header:X-User"])
    return Route("/a", to=M, stage="canary", weight=weight, group="g", **more)


def decider(source, **settings):
    """Decide on many requests under one table."""
    snapshot = load(source, **settings)

    def side(path, query="", headers=(), **more):
        asked = request("GET", query, headers, **more)
        return prepare(snapshot, "GET", path.encode(), path, asked, Reader())

    return side


def user(name):
    return [("X-User", name)]


@pytest.mark.parametrize(
    ("stage", "kind"),
    [("legacy", Legacy), ("shadow", Legacy), ("modern", Forward), ("retired", Forward)],
)
def test_who_answers(stage, kind):
    decision = decide(Route("/a", to=M, stage=stage), "/a")
    assert isinstance(decision, kind)
    assert decision.route.name == "/a"
    assert decision.dial.stage is Stage(stage)
    assert decision.mark is None


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "LOCK"])
@pytest.mark.parametrize("key", [f"u{i}" for i in range(12)])
def test_canary_follows_the_bucket_whatever_the_method(method, key):
    decision = decide(canary(), "/a", method, user(key))
    assert isinstance(decision, Forward if bucket("g", key) < 5_000 else Legacy)


@pytest.mark.parametrize(("weight", "kind"), [(0, Legacy), (100, Forward)])
def test_the_ends_need_no_key(weight, kind):
    side = decider([canary(weight)])
    assert isinstance(side("/a"), kind)
    assert {type(side("/a", headers=user(f"u{i}"))) for i in range(50)} == {kind}


@pytest.mark.parametrize("weight", [0.01, 50, 99.99])
def test_without_a_key_legacy_answers(weight):
    assert isinstance(decide(canary(weight), "/a"), Legacy)


def test_the_address_of_the_client_is_no_key():
    side = decider([canary(99)])
    sides = {type(side("/a", peer=f"192.0.2.{i}")) for i in range(50)}
    assert sides == {Legacy}


def test_who_is_known_by_identify_is_on_one_side():
    route = canary(sticky=["user", "cookie"])
    for i in range(30):
        decision = decide(route, "/a", settings={"identify": lambda head, i=i: i})  # any id, told as text
        assert isinstance(decision, Forward if bucket("g", str(i)) < 5_000 else Legacy)
        assert not decision.mark.cookie


def test_identify_that_raises_counts_as_nobody(caplog):
    def broken(_):
        raise RuntimeError("boom")

    assert isinstance(decide(canary(sticky=["user"]), "/a", settings={"identify": broken}), Legacy)
    assert "identify raised" in caplog.text


@pytest.mark.parametrize("nobody", [None, False, ""])
def test_nobody_has_no_key(nobody):
    settings = {"identify": lambda _: nobody}
    assert isinstance(decide(canary(99.99, sticky=["user"]), "/a", settings=settings), Legacy)


def test_routes_of_one_upstream_move_together_and_others_do_not():
    table = [
        Route("/a", to="http://one", stage="canary", weight=50, sticky=["query:u"]),
        Route("/b", to="http://one", stage="canary", weight=50, sticky=["query:u"]),
        Route("/c", to="http://two", stage="canary", weight=50, sticky=["query:u"]),
    ]
    side = decider({"routes": table})
    sides = [tuple(type(side(p, f"u={i}")) for p in ("/a", "/b", "/c")) for i in range(60)]
    assert all(a is b for a, b, _ in sides)
    assert any(a is not c for a, _, c in sides)


def test_the_shares_of_several_upstreams_do_not_depend_on_the_canary():
    route = Route(
        "/a",
        to=[Split(upstream="http://a"), Split(upstream="http://b")],
        stage="canary",
        weight=10,
        group="g",
        sticky=["query:u"],
    )
    side = decider([route])
    decisions = [side("/a", f"u={i}") for i in range(600)]
    names = [d.upstream.name for d in decisions if isinstance(d, Forward)]
    assert set(names) == {"http://a", "http://b"}


def test_a_redirect_can_be_a_canary():
    route = Route("/a", redirect={"to": "/b"}, stage="canary", weight=50, group="g", sticky=["header:X-User"])
    side = decider([route])
    for i in range(20):
        decision = side("/a", headers=user(f"u{i}"))
        assert isinstance(decision, Answer if bucket("g", f"u{i}") < 5_000 else Legacy)


@pytest.mark.parametrize("side", ["modern", "legacy"])
@pytest.mark.parametrize("weight", [0, 50, 100])
def test_a_pin_chooses_the_side(side, weight):
    settings = {"pin": Pin(secret=SECRET), "now": lambda: 100.0}
    token = make_pin(SECRET.encode(), side, 101)
    decision = decide(canary(weight), "/a", headers=[("Strangle-Pin", token)], settings=settings)
    assert isinstance(decision, Forward if side == "modern" else Legacy)


@pytest.mark.parametrize(
    ("token", "settings"),
    [
        (make_pin(SECRET.encode(), "modern", 100), {"pin": Pin(secret=SECRET)}),  # over
        (make_pin(b"another secret, long", "modern", 101), {"pin": Pin(secret=SECRET)}),
        ("modern", {"pin": Pin(secret=SECRET)}),
        (make_pin(SECRET.encode(), "modern", 101), {}),  # pins are off
    ],
)
def test_a_pin_that_does_not_count(token, settings):
    settings = {**settings, "now": lambda: 100.0}
    assert isinstance(decide(canary(0), "/a", headers=[("Strangle-Pin", token)], settings=settings), Legacy)


@pytest.mark.parametrize("stage", ["legacy", "shadow", "modern", "retired"])
def test_pins_act_in_canary_only(stage):
    settings = {"pin": Pin(secret=SECRET), "now": lambda: 100.0}
    other = "legacy" if stage in ("modern", "retired") else "modern"
    token = make_pin(SECRET.encode(), other, 101)
    decision = decide(
        Route("/a", to=M, stage=stage), "/a", headers=[("Strangle-Pin", token)], settings=settings
    )
    assert isinstance(decision, Legacy if other == "modern" else Forward)


@pytest.mark.parametrize("weight", [0, 100])
def test_both_sides_bring_the_cookie_and_name_what_chose_them(weight):
    mark = decide(canary(weight, sticky=["cookie"]), "/a").mark
    assert (mark.cookie, mark.vary) == (b"0" * 32, ("Cookie",))
    pinned = decide(canary(weight, sticky=["cookie"]), "/a", settings={"pin": Pin(secret=SECRET)}).mark
    assert pinned.vary == ("Cookie", "Strangle-Pin")


@pytest.mark.parametrize(
    ("more", "secure"),
    [
        ({}, False),
        ({"scheme": "https"}, True),
        ({"peer": "10.0.0.9", "headers": [("X-Forwarded-Proto", "https")]}, True),
        ({"peer": "192.0.2.9", "headers": [("X-Forwarded-Proto", "https")]}, False),
    ],
)
def test_the_cookie_is_secure_where_the_client_speaks_tls(more, secure):
    settings = {"trusted_proxies": ["10.0.0.0/8"]}
    assert decide(canary(sticky=["cookie"]), "/a", settings=settings, **more).mark.secure is secure


# --- dials turned live


def with_dials(route, dials):
    from dataclasses import replace

    snapshot = replace(load([route]), dials=dials)
    return prepare(snapshot, "GET", b"/a", "/a", request("GET", headers=user("u1")), Reader())


def test_a_dial_goes_before_the_declared_stage():
    assert isinstance(with_dials(canary(100), {"/a": Dial(Stage.LEGACY, 0)}), Legacy)
    assert isinstance(with_dials(Route("/a", to=M, stage="legacy"), {"/a": Dial(Stage.MODERN)}), Forward)
    assert isinstance(with_dials(Route("/a", to=M), {"/other": Dial(Stage.LEGACY, 0)}), Forward)


def test_a_route_turned_to_legacy_refuses_no_path():
    route = Route("/a/*", to=M)
    assert decide(route, "/a/../b").status == 400
    from dataclasses import replace

    snapshot = replace(load([route]), dials={"/a/*": Dial(Stage.LEGACY, 0)})
    decision = prepare(snapshot, "GET", b"/a/../b", "/b", request(), Reader())
    assert isinstance(decision, Legacy)


# --- fallback by stage

POLICIES = [
    ({}, {"canary": "auto", "modern": "connect"}),
    ({"fallback": "auto"}, {"canary": "auto", "modern": "auto"}),
    ({"fallback": "connect"}, {"canary": "connect", "modern": "connect"}),
    ({"fallback": "never"}, {}),
    ({"fallback": "off"}, {}),
]


@pytest.mark.parametrize(("more", "modes"), POLICIES)
def test_the_policy_of_each_stage(more, modes):
    staging = load([Route("/a", to=M, **more)]).table.routes[0].staging
    assert {s.value: p.mode for s, p in staging.policies.items()} == modes


def test_further_statuses():
    staging = load([Route("/a", to=M, fallback="auto", fallback_on=["404"])]).table.routes[0].staging
    assert staging.policies[Stage.MODERN] == FallbackPolicy("auto", frozenset((404, 502, 503, 504)))
    staging = load([Route("/a", to=M, fallback="auto", fallback_on=["5xx"])]).table.routes[0].staging
    assert staging.policies[Stage.CANARY].statuses == frozenset(range(500, 600))


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("2027-03-31", datetime(2027, 4, 1, tzinfo=UTC)),
        ("2027-03-31T12:00:00", datetime(2027, 3, 31, 12, tzinfo=UTC)),
        ("2027-03-31T12:00:00+02:00", datetime(2027, 3, 31, 10, tzinfo=UTC)),
    ],
)
def test_a_date_ends_with_its_day_in_utc(text, end):
    staging = load([Route("/a", to=M, fallback_until=text)]).table.routes[0].staging
    assert staging.until == end.timestamp()
