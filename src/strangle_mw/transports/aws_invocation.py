"""One request as an invocation, and an invocation as one answer: what both Lambda pools share.

No sockets and no event loop here. Events and answers themselves are `core.lambda_events` and
`core.lambda_answers`, signatures `aws_signing`, failures of the Invoke API `aws_outcomes`.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from strangle_mw.core.lambda_answers import read_answer
from strangle_mw.core.lambda_events import (
    LambdaCall,
    check_size,
    encode_event,
    make_event,
    may_fit,
    too_large,
)
from strangle_mw.errors import ForwardError
from strangle_mw.transports.aws_outcomes import MAX_PAYLOAD, check_outcome, executed_version
from strangle_mw.transports.aws_signing import signer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.core.decision import Forward
    from strangle_mw.core.lambda_answers import LambdaResult
    from strangle_mw.core.messages import Header


class Invocations:
    """Makes events for one function, and reads what comes back; `note_version` is told which version ran."""

    def __init__(self, upstream: CompiledUpstream, note_version: Callable[[str], None]) -> None:
        assert upstream.function is not None  # noqa: S101 - `upstreams` gives one to every Lambda upstream
        self.signer = signer_of(upstream)
        self._kind = upstream.declared.format
        self._function = upstream.function
        self._note_version = note_version

    def admit(self, length: int) -> None:
        """Refuse a body of at least this many bytes that no event can carry, before it is read."""
        if not may_fit(self._kind, length):
            raise too_large(self._kind)

    def event(self, forward: Forward, body: bytes) -> bytes:
        """Return the payload of an invocation; raise `ForwardError` (413) if it passes Lambda's limit."""
        route, head = forward.route, forward.head
        call = LambdaCall(
            method=head.method,
            path=forward.target.partition(b"?")[0],
            query=forward.target.partition(b"?")[2],
            headers=_headers(forward, body),
            peer=head.peer,
            http_version=head.http_version,
            scheme=head.scheme,
            body=body,
            template=route.pattern.text if route.pattern is not None else "",
            parameters=route.capture(head.path),
            route=route.name,
            request_id=forward.request_id.decode("latin-1"),
            now=time(),
            function=self._function.name,
            qualifier=self._function.qualifier,
        )
        event = encode_event(make_event(self._kind, call))
        check_size(self._kind, len(body), event)
        return event

    def answer(self, status: int, headers: Sequence[Header], payload: bytes, method: str) -> LambdaResult:
        """Return the function's answer; raise `ForwardError` for whatever else the Invoke API says."""
        version = executed_version(headers)
        if version:
            self._note_version(version)
        check_outcome(status, headers, payload)
        return read_answer(self._kind, payload, method)


class Whole:
    """Collects bytes up to a limit; `add` raises what `refuse` does as soon as they pass it."""

    def __init__(self, refuse: Callable[[int], None]) -> None:
        self._refuse = refuse
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        """Take the next bytes."""
        self._size += len(data)
        self._refuse(self._size)
        self._parts.append(data)

    def all(self) -> bytes:
        """Return all of them."""
        return b"".join(self._parts)


def refuse_payload(size: int) -> None:
    """Refuse an answer that is larger than any function may give."""
    if size > MAX_PAYLOAD:
        raise ForwardError("head", f"an answer of more than {MAX_PAYLOAD} bytes", request_sent=True)


def _headers(forward: Forward, body: bytes) -> list[Header]:
    """Return the headers that the function sees: the client's Host, and a length that fits the whole body."""
    headers = forward.headers
    length = b"%d" % len(body)
    told = any(n == b"content-length" for n, _ in headers)
    fitting = [(n, length if n == b"content-length" else v) for n, v in headers]
    if body and not told:
        fitting.append((b"content-length", length))
    host = forward.host(0)
    return [(b"host", host), *fitting] if host else fitting


class _Answer:
    """One answer of a function: whole, since it comes as one JSON document. Close it when done with it."""

    __slots__ = ("_body", "_leave", "headers", "reason", "status")

    complete = True
    """Whether the whole body has been received: always."""

    def __init__(self, result: LambdaResult, leave: Callable[[], None]) -> None:
        self.status: int = result.status
        self.reason: bytes = result.reason
        self.headers: list[Header] = result.headers
        self._body: bytes | None = result.body
        self._leave: Callable[[], None] | None = leave

    def take(self) -> bytes:
        """Hand over the body, once; never waits."""
        if self._body is None:
            return b""
        body, self._body = self._body, b""
        return body

    def close(self) -> None:
        """Give the place in the bulkhead back; may be repeated."""
        self._body = None
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    def _rest(self) -> bytes:
        if self._body is None:
            raise RuntimeError("the answer is closed")
        return self.take()


class AsyncLambdaAnswer(_Answer):
    """An answer with the face of `AsyncAnswer`."""

    __slots__ = ()

    async def read(self) -> bytes:
        """Return what has not been taken, then nothing; raise `RuntimeError` once closed."""
        return self._rest()

    async def settle(self) -> None:
        """Wait for nothing: the body of the request has been read."""


class BlockingLambdaAnswer(_Answer):
    """An answer with the face of `BlockingAnswer`."""

    __slots__ = ()

    def read(self) -> bytes:
        """Return what has not been taken, then nothing; raise `RuntimeError` once closed."""
        return self._rest()
