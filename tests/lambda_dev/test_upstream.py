"""Functions as upstreams, end to end: a real server, the Invoke API, real `awslambdaric`, a web app behind mangum."""

import pytest

from lambda_dev.running import running
from servers import request, serve, talk

WEB = """
from mangum import Mangum
from starlette.applications import Starlette
from starlette.responses import Response, JSONResponse
from starlette.routing import Route

async def echo(request):
    answer = JSONResponse({
        "method": request.method, "path": request.url.path, "query": request.query_params.multi_items(),
        "host": request.headers["host"], "x": request.headers.get("x-some"), "cookies": request.cookies,
        "body": (await request.body()).hex(),
    }, 201)
    answer.set_cookie("a", "1")
    answer.set_cookie("b", "2")
    return answer

async def bytes_(request):
    return Response(bytes(range(256)), media_type="image/png", headers={"X-Kind": "png"})

handler = Mangum(Starlette(routes=[
    Route("/{kind}/echo/{rest:path}", echo, methods=["GET", "POST", "PUT"]), Route("/{kind}/bytes", bytes_),
]), lifespan="off")
"""
BROKEN = """
def handler(event, context):
    match event["rawPath"]:
        case "/broken/raises":
            raise ValueError("secret")
        case "/broken/hangs":
            while True:
                pass
        case "/broken/odd":
            return {"statusCode": "many", "body": "secret"}
    return {"asked": event["rawPath"]}
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory):
    arguments = [
        "web=web:handler",
        "broken=broken:handler",
        "--no-reload",
        "--timeout",
        "1.2",
        "--workers",
        "2",
    ]
    code = {"web.py": WEB, "broken.py": BROKEN}
    with running(tmp_path_factory.mktemp("functions"), *arguments, code=code) as dev:
        dev.until("web | ready")
        dev.until("broken | ready")
        yield dev


@pytest.fixture(scope="module", params=["uvicorn-httptools", "gunicorn-gthread"])
def port(request, functions):
    with serve(request.param, "lambda_dev.strangled", LAMBDA_DEV_PORT=str(functions.port)) as port:
        yield port


@pytest.mark.parametrize("kind", ["two", "rest", "alb"])
@pytest.mark.parametrize("body", [b"", '{"a": "\u00e9"}'.encode(), bytes(range(256)) * 100])
def test_a_web_app_sees_the_request_and_the_client_its_answer(port, kind, body):
    headers = [("X-Some", "thing"), ("Cookie", "c=3; d=4"), ("Content-Type", "application/json")]
    sent = request(
        "POST", f"/{kind}/echo/x?q=1&r=%20+%C3%A9", [*headers, ("Content-Length", str(len(body)))], body
    )
    reply = talk(port, sent)
    assert (reply.status, reply.complete) == (201, True)
    assert reply.json() == {
        "method": "POST",
        "path": f"/{kind}/echo/x",
        "query": [["q", "1"], ["r", "  \u00e9"]],
        "host": "h.example",
        "x": "thing",
        "cookies": {"c": "3", "d": "4"},
        "body": body.hex(),
    }
    assert [cookie.partition(";")[0] for cookie in reply.all("set-cookie")] == ["a=1", "b=2"]


@pytest.mark.parametrize("kind", ["two", "rest", "alb"])
def test_bytes_come_back_as_they_were(port, kind):
    reply = talk(port, request("GET", f"/{kind}/bytes"))
    assert (reply.status, reply.body) == (200, bytes(range(256)))
    assert (reply.header("content-type"), reply.header("x-kind")) == ("image/png", "png")


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/broken/plain", 200, b'{"asked": "/broken/plain"}'),
        ("POST", "/broken/raises", 502, None),
        ("POST", "/broken/hangs", 504, None),
        ("POST", "/broken/odd", 502, None),
        ("POST", "/absent/x", 200, b"legacy"),  # nothing was run: the old code may answer
        ("GET", "/elsewhere", 200, b"legacy"),
    ],
)
def test_what_a_function_does_wrong(port, method, path, status, body):
    reply = talk(port, request(method, path, [("Content-Length", "0")]))
    assert reply.status == status, reply.body
    if body is None:
        assert b"secret" not in reply.raw
    else:
        assert reply.body == body
