"""One invocation and what becomes of it, and the documents that Lambda writes when a function cannot. Pure.

The shapes are those of the service; the types (`Sandbox.Timedout`, `Runtime.ExitError`,
`Function.ResponseSizeTooLarge`) are what its users look for.
"""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_RESPONSE: Final = 6 * 1024 * 1024 + 100
"""Bytes that a function may answer with; the service's own message says so."""
TAIL: Final = 4096
"""Bytes of output that `X-Amz-Log-Type: Tail` returns."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an invocation: `failed` is X-Amz-Function-Error, `throttled` that no process was free.

    `log` is the end of what the process wrote meanwhile.
    """

    payload: bytes
    failed: bool = False
    throttled: bool = False
    log: bytes = b""


@dataclass(slots=True, eq=False)
class Invocation:
    """One event for a function; `done` is called once with what became of it.

    `arn` as it was asked for, `client_context` as JSON text. A `patient` one waits for a process without end.
    """

    id: str
    payload: bytes
    arn: str
    version: str
    done: Callable[[Outcome], None]
    client_context: str = ""
    trace: str = ""
    patient: bool = False
    log: bytearray = field(default_factory=bytearray)

    def note(self, data: bytes) -> None:
        """Add to the log; only its end is kept."""
        self.log += data
        if len(self.log) > TAIL:
            del self.log[:-TAIL]


def document(kind: str, message: str) -> bytes:
    """Write an error document of the service's own."""
    return json.dumps({"errorType": kind, "errorMessage": message}, separators=(",", ":")).encode()


def timed_out(id_: str, seconds: float) -> bytes:
    """Say that a function took too long."""
    return document("Sandbox.Timedout", f"RequestId: {id_} Error: Task timed out after {seconds:.2f} seconds")


def exited(id_: str, code: int) -> bytes:
    """Say that a process ended; `code` as `subprocess` gives it."""
    return document("Runtime.ExitError", f"RequestId: {id_} Error: {exit_reason(code)}")


def exit_reason(code: int) -> str:
    """Put an exit code in the service's words."""
    if code < 0:
        name = signal.strsignal(-code) or str(-code)
        return f"Runtime exited with error: signal: {name.lower()}"
    return (
        f"Runtime exited with error: exit status {code}"
        if code
        else "Runtime exited without providing a reason"
    )


def too_large() -> bytes:
    """Say that an answer is longer than Lambda delivers."""
    what = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE} bytes)."
    return document("Function.ResponseSizeTooLarge", what)


def no_streaming(id_: str) -> bytes:
    """Say that a streamed answer is not taken: the Invoke API waits for whole ones."""
    what = f"RequestId: {id_} Error: lambda-dev does not support response streaming"
    return document("Runtime.StreamingNotSupported", what)
