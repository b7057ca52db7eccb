"""The body of a request under WSGI: read once, counted, and given back to the wrapped app if that answers.

Only reading lives here; the driver is `wsgi`.
"""

from __future__ import annotations

from io import BufferedReader, BytesIO, RawIOBase
from typing import TYPE_CHECKING, Any

from strangle_mw.core.fallback import SAFE_METHODS
from strangle_mw.core.hygiene import CHUNKED, UNDECLARED
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strangle_mw.core.decision import Forward

_BLOCK = 65_536


class Body:
    """The body of one forwarded request, read from `wsgi.input` and never past its end.

    `replay_limit` are the bytes up to which it is read whole and kept.
    """

    def __init__(self, environ: dict[str, Any], forward: Forward, replay_limit: int) -> None:
        self._kept: bytes | None = None
        self._replay_limit = replay_limit
        self._input = environ["wsgi.input"]
        self._ends = bool(environ.get("wsgi.input_terminated"))
        self._length = forward.length
        self._limit = forward.max_body
        if forward.length == UNDECLARED and not self._ends and forward.head.method in SAFE_METHODS:
            self._length = 0  # nothing says that there is a body, and none is expected

    def read(self) -> tuple[bytes | Iterator[bytes], int]:
        """Return the body, whole if it is small, and its length as it will be framed."""
        if self._length == 0:
            return b"", 0
        if self._length > self._replay_limit:
            return self._counted(self._length), self._length
        if self._length > 0:
            self._kept = b"".join(self._counted(self._length))
            return self._kept, self._length
        if not self._ends:
            # Without a length or an end, a read could block for ever (PEP 3333).
            raise ForwardError("send", "the server gives the body neither a length nor an end", status=411)
        if self._length == UNDECLARED:
            first = self._kept = self._take(1)
            return (self._until_end(first), CHUNKED) if first else (b"", 0)
        return self._until_end(), CHUNKED

    def replay(self, environ: dict[str, Any]) -> None:
        """Let the wrapped app read what was read for the upstream; what was not read is still there."""
        if self._kept is not None:
            whole = self._length == len(self._kept)
            environ["wsgi.input"] = BytesIO(self._kept) if whole else _resumed(self._kept, self._input)

    def _counted(self, left: int) -> Iterator[bytes]:
        while left:
            chunk = self._take(min(left, _BLOCK))
            if not chunk:  # servers return a short read for a cut body, without an error (promise P6)
                raise ForwardError("send", "the body has not its declared length", status=400)
            left -= len(chunk)
            yield chunk

    def _until_end(self, first: bytes = b"") -> Iterator[bytes]:
        count = 0
        chunk = first or self._take(_BLOCK)
        while chunk:
            count += len(chunk)
            if self._limit is not None and count > self._limit:
                raise ForwardError("send", "the body passes max_body", status=413)
            yield chunk
            chunk = self._take(_BLOCK)

    def _take(self, most: int) -> bytes:
        try:
            data: bytes = self._input.read(most)
        except OSError as exc:  # the client's connection broke; a server's own errors for bad chunks pass
            raise ForwardError("send", "the body broke off", status=400) from exc
        return data


def _resumed(first: bytes, rest: Any) -> BufferedReader:
    """Give back the first bytes of an input that was begun."""
    return BufferedReader(_Resumed(first, rest))


class _Resumed(RawIOBase):
    def __init__(self, first: bytes, rest: Any) -> None:
        self._first = first
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data, self._first = self._first or self._rest.read(len(buffer)), b""
        buffer[: len(data)] = data
        return len(data)
