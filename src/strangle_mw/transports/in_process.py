"""Apps in this process as upstreams: found by their names, called with the face of a pool.

Under WSGI a call is an exchange like any other; under ASGI the driver calls the app itself, since a task and
a queue for each request would cost more than the call, and finds here only who may. Apps of the other
interface are called through `bridges`.
"""

from __future__ import annotations

from importlib import import_module
from io import BufferedReader, BytesIO
from typing import TYPE_CHECKING, Any, cast

from strangle_mw.core.calls import Call, scope_of_environ, wsgi_environ
from strangle_mw.core.interface import detect_interface
from strangle_mw.transports.base import pool_closed
from strangle_mw.transports.wsgi_answer import AppAnswer, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strangle_mw.bridges.loop import LoopAnswer
    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.transports.bulkhead import AsyncBulkhead, BlockingBulkhead

__all__ = ["AppAnswer", "AsyncAppPool", "BlockingAppPool", "BlockingLoopPool", "PlacedAnswer", "load_app"]

_BUFFER = 65_536


def load_app(upstream: CompiledUpstream) -> Callable[..., Any]:
    """Return the app of an upstream; raises `LookupError` with the reason if it cannot be had."""
    declared = getattr(upstream.declared, upstream.kind)
    if not isinstance(declared, str):
        return cast("Callable[..., Any]", declared)  # the table has checked that it can be called
    name, _, path = declared.partition(":")
    try:
        found: Any = import_module(name)
    except (Exception, SystemExit) as exc:
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


def _told(exc: BaseException) -> str:
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

            self.app = ThreadedWSGI(self.app, declared.max_in_flight, cleaned=True)
            self._lifespan = None
        else:
            from strangle_mw.bridges.lifespan import Lifespan

            self._lifespan = Lifespan(self.app)

    def begin(self) -> None:
        """Start the app's lifespan, for the start of the server."""
        if self._lifespan is not None:
            self._lifespan.begin()

    async def begun(self) -> None:
        """Wait until that has ended, well or not, for `timeout` seconds at most."""
        if self._lifespan is not None:
            await self._lifespan.begun(self._closing)

    async def ready(self) -> dict[str, Any] | None:
        """Wait until the app has started, `connect_timeout` seconds at most; return its state if it has any.

        Raises `ForwardError` (stage `connect`) if it has failed to, or takes longer.
        """
        lifespan = self._lifespan
        if lifespan is None:
            return None
        if not lifespan.started:
            await lifespan.ready(self._patience)
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
            await self.app.aclose(self._closing)  # type: ignore[attr-defined]


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
        answer = AppAnswer(self.leave, method, self._name)
        try:
            environ = wsgi_environ(*head)
            environ["wsgi.input_terminated"] = True
            source = None if isinstance(body, bytes) else Source(body)
            environ["wsgi.input"] = (
                BytesIO(body) if isinstance(body, bytes) else BufferedReader(source, _BUFFER)
            )
            answer.begin(self._app, environ, source)
        except BaseException:
            answer.close()
            raise
        return answer


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
