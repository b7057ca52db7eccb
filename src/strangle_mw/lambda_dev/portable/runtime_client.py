"""What `awslambdaric` imports as `runtime_client` where its native one was not built: that is for Linux.

On the path of a function's process only, and only there. Speaks to the Runtime API over the standard library.
"""

from __future__ import annotations

import http.client
import os
from typing import Any

_agent = ""
_connection: http.client.HTTPConnection | None = None


def initialize_client(user_agent: str) -> None:
    """Take note of what the client calls itself."""
    global _agent  # noqa: PLW0603 - the native module keeps it so, too
    _agent = user_agent


def _call(method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[bytes, Any]:
    global _connection  # noqa: PLW0603 - one for the life of the process, as the native one keeps it
    if _connection is None:
        _connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    _connection.request(
        method, f"/2018-06-01/runtime/invocation/{path}", body, {**headers, "User-Agent": _agent}
    )
    answer = _connection.getresponse()
    data = answer.read()
    if answer.status // 100 != 2:  # noqa: PLR2004 - any success
        raise RuntimeError(f"the Runtime API answered {answer.status} to {path}")
    return data, answer.headers


def next() -> tuple[bytes, Any]:  # noqa: A001 - the native module's name
    """Wait for an invocation; returns the event and its headers."""
    return _call("GET", "next", None, {})


def post_invocation_result(
    invoke_id: str, data: bytes, content_type: str, _invocation_id: str | None = None
) -> None:
    """Answer an invocation."""
    _call("POST", f"{invoke_id}/response", data, {"Content-Type": content_type})


def post_error(invoke_id: str, error: str, _xray: str, _invocation_id: str | None = None) -> None:
    """Say that an invocation failed."""
    _call("POST", f"{invoke_id}/error", error.encode(), {"Content-Type": "application/json"})
