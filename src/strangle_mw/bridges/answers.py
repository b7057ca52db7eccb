"""What a WSGI app answers, checked by the rules of PEP 3333 and put into ASGI messages, in the app's thread.

How messages get to the event loop is in `handover`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from strangle_mw.bridges.handover import log
from strangle_mw.core.messages import is_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from strangle_mw.bridges.handover import Handover, Message

    Header = tuple[bytes, bytes]
    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

# Interim answers are no answers, and a status has three digits (RFC 9110 section 15).
_is_status = re.compile(r"[2-9][0-9]{2}( [ \t\x21-\x7e\x80-\xff]*)?").fullmatch
_is_value = re.compile(r"[ \t\x21-\x7e\x80-\xff]*").fullmatch

# The connection is the server's (PEP 3333, "Other HTTP Features"), which also says who it is and what time it
# is: every server that is tested adds both, and would add them twice. gunicorn drops the same.
_SERVERS = frozenset(
    (
        b"connection", b"date", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"server",
        b"te", b"trailer", b"trailers", b"transfer-encoding", b"upgrade",
    )
)  # fmt: skip
_NO_CONTENT, _NOT_MODIFIED = 204, 304


class Answer:
    """One answer of an app to a request with this method."""

    def __init__(self, handover: Handover, method: str) -> None:
        self._handover = handover
        self._head = method == "HEAD"
        self._start: Message | None = None
        self._sent = False  # the head
        self._complete = False
        self._bodyless = False
        self._warned = False
        self._length: int | None = None
        self._count = 0

    def respond(self, app: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> None:
        """Call the app, send its answer as it comes, and close what it has returned, whatever happens."""
        result = app(environ, self._start_response)
        # What is a list is known to be all there is, and needs no closing: its end can go out with it.
        listed = type(result) in (list, tuple)
        last = len(result) - 1 if listed else -1  # type: ignore[arg-type]
        try:
            for index, chunk in enumerate(result):
                if not self._chunk(chunk, last=index == last, listed=listed):
                    break
            self._finish(listed=listed)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def _start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], None]:
        try:
            if exc_info and self._sent:
                raise exc_info[1].with_traceback(exc_info[2])  # type: ignore[union-attr]
            if self._start is not None and not exc_info:
                raise AssertionError("start_response was called before; a second call must give exc_info")
        finally:
            exc_info = None  # no cycle with the traceback
        code = read_status(status)
        fields, length = read_headers(headers)
        if code == _NO_CONTENT:  # RFC 9110 section 8.6
            fields, length = [f for f in fields if f[0] != b"content-length"], None
        self._start = {"type": "http.response.start", "status": code, "headers": fields}
        self._bodyless = self._head or code in (_NO_CONTENT, _NOT_MODIFIED)
        self._length = length
        return self._write

    def _write(self, data: bytes, /) -> None:
        if data:
            self._chunk(data, last=False, listed=False)
        elif not self._sent:
            self._handover.write(self._messages(_bytes(data), more=True))

    def _chunk(self, data: bytes, *, last: bool, listed: bool) -> bool:
        """Send one chunk; return whether more can be of use."""
        if not _bytes(data):
            return True
        if self._complete:
            return self._too_much()
        if self._bodyless:
            self._end(b"", listed=listed)
            return False
        count, length = self._count + len(data), self._length
        if length is not None and count > length:
            data, count = data[: length - self._count], length
            self._too_much()
        self._count = count
        if count == length or (last and length is None):
            self._end(data, listed=listed)
        elif last and not self._sent:
            raise self._too_little()
        else:
            self._handover.write(self._messages(data, more=True))
        return True

    def _finish(self, *, listed: bool) -> None:
        if self._complete:
            return
        if self._start is None:
            raise RuntimeError("the app has not called start_response")
        if not self._bodyless and self._length is not None and self._count < self._length:
            raise self._too_little()
        self._end(b"", listed=listed)

    def _end(self, data: bytes, *, listed: bool) -> None:
        self._complete = True
        self._handover.put(self._messages(data, more=False), at_once=not listed)

    def _messages(self, data: bytes, *, more: bool) -> list[Message]:
        if self._start is None:
            raise RuntimeError("the app has not called start_response")
        body: Message = {"type": "http.response.body", "body": data, "more_body": more}
        if self._sent:
            return [body]
        self._sent = True
        return [self._start, body]

    def _too_much(self) -> bool:
        """Leave out what is not declared, as gunicorn does; whatever follows is of no use."""
        if not self._warned:
            self._warned = True
            log.warning("a WSGI app sends more than its Content-Length; the rest is left out")
        return False

    def _too_little(self) -> RuntimeError:
        return RuntimeError(f"the app's Content-Length is {self._length}, its body has {self._count} bytes")


def read_status(status: str) -> int:
    """Return the code of a status; raise `TypeError`, or `ValueError` for an interim or malformed one."""
    if not isinstance(status, str):
        raise TypeError(f"a status must be text, not {type(status).__name__}")
    if not _is_status(status):
        raise ValueError(f"{status!r} is not the status of an answer")
    return int(status[:3])


def read_headers(headers: Iterable[tuple[str, str]]) -> tuple[list[Header], int | None]:
    """Return an app's headers as ASGI has them, without those that are the server's, and the body's length.

    Raises `TypeError` for what is not text, `ValueError` for what cannot stand in a header (promise P5).
    """
    fields: list[Header] = []
    length = None
    for name, value in headers:
        field = _name(name)
        if not isinstance(value, str):
            raise TypeError(f"the value of {name} must be text, not {type(value).__name__}")
        if not _is_value(value):  # not shown: it may be a secret
            raise ValueError(f"the value of {name} cannot stand in a header")
        if field in _SERVERS:
            continue
        text = value.strip(" \t")
        if field == b"content-length":
            length = _read_length(text, length)
        fields.append((field, text.encode("latin-1")))
    return fields, length


@lru_cache(maxsize=512)
def _name(name: str) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"a header's name must be text, not {type(name).__name__}")
    field = name.encode("latin-1", "replace").lower()
    if not is_token(field):
        raise ValueError(f"{name!r} is not the name of a header")
    return field


def _read_length(text: str, before: int | None) -> int:
    if not (text.isascii() and text.isdecimal()) or before not in (None, int(text)):
        raise ValueError(f"{text!r} is not the length of a body")
    return int(text)


def _bytes(data: bytes) -> bytes:
    if not isinstance(data, bytes):
        raise TypeError(f"a body is made of bytes, not of {type(data).__name__}")
    return data
