"""Traps of paths, hosts and targets: what is compared, and that the raw form is what is sent."""

import pytest
from starlette.routing import Mount, Router
from trapped import told

from servers import request
from strangle_mw import Route, Upstream, strangle


@pytest.mark.parametrize("target", ["/m/a%2Fb", "/m/%252F", "/m/a%2fb//c", "/m/%41?q=%2F&%zz"])
def test_trap_10_an_encoded_slash_travels_as_it_came(front, echo, target):
    with front.strangled([Route("/m/*", to=echo.address)]):
        assert told(front, "GET", target)["line"] == f"GET {target} HTTP/1.1"


@pytest.mark.parametrize("target", ["/m%2Fa", "/x/..%2fm/a", "/m/%2e%2e/x"])
def test_trap_10_two_readings_are_refused(front, echo, target):
    with front.strangled([Route("/m/*", to=echo.address)]):
        before = echo.requests
        assert front.ask(request("GET", target)).status == 400
        assert (echo.requests, front.legacy_calls) == (before, 0)


@pytest.mark.parametrize(
    ("target", "base", "sent"),
    [
        ("/api", "", "/"), ("/api/", "", "/"), ("/api/x", "", "/x"), ("/api/x/", "", "/x/"), ("/api//x", "", "/x"),
        ("/api", "/base/", "/base/"), ("/api//x", "/base/", "/base/x"), ("/api/x/", "/base", "/base/x/"),
    ],
)  # fmt: skip
def test_trap_11_slashes_after_a_strip(front, echo, target, base, sent):
    with front.strangled([Route("/api/*", to=echo.address + base, strip_prefix="/api")]):
        assert told(front, "GET", target)["line"] == f"GET {sent} HTTP/1.1"


@pytest.mark.parametrize(
    ("target", "status"), [("/api../x", 299), ("/apix", 299), ("/api/../x", 400), ("/api/%2e%2e/x", 400), ("/api/..%2fx", 400)]
)  # fmt: skip
def test_trap_12_no_dot_segment_leaves_the_prefix(front, echo, target, status):
    with front.strangled([Route("/api/*", to=echo.address, strip_prefix="/api")]):
        before = echo.requests
        assert front.ask(request("GET", target)).status == status
        assert (echo.requests, front.legacy_calls) == (before, status == 299)


@pytest.mark.parametrize("kind", ["asgi-h11", "wsgi-waitress"])  # the others refuse or lose the authority
def test_trap_13_the_authority_of_the_target_goes_before_host(fronts, echo, kind):
    front = fronts(kind)
    with front.strangled([Route("/m/*", hosts=["in.example"], to=echo.address)]):
        found = told(front, "GET", "http://in.example/m/x?a", host="out.example")
        assert found["line"] == "GET /m/x?a HTTP/1.1"
        assert ("host", f"127.0.0.1:{echo.port}") in found["headers"]
        assert ("x-forwarded-host", "in.example") in found["headers"]
        assert front.ask(request("GET", "http://out.example/m/x", host="in.example")).status == 299


@pytest.mark.parametrize("host", ["m.example", "M.EXAMPLE", "m.example.", "m.example:8080", "M.Example.:80"])
def test_trap_31_hosts_are_compared_without_case_port_and_dot(front, echo, host):
    with front.strangled(
        [Route("/m/*", hosts=["m.example"], to=Upstream(url=echo.address, host="preserve"))]
    ):
        found = told(front, "GET", "/m/x", host=host)
        assert front.ask(request("GET", "/m/x", host="n.example")).status == 299
    assert ("host", host) in found["headers"]
    assert ("x-forwarded-host", host) in found["headers"]


def below_app(path):
    assert path.startswith("/app/")
    return path.removeprefix("/app")


def asgi_without_prefix(app):
    async def mount(scope, receive, send):
        await app({**scope, "root_path": "/app", "path": below_app(scope["path"])}, receive, send)

    return mount


def wsgi_mount(app):
    def mount(environ, start_response):
        found = {**environ, "SCRIPT_NAME": "/app", "PATH_INFO": below_app(environ["PATH_INFO"])}
        return app(found, start_response)

    return mount


MOUNTS = {
    "starlette": ("asgi", lambda app: Router([Mount("/app", app)])),  # its `path` holds the prefix
    "other asgi": ("asgi", asgi_without_prefix),
    "wsgi": ("wsgi", wsgi_mount),
}


@pytest.mark.parametrize(("kind", "mount"), MOUNTS.values(), ids=MOUNTS)
def test_trap_32_the_prefix_of_a_mount_is_part_of_the_path(fronts, echo, kind, mount):
    front = fronts(kind)
    app = strangle(front.legacy, [Route("/app/m/*", to=echo.address), Route("/n/*", to=echo.address)])
    with front.mounted(mount(app), app):
        assert told(front, "GET", "/app/m/a%2Fb")["line"] == "GET /app/m/a%2Fb HTTP/1.1"
        assert told(front, "GET", "/app/m/x")["line"] == "GET /app/m/x HTTP/1.1"
        assert front.ask(request("GET", "/app/n/x")).status == 299
