"""The answer of a WSGI app that is called in the thread that wants it, and the body that the app reads.

The answer has the face of one from another machine, and is held to the same rules (promises P5, P6). Who
may call is `in_process`.
"""

from __future__ import annotations

import logging
import re
from io import RawIOBase
from typing import TYPE_CHECKING, Any, Literal

from strangle_mw.bridges.app_messages import BrokenError, Measure
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from strangle_mw.core.messages import Header

log = logging.getLogger("strangle_mw")

# RFC 9112 section 4; a reason goes into the status line of the server as it is (promise P5).
_is_status = re.compile("([2-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?").fullmatch


class Source(RawIOBase):
    """The body of a request as the file of PEP 3333, read as far as the app asks for it.

    A body that breaks off is an `OSError` for the app, as under a server, now and later; `failure` keeps
    why (promise P6).
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self.failure: Exception | None = None

    def readable(self) -> bool:
        """Say that this can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there, one piece of the body at most."""
        if self.failure is not None:
            raise OSError("the body broke off") from self.failure
        if not self._rest:
            try:
                self._rest = next(self._chunks, b"")
            except Exception as exc:
                self.failure = exc
                raise OSError("the body broke off") from exc
        data, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


class AppAnswer:
    """The answer of a WSGI app: its head, and its body as the app makes it. Close it exactly when done.

    `leave` gives the place of the call back.
    """

    def __init__(self, leave: Callable[[], None], method: str, name: str) -> None:
        self._leave: Callable[[], None] | None = leave
        self._name = name
        self._method = method
        self._result: Iterable[bytes] | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._source: Source | None = None
        self._buffer: list[bytes] = []
        self._measure: Measure | None = None
        self.status = 0
        self.reason = b""
        self.headers: list[Header] = []
        self.complete = False

    def begin(self, app: Callable[..., Any], environ: dict[str, Any], source: Source | None) -> None:
        """Call the app, and run it until its head is fixed: with the first bytes or the end (PEP 3333)."""
        self._source = source
        try:
            result = self._result = app(environ, self._start_response)
            if isinstance(result, list | tuple):
                for chunk in result:
                    self._write(chunk)
                self.complete = True
            else:
                self._chunks = iter(result)
                while not self.complete and not self._buffer:
                    self._step()
            self._frame()
        except (Exception, SystemExit) as exc:
            raise self._failed(exc, "head") from exc
        self._check_source()

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        try:
            if self.status and exc_info is None:
                raise AssertionError("start_response is called twice without exc_info")
            if self._measure is not None and exc_info is not None:
                raise exc_info[1].with_traceback(exc_info[2])  # the head is out (PEP 3333)
        finally:
            exc_info = None
        found = _is_status(status)
        if found is None:
            raise ValueError(f"{status!r} is no status of an answer")
        self.status, self.reason = int(found[1]), (found[2] or "").encode("latin-1")
        self.headers = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers]
        return self._write

    def _write(self, chunk: object) -> None:
        if not isinstance(chunk, bytes):
            raise TypeError(f"the app has made {type(chunk).__name__}, not bytes")
        if chunk:
            self._buffer.append(chunk)

    def _step(self) -> None:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self.complete = True
        else:
            self._write(chunk)

    def _frame(self) -> None:
        """Work out what of the body there is to send, now that the head is known."""
        if not self.status:
            raise BrokenError("the app has not called start_response")
        measure = self._measure = Measure(self._method, self.status, self.headers)
        if measure.bodyless:
            self._buffer, self.complete = [], True
            return
        size = sum(map(len, self._buffer))
        if self.complete and all(name != b"content-length" for name, _ in self.headers):
            self.headers.append((b"content-length", b"%d" % size))
        measure.count(b"".join(self._buffer), more=not self.complete)

    def _check_source(self) -> None:
        """Fail if the request's body broke off, whatever the app has made of it (promise P6)."""
        if self._source is not None and self._source.failure is not None:
            raise self._source.failure

    def _failed(self, exc: BaseException, stage: Literal["head", "body"]) -> Exception:
        """Tell whose fault it was: the client's, whose body broke off, or the app's."""
        if self._source is not None and self._source.failure is not None:
            return self._source.failure
        what = str(exc)
        if not isinstance(exc, BrokenError):
            log.error("upstream %r raised", self._name, exc_info=exc)
            what = f"the app raised {type(exc).__name__}"
        return ForwardError(stage, what, request_sent=True)

    def take(self) -> bytes:
        """Hand over everything that the app has made; never calls it."""
        data = b"".join(self._buffer)
        self._buffer.clear()
        return data

    def read(self) -> bytes:
        """Let the app make the next bytes; empty at the clean end.

        Raises `ForwardError` with stage `body` if the app raises or its body is cut short.
        """
        if self._leave is None or self._measure is None:
            raise RuntimeError("the answer is closed")
        try:
            while not self.complete and not self._buffer:
                self._step()
                self._measure.count(b"".join(self._buffer), more=not self.complete)
        except (Exception, SystemExit) as exc:
            raise self._failed(exc, "body") from exc
        self._check_source()
        return self.take()

    def close(self) -> None:
        """Let the app end (PEP 3333), and give the place back; may be repeated."""
        leave, self._leave = self._leave, None
        if leave is None:
            return
        try:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()
        except (Exception, SystemExit):
            log.exception("upstream %r raised in close()", self._name)
        finally:
            leave()
