"""What an ASGI app may send as an answer (ASGI HTTP specification 2.5), read strictly.

Pure: no loop, no threads. What a server would refuse or garble is refused here, since nothing else looks
at it: promises P5 and P6 hold for apps in this process, too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from strangle_mw.core.messages import is_token

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_BAD_VALUE = re.compile(rb"[\x00\r\n]").search
_MOST_DIGITS = 19
"""Those of the longest length that llhttp reads, and fewer than `int` refuses."""


class BrokenError(Exception):
    """An app has broken the protocol; the text says how."""


def read_start(message: Mapping[str, Any]) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Read `http.response.start`: the status and the headers, names in lower case."""
    status = message["status"]
    if type(status) is not int:
        if not isinstance(status, int) or isinstance(status, bool):
            raise BrokenError(f"the status is {type(status).__name__}, not int")
        status = int(status)  # http.HTTPStatus
    if not 200 <= status <= 599:  # noqa: PLR2004 - RFC 9110 section 15; interim answers are not for apps
        raise BrokenError(f"status {status}")
    headers = []
    for name, value in message.get("headers", ()):
        if not (isinstance(name, bytes) and isinstance(value, bytes)):
            raise BrokenError("the headers are not bytes")
        if not is_token(name) or _BAD_VALUE(value):
            raise BrokenError("a header with characters that it may not have")
        headers.append((name.lower(), value))
    return status, headers


def read_body(message: Mapping[str, Any]) -> tuple[bytes, bool]:
    """Read `http.response.body`: its bytes, and whether there will be more."""
    data = message.get("body", b"")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise BrokenError(f"the body is {type(data).__name__}, not bytes")
    return bytes(data), bool(message.get("more_body", False))


class Measure:
    """Holds an answer to its own Content-Length, and to having no body where it may not have one.

    A server would end such an answer cleanly, or leave its client waiting (promise P6). `bodyless` says that
    none of the body is sent.
    """

    __slots__ = ("_left", "bodyless")

    def __init__(self, method: str, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.bodyless = method == "HEAD" or status in (204, 304)
        declared = [value.strip() for name, value in headers if name == b"content-length"]
        self._left = -1
        if declared and status not in (204, 304):  # those carry none (RFC 9110 sections 8.6, 15.4.5)
            # One that is repeated is refused from other machines, too: who reads which is not for us to say.
            if len(declared) > 1 or not (text := declared[0]).isdigit() or len(text) > _MOST_DIGITS:
                raise BrokenError("a Content-Length that is not one number")
            self._left = -1 if self.bodyless else int(text)

    def count(self, data: bytes, *, more: bool) -> bytes:
        """Take note of a piece of the body; returns what of it is sent."""
        if self.bodyless:
            return b""
        if self._left >= 0:
            self._left -= len(data)
            if self._left < 0:
                raise BrokenError("the body is longer than its Content-Length")
            if self._left and not more:
                raise BrokenError("the body is shorter than its Content-Length")
        return data
