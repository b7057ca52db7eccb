"""An HTTP/1.1 server for this machine: whole requests in, whole answers out, each answer in one write.

No policy, no framework: who answers what is told by the `handle` of a connection. An answer whose head and
body leave in two writes would wait about 40 ms for the peer's delayed acknowledgement (RFC 9293 section
3.7.4), so head and body are one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

import httptools

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Reply = Callable[["Answer"], None]
    Handle = Callable[["Request", Reply], None]

MAX_HEAD: Final = 65_536
"""Bytes of a request's target and headers."""
MAX_PIPELINED: Final = 100
"""Requests that may wait behind one that is being answered on the same connection."""

_REASONS: Final = {s.value: s.phrase.encode() for s in HTTPStatus}


@dataclass(slots=True)
class Request:
    """A whole request; `headers` by lower-case name, the last of equal ones.

    `too_large` says that the body was longer than the server takes: it was read to its end and dropped, since
    a client that still sends would not see an answer. `gone` is called if the client leaves unanswered.
    """

    method: str
    target: bytes
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    too_large: bool = False
    gone: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. A 204 has no body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def encode(self, *, close: bool, head_only: bool = False) -> bytes:
        """Write the answer for the wire; `head_only` leaves the body out, not its length (HEAD)."""
        lines = [b"HTTP/1.1 %d %b" % (self.status, _REASONS.get(self.status, b""))]
        lines += [f"{name}: {value}".encode("latin-1", "replace") for name, value in self.headers.items()]
        if self.status != HTTPStatus.NO_CONTENT:
            lines.append(b"Content-Length: %d" % len(self.body))
        if close:
            lines.append(b"Connection: close")
        return b"\r\n".join([*lines, b"", b"" if head_only else self.body])


class Connection(asyncio.Protocol):
    """One client's connection: its requests are handled one after the other.

    `handle` is given the request and what answers it: to be called once, now or later; nothing happens if the
    client has left meanwhile. Bodies beyond `max_body` bytes are not kept.
    """

    def __init__(self, handle: Handle, max_body: int) -> None:
        self._handle = handle
        self._max_body = max_body
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._answering: Request | None = None
        self._target = b""
        self._headers: dict[str, str] = {}
        self._head = 0
        self._body: list[bytes] = []
        self._length = 0

    # --- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._transport = None
        self._waiting.clear()
        request, self._answering = self._answering, None
        if request is not None and request.gone is not None:
            request.gone()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, b"there is no upgrade here")
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, b"this is no HTTP request")

    def _refuse(self, status: int, why: bytes) -> None:
        if self._transport is not None:
            self._transport.write(
                Answer(status, {"Content-Type": "text/plain"}, why + b"\n").encode(close=True)
            )
            self._transport.close()

    # --- the parser's side

    def on_message_begin(self) -> None:
        self._target, self._headers, self._body = b"", {}, []
        self._head = self._length = 0

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        self._count(len(name) + len(value))

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEAD:
            raise httptools.HttpParserError("the head is too long")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._length += len(body)
        if self._length <= self._max_body:
            self._body.append(body)
        else:
            self._body.clear()

    def on_message_complete(self) -> None:
        request = Request(
            self._parser.get_method().decode("latin-1"),
            self._target,
            self._headers,
            b"".join(self._body),
            self._length > self._max_body,
        )
        self._waiting.append((request, not self._parser.should_keep_alive()))
        if len(self._waiting) > MAX_PIPELINED:
            raise httptools.HttpParserError("too many requests at once")
        self._advance()

    def _advance(self) -> None:
        while self._answering is None and self._waiting and self._transport is not None:
            request, close = self._waiting.popleft()
            self._answering = request

            def reply(answer: Answer, request: Request = request, *, close: bool = close) -> None:
                if self._answering is request and self._transport is not None:
                    self._answering = None
                    self._transport.write(answer.encode(close=close, head_only=request.method == "HEAD"))
                    if close:
                        self._transport.close()
                    else:
                        self._advance()

            self._handle(request, reply)
