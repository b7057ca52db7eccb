"""P17: what is counted has labels from closed sets, so that no client can make their number grow.

A label is a route's name, a stage and weight, a side, and an outcome out of a list; never a path, a method, a
header or an address. What events say has the same bounds.
"""

import random

import pytest
from fallback_table import FAILURES, MORE
from tests.transports.upstream import ScriptedUpstream, forever, head, send, until_gone

from promises.drive import GONE, address
from servers import free_port
from strangle_mw import Breaker, ConfigError, Redirect, Respond, Route, Upstream
from strangle_mw.config import load
from strangle_mw.core.events import KINDS, CounterKey
from strangle_mw.core.fallback import REASONS

NEVER = Breaker(failures=0, ratio=0)
SIDES = {"legacy", "modern", "shadow"}
STAGES = {"legacy", "shadow", "canary", "modern", "retired"}
STATUSES = {f"{n}xx" for n in range(1, 10)}
CAUSES = {
    "bulkhead",
    "breaker",
    "connect",
    "connect-timeout",
    "reset",
    "timeout",
    "unsupported",
    "status-404",
}
CAUSES |= {f"status-{s}" for s in range(500, 600)}
OUTCOMES = {"passed", "failed", "cut", "gone", "not-compared", *STATUSES, *(f"fallback:{c}" for c in CAUSES)}
"""All that may be counted, written down anew."""

MARK = "h0st1le"
METHODS = ["GET", "HEAD", "POST", "DELETE", "QUERY", MARK.upper(), "get", "CONNECT", "OPTIONS", "A" * 300]


def routes(server):
    alive = Upstream(url=address(server), breaker=NEVER)
    dead = Upstream(url=f"http://127.0.0.1:{free_port()}", breaker=NEVER)
    return [
        Route("/m/*", name="m", to=alive),
        Route("/all/*", name="all", to=alive, stage="canary", weight=100, fallback_on=["404", "5xx"]),
        Route("/half/*", name="half", to=alive, stage="canary", weight=33.33, sticky=["query:u", "cookie"]),
        Route("/dead/*", name="dead", to=dead),
        Route("/old/*", name="old", to=dead, stage="retired"),
        Route("/shadow/*", name="shadow", to=alive, stage="shadow"),
        Route("/legacy/*", name="legacy", to=alive, stage="legacy"),
        Route("/go/*", name="go", redirect=Redirect(to="/new/{*}")),
        Route("/gone/*", name="gone", respond=Respond(status=410)),
    ]


NAMES = {"m", "all", "half", "dead", "old", "shadow", "legacy", "go", "gone"}


def answer(peer):
    """Answer with the status that the request's header asks for."""
    wire = peer.heads[-1].lower()
    status = int(wire.partition(b"x-status: ")[2][:3] or 200)
    send(b"HTTP/1.1 %d %s\r\nContent-Length: 0\r\n\r\n" % (status, MARK.encode()))(peer)


def hostile(chance):
    """Make a request that nobody has made before."""
    prefix = chance.choice(["/m", "/all", "/half", "/dead", "/old", "/shadow", "/legacy", "/go", "/gone", ""])
    odd = chance.choice(["", "%2f", "..", "%00", ";x=1", "%c0%af", "//", "%09"])
    noise = f"{MARK}{chance.getrandbits(64):x}"
    headers = [(b"x-status", b"%d" % chance.choice([200, 204, 302, 404, 418, 500, 503, 599]))]
    headers += [(name, noise.encode()) for name in (b"x-noise", b"cookie", b"user-agent", b"x-request-id")]
    return {
        "target": f"{prefix}/{noise}{odd}?u={noise}&{noise}",
        "method": chance.choice(METHODS),
        "headers": tuple(headers),
        "peer": f"192.0.2.{chance.randrange(256)}",
    }


def assert_closed(keys):
    for key in keys:
        assert key.route in NAMES
        assert key.stage in STAGES
        assert key.points in (0, 3333, 10_000)
        assert key.side in SIDES
        assert key.outcome in OUTCOMES
        assert CounterKey.parse(key.field()) == key


def test_no_client_makes_a_label(strangled):
    chance = random.Random(17)
    with ScriptedUpstream([forever(head(), answer)]) as server:
        side = strangled(routes(server))
        for _ in range(400):
            side.ask(**hostile(chance))
        first = set(side.app.engine.states.take_counts())
        for _ in range(400):
            side.ask(**hostile(chance))
        counts = side.app.engine.states.take_counts()
        side.close()
    assert_closed(first | set(counts))
    # A route has a few outcomes, however many requests there are.
    assert len(first | set(counts)) <= len(NAMES) * 12
    assert sum(counts.values()) >= 200
    assert MARK not in repr([*first, *counts]).lower()


@pytest.mark.parametrize("status", [200, 299, 404, 499, 500, 599, 600, 999])
def test_a_status_is_counted_by_its_class(strangled, status):
    data = b"HTTP/1.1 %d S\r\nContent-Length: 0\r\n\r\n" % status
    with ScriptedUpstream([forever(head(), send(data))]) as server:
        side = strangled([Route("/m/*", name="m", to=Upstream(url=address(server), breaker=NEVER))])
        side.ask()
        (key,) = side.app.engine.states.take_counts()
        side.close()
    assert_closed([key])
    assert key.outcome in (f"{status // 100}xx", "failed")


ENDS = {
    "cut": ([send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")], {}),
    "failed": ([], {}),
    "gone": ([until_gone()], {"body": [b"x" * 80_000, GONE], "length": 100_000}),
}


@pytest.mark.parametrize("outcome", ENDS)
def test_so_is_whatever_ends_otherwise(strangled, outcome):
    steps, ask = ENDS[outcome]
    with ScriptedUpstream([head(), *steps]) as server:
        side = strangled([Route("/m/*", name="m", to=Upstream(url=address(server), breaker=NEVER))])
        side.ask(**ask)
        (key,) = side.app.engine.states.take_counts()
        side.close()
    assert_closed([key])
    # Under WSGI a client that leaves in its body has sent a bad one: 400.
    assert key.outcome == ("4xx" if strangled.kind == "wsgi" and outcome == "gone" else outcome)


def test_every_reason_of_a_fallback_is_on_the_list():
    assert set(REASONS) == CAUSES
    failures = [f for f in (*FAILURES.values(), *MORE.values()) if f.point != "answered" or f.status >= 500]
    assert {f.reason for f in failures} <= REASONS


@pytest.mark.parametrize("name", ["a\\tb", "\\", "é ü", "x" * 500, "legacy 0 modern", '"', "%09"])
def test_a_routes_name_is_one_label_whatever_it_holds(strangled, name):
    side = strangled([Route("/m/*", name=name, respond=Respond(status=410))])
    assert side.ask(f"/m/{MARK}").status == 410
    ((key, number),) = side.app.engine.states.take_counts().items()
    assert (key.route, number) == (name, 1)
    assert key.field().count("\t") == 4
    assert CounterKey.parse(key.field()) == key


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "legacy\t0\tmodern", "\u202e", "x" * 501])
def test_a_name_that_could_be_taken_for_more_is_refused(name):
    with pytest.raises(ConfigError, match="route-name"):
        load([Route("/m/*", name=name, respond=Respond(status=410))])


def test_events_name_routes_and_upstreams_only(strangled):
    """Nothing of a request, and no address (promise P18)."""
    dead = Upstream(url=f"http://127.0.0.1:{free_port()}", breaker=Breaker(failures=2))
    side = strangled({"upstreams": {"up": dead}, "routes": [Route("/m/*", name="m", to="up")]})
    for number in range(6):
        side.ask(f"/m/{MARK}{number}?{MARK}", headers=((b"x-noise", MARK.encode()),))
    found = side.app.engine.states.take_events()
    assert [e.kind for e in found] == ["breaker-open"]
    for event in found:
        assert event.kind in KINDS
        assert event.route in ("", "m")
        assert MARK not in repr(event)
        assert "127.0.0.1" not in event.what
