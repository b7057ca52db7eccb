"""The Invoke API: botocore's own client and plain HTTP against real `awslambdaric` processes."""

import base64
import json
import re
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from lambda_dev.running import running

APP = """
import os, signal, sys, threading

def handler(event, context):
    sys.stdout.write(event.get("say", ""))
    match event.get("do"):
        case "raise":
            raise ValueError("boom")
        case "exit":
            sys.exit(event["code"])
        case "kill":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "long":
            return "x" * event["length"]
        case "set":
            return {1}
        case "hang":
            while True:
                pass
        case "environment":
            return dict(os.environ)
        case "context":
            return {
                "name": context.function_name, "version": context.function_version,
                "arn": context.invoked_function_arn, "id": context.aws_request_id,
                "memory": context.memory_limit_in_mb, "left": context.get_remaining_time_in_millis(),
                "custom": context.client_context and context.client_context.custom,
                "trace": os.environ.get("_X_AMZN_TRACE_ID"),
            }
    return event
"""
OTHER = "def main(event, context):\n    return 'other'\n"


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    arguments = [
        "app:handler",
        "other=other.main",
        "--timeout",
        "1.2",
        "--env",
        "STAGE=dev",
        "--memory",
        "256",
    ]
    with running(
        folder, *arguments, "--no-reload", code={"app.py": APP, "other.py": OTHER}, AWS_REGION="eu-west-1"
    ) as dev:
        dev.until("app | ready, 1 process")
        dev.until("other | ready, 1 process")
        yield dev


@pytest.fixture(scope="module")
def client(dev):
    client = dev.client()
    yield client
    client.close()


# --- botocore's client


def test_invoke(client):
    reply = client.invoke(FunctionName="app", Payload=b'{"a": [1, "\xc3\xa9"]}')
    assert (reply["StatusCode"], reply["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in reply
    assert "LogResult" not in reply
    assert json.loads(reply["Payload"].read()) == {"a": [1, "\u00e9"]}


def test_an_error_of_the_function(client):
    reply = client.invoke(FunctionName="app", Payload=b'{"do": "raise"}')
    assert (reply["StatusCode"], reply["FunctionError"]) == (200, "Unhandled")
    document = json.loads(reply["Payload"].read())
    assert (document["errorType"], document["errorMessage"]) == ("ValueError", "boom")
    assert document["requestId"] == reply["ResponseMetadata"]["RequestId"]
    assert "in handler" in document["stackTrace"][0]


def test_the_log_of_one_invocation(client):
    client.invoke(FunctionName="app", Payload=b'{"say": "not this"}')
    reply = client.invoke(FunctionName="app", Payload=b'{"say": "said\\n"}', LogType="Tail")
    log = base64.b64decode(reply["LogResult"]).decode()
    id_ = reply["ResponseMetadata"]["RequestId"]
    assert re.fullmatch(
        rf"START RequestId: {id_} Version: \$LATEST\nsaid\nEND RequestId: {id_}\n"
        rf"REPORT RequestId: {id_}\tDuration: [\d.]+ ms\tBilled Duration: \d+ ms\tMemory Size: 256 MB\t\n",
        log,
    )


def test_a_long_log_keeps_its_end(client):
    say = "".join(f"{n}\n" for n in range(50_000))
    reply = client.invoke(FunctionName="app", Payload=json.dumps({"say": say}).encode(), LogType="Tail")
    log = base64.b64decode(reply["LogResult"])
    assert len(log) == 4096
    assert b"\n49998\n49999\nEND RequestId" in log


@pytest.mark.parametrize(
    ("given", "arn", "version"),
    [
        ({"FunctionName": "app"}, "app", "$LATEST"),
        ({"FunctionName": "any-name"}, "any-name", "$LATEST"),
        ({"FunctionName": "app", "Qualifier": "live"}, "app:live", "$LATEST"),
        ({"FunctionName": "app:live"}, "app:live", "$LATEST"),
        ({"FunctionName": "app:live", "Qualifier": "live"}, "app:live", "$LATEST"),
        ({"FunctionName": "app", "Qualifier": "7"}, "app:7", "7"),
        ({"FunctionName": "arn:aws:lambda:eu-west-1:123456789012:function:app:live"}, "app:live", "$LATEST"),
        ({"FunctionName": "123456789012:function:app"}, "app", "$LATEST"),
    ],
)
def test_names_and_qualifiers(client, given, arn, version):
    context = base64.b64encode(json.dumps({"custom": {"a": "b\n\u00e9"}}).encode()).decode()
    reply = client.invoke(**given, Payload=b'{"do": "context"}', ClientContext=context)
    assert reply["ExecutedVersion"] == version
    found = json.loads(reply["Payload"].read())
    assert found.pop("left") <= 1200
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Sampled=0", found.pop("trace"))
    assert found == {
        "name": "app",
        "version": "$LATEST",
        "arn": f"arn:aws:lambda:eu-west-1:123456789012:function:{arn}",
        "id": reply["ResponseMetadata"]["RequestId"],
        "memory": "256",
        "custom": {"a": "b\n\u00e9"},
    }


def test_a_function_by_its_name(client):
    assert client.invoke(FunctionName="other")["Payload"].read() == b'"other"'


def test_an_event_runs_in_the_background(dev, client):
    reply = client.invoke(FunctionName="app", InvocationType="Event", Payload=b'{"say": "in the back\\n"}')
    assert reply["StatusCode"] == 202
    assert reply["Payload"].read() == b""
    assert dev.until("in the back") == "app | in the back"


def test_a_dry_run_runs_nothing(dev, client):
    reply = client.invoke(FunctionName="app", InvocationType="DryRun", Payload=b'{"say": "never said\\n"}')
    assert reply["StatusCode"] == 204
    client.invoke(FunctionName="app", Payload=b'{"say": "after the dry run\\n"}')
    dev.until("after the dry run")
    assert not any("never said" in line for line in dev.lines)


@pytest.mark.parametrize(
    ("given", "kind", "status", "says"),
    [
        ({"FunctionName": "a b"}, "ValidationException", 400, "no function name or ARN"),
        ({"FunctionName": "app:live", "Qualifier": "7"}, "InvalidParameterValueException", 400, "does not match"),
        ({"FunctionName": "app", "Qualifier": "a b"}, "InvalidParameterValueException", 400, "does not match"),
        ({"FunctionName": "app", "Payload": b"{"}, "InvalidRequestContentException", 400, "parse request body"),
        ({"FunctionName": "app", "Payload": b"NaN"}, "InvalidRequestContentException", 400, "parse request body"),
        ({"FunctionName": "app", "ClientContext": "e30"}, "InvalidRequestContentException", 400, "Client context"),
        ({"FunctionName": "app", "ClientContext": "W10="}, "InvalidRequestContentException", 400, "Client context"),
        ({"FunctionName": "app", "InvocationType": "Later"}, "InvalidParameterValueException", 400, "one of"),
        (
            {"FunctionName": "app", "Payload": b'"' + b"x" * 6_291_455 + b'"'},
            "RequestEntityTooLargeException",
            413,
            "must be smaller than 6291456 bytes",
        ),
        (
            {"FunctionName": "app", "Payload": b'"' + b"x" * 1_048_575 + b'"', "InvocationType": "Event"},
            "RequestEntityTooLargeException",
            413,
            "must be smaller than 1048576 bytes",
        ),
    ],
)  # fmt: skip
def test_what_the_service_refuses(client, given, kind, status, says):
    with pytest.raises(ClientError) as raised:
        client.invoke(**given)
    assert raised.value.response["Error"]["Code"] == kind
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert says in raised.value.response["Error"]["Message"]


# --- what a function can do


@pytest.mark.parametrize(
    ("event", "kind", "says"),
    [
        ({"do": "exit", "code": 3}, "Runtime.ExitError", "Runtime exited with error: exit status 3"),
        ({"do": "exit", "code": 0}, "Runtime.ExitError", "Runtime exited without providing a reason"),
        ({"do": "kill"}, "Runtime.ExitError", "Runtime exited with error: signal: segmentation fault"),
        ({"do": "hang"}, "Sandbox.Timedout", "Task timed out after 1.20 seconds"),
    ],
)
def test_a_process_that_is_lost_is_replaced(dev, event, kind, says):
    answer = dev.invoke({**event, "say": "last words"}, headers={"X-Amz-Log-Type": "Tail"})
    assert (answer.status, answer.headers["X-Amz-Function-Error"]) == (200, "Unhandled")
    assert answer.json() == {
        "errorType": kind,
        "errorMessage": f"RequestId: {answer.headers['x-amzn-RequestId']} Error: {says}",
    }
    assert b"last words" in base64.b64decode(answer.headers["X-Amz-Log-Result"])
    assert dev.invoke({"a": 1}).json() == {"a": 1}


def test_an_answer_that_is_not_json(dev):
    answer = dev.invoke({"do": "set"})
    assert answer.headers["X-Amz-Function-Error"] == "Unhandled"
    assert answer.json()["errorType"] == "Runtime.MarshalError"


@pytest.mark.parametrize(("length", "fits"), [(6 * 1024 * 1024 + 98, True), (6 * 1024 * 1024 + 99, False)])
def test_the_largest_answer(dev, length, fits):
    answer = dev.invoke({"do": "long", "length": length})
    assert ("X-Amz-Function-Error" not in answer.headers) is fits
    if fits:
        assert len(answer.body) == length + 2
    else:
        assert answer.json() == {
            "errorType": "Function.ResponseSizeTooLarge",
            "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        }
    assert dev.invoke({"a": 1}).json() == {"a": 1}


def test_the_environment_of_a_function(dev):
    found = dev.invoke({"do": "environment"}).json()
    wanted = {
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python3.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_FUNCTION_NAME": "app",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/app",
        "AWS_LAMBDA_LOG_STREAM_NAME": "lambda-dev",
        "AWS_REGION": "eu-west-1",
        "STAGE": "dev",
        "TZ": ":UTC",
        "_HANDLER": "app.handler",
    }
    assert {name: found.get(name) for name in wanted} == wanted
    assert Path(found["LAMBDA_TASK_ROOT"], "app.py").is_file()
    assert re.fullmatch(r"127\.0\.0\.1:\d+", found["AWS_LAMBDA_RUNTIME_API"])


# --- plain HTTP


def test_an_empty_event_is_an_empty_object(dev):
    assert dev.invoke(b"").json() == {}


def test_the_trace_of_the_caller_is_passed_on(dev):
    answer = dev.invoke(
        {"do": "context"}, headers={"X-Amzn-Trace-Id": "Root=1-67891233-abcdef012345678912345678"}
    )
    assert answer.json()["trace"] == "Root=1-67891233-abcdef012345678912345678"


def test_the_first_page_says_what_to_do(dev):
    text = dev.ask("GET", "/").body.decode()
    assert f'lambda = "other"\nendpoint_url = "http://127.0.0.1:{dev.port}"' in text
    assert dev.ask("HEAD", "/").status == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "kind"),
    [
        ("GET", "/favicon.ico", {}, 404, "UnknownOperationException"),
        ("GET", "/2015-03-31/functions/app/invocations", {}, 404, "UnknownOperationException"),
        ("POST", "/2015-03-31/functions/a%0d%0ab/invocations", {}, 400, "ValidationException"),
        ("POST", "/2021-11-15/functions/app/response-streaming-invocations", {}, 400, "InvalidParameterValueException"),
        ("POST", "/2015-03-31/functions/app/invocations", {"Origin": "http://evil.example"}, 403, "AccessDeniedException"),
    ],
)  # fmt: skip
def test_other_requests(dev, method, path, headers, status, kind):
    answer = dev.ask(method, path, headers=headers)
    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (status, kind)
    assert answer.json()["Type"] == "User"


def test_each_invocation_has_a_line(dev):
    dev.invoke({"say": "line one\nline two"})
    assert dev.after("app | line one") == "app | line two"
    assert re.fullmatch(r"app \| ok [\d.]+ ms", dev.after("app | line two"))
