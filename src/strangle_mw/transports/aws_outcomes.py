"""What an answer of Lambda's Invoke API means: an answer of the function, or why there is none.

Nothing of a failure reaches the client (promise P23): reasons are for the log, one short line each. No
sockets and no event loop here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strangle_mw.core.messages import Header

MAX_PAYLOAD = 6 * 1024 * 1024 + 65_536
"""Bytes of an answer that are read: what a function may return (6 MB), and some slack."""

_MAX_RETRY_AFTER = 60
_TIMED_OUT = re.compile(r"\bTask timed out after\b")
_is_version = re.compile(r"\$LATEST|[A-Za-z0-9_.-]{1,64}").fullmatch


def one_line(text: str, most: int = 160) -> str:
    """Make text from outside fit for a log (P18): one line without control characters, short."""
    words = "".join(c if c.isprintable() else " " for c in text[: most * 4]).split()
    line = " ".join(words)
    return line if len(line) <= most else line[: most - 3] + "..."


def executed_version(headers: Sequence[Header]) -> str:
    """Return the version that ran, as the API names it; "" if it names none, or something strange."""
    text = _header(headers, b"x-amz-executed-version")
    return text if _is_version(text) else ""


def check_outcome(status: int, headers: Sequence[Header], payload: bytes) -> None:
    """Raise `ForwardError` unless the payload is what a function has returned.

    Stage `connect` and `pool` say that no function ran, so that legacy may answer whatever the method; `head`
    that one may have.
    """
    if status != 200:  # noqa: PLR2004 - 202 and 204 answer what is never asked for
        raise _refused(status, headers, _facts(payload))
    kind = _header(headers, b"x-amz-function-error")
    if kind:
        raise _function_failed(kind, _facts(payload))


def _function_failed(kind: str, facts: dict[str, Any]) -> ForwardError:
    """Word an error of the function's, without its stack trace.

    A function that runs out of time is told from one that fails by the text alone, or by the error's type.
    """
    name, message = _text(facts, "errorType"), _text(facts, "errorMessage")
    reason = one_line(f"function error ({kind}): {name or 'no errorType'}: {message}", 200)
    late = name == "Sandbox.Timedout" or (name in ("", "Unhandled") and _TIMED_OUT.search(message))
    return ForwardError("head", reason, status=504 if late else 502, request_sent=True)


def _refused(status: int, headers: Sequence[Header], facts: dict[str, Any]) -> ForwardError:
    name = _header(headers, b"x-amzn-errortype").partition(":")[0] or _text(facts, "__type", "Type")
    message = _text(facts, "Reason") + " " + _text(facts, "Message", "message")
    reason = one_line(f"Invoke API: {status} {name} {message}", 200)
    if status == 404:  # noqa: PLR2004 - ResourceNotFoundException: neither function nor alias
        return ForwardError("connect", one_line(f"function not found: {reason}", 200))
    if status == 429:  # noqa: PLR2004 - TooManyRequestsException: nothing ran
        after = _retry_after(headers)
        return ForwardError("pool", reason, status=503, retry_after=after)
    if status == 413:  # noqa: PLR2004 - RequestTooLargeException
        return ForwardError("send", reason, status=413)
    if status in (400, 401, 403):  # signature, token, rights, request: refused before anything ran
        return ForwardError("connect", reason)
    return ForwardError("head", reason, request_sent=True)


def _retry_after(headers: Sequence[Header]) -> int:
    text = _header(headers, b"retry-after")
    seconds = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 1  # noqa: PLR2004 - an int at all
    return min(max(seconds, 1), _MAX_RETRY_AFTER)


def _header(headers: Sequence[Header], wanted: bytes) -> str:
    return next((v.decode("latin-1").strip() for n, v in headers if n.lower() == wanted), "")


def _facts(payload: bytes) -> dict[str, Any]:
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):  # a proxy's page, say
        return {}
    return found if isinstance(found, dict) else {}


def _text(facts: dict[str, Any], *names: str) -> str:
    return next((v for n in names if isinstance(v := facts.get(n), str)), "")
