"""Functions behind both drivers, on real sockets: what a client gets, who answers, and what the log says."""

import json
import logging

import pytest
from faulty_fronts import FRONTS
from tests.transports.lambda_invoke_api import InvokeApi, answer, function_error, raw, refusal
from tests.transports.upstream import PATIENCE

from servers import connect, read_reply, request
from strangle_mw import Breaker, Route, Upstream, strangle

SECRET = "arn:aws:iam::123456789012:user/geheim"
HOP = {
    "Transfer-Encoding": "chunked", "Connection": "x-a", "X-A": "1", "Strangle-Id": "root",
    "Content-Length": "99",
}  # fmt: skip

# What the Invoke API says; the status without fallback; whether nothing ran; a word of the log's line.
FAULTS = {
    "missing": (refusal(404, "ResourceNotFoundException", SECRET), 502, True, "function not found"),
    "forbidden": (refusal(403, "AccessDeniedException", SECRET), 502, True, "AccessDeniedException"),
    "throttled": (
        refusal(429, "TooManyRequestsException", SECRET, Retry_After="7"), 503, True, "TooManyRequests",
    ),
    "broken": (refusal(500, "ServiceException", SECRET), 502, False, "ServiceException"),
    "raised": (function_error({"errorType": "KeyError", "errorMessage": SECRET}), 502, False, "KeyError"),
    "late": (
        function_error({"errorType": "Sandbox.Timedout", "errorMessage": SECRET}), 504, False, "Timedout",
    ),
    "html": (raw(b"<html>geheim"), 502, False, "not JSON"),
    "types": (answer({"statusCode": "geheim"}), 502, False, "statusCode"),
    "split": (answer({"statusCode": 200, "headers": {"a": "b\r\nc: geheim"}}), 502, False, "control"),
    "moved": (raw(b"", status=302, Location="http://169.254.169.254/"), 502, False, "302"),
}  # fmt: skip


async def _asgi(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 299, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def _wsgi(environ, start_response):
    start_response("299 Legacy", [("Content-Length", "0")])
    return []


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def front(request):
    front = FRONTS[request.param]()
    yield front
    front.close()


def ask(front, method, target, headers=(), body=b""):
    with connect(front.port) as sock:
        sock.sendall(request(method, target, headers, body))
        return read_reply(sock)


def mounted(front, api):
    to = Upstream(
        lambda_="events", endpoint_url=api.url, timeout=PATIENCE, breaker=Breaker(failures=0, ratio=0)
    )
    routes = [
        Route(path="/auto", to=to, fallback="auto"),
        Route(path="/connect", to=to),
        Route(path="/never", to=to, fallback="never"),
    ]
    app = strangle(_asgi if front.kind == "asgi" else _wsgi, routes)
    return front.mounted(app, app)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_status_and_its_line(front, fault, caplog):
    said, status, unsent, word = FAULTS[fault]
    with InvokeApi(lambda _: said) as api, mounted(front, api):
        got = ask(front, "GET", "/never")
        assert (got.status, got.header("retry-after")) == (status, "7" if fault == "throttled" else None)
        assert "geheim" not in str(vars(got))
        (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert word in line
        caplog.clear()
        assert [ask(front, "GET", "/auto").status for _ in range(3)] == [299] * 3
        expected = 299 if unsent else status
        assert ask(front, "POST", "/auto", [("Content-Length", "2")], b"hi").status == expected
        assert ask(front, "GET", "/connect").status == expected
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    fallbacks = [line for line in lines if line.startswith("fallback on route")]
    assert all(word in line for line in lines)
    assert len(fallbacks) == (2 if unsent else 1), "a line a route and reason"


def test_a_function_sets_no_header_of_the_hop_or_of_ours(front):
    said = answer({"statusCode": 200, "headers": HOP, "cookies": ["a=1", "b=2"], "body": "x"})
    with InvokeApi(lambda _: said) as api, mounted(front, api):
        got = ask(front, "GET", "/never")
    assert got.all("set-cookie") == ["a=1", "b=2"]
    assert (got.header("content-length"), got.body) == ("1", b"x")
    assert [got.header(n) for n in ("transfer-encoding", "x-a", "strangle-id")] == [None] * 3


def test_a_function_sees_no_header_that_a_client_has_made_up(front):
    made_up = [(n, "geheim") for n in ("Strangle-User", "X-Forwarded-For", "X-Real-IP", "Remote-User")]
    with (
        InvokeApi(lambda call: answer({"statusCode": 200, "body": json.dumps(call.event)})) as api,
        mounted(front, api),
    ):
        got = ask(front, "GET", "/never?q=1", made_up)
    assert got.json()["rawQueryString"] == "q=1"
    assert "geheim" not in got.body.decode()
