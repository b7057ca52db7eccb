"""Both Lambda pools against an Invoke API on real sockets: what is asked, what comes back, what goes wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import os
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
import trustme
from botocore.credentials import RefreshableCredentials
from botocore.session import Session
from tests.transports.lambda_clients import AsyncClient, Client, Clients, Table, each, fetch
from tests.transports.lambda_invoke_api import (
    InvokeApi,
    answer,
    function_error,
    invoked,
    raw,
    refusal,
)
from tests.transports.test_cancellation import Cut
from tests.transports.upstream import (
    PATIENCE,
    close,
    reset,
    send,
    tell,
    until_gone,
)

from strangle_mw.core.lambda_events import MAX_ALB_BODY, MAX_EVENT
from strangle_mw.errors import ForwardError
from strangle_mw.transports.aws_lambda import AsyncLambdaPool
from strangle_mw.transports.aws_outcomes import MAX_PAYLOAD, one_line
from strangle_mw.transports.bulkhead import AsyncBulkhead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.transports.lambda_invoke_api import Call
    from tests.transports.upstream import Step

    Facts = tuple[str, int, bool, bool]

OK = {"statusCode": 200, "body": "ok"}
SOON = 0.05
"""Seconds for tests in which time must run out."""


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's AWS settings."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(params=["asyncio", "threads"])
def clients(request: pytest.FixtureRequest) -> Iterator[Clients]:
    before = descriptors()
    with Clients(request.param) as made:
        yield made
    assert descriptors() <= before, "a descriptor was left open"


class Scripted:
    """A client and its Invoke API, whose next answer a test sets; all others are fine."""

    def __init__(self, kind: str) -> None:
        self._clients = Clients(kind)
        self._next: list[bytes] = []
        self.api = InvokeApi(lambda _: self._next.pop() if self._next else answer(OK))

    def __enter__(self) -> Self:
        self.api.__enter__()
        self.client = self._clients(self.api.url)
        return self

    def __exit__(self, *_: object) -> None:
        self._clients.__exit__()
        self.api.__exit__(None, None, None)

    def next(self, sent: bytes) -> Client:
        self._next.append(sent)
        self.api.calls.clear()
        self.client.versions.clear()
        return self.client


@pytest.fixture(scope="module", params=["asyncio", "threads"])
def scripted(request: pytest.FixtureRequest) -> Iterator[Scripted]:
    with Scripted(request.param) as made:
        yield made


def facts(error: ForwardError) -> Facts:
    return error.stage, error.status, error.request_sent, error.stale


async def told(event: threading.Event) -> None:
    """Wait for what a thread says, while the loop goes on."""
    async with asyncio.timeout(PATIENCE):
        while not event.is_set():  # noqa: ASYNC110 - a thread tells
            await asyncio.sleep(0)


def fails(client: Client, target: str = "/", method: str = "GET", **options: Any) -> ForwardError:
    with pytest.raises(ForwardError) as caught:
        fetch(client, target, method, **options)
    assert (client.pool.in_flight, client.pool.gate.taken) == (0, 0)
    error = caught.value
    assert len(error.reason) <= 210
    assert error.reason.isprintable()
    return error


# --- what is asked


def test_a_request_is_one_signed_invocation(clients: Clients) -> None:
    with InvokeApi(lambda _: answer(OK)) as api:
        client = clients(f"{api.url}/base/", function="events:live", path="/v1/users/{id:int}")
        forward = client.table.forward(
            "/v1/users/7?a=1&a=2%20",
            "POST",
            [(b"content-type", b"text/plain"), (b"x-a", b"1"), (b"content-length", b"5"), (b"x-a", b"2")],
            http_version="2",
        )
        client.send(forward, b"hello").close()
        authority = api.endpoint.authority
    (call,) = api.calls
    assert call.line == b"POST /base/2015-03-31/functions/events/invocations?Qualifier=live HTTP/1.1"
    assert call.header(b"host") == authority
    assert (call.header(b"authorization") or b"").startswith(b"AWS4-HMAC-SHA256 Credential=local/")
    assert b"/local/lambda/aws4_request" in (call.header(b"authorization") or b"")
    assert {n for n, _ in call.headers} == {
        *(b"host", b"x-amz-date", b"authorization", b"user-agent", b"content-length")
    }
    event = call.event
    assert (event["version"], event["rawPath"], event["body"]) == ("2.0", "/v1/users/7", "hello")
    assert event["rawQueryString"] == "a=1&a=2%20"
    assert event["pathParameters"] == {"id": "7"}
    headers = event["headers"]
    assert (headers["host"], headers["x-a"], headers["content-length"]) == ("shop.example", "1,2", "5")
    assert headers["x-forwarded-for"] == "192.0.2.7"
    context = event["requestContext"]
    assert context["http"]["sourceIp"] == "192.0.2.7"
    assert context["http"]["protocol"] == "HTTP/2.0"
    assert context["requestId"] == headers["x-request-id"] == forward.request_id.decode()
    assert client.versions == ["42"]


@pytest.mark.parametrize(
    ("format_", "path"), [("2.0", "rawPath"), ("1.0", "path"), ("rest", "path"), ("alb", "path")]
)
def test_each_format_is_sent_and_read(clients: Clients, format_: str, path: str) -> None:
    result = {**OK, "statusDescription": "200 Fine", "headers": {"x-b": "1"}}
    with InvokeApi(lambda _: answer(result)) as api:
        client = clients(api.url, format=format_)
        made = client.send(client.table.forward("/a%2Fb"))
        assert (made.status, made.take()) == (200, b"ok")
        assert made.reason == (b"Fine" if format_ == "alb" else b"")
        assert (b"x-b", b"1") in made.headers
        assert (b"content-length", b"2") in made.headers
        made.close()
    (call,) = api.calls
    assert call.event[path] == "/a%2Fb"
    assert ("version" in call.event) == (format_ in ("1.0", "2.0"))


@pytest.mark.parametrize(
    ("headers", "body", "told"),
    [
        ([], b"", None),
        ([(b"content-length", b"0")], b"", "0"),
        ([(b"content-length", b"6")], [b"abc", b"def"], "6"),
        ([(b"transfer-encoding", b"chunked")], [b"abc", b"", b"def"], "6"),
    ],
)
def test_the_function_sees_the_length_of_the_whole_body(
    clients: Clients, headers: list[tuple[bytes, bytes]], body: Any, told: str | None
) -> None:
    with InvokeApi(lambda _: answer(OK)) as api:
        client = clients(api.url)
        client.send(client.table.forward("/", "POST", headers), body, chunked=not told).close()
    (call,) = api.calls
    assert call.event["headers"].get("content-length") == told
    assert "transfer-encoding" not in call.event["headers"]
    sent = base64.b64decode(call.event.get("body", ""))
    assert sent == (body if isinstance(body, bytes) else b"".join(body))


def test_a_request_without_a_host_has_none_in_the_event(clients: Clients) -> None:
    with InvokeApi(lambda _: answer(OK)) as api:
        client = clients(api.url)
        forward = client.table.forward()
        forward.head.headers = [h for h in forward.head.headers if h[0] != b"host"]
        client.send(forward).close()
    assert "host" not in api.calls[0].event["headers"]


# --- what comes back


def test_an_answer_is_whole_and_is_taken_once(clients: Clients) -> None:
    result = {
        "statusCode": 201,
        "headers": {"Content-Type": "image/png", "content-length": "999"},
        "cookies": ["a=1", "b=2"],
        "body": base64.b64encode(b"\x89PNG").decode(),
        "isBase64Encoded": True,
    }
    with InvokeApi(lambda _: answer(result)) as api:
        client = clients(api.url)
        made = client.send(client.table.forward())
        assert (made.complete, made.status) == (True, 201)
        assert sorted(made.headers) == [
            (b"content-length", b"4"),
            (b"content-type", b"image/png"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
        ]
        assert (made.take(), made.take(), made.read()) == (b"\x89PNG", b"", b"")
        assert client.pool.in_flight == 1
        made.close()
        made.close()
        assert (client.pool.in_flight, client.pool.idle) == (0, 1)
        assert (made.take(), made.complete) == (b"", True)
        with pytest.raises(RuntimeError):
            made.read()


def test_what_is_not_taken_can_be_read(clients: Clients) -> None:
    with InvokeApi(lambda _: answer(OK)) as api:
        client = clients(api.url)
        made = client.send(client.table.forward())
        assert (made.read(), made.read()) == (b"ok", b"")
        made.close()


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_an_answer_that_may_have_no_body_has_none(clients: Clients, method: str, status: int) -> None:
    with InvokeApi(lambda _: answer({"statusCode": status, "body": "body"})) as api:
        assert fetch(clients(api.url), "/", method) == (status, b"")


def test_a_payload_without_a_status_is_the_body(clients: Clients) -> None:
    with InvokeApi(lambda _: answer({"a": 1})) as api:
        assert fetch(clients(api.url)) == (200, b'{"a": 1}')


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_answer_comes_whole(clients: Clients, chunked: bool) -> None:
    text = "x" * (MAX_EVENT - 100)
    with InvokeApi(lambda _: answer({**OK, "body": text}, chunked=chunked)) as api:
        client = clients(api.url)
        assert fetch(client) == (200, text.encode())
        assert fetch(client)[0] == 200
        assert api.connections == 1


@pytest.mark.parametrize(
    ("version", "noted"),
    [
        ("$LATEST", ["$LATEST"]),
        ("7", ["7"]),
        ("", []),
        ("x" * 65, []),
        ('7"} 1\\n', []),
        ("caf\u00e9", []),
    ],
)
def test_only_a_plain_version_is_noted(scripted: Scripted, version: str, noted: list[str]) -> None:
    client = scripted.next(answer(OK, version=version))
    fetch(client)
    assert client.versions == noted


def test_a_version_that_fails_is_noted_too(clients: Clients) -> None:
    with InvokeApi(lambda _: function_error({"errorType": "E", "errorMessage": "m"})) as api:
        client = clients(api.url)
        fails(client)
    assert client.versions == ["42"]


# --- what goes wrong, each in one line: the answer, the error's facts, and what the log says

NOT_RUN: Facts = ("connect", 502, False, False)
MAYBE_RUN: Facts = ("head", 502, True, False)
LATE: Facts = ("head", 504, True, False)
TRACE = {"stackTrace": ["secret.py line 7"]}

FAULTS: dict[str, tuple[bytes, Facts, str]] = {
    "raised": (
        function_error({"errorType": "ValueError", "errorMessage": "boom", **TRACE}),
        MAYBE_RUN,
        "function error (Unhandled): ValueError: boom",
    ),
    "raised, several lines": (
        function_error({"errorType": "E", "errorMessage": "a\n\x1b[31mb\r\n\u2028c" + "x" * 9999}),
        MAYBE_RUN,
        "E: a [31mb cxxx",
    ),
    "raised, no text": (
        function_error({"errorType": 7, "errorMessage": ["m"]}),
        MAYBE_RUN,
        "no errorType",
    ),
    "raised, no JSON": (
        raw(b"<oops>", X_Amz_Function_Error="Handled"),
        MAYBE_RUN,
        "function error (Handled): no errorType",
    ),
    "raised, a list": (raw(b"[1]", X_Amz_Function_Error="Handled"), MAYBE_RUN, "no errorType"),
    "raised, deep": (raw(b"[" * 99_999, X_Amz_Function_Error="Handled"), MAYBE_RUN, "no errorType"),
    "exited": (
        function_error({"errorType": "Runtime.ExitError", "errorMessage": "exit status 1"}),
        MAYBE_RUN,
        "Runtime.ExitError",
    ),
    "timed out": (
        function_error({"errorType": "Sandbox.Timedout", "errorMessage": "Error: Task timed out after 3 s"}),
        LATE,
        "Sandbox.Timedout",
    ),
    "timed out, in words": (
        function_error({"errorMessage": "2026-01-01T00:00:00Z 1-2-3 Task timed out after 3.00 seconds"}),
        LATE,
        "Task timed out after 3.00 seconds",
    ),
    "raised the words of a timeout": (
        function_error({"errorType": "MyError", "errorMessage": "Task timed out after 3.00 seconds"}),
        MAYBE_RUN,
        "MyError",
    ),
    "no such function": (
        refusal(404, "ResourceNotFoundException", "Function not found: arn:aws:lambda:x:1:function:y"),
        NOT_RUN,
        "function not found: Invoke API: 404 ResourceNotFoundException",
    ),
    "throttled": (
        refusal(429, "TooManyRequestsException", "Rate", reason="ReservedFunctionConcurrentInvocationLimit"),
        ("pool", 503, False, False),
        "429 TooManyRequestsException ReservedFunctionConcurrentInvocationLimit Rate",
    ),
    "bad signature": (
        refusal(403, "InvalidSignatureException:http://internal.amazon.com/", "does not match"),
        NOT_RUN,
        "403 InvalidSignatureException does not match",
    ),
    "expired": (refusal(403, "ExpiredTokenException", "is expired"), NOT_RUN, "ExpiredTokenException"),
    "no right": (
        refusal(403, "AccessDeniedException", "User is not authorized to perform: lambda:InvokeFunction"),
        NOT_RUN,
        "AccessDeniedException User is not authorized",
    ),
    "a page instead": (raw(b"<html>denied</html>", status=403), NOT_RUN, "Invoke API: 403"),
    "not known": (refusal(401, "UnrecognizedClientException", "token"), NOT_RUN, "401 Unrecog"),
    "bad request": (refusal(400, "InvalidRequestContentException", "bad"), NOT_RUN, "400 Invalid"),
    "too large": (
        refusal(413, "RequestTooLargeException", "6291556 bytes"),
        ("send", 413, False, False),
        "413 RequestTooLargeException",
    ),
    "service error": (refusal(500, "ServiceException", "internal"), MAYBE_RUN, "500 ServiceException"),
    "no address left": (
        refusal(502, "ENILimitReachedException", "ENI"),
        MAYBE_RUN,
        "502 ENILimitReachedException",
    ),
    "unavailable": (raw(b"", status=503), MAYBE_RUN, "Invoke API: 503"),
    "gateway timeout": (raw(b"", status=504), MAYBE_RUN, "Invoke API: 504"),
    "being changed": (refusal(409, "ResourceConflictException", "Pending"), MAYBE_RUN, "409 ResourceConf"),
    "accepted": (raw(b"", status=202), MAYBE_RUN, "Invoke API: 202"),
    "nothing": (raw(b"", status=204).replace(b"Content-Length: 0\r\n", b""), MAYBE_RUN, "204"),
    "moved": (raw(b"", status=301, Location="http://elsewhere"), MAYBE_RUN, "Invoke API: 301"),
    "no JSON": (raw(b"hello"), MAYBE_RUN, "malformed"),
    "a stream": (raw(b'{"statusCode":200}' + b"\0" * 8 + b"hi"), MAYBE_RUN, "streaming is not supported"),
    "a bad status": (answer({"statusCode": 99}), MAYBE_RUN, "statusCode"),
    "bad base64": (answer({**OK, "body": "?", "isBase64Encoded": True}), MAYBE_RUN, "base64"),
    "no HTTP": (b"hello\r\n\r\n", MAYBE_RUN, "malformed answer"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_error(scripted: Scripted, fault: str) -> None:
    sent, expected, words = FAULTS[fault]
    client = scripted.next(sent)
    error = fails(client)
    assert facts(error) == expected
    assert words in error.reason
    assert "secret" not in error.reason
    assert error.retry_after == (1 if expected[0] == "pool" else 0)
    assert len(scripted.api.calls) == 1  # nothing is sent twice
    assert fetch(client) == (200, b"ok")


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (None, 1),
        ("0", 1),
        ("7", 7),
        ("60", 60),
        ("86400", 60),
        ("-1", 1),
        ("soon", 1),
        ("\u0667", 1),
        ("9" * 5000, 1),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 1),
    ],
)
def test_a_throttled_request_may_come_again_when_lambda_says(
    scripted: Scripted, told: str | None, seconds: int
) -> None:
    fields = {} if told is None else {"Retry_After": told}
    sent = refusal(429, "TooManyRequestsException", "Rate Exceeded.", **fields)
    error = fails(scripted.next(sent))
    assert (error.stage, error.status, error.retry_after) == ("pool", 503, seconds)


def test_a_function_that_returns_no_status_is_malformed_in_other_formats(clients: Clients) -> None:
    with InvokeApi(lambda _: answer({"a": 1})) as api:
        error = fails(clients(api.url, format="rest"))
    assert facts(error) == MAYBE_RUN
    assert "statusCode" in error.reason


# --- connections


CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([reset()], MAYBE_RUN),
        ([close()], MAYBE_RUN),
        ([send(CUT[:20]), close()], MAYBE_RUN),
        ([send(CUT), close()], ("body", 502, True, False)),
        ([send(CUT), reset()], None),  # the reset may come before the head is read
        ([send(CUT.replace(b"Content-Length: 9", b"Transfer-Encoding: chunked")), close()], None),
    ],
)
def test_a_connection_that_is_cut_is_an_error_and_gone(
    clients: Clients, steps: list[Step], expected: Facts | None
) -> None:
    def cut(_: Call) -> bytes:
        return b""

    with InvokeApi(lambda _: answer(OK), [invoked([], cut), *steps]) as api:
        client = clients(api.url)
        error = fails(client)
        assert error.status == 502
        assert error.request_sent
        assert expected in (None, facts(error))
        assert client.pool.idle == 0
        assert fetch(client) == (200, b"ok")


def test_a_function_that_takes_longer_than_the_timeout_is_cut_off(clients: Clients) -> None:
    gone = threading.Event()
    script = [invoked([], lambda _: answer(OK)), invoked([], lambda _: b""), until_gone(), tell(gone)]
    with InvokeApi(lambda _: answer(OK), script) as api:
        client = clients(api.url)
        fetch(client)  # what is looked up once has its time, too
        assert facts(fails(client, timeout=SOON)) == LATE
        if isinstance(client, AsyncClient):
            client.runner.run(asyncio.sleep(0))
        assert gone.wait(PATIENCE)


def test_an_answer_that_stalls_is_cut_off(clients: Clients) -> None:
    with InvokeApi(lambda _: answer(OK), [invoked([], lambda _: CUT), until_gone()]) as api:
        client = clients(api.url, idle_timeout=SOON)
        assert facts(fails(client)) == ("body", 504, True, False)
        assert client.pool.idle == 0


@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_larger_than_any_function_may_give_is_not_read_to_its_end(
    clients: Clients, chunked: bool
) -> None:
    sent = raw(b'"' + b"x" * (MAX_PAYLOAD + 99), chunked=chunked)[:-9]  # its end never comes
    with InvokeApi(lambda _: answer(OK), [invoked([], lambda _: sent), until_gone()]) as api:
        client = clients(api.url)
        error = fails(client)
        assert facts(error) == MAYBE_RUN
        assert str(MAX_PAYLOAD) in error.reason
        assert client.pool.idle == 0
        assert fetch(client) == (200, b"ok")


def test_connections_are_used_again(clients: Clients) -> None:
    with InvokeApi(lambda _: answer(OK)) as api:
        client = clients(api.url)
        for _ in range(5):
            assert fetch(client) == (200, b"ok")
        assert (api.connections, client.pool.idle) == (1, 1)
        assert fetch(client, fresh=True) == (200, b"ok")
        assert api.connections == 2


@pytest.mark.parametrize("surplus", [b"x", answer(OK)])
def test_a_connection_with_more_than_the_answer_is_not_used_again(clients: Clients, surplus: bytes) -> None:
    # What came too much would be the answer to somebody else's request.
    with InvokeApi(lambda _: answer(OK), [invoked([], lambda _: answer(OK) + surplus), until_gone()]) as api:
        client = clients(api.url)
        assert fetch(client) == (200, b"ok")
        assert client.pool.idle == 0
        assert fetch(client) == (200, b"ok")
        assert api.connections == 2


def test_a_used_connection_that_dies_is_stale_and_a_fresh_one_is_not(clients: Clients) -> None:
    calls: list[Call] = []
    script = [invoked(calls, lambda _: answer(OK)), invoked(calls, lambda _: b""), close()]
    with InvokeApi(lambda _: answer(OK), script) as api:
        client = clients(api.url)
        fetch(client)
        assert facts(fails(client)) == ("head", 502, True, True)
        assert fetch(client, fresh=True) == (200, b"ok")
        assert (len(calls), len(api.calls), api.connections) == (2, 1, 2)


def test_an_address_where_nobody_listens_is_a_failure_to_connect(clients: Clients) -> None:
    with InvokeApi(lambda _: answer(OK)) as api:
        url = api.url
    client = clients(url)
    assert facts(fails(client)) == NOT_RUN
    assert facts(fails(client, method="POST", body=[b"x"])) == NOT_RUN


def test_https_is_verified(clients: Clients, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with InvokeApi(lambda _: answer(OK), context=context) as api:
        url = f"https://localhost:{api.endpoint.port}"
        assert facts(fails(clients(url))) == NOT_RUN
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert fetch(clients(url)) == (200, b"ok")


def test_a_closed_pool_takes_no_more(clients: Clients) -> None:
    with InvokeApi(lambda _: answer(OK)) as api:
        for used in (False, True):
            client = clients(api.url)
            if used:
                fetch(client)
            if isinstance(client, AsyncClient):
                client.pool.abort()
            else:
                client.pool.close()  # type: ignore[union-attr]
            assert facts(fails(client)) == ("pool", 503, False, False)


# --- bodies that are too large, or break


@pytest.mark.parametrize(("format_", "limit"), [("2.0", MAX_EVENT), ("alb", MAX_ALB_BODY)])
def test_a_body_that_no_event_can_carry_is_refused_unread(clients: Clients, format_: str, limit: int) -> None:
    read: list[int] = []

    def body() -> Iterator[bytes]:
        for n in range(1000):
            read.append(n)
            yield b"x" * 65_536

    with InvokeApi(lambda _: answer(OK)) as api:
        client = clients(api.url, format=format_)
        told = client.table.forward("/", "POST", [(b"content-length", b"%d" % (limit + 1))])
        with pytest.raises(ForwardError) as caught:
            client.send(told, body())
        assert (caught.value.status, caught.value.request_sent, read) == (413, False, [])
        assert fails(client, method="POST", body=body()).status == 413
        assert len(read) == limit // 65_536 + 1
        assert fails(client, method="POST", body=b"x" * (limit + 1)).status == 413
        assert (api.connections, api.calls) == (0, [])


def test_a_body_that_is_too_large_in_base64_is_refused(clients: Clients) -> None:
    with InvokeApi(lambda _: answer(OK)) as api:
        client = clients(api.url)
        assert fails(client, method="POST", body=b"\0" * 4_800_000).status == 413
        assert api.calls == []
        assert fetch(client, method="POST", body=b"\0" * 4_600_000) == (200, b"ok")


def test_what_the_body_raises_is_raised(clients: Clients) -> None:
    def body() -> Iterator[bytes]:
        yield b"x"
        raise ForwardError("send", "the client left", status=499)

    with InvokeApi(lambda _: answer(OK)) as api:
        client = clients(api.url)
        assert facts(fails(client, method="POST", body=body())) == ("send", 499, False, False)
        assert api.calls == []


# --- many at once


def test_exchanges_at_a_time_get_each_their_own_answer(clients: Clients) -> None:
    def echo(call: Call) -> bytes:
        return answer({"statusCode": 200, "body": call.event["rawPath"]})

    with InvokeApi(echo) as api:
        client = clients(api.url, max_in_flight=32, pool_timeout=PATIENCE)
        targets = [f"/{n}" for n in range(64)]  # half of them wait for their turn
        if isinstance(client, AsyncClient):
            pool, table = client.pool, client.table

            async def one(target: str) -> bytes:
                made = await pool.send(
                    table.forward(target), b"", method="GET", chunked=False, timeout=PATIENCE
                )
                body = made.take()
                made.close()
                await made.settle()
                return body

            async def every() -> list[bytes]:
                return await asyncio.gather(*map(one, targets))

            found = client.runner.run(every())
        else:
            with ThreadPoolExecutor(64) as executor:
                found = list(executor.map(lambda t: fetch(client, t)[1], targets))
        assert found == [t.encode() for t in targets]
        assert sorted(c.event["rawPath"] for c in api.calls) == sorted(targets)
        assert api.connections <= 32


def test_a_place_is_held_until_the_answer_is_closed(clients: Clients) -> None:
    with InvokeApi(lambda _: answer(OK)) as api:
        client = clients(api.url, max_in_flight=1, pool_timeout=0.0)
        first = client.send(client.table.forward())
        assert (client.pool.in_flight, client.pool.gate.taken) == (1, 1)
        with pytest.raises(ForwardError) as caught:
            client.send(client.table.forward(), patient=False)
        assert facts(caught.value) == ("pool", 503, False, False)
        first.close()
        assert fetch(client) == (200, b"ok")


# --- credentials


def test_without_credentials_nothing_is_sent(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    with InvokeApi(lambda _: answer(OK)) as api:
        client = clients(api.url)
        monkeypatch.setenv("AWS_PROFILE", "gone")
        client.pool._invocations.signer._found = None
        error = fails(client)
        assert facts(error) == NOT_RUN
        assert "gone" in error.reason
        monkeypatch.delenv("AWS_PROFILE")
        assert fetch(client) == (200, b"ok")  # they are looked for again
        assert len(api.calls) == 1


def test_credentials_that_do_not_come_end_with_the_timeout(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    find = Session.get_credentials

    def slow(session: Session) -> Any:
        assert go_on.wait(PATIENCE)
        return find(session)

    with InvokeApi(lambda _: answer(OK)) as api:
        client = clients(api.url)
        client.pool._invocations.signer._found = None
        monkeypatch.setattr(Session, "get_credentials", slow)
        assert facts(fails(client, timeout=SOON)) == ("connect", 504, False, False)
        go_on.set()
        assert fetch(client) == (200, b"ok")


# --- asyncio alone


@pytest.fixture
def client_of() -> Iterator[Any]:
    with Clients("asyncio") as made:
        yield made


def test_a_client_that_leaves_ends_the_invocation(client_of: Clients) -> None:
    gone = threading.Event()
    told: list[Any] = []
    with InvokeApi(lambda _: answer(OK), [invoked([], lambda _: b""), until_gone(), tell(gone)]) as api:
        client = client_of(api.url)
        left = ForwardError("send", "the client left", status=499)

        def on_slow(fail: Any) -> None:
            told.append(fail)
            fail(left)

        with pytest.raises(ForwardError) as caught:
            client.send(client.table.forward(), on_slow=on_slow)
        assert caught.value is left
        assert len(told) == 1
        client.runner.run(asyncio.sleep(0))  # type: ignore[attr-defined]
        assert gone.wait(PATIENCE)
        assert (client.pool.in_flight, client.pool.idle) == (0, 0)


def test_a_cancelled_invocation_is_ended(client_of: Clients) -> None:
    asked, gone = threading.Event(), threading.Event()
    script = [invoked([], lambda _: b""), tell(asked), until_gone(), tell(gone)]
    with InvokeApi(lambda _: answer(OK), script) as api:
        client = client_of(api.url)
        assert isinstance(client, AsyncClient)
        pool, forward = client.pool, client.table.forward()

        async def use() -> None:
            task = asyncio.ensure_future(
                pool.send(forward, b"", method="GET", chunked=False, timeout=PATIENCE)
            )
            await told(asked)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()
            await told(gone)

        client.runner.run(use())
        assert (pool.in_flight, pool.gate.taken, pool.idle) == (0, 0, 0)
        assert fetch(client) == (200, b"ok")


def test_while_one_waits_for_credentials_the_loop_serves_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def renew() -> dict[str, str]:
        begun.set()
        assert go_on.wait(PATIENCE)
        end = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        return {"access_key": "renewed", "secret_key": "s", "token": "t", "expiry_time": end}

    ended = RefreshableCredentials("ended", "s", "t", datetime.now(UTC), renew, "test")
    with InvokeApi(lambda _: answer(OK)) as api:
        waits, serves = Table(api.url), Table(api.url)

        async def one(pool: AsyncLambdaPool, table: Table) -> int:
            made = await pool.send(table.forward(), b"", method="GET", chunked=False, timeout=PATIENCE)
            made.close()
            return made.status

        versions: list[str] = []

        async def use() -> None:
            first, second = (
                AsyncLambdaPool(t.upstream, AsyncBulkhead(t.upstream.declared), versions.append)
                for t in (waits, serves)
            )
            assert await one(second, serves) == 200
            monkeypatch.setattr(Session, "get_credentials", lambda _: ended)
            waiting = [asyncio.ensure_future(one(first, waits)) for _ in range(3)]
            await told(begun)
            assert [await one(second, serves) for _ in range(3)] == [200] * 3
            assert not any(w.done() for w in waiting)
            go_on.set()
            assert await asyncio.gather(*waiting) == [200] * 3
            await first.aclose()
            await second.aclose()

        asyncio.run(use())
        keys = [c.header(b"authorization") or b"" for c in api.calls]
    assert [b"Credential=local/" in k for k in keys] == [True] * 4 + [False] * 3
    assert all(b"Credential=renewed/" in k for k in keys[4:])
    assert versions == ["42"] * 7


@pytest.mark.parametrize("when_done", [False, True])
@pytest.mark.parametrize("warm", [False, True])
def test_cancelled_at_any_wait_nothing_is_lost_or_mixed_up(
    client_of: Clients, warm: bool, when_done: bool
) -> None:
    def large(call: Call) -> bytes:
        return answer({"statusCode": 200, "body": call.event["rawPath"] + "x" * 300_000})

    with InvokeApi(large) as api:
        client = client_of(api.url)
        for at in count(1):
            if not warm:
                client = client_of(api.url)
            assert isinstance(client, AsyncClient)
            pool, forward = client.pool, client.table.forward("/cut", "POST")
            if warm:
                fetch(client, "/warm")
            cut = Cut(at, when_done)

            async def use(pool: Any = pool, forward: Any = forward, cut: Cut = cut) -> None:
                async def exchange() -> None:
                    made = await pool.send(
                        forward, each([b"a", b"b"]), method="POST", chunked=True, timeout=PATIENCE
                    )
                    made.close()

                with contextlib.suppress(asyncio.CancelledError):
                    await cut.through(exchange())

            client.runner.run(use())
            if not cut.made:
                break
            assert (pool.in_flight, pool.gate.taken) == (0, 0)
            status, body = fetch(client, f"/after-{at}")
            assert (status, body.rstrip(b"x")) == (200, b"/after-%d" % at)
        assert at > 4


def test_a_cancelled_wait_for_credentials_leaves_nothing(
    client_of: Clients, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def failing(_: Session) -> Any:
        begun.set()
        assert go_on.wait(PATIENCE)
        raise OSError("no credentials today")

    with InvokeApi(lambda _: answer(OK)) as api:
        client = client_of(api.url)
        assert isinstance(client, AsyncClient)
        pool, forward = client.pool, client.table.forward()
        signer = pool._invocations.signer
        signer._found = None
        monkeypatch.setattr(Session, "get_credentials", failing)

        async def use() -> None:
            task = asyncio.ensure_future(
                pool.send(forward, b"", method="GET", chunked=False, timeout=PATIENCE)
            )
            await told(begun)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            go_on.set()
            assert signer._work is not None
            assert isinstance(signer._work.exception(PATIENCE), ForwardError)

        client.runner.run(use())
        client.runner.run(asyncio.sleep(0))
        assert (pool.in_flight, pool.gate.taken) == (0, 0)
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_body_that_stalls_is_the_clients_fault(client_of: Clients) -> None:
    with InvokeApi(lambda _: answer(OK)) as api:
        client = client_of(api.url, idle_timeout=SOON)
        assert isinstance(client, AsyncClient)
        pool, forward = client.pool, client.table.forward("/", "POST")

        async def body() -> Any:
            yield b"x"
            await asyncio.get_running_loop().create_future()

        async def use() -> ForwardError:
            with pytest.raises(ForwardError) as caught:
                await pool.send(forward, body(), method="POST", chunked=True, timeout=PATIENCE)
            return caught.value

        assert facts(client.runner.run(use())) == ("send", 408, False, False)
        assert api.calls == []


def test_a_timeout_that_the_body_raises_is_the_bodys(client_of: Clients) -> None:
    with InvokeApi(lambda _: answer(OK)) as api:
        client = client_of(api.url)
        assert isinstance(client, AsyncClient)
        pool, forward = client.pool, client.table.forward("/", "POST")

        async def body() -> Any:
            yield b"x"
            raise TimeoutError("its own")

        async def use() -> None:
            with pytest.raises(TimeoutError, match="its own"):
                await pool.send(forward, body(), method="POST", chunked=True, timeout=PATIENCE)

        client.runner.run(use())
        assert pool.in_flight == 0


def test_closing_a_pool_ends_what_goes_on(client_of: Clients) -> None:
    asked = threading.Event()
    with InvokeApi(lambda _: answer(OK), [invoked([], lambda _: b""), tell(asked), until_gone()]) as api:
        client = client_of(api.url)
        assert isinstance(client, AsyncClient)
        pool, forward = client.pool, client.table.forward()

        async def use() -> ForwardError:
            task = asyncio.ensure_future(
                pool.send(forward, b"", method="GET", chunked=False, timeout=PATIENCE)
            )
            await told(asked)
            await pool.aclose()
            with pytest.raises(ForwardError) as caught:
                await task
            return caught.value

        assert facts(client.runner.run(use())) == ("head", 503, True, False)


def test_one_line_is_one_short_line() -> None:
    assert one_line("a\tb\n\nc\x00d\u2028e") == "a b c d e"
    assert one_line("x" * 1000) == "x" * 157 + "..."
    assert one_line("x" * 160) == "x" * 160
