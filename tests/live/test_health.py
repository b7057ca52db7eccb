"""Active health checks: who is asked, who is left out, and which override waits for a good answer."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from load import until
from test_reload import legacy

from calls import call
from strangle_mw import Health, Route, Upstream, strangle
from strangle_mw.core.dials import Dial
from strangle_mw.core.model import Stage
from strangle_mw.core.overrides import (
    NO_OVERRIDES,
    Override,
    encode_overrides,
    parse_overrides,
    with_override,
)

FAST = 0.1


class Service:
    """A modern service whose health can be switched; counts what it was asked."""

    def __init__(self):
        service = self
        self.status = 200
        self.probes = self.requests = 0
        self.headers = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                health = self.path == "/base/healthz"
                if health:
                    service.probes += 1
                    service.headers.append(dict(self.headers))
                else:
                    service.requests += 1
                self.send_response(service.status if health else 200)
                self.send_header("Content-Length", "6")
                self.end_headers()
                self.wfile.write(b"modern")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/base"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def services():
    made = [Service(), Service()]
    yield made
    for service in made:
        service.close()


@pytest.fixture
def make():
    apps = []

    def made(services, **route):
        upstream = Upstream(
            urls=[s.url for s in services], health=Health(path="/healthz", interval=FAST), timeout=2.0
        )
        app = strangle(legacy, [Route("/m/*", name="m", to=upstream, **route)])
        apps.append(app)
        return app

    yield made
    for app in apps:
        app.engine.close()


def states(app):
    [found] = app.engine.states.describe().values()
    return [s["health"] for s in found]


def test_each_endpoint_is_asked_again_and_again(make, services):
    app = make(services)
    call(app)
    until(lambda: all(s.probes >= 3 for s in services))
    assert states(app) == ["healthy", "healthy"]
    assert services[0].headers[0]["host"] == services[0].url.split("/")[2]
    assert app.engine.states.take_events()  # healthy, twice


def test_nobody_is_asked_before_the_first_request(make, services):
    make(services)
    assert not any(t.name == "strangle-health" for t in threading.enumerate())


def test_who_is_unhealthy_is_left_out_and_comes_back(make, services):
    app = make(services)
    call(app)
    services[0].status = 503
    until(lambda: states(app)[0] == "unhealthy")
    before = services[0].requests
    for _ in range(20):
        assert call(app) == b"modern"
    assert services[0].requests == before
    services[0].status = 204
    until(lambda: states(app)[0] == "healthy")
    until(lambda: call(app) and services[0].requests > before)


def test_if_none_is_healthy_all_are_used(make, services):
    app = make(services)
    call(app)
    for service in services:
        service.status = 500
    until(lambda: states(app) == ["unhealthy", "unhealthy"])
    before = [s.requests for s in services]
    for _ in range(30):
        assert call(app) == b"modern"
    assert all(s.requests > b for s, b in zip(services, before, strict=True))


def test_an_endpoint_that_does_not_listen_is_unhealthy(make, services):
    app = make(services)
    services[1].close()
    services.pop().server.server_close()
    call(app)
    until(lambda: states(app) == ["healthy", "unhealthy"])


def test_the_probes_end_with_the_engine(make, services):
    app = make(services)
    call(app)
    until(lambda: services[0].probes)
    app.engine.close()
    until(lambda: not any(t.name == "strangle-health" for t in threading.enumerate()))


# --- overrides that move a route to the modern side


def turn(app, stage, *, force=False, points=None):
    override = Override(Stage(stage), points, "ann", time.time(), "test", force=force)

    def change(raw):
        return encode_overrides(with_override(parse_overrides(raw), "m", override, time.time()))

    app.engine.store.edit(change)
    app.engine.sync()


def test_an_override_waits_for_one_good_answer(make, services):
    for service in services:
        service.status = 503
    app = make(services, stage="legacy")
    call(app)
    turn(app, "modern")
    assert app.engine.live.waiting == {"m"}
    assert call(app) == b"legacy"
    probes = services[0].probes
    until(lambda: services[0].probes > probes + 2)
    assert call(app) == b"legacy"
    services[1].status = 200
    until(lambda: call(app) == b"modern")
    assert app.engine.live.waiting == frozenset()
    app.engine.sync()
    assert [e["kind"] for e in app.engine.store.events(50)].count("override-waiting") == 1


def test_a_good_answer_of_yesterday_does_not_count(make, services):
    app = make(services, stage="shadow")
    call(app)
    until(lambda: states(app) == ["healthy", "healthy"])
    for service in services:
        service.status = 503
    until(lambda: states(app) == ["unhealthy", "unhealthy"])
    turn(app, "canary", points=10_000)
    assert call(app) == b"legacy"
    assert app.engine.live.waiting == {"m"}


def test_who_waits_asks_at_once(services):
    upstream = Upstream(url=services[0].url, health=Health(path="/healthz", interval=3600.0))
    app = strangle(legacy, [Route("/m/*", name="m", to=upstream, stage="legacy")])
    call(app)
    until(lambda: services[0].probes == 1)
    turn(app, "modern")
    until(lambda: call(app) == b"modern")
    assert services[0].probes == 2
    app.engine.close()


def test_a_forced_one_does_not_wait(make, services):
    for service in services:
        service.status = 503
    app = make(services, stage="legacy")
    call(app)
    turn(app, "modern", force=True)
    assert call(app) == b"modern"


@pytest.mark.parametrize("stage", ["legacy", "shadow"])
def test_the_way_back_never_waits(make, services, stage):
    for service in services:
        service.status = 503
    app = make(services)
    call(app)
    turn(app, stage)
    assert call(app) == b"legacy"


def test_between_modern_stages_nothing_waits(make, services):
    for service in services:
        service.status = 503
    app = make(services)
    call(app)
    turn(app, "retired")
    assert app.engine.snapshot.dials == {"m": Dial(Stage.RETIRED)}


def test_another_override_while_one_waits_starts_anew(make, services):
    for service in services:
        service.status = 503
    app = make(services, stage="legacy")
    call(app)
    turn(app, "modern")
    turn(app, "legacy")
    assert app.engine.live.waiting == frozenset()
    turn(app, "modern")
    assert app.engine.live.waiting == {"m"}


def test_without_overrides_nothing_waits(make, services):
    app = make(services)
    assert app.engine.live.overrides is NO_OVERRIDES
    assert app.engine.live.waiting == frozenset()
