"""The middleware for Starlette: in every place of an app, among others' middlewares, and who the user is."""

import asyncio
import logging
import threading
import time
from contextlib import asynccontextmanager, contextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Host, Mount, Router, WebSocketRoute
from starlette.routing import Route as Rule
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as websocket
from websockets.sync.server import serve as websocket_server

from echo import Echo
from servers import DEADLINE, connect, free_port, request, talk
from strangle_mw import ConfigError, Identity, IdentityTokens, Respond, Route, Upstream
from strangle_mw.identity import Verifier
from strangle_mw.inventories import read_url_map
from strangle_mw.starlette import StrangleMiddleware

SECRET = "0123456789abcdef0123456789abcdef"
TOKENS = IdentityTokens(secrets={"modern": SECRET})


@pytest.fixture(scope="module")
def echo():
    upstream = Echo()
    yield upstream
    upstream.close()


async def home(request):
    return JSONResponse(
        {"path": request.url.path, "user": getattr(request.scope.get("user"), "username", None)}
    )


async def login(request):
    request.session["user_id"] = 7
    return PlainTextResponse("in")


async def broken(_request):
    raise ZeroDivisionError


async def talking(socket):
    await socket.accept()
    await socket.send_text("legacy " + await socket.receive_text())
    await socket.close()


RULES = [Rule("/", home), Rule("/login", login), Rule("/broken", broken), WebSocketRoute("/ws", talking)]


def monolith(routes, *around, inside=(), rules=RULES, lifespan=None, **settings):
    """An app with the middleware; `around` it and `inside` are those of others, from within outwards."""
    app = Starlette(routes=list(rules), lifespan=lifespan)
    for entry in inside:
        app.add_middleware(entry.cls, *entry.args, **entry.kwargs)
    app.add_middleware(StrangleMiddleware, routes=routes, **settings)
    for entry in around:
        app.add_middleware(entry.cls, *entry.args, **entry.kwargs)
    return app


@contextmanager
def served(app):
    """Serve an app with uvicorn in a thread; yields the port."""
    config = uvicorn.Config(app, port=free_port(), log_level="error", lifespan="on", ws="websockets-sansio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + DEADLINE
    while not server.started and thread.is_alive() and time.monotonic() < end:
        thread.join(0.01)
    try:
        yield config.port
    finally:
        server.should_exit = True
        thread.join(DEADLINE)


# --- routes and everything else


def test_routes_are_forwarded_and_everything_else_is_the_apps(echo):
    with TestClient(monolith([Route("/m/*", to=echo.address)])) as client:
        assert client.get("/m/x?a=b").json()["line"] == "GET /m/x?a=b HTTP/1.1"
        assert client.post("/m/x", content=b"12345").json()["length"] == 5
        assert client.get("/").json()["path"] == "/"
        assert client.get("/none").status_code == 404


def test_an_app_answers_as_without_the_middleware(echo):
    plain, strangled = Starlette(routes=RULES), monolith([Route("/m/*", to=echo.address)])
    with (
        TestClient(plain, raise_server_exceptions=False) as before,
        TestClient(strangled, raise_server_exceptions=False) as after,
    ):
        for method, path in [
            ("GET", "/"),
            ("HEAD", "/"),
            ("POST", "/"),
            ("GET", "/x%2F"),
            ("GET", "/broken"),
            ("GET", "/?a"),
        ]:
            answers = [client.request(method, path) for client in (before, after)]
            seen = [(a.status_code, a.headers.multi_items(), a.content) for a in answers]
            assert seen[0] == seen[1], path


def test_an_error_of_the_apps_reaches_its_handlers_and_the_server():
    async def told(_request, exc):
        return PlainTextResponse(f"told of {type(exc).__name__}", status_code=500)

    app = monolith([])
    app.add_exception_handler(Exception, told)
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/broken").text == "told of ZeroDivisionError"
    with TestClient(app) as client, pytest.raises(ZeroDivisionError):
        client.get("/broken")


def test_a_dead_upstream_is_told_in_our_words():
    with TestClient(
        monolith([Route("/m/*", to=f"http://127.0.0.1:{free_port()}", fallback="never")])
    ) as client:
        answer = client.get("/m/x")
    assert (answer.status_code, answer.headers["content-type"]) == (502, "application/problem+json")


def test_the_apps_lifespan_runs_once_and_the_connections_end_with_it(echo):
    book = []

    @asynccontextmanager
    async def lifespan(app):
        book.append(("start", app))
        yield {"answer": 42}
        book.append(("end", app))

    async def state(request):
        return JSONResponse(request.state.answer)

    app = monolith([Route("/m/*", to=echo.address)], rules=[Rule("/state", state)], lifespan=lifespan)
    with TestClient(app) as client:
        assert client.get("/state").json() == 42
        assert client.get("/m/x").status_code == 200
        left = echo.left, echo.connections
    assert book == [("start", app), ("end", app)]
    assert left  # an open connection would be an unraisable warning here, and so an error


# --- among others

OTHERS = {
    "gzip": Middleware(GZipMiddleware, minimum_size=1),
    "cors": Middleware(CORSMiddleware, allow_origins=["https://other.example"]),
    "session": Middleware(SessionMiddleware, secret_key="x"),
    "base": Middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request)),
}


@pytest.mark.parametrize("order", ["around", "inside"])
@pytest.mark.parametrize("name", OTHERS)
def test_others_middlewares_in_either_order(echo, name, order):
    entry = {order: [OTHERS[name]]}
    app = monolith([Route("/m/*", to=echo.address)], *entry.get("around", ()), inside=entry.get("inside", ()))
    headers = {"origin": "https://other.example", "accept-encoding": "gzip"}
    with TestClient(app, headers=headers) as client:
        forwarded, own = client.get("/m/x"), client.get("/")
        assert client.post("/m/x", content=iter([b"12", b"345"])).json()["length"] == 5
        assert forwarded.json()["line"] == "GET /m/x HTTP/1.1"
        assert client.get("/m/chunked").text == "hello world"
        assert own.status_code == 200
    marks = {"gzip": "content-encoding", "cors": "access-control-allow-origin"}
    if name in marks:
        assert marks[name] in own.headers
        assert (marks[name] in forwarded.headers) == (order == "around")


def test_all_of_them_around_and_inside(echo):
    app = monolith([Route("/m/*", to=echo.address)], *OTHERS.values(), inside=OTHERS.values())
    with TestClient(app) as client:
        assert client.get("/m/x").json()["line"] == "GET /m/x HTTP/1.1"
        assert client.post("/login").status_code == 405
        assert client.get("/login").text == "in"


@pytest.mark.parametrize("order", ["around", "inside"])
def test_what_ends_a_cut_answer_cleanly_is_told_of(echo, caplog, order):
    entries = {order: [OTHERS["base"]]}
    app = monolith([], *entries.get("around", ()), inside=entries.get("inside", ()))
    with TestClient(app):
        pass
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(told) == (order == "around")
    assert all("looks whole: add StrangleMiddleware after it" in t for t in told)


# --- in other places of an app


def test_paths_of_a_mounted_app_are_whole(echo):
    app = monolith([Route("/sub/m/*", to=echo.address)], rules=[Mount("/sub", Starlette(routes=RULES))])
    with TestClient(app) as client:
        assert client.get("/sub/m/x").json()["line"] == "GET /sub/m/x HTTP/1.1"
        assert client.get("/sub/").json()["path"] == "/sub/"


def place(where, table):
    """Build an app with the middleware somewhere below `/sub`."""
    entry = Middleware(StrangleMiddleware, routes=table)
    if where == "mounted app":
        return [Mount("/sub", monolith(table))]
    if where == "mount":
        return [Mount("/sub", routes=RULES, middleware=[entry])]
    if where == "router":
        return [Mount("/sub", Router(RULES, middleware=[entry]))]
    if where == "host":
        return [Host("h.example", Router([Mount("/sub", monolith(table))]))]
    return [Rule("/sub/{rest:path}", home, middleware=[entry])]


@pytest.mark.parametrize("where", ["mounted app", "mount", "router", "host", "route"])
@pytest.mark.parametrize("root", ["", "/root"])
def test_the_middleware_in_a_part_of_the_app(echo, where, root):
    table = StrangleMiddleware.load([Route(f"{root}/sub/m/*", to=echo.address)])

    @asynccontextmanager
    async def lifespan(_app):  # Starlette runs that of the outermost app alone
        yield
        await table.aclose(asyncio.get_running_loop())

    app = Starlette(routes=[Rule("/m/x", home), *place(where, table)], lifespan=lifespan)
    with TestClient(app, base_url="http://h.example", root_path=root) as client:
        assert client.get(f"{root}/sub/m/x").json()["line"] == f"GET {root}/sub/m/x HTTP/1.1"
        for path in (f"{root}/sub/", f"{root}/m/x"):
            assert client.get(path).json()["path"] == path


# --- behind a real server


@pytest.fixture(scope="module")
def live(echo):
    async def modern(scope, receive, send):
        assert scope["type"] == "websocket"
        await receive()
        await send(
            {
                "type": "websocket.accept",
            }
        )
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": f"in this process: {event['text']}"})

    def answer(socket):
        for message in socket:
            socket.send(f"modern {message}")

    with websocket_server(answer, "127.0.0.1", 0) as upstream:
        thread = threading.Thread(target=upstream.serve_forever)
        thread.start()
        routes = [
            Route("/m/*", to=echo.address),
            Route("/ws/m", to=f"http://127.0.0.1:{upstream.socket.getsockname()[1]}"),
            Route("/ws/here", to=Upstream(asgi=modern)),
            Route("/ws/gone", respond=Respond(status=410)),
        ]
        app = monolith(routes, OTHERS["gzip"], OTHERS["cors"], OTHERS["session"], inside=[OTHERS["base"]])
        with served(app) as port:
            yield port
        upstream.shutdown()
        thread.join(DEADLINE)


@pytest.mark.parametrize(
    ("path", "says"),
    [("/ws", "legacy hello"), ("/ws/m", "modern hello"), ("/ws/here", "in this process: hello")],
)
def test_websockets(live, path, says):
    with websocket(f"ws://127.0.0.1:{live}{path}", proxy=None) as socket:
        socket.send("hello")
        assert socket.recv(DEADLINE) == says


def test_a_websocket_that_is_refused(live):
    with pytest.raises(InvalidStatus) as refused:
        websocket(f"ws://127.0.0.1:{live}/ws/gone", proxy=None)
    assert refused.value.response.status_code == 410


def test_events_come_when_they_happen(live, echo):
    with connect(live) as sock:
        sock.sendall(request("GET", "/m/gated", [("Accept-Encoding", "gzip")]))
        seen = b""
        while b"data: 1" not in seen:
            seen += sock.recv(65536) or pytest.fail("the answer has ended")
        echo.gate.set()
        while more := sock.recv(65536):
            seen += more
    assert b"data: 2" in seen


def test_an_upload_is_handed_on_while_it_comes(live, echo):
    heads = echo.heads
    body = b"x" * 2_000_000
    with connect(live) as sock:
        sock.sendall(
            request("POST", "/m/x", [("Content-Length", str(len(body)))], body[:200_000], close=False)
        )
        assert echo.wait(lambda: echo.heads > heads, DEADLINE)  # nothing has waited for the rest
        sock.sendall(body[200_000:])
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200")
    assert echo.last["length"] == len(body)


def test_raw_paths_and_cut_answers(live):
    assert talk(live, request("GET", "/m/a%2Fb?q=%zz")).json()["line"] == "GET /m/a%2Fb?q=%zz HTTP/1.1"
    for path in ("/m/cutlength", "/m/cutchunks"):
        assert talk(live, request("GET", path)).complete is False


def test_a_client_that_leaves_is_noticed(live, echo):
    left = echo.left
    with connect(live) as sock:
        sock.sendall(request("GET", "/m/events"))
        assert sock.recv(65536)
    assert echo.wait(lambda: echo.left > left, DEADLINE)


# --- a table that cannot be used

WRONG = {
    "two problems": ({"routes": [{"path": "a", "to": "x"}]}, "2 problems"),
    "no table": ({}, "routes: is missing"),
    "no file": ({"routes": "none.toml"}, "there is no such file"),
    "a misspelt setting": ({"routes": [], "trusted_proxy": "x"}, "trusted_proxy"),
    "a bad setting": ({"routes": [], "max_body": "x"}, "max_body: must be a whole number"),
    "two users": ({"routes": [], "identify": bool, "session_user": "id"}, "session_user: give it or `identify`"),
    "another interface": ({"routes": {"strangle": {"interface": "wsgi"}}}, "strangle.interface: is not for"),
    "another server": ({"routes": {"strangle": {"serve": "asgi"}}}, "strangle.serve: is not for"),
    "nothing to learn": ({"routes": [], "learn": True}, "strangle.learn: is not for"),
    "settings too late": ({"routes": StrangleMiddleware.load([]), "max_body": 5}, "max_body: these settings"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_setting_is_told_at_the_start_and_to_each_request(settings, says):
    app = Starlette(routes=RULES)
    app.add_middleware(StrangleMiddleware, **settings)
    with pytest.raises(ConfigError, match=says), TestClient(app):
        pass
    with pytest.raises(ConfigError, match=says):
        TestClient(app).get("/")


def test_load_tells_at_once():
    with pytest.raises(ConfigError, match="2 problems"):
        StrangleMiddleware.load([{"path": "a", "to": "x"}])


def test_a_server_does_not_start_with_a_wrong_table(capsys):
    app = Starlette(routes=RULES)
    app.add_middleware(StrangleMiddleware, routes=[{"path": "a", "to": "x"}])
    server = uvicorn.Server(uvicorn.Config(app, port=free_port(), log_level="error"))
    with pytest.raises(SystemExit):  # and not: lifespan "appears unsupported", and 500 from then on
        server.run()
    assert not server.started
    assert "2 problems" in capsys.readouterr().err


def test_adding_it_twice_is_refused():
    app = monolith([], OTHERS["cors"], Middleware(StrangleMiddleware, routes=[]))
    with pytest.raises(RuntimeError, match="wrapped already"), TestClient(app):
        pass


def engines(app):
    """Return the engine of the middlewares that Starlette would build now."""
    stack = app.build_middleware_stack()
    while not isinstance(stack, StrangleMiddleware):
        stack = stack.app
    return stack.engine


def test_building_the_middlewares_again_keeps_the_engine():
    app = monolith([Route("/a", respond=Respond())], OTHERS["cors"], inside=[OTHERS["gzip"]], max_body=5)
    first = engines(app)
    assert engines(app) is first
    assert first.settings.max_body == 5
    app.user_middleware.pop(1)
    app.add_middleware(StrangleMiddleware, routes=[Route("/b", respond=Respond())])
    assert engines(app) is not first
    assert engines(monolith([Route("/a", respond=Respond())], max_body=5)) is not first


def test_two_routers_with_one_table_have_an_engine_each():
    routes = [Route("/a", respond=Respond())]
    made = [Router(middleware=[Middleware(StrangleMiddleware, routes=routes)]) for _ in range(2)]
    assert made[0].middleware_stack.engine is not made[1].middleware_stack.engine


# --- the user


class Nameless(BaseUser):
    """A user with an id of no kind, as `BaseUser` is before anything is told of it."""

    is_authenticated = True
    display_name = "Jo"


class Backend(AuthenticationBackend):
    """Believes `Authorization: Bearer NAME` and a cookie `who`."""

    async def authenticate(self, conn):
        name = conn.headers.get("authorization", "").rpartition(" ")[2] or conn.cookies.get("who")
        if not name:
            return None
        return AuthCredentials(["in"]), Nameless() if name == "nameless" else SimpleUser(name)


AUTHENTICATION = Middleware(AuthenticationMiddleware, backend=Backend())
SESSION = OTHERS["session"]


def as_(name):
    return {"authorization": f"Bearer {name}"}


def forwarded(answer):
    """Return the headers that the upstream has got; None if the wrapped app has answered."""
    found = answer.json().get("headers")
    return None if found is None else {n.lower(): v for n, v in found}


def test_who_is_logged_in_is_the_user(echo):
    routes = [
        Route("/", to=echo.address, when=lambda head: head.user == "ann"),
        Route("/staff", to=echo.address, when=lambda head: head.identity.user.username == "ann"),
    ]
    with TestClient(monolith(routes, AUTHENTICATION)) as client:
        assert forwarded(client.get("/", headers=as_("ann")))
        assert client.get("/", headers=as_("bob")).json()["user"] == "bob"
        assert client.get("/").json()["user"] is None
        assert client.get("/staff", headers=as_("ann")).status_code == 200
        assert client.get("/staff").status_code == 404


def test_a_canary_goes_by_the_user(echo):
    # tests/core/sticky_vectors.txt: of group "checkout", key "u1" has bucket 6747
    routes = [Route("/", to=echo.address, stage="canary", weight=67.48, group="checkout", sticky=["user"])]
    with TestClient(monolith(routes, AUTHENTICATION)) as client:
        assert forwarded(client.get("/", headers=as_("u1")))
        assert client.get("/").json()["user"] is None


def checked(headers, target="/m/x", method="GET"):
    path, _, query = target.partition("?")
    token = headers["strangle-identity"]
    return Verifier("modern", secrets=(SECRET,)).verify(token, method=method, path=path, query=query)


def identified(echo, *around, **settings):
    document = {
        "upstreams": {"modern": {"url": echo.address}},
        "routes": [Route("/m/*", to="modern", identity=True)],
    }
    return monolith(document, *around, identity=TOKENS, **settings)


def test_the_upstream_is_told_who_the_user_is(echo):
    with TestClient(identified(echo, AUTHENTICATION)) as client:
        got = forwarded(client.get("/m/x?a=b", headers=as_("ann")))
        assert checked(got, "/m/x?a=b").subject == "ann"
        forged = {**as_("ann"), "Strangle-Identity": "x", "Strangle_Identity": "y"}
        assert checked(forwarded(client.get("/m/x", headers=forged))).subject == "ann"
        assert "strangle-identity" not in forwarded(client.get("/m/x", headers={"strangle-identity": "x"}))


def test_the_users_id_in_the_session_is_the_user(echo):
    with TestClient(identified(echo, SESSION, session_user="user_id")) as client:
        assert "strangle-identity" not in forwarded(client.get("/m/x"))
        client.get("/login")
        client.cookies.set("a", "1")
        got = forwarded(client.get("/m/x"))
        assert checked(got).subject == "7"
        assert got["cookie"] == "a=1", "the session stays here"
        page = {"origin": "https://evil.example"}
        assert client.post("/m/x", headers=page).status_code == 403


@pytest.mark.parametrize(
    ("credential", "status"),
    [
        ({"authorization": "Bearer ann"}, 200),
        ({"authorization": "Basic ann"}, 403),
        ({"cookie": "who=ann"}, 403),
        ({}, 200),
    ],
)
def test_another_sites_page_may_not_use_what_browsers_send_by_themselves(echo, credential, status):
    with TestClient(identified(echo, AUTHENTICATION)) as client:
        page = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
        assert client.post("/m/x", headers={**page, **credential}).status_code == status
        assert client.post("/m/x", headers=credential).status_code == 200


def test_a_user_without_an_id_is_nobody(echo, caplog):
    with TestClient(identified(echo, AUTHENTICATION)) as client:
        for _ in range(2):
            assert "strangle-identity" not in forwarded(client.get("/m/x", headers=as_("nameless")))
    assert caplog.text.count("identify raised; taken for nobody") == 1


def test_an_identify_of_ones_own_may_wait(echo):
    async def identify(head):
        await asyncio.sleep(0)
        return Identity(head.source["user"].username, {"team": "red"})

    with TestClient(identified(echo, AUTHENTICATION, identify=identify)) as client:
        found = checked(forwarded(client.get("/m/x", headers=as_("ann"))))
    assert (found.subject, found.claims["team"]) == ("ann", "red")


ORDERS = {
    "authentication inside": ({"inside": [AUTHENTICATION]}, "scope['user']"),
    "session inside": ({"inside": [SESSION], "session_user": "user_id"}, "scope['session']"),
    "none at all": ({}, "scope['user']"),
}


@pytest.mark.parametrize(("settings", "says"), ORDERS.values(), ids=ORDERS)
def test_the_wrong_order_is_told_once(echo, caplog, settings, says):
    with TestClient(identified(echo, **settings)) as client:
        for _ in range(2):
            assert "strangle-identity" not in forwarded(client.get("/m/x", headers=as_("ann")))
    assert caplog.text.count(says) == 1
    assert "the last one added is the outermost" in caplog.text


def test_a_canary_by_cookie_needs_no_user(echo, caplog):
    with TestClient(monolith([Route("/", to=echo.address, stage="canary", weight=50)])) as client:
        assert client.get("/").status_code == 200
    assert "scope" not in caplog.text


# --- what the app itself has answered


def test_endpoints_are_counted_by_their_rules():
    inner = Starlette(
        routes=[Rule("/a/{b:int}", home), Mount("/deep", routes=[Rule("/q", home, methods=["POST"])])]
    )
    rules = [
        *RULES,
        Mount("/sub", inner),
        Mount("/t/{tenant}", inner),
        Mount("/opaque", PlainTextResponse("old")),
        Host("h.example", Router([Rule("/hosted", home)])),
    ]
    table = StrangleMiddleware.load(
        [Route("/legacy", to="legacy"), Route("/gone", respond=Respond(status=410))]
    )
    app = monolith(table, rules=rules)
    with TestClient(app, raise_server_exceptions=False) as client:
        for method, url in [
            *[("GET", p) for p in ("/", "/", "/sub/a/5", "/t/acme/a/6", "/opaque/x/y", "/broken", "/gone")],
            *[("GET", p) for p in ("/none", "/sub/none", "/sub/deep/q", "http://h.example/hosted")],
            *[("POST", p) for p in ("/", "/sub/deep/q")],
        ]:
            client.request(method, url)
        with client.websocket_connect("/ws") as socket:
            socket.send_text("x")
            assert socket.receive_text() == "legacy x"
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/none"):
            pass
        counted = table.states.take_endpoints()  # the end of the lifespan stores them
    assert {rule for _, rule in counted if rule} <= {e.rule for e in read_url_map(app).endpoints}
    assert counted == {
        ("GET", "/"): 2,
        ("GET", "/sub/a/{b:int}"): 1,
        ("GET", "/t/{tenant}/a/{b:int}"): 1,
        ("GET", "/opaque/{path:path}"): 1,
        ("GET", "/broken"): 1,
        ("GET", ""): 3,
        ("GET", "/hosted"): 1,
        ("POST", ""): 1,
        ("POST", "/sub/deep/q"): 1,
        ("WEBSOCKET", "/ws"): 1,
        ("WEBSOCKET", ""): 1,
    }
