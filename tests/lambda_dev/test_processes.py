"""The processes of lambda-dev: how many at once, new code, code that cannot be loaded, and the end of all."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from lambda_dev.running import DEADLINE, START, alive, running
from strangle_mw.cli_lambda import lambda_commands
from strangle_mw.lambda_dev import server
from strangle_mw.lambda_dev.function import Function
from strangle_mw.lambda_dev.invocations import Invocation
from strangle_mw.lambda_dev.names import parse_handler
from strangle_mw.lambda_dev.server import Options, program
from strangle_mw.lambda_dev.terminal import Terminal

# A function that calls the test, says who it is, and goes on when the test says so.
MEETING = """
import os, socket, subprocess, sys

def handler(event, context):
    if event.get("child"):
        event["child"] = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid
    if event.get("port"):
        with socket.create_connection(("127.0.0.1", event["port"])) as call:
            call.sendall(b"%d %d" % (os.getpid(), event.get("child", 0)))
            call.recv(1)
    return os.getpid()
"""
VERSION = "def handler(event, context):\n    return {version}\n"


@contextmanager
def meeting():
    """Listen for functions; yields what accepts one: its connection and the pids that it tells."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE)

        def accept():
            call, _ = listener.accept()
            call.settimeout(DEADLINE)
            return call, *map(int, call.recv(100).split())

        accept.port = listener.getsockname()[1]
        yield accept


def eventually(check):
    end = time.monotonic() + DEADLINE
    while not check() and time.monotonic() < end:
        time.sleep(0.01)
    return check()


# --- how many at once


def test_k_invocations_run_at_once_and_one_more_waits(tmp_path):
    with (
        running(
            tmp_path, "app:handler", "--workers", "3", "--timeout", "60", code={"app.py": MEETING}
        ) as dev,
        meeting() as accept,
        ThreadPoolExecutor(4) as threads,
    ):
        dev.until("app | ready, 3 processes")
        answers = [threads.submit(dev.invoke, {"port": accept.port}) for _ in range(4)]
        calls = [accept() for _ in range(3)]  # all three wait for each other here
        assert len({pid for _, pid, _ in calls}) == 3
        calls[0][0].close()
        fourth, pid, _ = accept()
        assert pid == calls[0][1]
        for call in (fourth, *(call for call, _, _ in calls[1:])):
            call.close()
        assert sorted(a.result().json() for a in answers) == sorted([pid, *(pid for _, pid, _ in calls)])


def test_a_client_that_leaves_while_it_waits_is_not_served(tmp_path):
    with (
        running(tmp_path, "app:handler", "--timeout", "60", code={"app.py": MEETING}) as dev,
        meeting() as accept,
        ThreadPoolExecutor(1) as threads,
    ):
        first = threads.submit(dev.invoke, {"port": accept.port})
        call, *_ = accept()
        left = socket.create_connection(("127.0.0.1", dev.port))
        body = b'{"port": %d}' % accept.port
        left.sendall(
            b"POST /2015-03-31/functions/app/invocations HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        left.close()
        for _ in range(3):  # several turns of its loop: it has read what came before, and the end
            assert dev.ask("GET", "/").status == 200
        call.close()
        assert first.result().status == 200
        assert dev.invoke({"a": 1}).status == 200  # not behind one that waits for this test
    assert sum(" ok " in line for line in dev.lines) == 2


def test_no_process_is_free_for_too_long(tmp_path):
    (tmp_path / "app.py").write_text(MEETING)
    options = Options("127.0.0.1", 0, 1, 60.0, 128, {}, False, tmp_path)
    outcomes = []

    async def run(accept):
        function = Function(
            program(parse_handler("app:handler"), options), 1, Terminal().output("app", 0), patience=0.05
        )
        told = asyncio.Queue()
        event = b'{"port": %d}' % accept.port
        for id_ in ("runs", "waits"):
            function.invoke(
                Invocation(id_, event, "arn", "$LATEST", lambda o, id_=id_: told.put_nowait((id_, o)))
            )
        call, *_ = await asyncio.to_thread(accept)
        outcomes.append(await asyncio.wait_for(told.get(), DEADLINE))
        function.invoke(
            Invocation(
                "event", b"{}", "arn", "$LATEST", lambda o: told.put_nowait(("event", o)), patient=True
            )
        )
        call.close()
        outcomes.append(await asyncio.wait_for(told.get(), DEADLINE))
        outcomes.append(await asyncio.wait_for(told.get(), DEADLINE))
        await function.aclose()

    with meeting() as accept:
        asyncio.run(run(accept))
    assert [(id_, o.throttled) for id_, o in outcomes] == [("waits", True), ("runs", False), ("event", False)]


def test_throttled_as_aws_says_it(tmp_path):
    from strangle_mw.lambda_dev.http import Request
    from strangle_mw.lambda_dev.invocations import Outcome
    from strangle_mw.lambda_dev.invoke import InvokeAPI

    class Busy:
        def forget(self, invocation): ...

        def invoke(self, invocation):
            invocation.done(Outcome(b"", throttled=True))

    answers = []
    for kind in ("RequestResponse", "Event"):
        request = Request("POST", b"/2015-03-31/functions/f/invocations", {"x-amz-invocation-type": kind})
        InvokeAPI({"f": Busy()}, "eu-west-1", "").handle(request, answers.append)
    assert [a.status for a in answers[:2]] == [429, 429]
    assert answers[0].headers["Retry-After"] == "1"
    assert answers[0].headers["x-amzn-ErrorType"] == "TooManyRequestsException"
    assert b"ReservedFunctionConcurrentInvocationLimitExceeded" in answers[0].body


# --- new code


def test_new_code_and_code_that_cannot_be_loaded(tmp_path):
    file = tmp_path / "app.py"
    with running(
        tmp_path, "app:handler", "--workers", "2", code={"app.py": VERSION.format(version=1)}
    ) as dev:
        dev.until("ready, 2 processes")
        assert dev.invoke().json() == 1
        file.write_text(VERSION.format(version="'two'"))
        dev.until("ready, 2 processes", times=2)
        assert [dev.invoke().json() for _ in range(4)] == ["two"] * 4
        file.write_text("def handler(:\n")
        dev.until("app | cannot be loaded")
        assert "app |   File" in dev.until('File "')
        answers = [dev.invoke() for _ in range(3)]
        assert {a.headers["X-Amz-Function-Error"] for a in answers} == {"Unhandled"}
        assert {a.json()["errorType"] for a in answers} == {"Runtime.UserCodeSyntaxError"}
        file.write_text(VERSION.format(version="'three'"))
        dev.until("ready, 2 processes", times=3)
        assert dev.invoke().json() == "three"
        assert sum("changed: the code is loaded anew" in line for line in dev.lines) == 3
        assert sum("cannot be loaded" in line for line in dev.lines) == 1


def test_what_runs_ends_with_the_code_it_began_with(tmp_path):
    with (
        running(tmp_path, "app:handler", "--timeout", "60", code={"app.py": MEETING}) as dev,
        meeting() as accept,
        ThreadPoolExecutor(2) as threads,
    ):
        first = threads.submit(dev.invoke, {"port": accept.port})
        call, pid, _ = accept()
        (tmp_path / "app.py").write_text(VERSION.format(version="'new'"))
        dev.until("loaded anew")
        second = threads.submit(dev.invoke)
        assert alive(pid)
        call.close()
        assert (first.result().json(), second.result().json()) == (pid, "new")
        assert eventually(lambda: not alive(pid))


BROKEN = {
    "zero": ("1 / 0\n", "ZeroDivisionError", "division by zero"),
    "missing": ("import ldnothing\n", "Runtime.ImportModuleError", "No module named 'ldnothing'"),
    "empty": ("x = 1\n", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'empty'"),
    "exits": ("import sys; sys.exit(4)\n", "Runtime.ExitError", "exit status 4"),
    "killed": ("import os; os.kill(os.getpid(), 9)\n", "Runtime.ExitError", "signal: killed"),
}


def test_code_that_cannot_be_loaded(tmp_path):
    files = {f"{name}.py": code for name, (code, *_) in BROKEN.items()}
    handlers = [f"{name}={name}:handler" for name in BROKEN]
    with running(tmp_path, *handlers, "--workers", "2", "--no-reload", code=files) as dev:
        for name, (_, kind, says) in BROKEN.items():
            answers = [dev.invoke(name=name) for _ in range(2)]  # the first may wait while it is being loaded
            assert [a.headers["X-Amz-Function-Error"] for a in answers] == ["Unhandled"] * 2
            assert [a.json()["errorType"] for a in answers] == [kind] * 2
            assert says in answers[0].json()["errorMessage"]
    assert sorted(line.split()[0] for line in dev.lines if "cannot be loaded" in line) == sorted(BROKEN)


def test_a_process_that_ends_between_two_invocations_is_replaced(tmp_path):
    code = "import os, threading\ndef handler(event, context):\n    if event: threading.Timer(0.2, os._exit, [5]).start()\n    return os.getpid()\n"
    with running(tmp_path, "app:handler", "--no-reload", code={"app.py": code}) as dev:
        first = dev.invoke().json()
        dev.invoke({"leave": True})
        dev.until("exit status 5")
        answer = dev.invoke().json()
        assert answer != first


def test_a_function_that_prints_without_end_is_still_stopped(tmp_path):
    code = "import os\ndef handler(event, context):\n    while True:\n        os.write(1, b'x\\n' * 2048)\n"
    with running(tmp_path, "app:handler", "--no-reload", "--timeout", "0.5", code={"app.py": code}) as dev:
        assert dev.invoke().json()["errorType"] == "Sandbox.Timedout"
    del dev.lines[20:]  # or they are all shown


TWICE = """
import http.client, os

def handler(event, context):
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    return api.getresponse().status
"""


def test_who_asks_before_it_has_answered_is_given_nothing(tmp_path):
    with running(tmp_path, "app:handler", "--no-reload", code={"app.py": TWICE}) as dev:
        assert [dev.invoke().json() for _ in range(3)] == [403] * 3


# --- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all(tmp_path, number):
    with (
        running(
            tmp_path, "app:handler", "--workers", "2", "--timeout", "60", code={"app.py": MEETING}
        ) as dev,
        meeting() as accept,
        ThreadPoolExecutor(1) as threads,
    ):
        dev.until("ready, 2 processes")
        idle = dev.invoke().json()
        cut = threads.submit(dev.invoke, {"port": accept.port, "child": True})
        call, busy, child = accept()
        assert len({idle, busy, child}) >= 2
        assert alive(busy)
        assert alive(child)
        assert dev.end(number) == 0
        assert not alive(busy)
        assert not alive(idle)
        assert eventually(lambda: not alive(child))  # init reaps it
        assert cut.result().json()["errorType"] == "Runtime.ExitError"
        call.close()
    assert not any("Traceback" in line for line in dev.lines)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_nothing_outlives_a_lambda_dev_that_is_killed(tmp_path):
    with (
        running(
            tmp_path, "app:handler", "--workers", "2", "--timeout", "60", code={"app.py": MEETING}
        ) as dev,
        meeting() as accept,
        ThreadPoolExecutor(1) as threads,
    ):
        dev.until("ready, 2 processes")
        cut = threads.submit(dev.invoke, {"port": accept.port})
        call, busy, _ = accept()
        pids = {busy} | children(dev.process.pid)
        assert len(pids) == 2
        dev.end(signal.SIGKILL)
        assert eventually(lambda: not any(alive(pid) for pid in pids))
        assert cut.exception() is not None
        call.close()


def children(pid):
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return {int(text) for text in found.stdout.split()}


def test_a_terminal_that_is_closed_ends_all(tmp_path):
    (tmp_path / "app.py").write_text(MEETING)
    with subprocess.Popen(
        [sys.executable, "-c", START, "lambda-dev", "app:handler", "--port", "0"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(DEADLINE) == 1


# --- starting


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "Missing argument"),
        (["app"], 2, "must be [NAME=]module:handler"),
        (["a=app:handler", "a=app:other"], 2, "'a' is given twice"),
        (["app:handler", "--workers", "0"], 2, "--workers"),
        (["app:handler", "--timeout", "901"], 2, "--timeout"),
        (["app:handler", "--env", "x"], 2, "write --env KEY=VALUE"),
        (["app:handler", "--env", "_HANDLER=x"], 2, "_HANDLER is set by lambda-dev itself"),
        (["none:handler", "noshop.none:handler"], 2, "only one function can answer to any name"),
        (["none:handler", "a=noshop.none:handler"], 1, "error there is no module 'none' in the folder"),
        (["none:handler", "a=noshop.none:handler"], 1, "error there is no module 'noshop'"),
        (["app:handler", "--host", "192.0.2.1"], 1, "error cannot listen on 192.0.2.1:"),
    ],
)
def test_what_cannot_start(tmp_path, monkeypatch, arguments, code, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text("raise RuntimeError('imported')\n")
    result = CliRunner().invoke(lambda_commands[0], [*arguments, "--port", "0"], catch_exceptions=False)
    assert result.exit_code == code
    assert says in result.stderr
    assert result.stdout == ""


def test_a_port_in_use_and_a_module_that_is_missing_are_told_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(lambda_commands[0], ["none:handler", "--port", str(port)])
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"error there is no module 'none' in the folder {tmp_path}",
        f"error cannot listen on 127.0.0.1:{port}: Address already in use",
    ]


def test_without_the_runtime_client(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text(MEETING)
    monkeypatch.setattr(server, "find_spec", lambda name: None if name == "awslambdaric" else find_spec(name))
    result = CliRunner().invoke(lambda_commands[0], ["app:handler", "--port", "0"])
    assert result.exit_code == 1
    assert result.stderr == "error lambda-dev needs one more package: pip install 'strangle-mw[lambda-dev]'\n"


def test_where_its_native_part_was_not_built(tmp_path):
    """As on macOS: its wheels are for Linux, its source installs without."""
    hide = "import importlib.util as u; real = u.find_spec; u.find_spec = lambda n, p=None: None if n == 'runtime_client' else real(n, p); "
    code = "import runtime_client\ndef handler(event, context):\n    if event: raise ValueError('\u00e9')\n    return runtime_client.__file__\n"
    with running(tmp_path, "app:handler", code={"app.py": code}, before=hide) as dev:
        assert dev.invoke().json().endswith("/portable/runtime_client.py")
        assert dev.invoke({"a": 1}).json()["errorMessage"] == "\u00e9"
        assert dev.invoke().status == 200


def test_only_the_functions_that_were_named_and_what_is_printed(tmp_path):
    code = {"app.py": VERSION.format(version=1)}
    with running(tmp_path, "one=app:handler", "two=app.handler", code=code) as dev:
        port = dev.port
        dev.until("two | ready, 1 process")
        answer = dev.invoke(name="none", query="?Qualifier=live")  # no function here answers to any name
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (404, "ResourceNotFoundException")
        assert answer.json() == {
            "Type": "User",
            "Message": "Function not found: arn:aws:lambda:us-east-1:123456789012:function:none:live",
        }
    assert dev.lines[:9] == [
        f"lambda-dev listens on http://127.0.0.1:{port}; Ctrl-C ends it",
        "",
        "[upstreams.one]",
        'lambda = "one"',
        f'endpoint_url = "http://127.0.0.1:{port}"',
        "",
        "[upstreams.two]",
        'lambda = "two"',
        f'endpoint_url = "http://127.0.0.1:{port}"',
    ]


def test_an_address_of_the_network_is_warned_about(tmp_path):
    with running(tmp_path, "app:handler", "--host", "0.0.0.0", code={"app.py": MEETING}) as dev:
        dev.until("it is not for a network")
        assert dev.invoke().status == 200
        assert dev.until("endpoint_url").startswith('endpoint_url = "http://127.0.0.1:')


def test_hundreds_of_invocations_over_kept_connections(tmp_path):
    with running(tmp_path, "app:handler", "--workers", "2", "--no-reload", code={"app.py": MEETING}) as dev:
        client, found = dev.client(), []

        def call():
            found.extend(client.invoke(FunctionName="app")["StatusCode"] for _ in range(25))

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.close()
        assert found == [200] * 100


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_descriptors_do_not_leak(tmp_path):
    code = "import sys\ndef handler(event, context):\n    if event: sys.exit(1)\n"
    with running(tmp_path, "app:handler", "--no-reload", code={"app.py": code}) as dev:

        def count():
            return len(list(Path(f"/proc/{dev.process.pid}/fd").iterdir()))

        dev.invoke()
        before = count()
        for _ in range(5):
            assert dev.invoke({"leave": True}).json()["errorType"] == "Runtime.ExitError"
        dev.invoke()
        assert eventually(lambda: count() <= before)
