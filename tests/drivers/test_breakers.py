"""Circuit breakers over both drivers and real sockets: who is left alone, who finds out, who is told."""

import pytest
from test_endpoints import AsgiApp, WsgiApp, unused_port

from echo import Echo
from live.load import until
from strangle_mw import Breaker, Route, Upstream

QUICK = Breaker(failures=3, open=0.2)


@pytest.fixture(params=[AsgiApp, WsgiApp], ids=["asgi", "wsgi"])
def driver(request):
    return request.param


def route(*ports, breaker=QUICK):
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    return Route("/m/*", name="m", to=Upstream(urls=urls, breaker=breaker), fallback="off")


def breakers(app):
    [found] = app.app.engine.states.describe().values()
    return [state["breaker"] for state in found]


def test_after_enough_failures_nobody_connects(driver):
    app = driver([route(unused_port(), breaker=Breaker(failures=3))])
    answers = app.ask(6)
    assert [status for status, _ in answers] == [502, 502, 502, 503, 503, 503]
    assert [b"upstream-connect" in text for _, text in answers] == [True] * 3 + [False] * 3
    assert breakers(app) == ["open"]


def test_a_breaker_can_be_switched_off(driver):
    app = driver([route(unused_port(), breaker=Breaker(failures=0, ratio=0))])
    assert [status for status, _ in app.ask(30)] == [502] * 30


def test_one_request_finds_out_that_the_service_is_back(driver):
    port = unused_port()
    app = driver([route(port)])
    assert app.ask(4)[-1][0] == 503
    echo = Echo(port)
    until(lambda: app.ask(1)[0][0] == 200)
    assert breakers(app) == ["closed"]
    app.app.engine.sync()
    kinds = [event["kind"] for event in app.app.engine.store.events(50)]
    assert [k for k in kinds if k.startswith("breaker")] == ["breaker-open", "breaker-closed"]
    echo.close()


def test_the_probe_that_fails_keeps_it_shut(driver):
    app = driver([route(unused_port())])
    assert app.ask(4)[-1][0] == 503
    until(lambda: app.ask(1)[0][0] == 502)
    assert app.ask(1)[0][0] == 503


def test_of_two_endpoints_the_dead_one_is_left_alone(driver):
    echo = Echo()
    app = driver([route(unused_port(), echo.port, breaker=Breaker(failures=3))])
    assert {status for status, _ in app.ask(40)} == {200}
    assert breakers(app) == ["open", "closed"]
    assert echo.requests == 40
    echo.close()


def test_routes_of_one_upstream_share_its_breakers(driver):
    upstream = Upstream(url=f"http://127.0.0.1:{unused_port()}", breaker=QUICK)
    app = driver(
        [
            Route("GET /m/*", to=upstream, fallback="off"),
            Route("POST /m/*", to=upstream, fallback="off"),
        ]
    )
    assert [status for status, _ in app.ask(3)] == [502] * 3
    assert app.ask(1, "POST", b"x")[0][0] == 503
