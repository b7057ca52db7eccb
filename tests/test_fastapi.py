"""The middleware in FastAPI: its pages and dependencies stay as they are, and the other side may be FastAPI, too."""

from typing import Annotated

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request, UploadFile
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from echo import Echo
from servers import request, talk
from strangle_mw import IdentityTokens, Respond, Route, Upstream
from strangle_mw.core.identity import Identity
from strangle_mw.identity import Verifier
from strangle_mw.identity.asgi import IdentityMiddleware
from strangle_mw.identity.fastapi import identity
from strangle_mw.inventories import read_url_map
from strangle_mw.starlette import StrangleMiddleware
from test_starlette import served

USERS = {"token-of-ann": "ann"}
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def echo():
    upstream = Echo()
    yield upstream
    upstream.close()


def current_user(authorization: Annotated[str, Header()] = ""):
    user = USERS.get(authorization.removeprefix("Bearer "))
    if user is None:
        raise HTTPException(401)
    return user


def monolith(routes=None, done=None, *, settings=None, **options):
    """A small shop; strangled if there are routes."""
    app = FastAPI(title="shop", **options)
    orders = APIRouter(prefix="/orders")

    @orders.get("/{number}")
    def order(number: int, user: Annotated[str, Depends(current_user)]):
        return {"number": number, "user": user}

    @orders.post("/")
    async def make(request: Request, tasks: BackgroundTasks):
        tasks.add_task((done if done is not None else []).append, await request.json())
        return {"made": True}

    @app.post("/upload")
    def upload(file: UploadFile):
        return {"size": len(file.file.read())}

    @app.get("/export")
    def export():
        return StreamingResponse(f"row {n}\n" for n in range(3))

    app.include_router(orders, prefix="/v1")
    if routes is not None:
        app.add_middleware(StrangleMiddleware, routes=routes, **(settings or {}))
    return app


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
@pytest.mark.parametrize("root", [{}, {"root_path": "/api"}, {"docs_url": "/help", "redoc_url": None}])
def test_the_pages_of_fastapi_stay_as_they_are(echo, root):
    paths = (
        "/openapi.json",
        "/docs",
        "/help",
        "/redoc",
        "/docs/oauth2-redirect",
        "/v1/orders/x",
        "/export",
        "/none",
    )
    with (
        TestClient(monolith(**root)) as plain,
        TestClient(monolith([Route("/m/*", to=echo.address)], **root)) as ours,
    ):
        for path in paths:
            before, after = (
                client.get(path, headers={"authorization": "Bearer token-of-ann"}) for client in (plain, ours)
            )
            assert before.content == after.content
            assert (before.status_code, before.headers.multi_items()) == (
                after.status_code,
                after.headers.multi_items(),
            )
        assert ours.get("/m/x").status_code == 404 if "root_path" in root else ours.get("/m/x").json()["line"]


def test_one_endpoint_of_a_router_moves_and_the_others_stay(echo):
    done = []
    app = monolith([Route("GET /v1/orders/{n:int}", to=echo.address)], done)
    app.dependency_overrides[current_user] = lambda: "test"
    with TestClient(app) as client:
        assert client.get("/v1/orders/5").json()["line"] == "GET /v1/orders/5 HTTP/1.1"
        assert client.post("/v1/orders/", json={"a": 1}).json() == {"made": True}
        assert client.post("/upload", files={"file": b"12345"}).json() == {"size": 5}
        assert client.get("/export").text == "row 0\nrow 1\nrow 2\n"
        app.dependency_overrides.clear()
    assert done == [{"a": 1}]


def test_dependency_overrides_hold_for_what_stays():
    app = monolith([Route("/m", respond=Respond(status=410))])
    app.dependency_overrides[current_user] = lambda: "test"
    with TestClient(app) as client:
        assert client.get("/v1/orders/5").json() == {"number": 5, "user": "test"}
        app.dependency_overrides.clear()
        assert client.get("/v1/orders/5").status_code == 401


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
def test_the_root_path_of_the_app_is_part_of_the_paths(echo):
    app = monolith(
        [Route("/api/m/{x}", to=echo.address), Route("/api/m/a/b", respond=Respond(status=410))],
        root_path="/api",
    )
    with served(app) as port:  # as behind a proxy that has cut `/api` off
        assert talk(port, request("GET", "/m/x?a=%zz")).json()["line"] == "GET /api/m/x?a=%zz HTTP/1.1"
        assert talk(port, request("GET", "/m/a%20b")).json()["line"] == "GET /api/m/a%20b HTTP/1.1"
        assert talk(port, request("GET", "/m/a%2Fb")).status == 400, "a slash is not made out of nothing"
        assert talk(port, request("GET", "/api/m/x")).json()["line"] == "GET /api/m/x HTTP/1.1"
        assert talk(port, request("GET", "/openapi.json")).json()["servers"] == [{"url": "/api"}]


def test_uploads_are_forwarded_under_a_real_server(echo):
    with served(monolith([Route("/upload", to=echo.address)])) as port:
        body = b"x" * 300_000
        answer = talk(port, request("POST", "/upload", [("Content-Length", str(len(body)))], body))
        assert answer.json()["length"] == len(body)


def service():
    """The other side: a FastAPI service that lets nobody in whom the monolith does not know."""
    app = FastAPI()

    @app.get("/v1/orders/{number}")
    def order(number: int, user: Annotated[Identity, Depends(identity)]):
        return {"modern": number, "user": user.subject}

    app.add_middleware(IdentityMiddleware, verifier=Verifier("orders", secrets=(SECRET,)))
    return app


def test_the_user_of_one_fastapi_app_is_known_to_another():
    async def identify(head):
        return USERS.get((head.header("authorization") or "").removeprefix("Bearer "))

    document = {
        "upstreams": {"orders": Upstream(asgi=service())},
        "routes": [Route("GET /v1/orders/{n:int}", to="orders", identity=True)],
    }
    settings = {"identify": identify, "identity": IdentityTokens(secrets={"orders": SECRET})}
    with TestClient(monolith(document, settings=settings)) as client:
        bearer = {"authorization": "Bearer token-of-ann"}
        assert client.get("/v1/orders/5", headers=bearer).json() == {"modern": 5, "user": "ann"}
        assert client.get("/v1/orders/5").status_code == 401
        assert client.get("/v1/orders/x", headers=bearer).status_code == 422  # of the monolith


def test_endpoints_are_counted_by_their_rules():
    sub = FastAPI()

    @sub.get("/deep/{x:path}")
    def deep(x: str):
        return x

    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")

    @inner.get("/{y}")
    def shallow(y: str):
        return y

    @inner.websocket("/ws/{z}")
    async def talking(websocket):
        await websocket.close()

    inner.add_route("/plain", lambda _request: StreamingResponse(b""))
    outer.include_router(inner, prefix="/mid")
    sub.include_router(inner, prefix="/again")
    table = StrangleMiddleware.load([])
    app = monolith()
    app.include_router(outer, prefix="/v1")
    app.mount("/sub", sub)
    app.mount("/old", StreamingResponse(iter(())))
    app.add_middleware(StrangleMiddleware, routes=table)
    with TestClient(app) as client:
        for path in (
            *(
                "/v1/outer/mid/inner/5",
                "/v1/outer/mid/inner/6",
                "/v1/outer/mid/plain",
                "/sub/deep/a/b",
                "/sub/docs",
            ),
            *("/sub/again/inner/7", "/docs", "/old/x", "/none", "/sub/none", "/upload"),
        ):
            client.get(path)
        counted = table.states.take_endpoints()  # the end of the lifespan stores them
    assert {rule for _, rule in counted if rule} <= {e.rule for e in read_url_map(app).endpoints}
    assert counted == {
        ("GET", "/v1/outer/mid/inner/{y}"): 2,
        ("GET", "/v1/outer/mid/plain"): 1,
        ("GET", "/sub/deep/{x:path}"): 1,
        ("GET", "/sub/docs"): 1,
        ("GET", "/sub/again/inner/{y}"): 1,
        ("GET", "/docs"): 1,
        ("GET", "/old/{path:path}"): 1,
        ("GET", ""): 3,
    }
