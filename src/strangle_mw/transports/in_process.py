"""Apps in this process as upstreams: found by their names, called with the face of a pool.

Under WSGI a call is an exchange like any other; under ASGI the driver calls the app itself, since a task and
a queue for each request would cost more than the call, and finds here only who may. Apps of the other
interface are called through `bridges`.
"""

from __future__ import annotations

import logging
import re
from importlib import import_module
from io import BufferedReader, BytesIO, RawIOBase
from typing import TYPE_CHECKING, Any, Literal, cast

from strangle_mw.core.calls import Call, scope_of_environ, wsgi_environ
from strangle_mw.core.interface import detect_interface
from strangle_mw.errors import ForwardError
from strangle_mw.transports.base import pool_closed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from strangle_mw.bridges.loop import LoopAnswer
    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.core.messages import Header
    from strangle_mw.transports.bulkhead import AsyncBulkhead, BlockingBulkhead

log = logging.getLogger("strangle_mw")

_BODYLESS = (204, 304)


def load_app(upstream: CompiledUpstream) -> Callable[..., Any]:
    """Return the app of an upstream; raises `LookupError` with the reason if it cannot be had."""
    declared = getattr(upstream.declared, upstream.kind)
    if not isinstance(declared, str):
        return cast("Callable[..., Any]", declared)  # the table has checked that it can be called
    name, _, path = declared.partition(":")
    try:
        found: Any = import_module(name)
    except Exception as exc:
        raise LookupError(f"cannot import {name!r}: {_told(exc)}") from exc
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise LookupError(f"there is no {path!r} in {name!r}, or not yet") from None
    if not callable(found):
        raise LookupError(f"{declared!r} is no app, but {type(found).__name__}")  # noqa: TRY004 - as above
    _check_interface(found, declared, upstream.kind)
    return cast("Callable[..., Any]", found)


def _check_interface(app: Any, declared: str, kind: str) -> None:
    try:
        detected = detect_interface(app)
    except TypeError:
        return  # what cannot be told is what the table says
    if detected != kind:
        raise LookupError(f"{declared!r} is {detected.upper()}; write {detected} = {declared!r}")


def _told(exc: Exception) -> str:
    """Word what an import raised, with the place that raised it: there is no traceback for it."""
    import traceback

    if isinstance(exc, SyntaxError):
        return f"SyntaxError: {exc}"
    frames = traceback.extract_tb(exc.__traceback__)
    inside = [f for f in frames if not f.filename.startswith("<frozen")][1:]
    where = f" ({inside[-1].filename}:{inside[-1].lineno})" if inside[1:] else ""
    return f"{type(exc).__name__}: {exc}{where}"


class AsyncAppPool:
    """One app for one event loop: how many calls there may be, and its lifespan; the driver calls `app`."""

    def __init__(self, upstream: CompiledUpstream, gate: AsyncBulkhead) -> None:
        declared = upstream.declared
        self.gate = gate
        self.in_flight = 0
        self._patience = declared.connect_timeout
        self._closing = declared.timeout
        self.app: Callable[..., Any] = load_app(upstream)
        if upstream.kind == "wsgi":
            from strangle_mw.bridges.threads import ThreadedWSGI

            self.app = ThreadedWSGI(self.app, declared.max_in_flight)
            self._lifespan = None
        else:
            from strangle_mw.bridges.lifespan import Lifespan

            self._lifespan = Lifespan(self.app)

    def begin(self) -> None:
        """Start the app's lifespan, for the start of the server."""
        if self._lifespan is not None:
            self._lifespan.begin()

    async def ready(self, patience: float | None = None) -> dict[str, Any] | None:
        """Wait until the app has started, `connect_timeout` seconds at most; return its state if it has any.

        Raises `ForwardError` (stage `connect`) if it has failed to, or takes longer.
        """
        lifespan = self._lifespan
        if lifespan is None:
            return None
        if not lifespan.started:
            await lifespan.ready(self._patience if patience is None else patience)
        return lifespan.state

    def occupy(self) -> None:
        """Count a call."""
        self.in_flight += 1

    def vacate(self) -> None:
        """Undo `occupy`."""
        self.in_flight -= 1

    async def aclose(self) -> None:
        """End the app's lifespan, and the threads of a WSGI app."""
        if self._lifespan is not None:
            await self._lifespan.aclose(self._closing)
        else:
            self.app.close()  # type: ignore[attr-defined]


class _Calls:
    """The calls of one app from the threads of this process, and who may make one."""

    def __init__(self, gate: BlockingBulkhead) -> None:
        self.gate = gate
        self._in_flight = 0
        self._closed = False

    @property
    def in_flight(self) -> int:
        """Calls between `send` and `close` of their answer."""
        return self._in_flight

    def close(self) -> None:
        """Take no more calls."""
        self._closed = True

    def enter(self, *, patient: bool) -> None:
        """Take a place of the bulkhead for a call."""
        self.gate.enter(patient=patient)
        with self.gate.lock:
            self._in_flight += 1
        if self._closed:
            self.leave()
            raise pool_closed()

    def leave(self) -> None:
        """Give the place of a call back."""
        with self.gate.lock:
            self._in_flight -= 1
            self.gate.leave_locked()


class BlockingAppPool(_Calls):
    """Calls of one WSGI app from the threads of this process."""

    def __init__(self, upstream: CompiledUpstream, gate: BlockingBulkhead) -> None:
        super().__init__(gate)
        self._app = load_app(upstream)
        self._name = upstream.name

    def send(
        self,
        head: Call,
        body: bytes | Iterator[bytes],
        *,
        method: str,
        chunked: bool,  # noqa: ARG002 - the face of a pool
        timeout: float,  # noqa: ARG002 - a call in this thread cannot be ended from outside
        fresh: bool = False,  # noqa: ARG002
        patient: bool = True,
    ) -> AppAnswer:
        """Call the app, and wait for the head of its answer; raises `ForwardError`."""
        self.enter(patient=patient)
        answer = AppAnswer(self, method, self._name)
        try:
            environ = wsgi_environ(*head)
            environ["wsgi.input_terminated"] = True
            source = None if isinstance(body, bytes) else _Source(body)
            environ["wsgi.input"] = BytesIO(body) if isinstance(body, bytes) else BufferedReader(source)
            answer.begin(self._app, environ, source)
        except BaseException:
            answer.close()
            raise
        return answer


class _Source(RawIOBase):
    """The body of a request as the file of PEP 3333, read as far as the app asks for it.

    A body that breaks off is an `OSError` for the app, as under a server, and `failure` for us (promise P6).
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self.failure: ForwardError | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            try:
                self._rest = next(self._chunks, b"")
            except ForwardError as exc:
                self.failure = exc
                raise OSError(exc.reason) from exc
        data, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


class AppAnswer:
    """The answer of a WSGI app: its head, and its body as the app makes it. Close it exactly when done."""

    def __init__(self, pool: BlockingAppPool, method: str, name: str) -> None:
        self._pool: BlockingAppPool | None = pool
        self._name = name
        self._head_only = method == "HEAD"
        self._result: Iterable[bytes] | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._source: _Source | None = None
        self._buffer: list[bytes] = []
        self._left: int | None = None
        self._begun = False
        self.status = 0
        self.reason = b""
        self.headers: list[Header] = []
        self.complete = False

    def begin(self, app: Callable[..., Any], environ: dict[str, Any], source: _Source | None) -> None:
        """Call the app, and run it until its head is fixed: with the first bytes or the end (PEP 3333)."""
        self._source = source
        try:
            result = self._result = app(environ, self._start_response)
            if isinstance(result, list | tuple):
                self._buffer += [_bytes(chunk) for chunk in result]
                self.complete = True
            else:
                self._chunks = iter(result)
                while not self.complete and not any(self._buffer):
                    self._step()
        except Exception as exc:
            raise self._failed(exc, "head") from exc
        if not self.status:
            raise ForwardError("head", "the app has not called start_response", request_sent=True)
        self._frame()

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if self.status and exc_info is None:
            raise AssertionError("start_response is called twice without exc_info")
        if self._begun and exc_info is not None:
            raise exc_info[1].with_traceback(exc_info[2])  # the head is out (PEP 3333)
        code, _, reason = status.partition(" ")
        if not re.fullmatch("[2-5][0-9][0-9]", code):
            raise ValueError(f"{status!r} is no status of an answer")
        self.status, self.reason = int(code), reason.encode("latin-1")
        self.headers = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers]
        return self._buffer.append

    def _frame(self) -> None:
        """Work out what of the body there is to send, now that the head is known."""
        length = next((v for n, v in self.headers if n == b"content-length"), b"")
        if self._head_only or self.status in _BODYLESS:
            self._buffer, self._left, self.complete = [], None, True
        elif length.isdigit():
            self._left = int(length)
        elif self.complete:
            self.headers.append((b"content-length", b"%d" % sum(map(len, self._buffer))))
        self._begun = True
        self._account(sum(map(len, self._buffer)))

    def _account(self, more: int) -> None:
        """Hold the app to the length it has declared (promise P6)."""
        if self._left is None:
            return
        self._left -= more
        if self._left < 0 or (self.complete and self._left > 0):
            raise ForwardError("body", "the app's answer has not its Content-Length", request_sent=True)

    def _step(self) -> None:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self.complete = True
        else:
            self._buffer.append(_bytes(chunk))

    def _failed(self, exc: Exception, stage: Literal["head", "body"]) -> ForwardError:
        """Tell whose fault it was: the client's, whose body broke off, or the app's."""
        if self._source is not None and self._source.failure is not None:
            return self._source.failure
        if isinstance(exc, ForwardError):
            return exc
        log.error("upstream %r raised", self._name, exc_info=exc)
        return ForwardError(stage, f"the app raised {type(exc).__name__}", request_sent=True)

    def take(self) -> bytes:
        """Hand over everything that the app has made; never calls it."""
        data = b"".join(self._buffer)
        self._buffer.clear()
        return data

    def read(self) -> bytes:
        """Let the app make the next bytes; empty at the clean end.

        Raises `ForwardError` with stage `body` if the app raises or its body is cut short.
        """
        if self._pool is None:
            raise RuntimeError("the answer is closed")
        try:
            while not self.complete and not any(self._buffer):
                self._step()
                self._account(sum(map(len, self._buffer)))
        except Exception as exc:
            raise self._failed(exc, "body") from exc
        return self.take()

    def close(self) -> None:
        """Let the app end (PEP 3333), and give the place back; may be repeated."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()
        except Exception:
            log.exception("upstream %r raised in close()", self._name)
        finally:
            pool.leave()


def _bytes(chunk: object) -> bytes:
    if not isinstance(chunk, bytes):
        raise TypeError(f"the app has made {type(chunk).__name__}, not bytes")
    return chunk


class BlockingLoopPool(_Calls):
    """Calls of one ASGI app from the threads of this process, on a loop of its own."""

    def __init__(self, upstream: CompiledUpstream, gate: BlockingBulkhead) -> None:
        from strangle_mw.bridges.loop import LoopApp

        super().__init__(gate)
        declared = upstream.declared
        times = {"connect_timeout": declared.connect_timeout, "idle_timeout": declared.idle_timeout}
        self._app = LoopApp(load_app(upstream), **times)

    def send(
        self,
        head: Call,
        body: bytes | Iterator[bytes],
        *,
        method: str,
        chunked: bool,  # noqa: ARG002 - the face of a pool
        timeout: float,
        fresh: bool = False,  # noqa: ARG002
        patient: bool = True,
    ) -> PlacedAnswer:
        """Call the app, and wait `timeout` seconds for the head of its answer; raises `ForwardError`."""
        self.enter(patient=patient)
        try:
            answer = self._app.send(scope_of_environ(*head), body, method=method, timeout=timeout)
        except BaseException:
            self.leave()
            raise
        return PlacedAnswer(self, answer)

    def close(self) -> None:
        """Take no more calls, and end the app's lifespan."""
        super().close()
        self._app.close()


class PlacedAnswer:
    """The answer of an ASGI app, and the place it takes."""

    def __init__(self, pool: BlockingLoopPool, answer: LoopAnswer) -> None:
        self._pool: BlockingLoopPool | None = pool
        self._answer = answer
        self.status = answer.status
        self.reason = answer.reason
        self.headers = answer.headers
        self.take = answer.take
        self.read = answer.read

    @property
    def complete(self) -> bool:
        """Whether the whole body has been made (not: taken)."""
        complete: bool = self._answer.complete
        return complete

    def close(self) -> None:
        """End the call, and give the place back; may be repeated."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                self._answer.close()
            finally:
                pool.leave()
