"""One process of a function: a real `awslambdaric`, and the Runtime API that this process alone is given.

Each process has a port of its own, so that a hanging one is told from the others: it is killed and replaced.
What its function is invoked with, and when it is replaced, is `function`'s business.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from strangle_mw.lambda_dev.http import Answer, Connection, Request
from strangle_mw.lambda_dev.invocations import (
    MAX_RESPONSE,
    Outcome,
    exit_reason,
    exited,
    no_streaming,
    timed_out,
    too_large,
)
from strangle_mw.lambda_dev.terminal import MAX_LINE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from strangle_mw.lambda_dev.http import Reply
    from strangle_mw.lambda_dev.invocations import Invocation
    from strangle_mw.lambda_dev.terminal import Output

INIT_LIMIT: Final = 10.0
"""Seconds that loading the code may take (Lambda's init phase)."""

_GRACE: Final = 1.0
"""Seconds that a process may go on after it has closed its connection."""
_PIPE: Final = 65_536
"""Bytes that a pipe holds (pipe(7)): what was written before now is no more than this."""
_API: Final = b"/2018-06-01/runtime/"
_CHILD: Final = str(Path(__file__).with_name("child.py"))
_JSON: Final = {"Content-Type": "application/json"}
_ACCEPTED: Final = Answer(HTTPStatus.ACCEPTED, _JSON, b'{"status":"OK"}')


@dataclass(frozen=True, slots=True)
class Program:
    """How to run a function: `handler` as AWS writes it, its environment, limits in seconds and megabytes."""

    handler: str
    environment: Mapping[str, str]
    folder: str
    timeout: float
    memory: int


class Owner(Protocol):
    """Whom a worker tells what happens to it."""

    def on_ready(self, worker: Worker) -> None:
        """The process asks for an invocation, for the first time or again."""

    def on_init_failed(self, worker: Worker, failure: Callable[[str], bytes]) -> None:
        """The code could not be loaded; `failure` writes the document for a request id."""

    def on_leaving(self, worker: Worker) -> None:
        """The process no longer asks: it is about to end."""

    def on_ended(self, worker: Worker) -> None:
        """The process has ended, and its invocation has been answered."""


class Worker:
    """Runs one process; `generation` is which state of the code it has loaded."""

    def __init__(self, program: Program, owner: Owner, output: Output, generation: int) -> None:
        self.generation = generation
        self.served = 0
        self.state: Literal["starting", "idle", "busy", "leaving", "ended"] = "starting"
        self._program = program
        self._owner = owner
        self._output = output
        self._loop = asyncio.get_running_loop()
        self._process: asyncio.subprocess.Process | None = None
        self._killed = False
        self._next: Reply | None = None
        self._invocation: Invocation | None = None
        self._began = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._pipe = -1
        self._line = b""

    # --- the process

    async def run(self) -> None:
        """Start the process, and stay until it has ended."""
        server = await self._loop.create_server(lambda: Connection(self._api, MAX_RESPONSE), "127.0.0.1", 0)
        try:
            await self._start(server.sockets[0].getsockname()[1])
            code = await self._process.wait() if self._process is not None else 0
        except OSError as exc:
            self._output.line(f"cannot be started: {exc}", "bad")
            code = 1
        finally:
            server.close()
            self._end_group()
            self._close_pipe()
        self._after(code)

    async def _start(self, port: int) -> None:
        self._pipe, theirs = os.pipe()
        os.set_blocking(self._pipe, False)
        self._timer = self._loop.call_later(INIT_LIMIT, self._init_too_slow)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", _CHILD, str(os.getpid()), self._program.handler),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                env={**self._program.environment, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}"},
                cwd=self._program.folder,
                start_new_session=True,  # a signal for the terminal is not for the functions
            )
        finally:
            os.close(theirs)
        self._loop.add_reader(self._pipe, self._drain)
        if self._killed:
            self.kill()

    def kill(self) -> None:
        """End the process and what it has started, at once."""
        self._killed = True
        self._end_group()

    def _end_group(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _after(self, code: int) -> None:
        was, self.state = self.state, "ended"
        if self._timer is not None:
            self._timer.cancel()
        if self._invocation is not None:
            if not self._killed:
                self._output.line(exit_reason(code), "bad")
            self._finish(exited(self._invocation.id, code), failed=True)
        elif was == "starting" and not self._killed:
            self._output.line(f"cannot be loaded: {exit_reason(code)}", "bad")
            self._owner.on_init_failed(self, lambda id_: exited(id_, code))
        elif was in ("idle", "leaving") and not self._killed:
            self._output.line(exit_reason(code), "bad")
        self._owner.on_ended(self)

    # --- its output

    def _drain(self) -> None:
        """Take what the process has written so far, and no more: it may write faster than we print."""
        left = _PIPE
        while self._pipe >= 0 and left > 0:
            try:
                data = os.read(self._pipe, left)
            except BlockingIOError:
                return
            if not data:
                self._close_pipe()
                return
            self._take(data)
            left -= len(data)

    def _take(self, data: bytes) -> None:
        if self._invocation is not None:
            self._invocation.note(data)
        self._print(data)

    def _print(self, data: bytes) -> None:
        whole, end, rest = (self._line + data).rpartition(b"\n")
        self._line = rest
        if end:
            self._output.lines(whole)
        if len(rest) > MAX_LINE:
            self._flush()

    def _flush(self) -> None:
        line, self._line = self._line, b""
        if line:
            self._output.lines(line)

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            pipe, self._pipe = self._pipe, -1
            self._loop.remove_reader(pipe)
            with suppress(BlockingIOError):
                self._take(os.read(pipe, _PIPE))
            os.close(pipe)
        self._flush()

    # --- the Runtime API

    def _api(self, request: Request, reply: Reply) -> None:
        match request.method, request.target.removeprefix(_API).split(b"/"):
            case "GET", [b"invocation", b"next"]:
                self._ask(request, reply)
            case "POST", [b"invocation", id_, b"response"]:
                self._answer(id_, request, reply, failed=False)
            case "POST", [b"invocation", id_, b"error"]:
                self._answer(id_, request, reply, failed=True)
            case "POST", [b"init", b"error"]:
                self._init_failed(request, reply)
            case _:
                reply(Answer(HTTPStatus.NOT_FOUND, _JSON, b'{"errorType":"NotFound"}'))

    def _ask(self, request: Request, reply: Reply) -> None:
        if self._invocation is not None or self._next is not None:  # a fork of the process, say, asks, too
            reply(Answer(HTTPStatus.FORBIDDEN, _JSON, b'{"errorType":"InvalidStateTransition"}'))
            return
        if self._timer is not None:
            self._timer.cancel()
        self.state, self._next = "idle", reply
        request.gone = self._gone
        self._drain()
        self._owner.on_ready(self)

    def _gone(self) -> None:
        """The process has closed its connection: it ends by itself, which tells more, or is ended."""
        if self.state == "idle":
            self.state, self._next = "leaving", None
            self._timer = self._loop.call_later(_GRACE, self.kill)
            self._owner.on_leaving(self)

    def give(self, invocation: Invocation) -> None:
        """Let the process, which must be idle, run an invocation."""
        reply, self._next = self._next, None
        self.state, self._invocation, self._began = "busy", invocation, time.monotonic()
        invocation.note(f"START RequestId: {invocation.id} Version: {invocation.version}\n".encode())
        self._timer = self._loop.call_later(self._program.timeout, self._too_slow)
        headers = {
            **_JSON,
            "Lambda-Runtime-Aws-Request-Id": invocation.id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + self._program.timeout) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": invocation.arn,
            "Lambda-Runtime-Trace-Id": invocation.trace,
        }
        if invocation.client_context:
            headers["Lambda-Runtime-Client-Context"] = invocation.client_context
        if reply is not None:
            reply(Answer(HTTPStatus.OK, headers, invocation.payload))

    def _answer(self, id_: bytes, request: Request, reply: Reply, *, failed: bool) -> None:
        if self._invocation is None or self._invocation.id.encode() != id_:
            reply(Answer(HTTPStatus.BAD_REQUEST, _JSON, b'{"errorType":"InvalidRequestID"}'))
            return
        reply(_ACCEPTED)
        if request.headers.get("lambda-runtime-function-response-mode", "").lower() == "streaming":
            self._finish(no_streaming(self._invocation.id), failed=True)
        elif request.too_large:
            self._finish(too_large(), failed=True)
        else:
            self._finish(request.body, failed=failed)

    def _finish(self, payload: bytes, *, failed: bool) -> None:
        """Answer the invocation; what the process wrote before its answer is taken first."""
        self._drain()
        self._flush()
        invocation, self._invocation = self._invocation, None
        if self._timer is not None:
            self._timer.cancel()
        if invocation is None:
            return
        self.served += 1
        took = (time.monotonic() - self._began) * 1000
        invocation.note(_report(invocation.id, took, self._program.memory))
        self._output.line(f"{'failed' if failed else 'ok'} {took:.1f} ms", "bad" if failed else "quiet")
        invocation.done(Outcome(payload, failed=failed, log=bytes(invocation.log)))

    def _too_slow(self) -> None:
        if self._invocation is not None:
            seconds = self._program.timeout
            self._output.line(f"timed out after {seconds:.2f} seconds; the process is replaced", "bad")
            self.kill()
            self._finish(timed_out(self._invocation.id, seconds), failed=True)

    # --- code that cannot be loaded

    def _init_failed(self, request: Request, reply: Reply) -> None:
        reply(_ACCEPTED)
        self._drain()
        if self.state == "starting":
            self._output.line("cannot be loaded", "bad")
            document = request.body
            self.state = "ended"  # it will, by itself: its end says nothing new
            self._owner.on_init_failed(self, lambda _: document)

    def _init_too_slow(self) -> None:
        if self.state == "starting":
            self._output.line(f"cannot be loaded in {INIT_LIMIT:.0f} seconds", "bad")
            self.state = "ended"
            self.kill()
            self._owner.on_init_failed(self, lambda id_: timed_out(id_, INIT_LIMIT))


def _report(id_: str, took: float, memory: int) -> bytes:
    """Write the two lines that Lambda ends the log of an invocation with."""
    return (
        f"END RequestId: {id_}\nREPORT RequestId: {id_}\tDuration: {took:.2f} ms\t"
        f"Billed Duration: {int(took) + 1} ms\tMemory Size: {memory} MB\t\n"
    ).encode()
