"""HTTP/1.1 on the wire, without I/O: how a request is written, how an answer is read.

Everything both pools must agree on about bytes lives here. No sockets, no clock, no event loop.

`httptools` (llhttp) is strict about line ends, names, lengths and chunk sizes. What it lets through and
RFC 9112 does not is refused here; each rule was found by experiment with httptools 0.9 and has a test:

- any transfer coding but one exact `chunked`, also under HTTP/1.0 (sections 6.1, 7);
- RTSP and ICE answers, HTTP/0.9 and 2.0 status lines, a status outside 100..599, control bytes in the
  reason (RFC 9112 section 4, RFC 9110 section 15);
- empty lines before the status line, and after the message, where they are surplus bytes;
- a body after HEAD, of which the parser cannot be told;
- trailers, which it reports like header fields; they are dropped (RFC 9110 section 6.5.1).
"""

from __future__ import annotations

import httptools

Header = tuple[bytes, bytes]

LAST_CHUNK = b"0\r\n\r\n"

MAX_HEAD = 65_536
"""Bytes of everything before the body, interim answers included (nginx: 4-32 KiB, Envoy: 60 KiB)."""

MAX_FIELDS = 256
MAX_INTERIM = 16

_SILENT = MAX_HEAD
"""Bytes of chunk extensions and trailers in a row without a byte of body."""

_START = b"HTTP/1."
_USUAL_START = b"HTTP/1.1 "
_FINAL = range(200, 600)
_INTERIM = range(100, 200)
_SWITCHING = 101
_NO_CONTENT = 204

_CONTROL = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])
_CODING = b"transfer-encoding"
_CODING_LENGTH = len(_CODING)
_CR_OR_LF = frozenset(b"\r\n")


class MalformedError(Exception):
    """An answer breaks RFC 9112 or a limit; the message is a short reason for the log."""


class _SurplusError(Exception):
    """Stops the parser at the first byte of a second answer."""


def serialize_head(method: bytes, base: bytes, target: bytes, host: bytes, fields: bytes) -> bytes:
    """Write a request's head; the caller has validated all of it.

    `fields` are those after `Host`, each with its line end, and the empty line.
    """
    return b"%b %b%b HTTP/1.1\r\nhost: %b\r\n%b" % (method, base, target, host, fields)


def frame_chunk(data: bytes) -> bytes:
    """Frame one chunk (RFC 9112 section 7.1); empty data would be the last chunk, so never pass it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def frame_body(body: bytes) -> bytes:
    """Frame a whole body in chunks."""
    return frame_chunk(body) + LAST_CHUNK if body else LAST_CHUNK


class ResponseParser:
    """Read the answers that come over one connection, one after the other.

    `start` before each request, then `feed` whatever arrives and `feed_eof` at the end of the stream.
    `status`, `reason` and `headers` hold from `head_done` on. The `on_` methods are httptools' callbacks.
    """

    __slots__ = (
        "_bare",
        "_chunks",
        "_close",
        "_codings",
        "_fields",
        "_interim",
        "_old",
        "_parser",
        "_seen",
        "_silent",
        "_surplus",
        "_until_eof",
        "buffered",
        "complete",
        "head_done",
        "headers",
        "reason",
        "status",
    )

    status: int
    reason: bytes
    headers: list[Header]
    head_done: bool
    complete: bool
    buffered: int
    """Bytes of body that wait for `take`."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._bare = False
        self._reset()
        self.start("GET")

    def start(self, method: str) -> None:
        """Forget the last answer and expect the one to a request with this method."""
        if self._bare or self._codings or self._interim or self._close or self._surplus:
            self._reset()
        self._bare = method == "HEAD"
        self._seen = self.buffered = self.status = 0
        self.head_done = self.complete = self._until_eof = self._old = False
        self.reason = b""
        if self._chunks:
            self._chunks.clear()

    def _reset(self) -> None:
        """Forget what only some answers leave behind: trailers, and a parser that waits for a body."""
        self._parser = httptools.HttpResponseParser(self)
        self._fields: list[Header] = []
        self._codings: list[bytes] = []
        self._interim = self._silent = 0
        self._close = self._surplus = False

    @property
    def started(self) -> bool:
        """Whether any byte of an answer has arrived."""
        return self._seen > 0

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request (RFC 9112 section 9.3)."""
        return self.complete and not (self._close or self._surplus)

    def feed(self, data: bytes) -> None:
        """Take bytes from the wire, at least one; raises `MalformedError`."""
        try:
            if self.head_done:
                self._feed_body(data)
            elif self._seen or self._bare or len(data) > MAX_HEAD or data[:9] != _USUAL_START:
                self._feed_head(data)
            else:
                # The usual case, flattened: a whole head, often the whole answer, in one segment.
                self._seen = len(data)
                if data[-1] in _CR_OR_LF:
                    self._feed_exactly(data)
                else:
                    self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._refuse(exc)

    def feed_eof(self) -> bool:
        """Note that the stream has ended; tells whether the answer is whole (RFC 9112 section 8)."""
        if self._until_eof:
            self.complete = True
        return self.complete

    def take(self) -> bytes:
        """Hand over the body bytes that have arrived, and forget them."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.buffered = 0
        return data

    def _refuse(self, exc: Exception) -> None:
        if not self.complete:
            cause = exc.__context__ if isinstance(exc.__context__, MalformedError) else exc
            raise MalformedError(str(cause)) from exc
        self._surplus = True

    def _feed_head(self, data: bytes) -> None:
        seen = self._seen
        if seen < len(_START) and data[: len(_START) - seen] != _START[seen : seen + len(data)]:
            raise MalformedError("not an HTTP/1 status line")
        self._old = True  # not known, so look
        self._seen = seen + len(data)
        if self._seen > MAX_HEAD:
            self._feed_long_head(data, MAX_HEAD - seen)
        elif self._bare:
            self._feed_bare_head(data)
        else:
            self._feed_exactly(data)

    def _feed_long_head(self, data: bytes, room: int) -> None:
        """Let the head end inside the limit or not at all, however the bytes were cut into segments."""
        self._seen = MAX_HEAD - room
        if room:
            self.feed(data[:room])
        if not self.head_done:
            raise MalformedError(f"head longer than {MAX_HEAD} bytes")
        self.feed(data[room:])

    def _feed_bare_head(self, data: bytes) -> None:
        """Stop exactly where the head ends, which is the end of some line: nothing may follow."""
        for line in data.splitlines(keepends=True):
            if self.complete:
                self._surplus = True
                break
            self._parser.feed_data(line)

    def _feed_exactly(self, data: bytes) -> None:
        """Feed, and notice line ends after the message: the only surplus that llhttp skips in silence."""
        if data[-1] not in _CR_OR_LF:
            self._parser.feed_data(data)
            return
        view = memoryview(data)
        self._parser.feed_data(view[:-1])
        if self.complete:
            self._surplus = True
        else:
            self._parser.feed_data(view[-1:])

    def _feed_body(self, data: bytes) -> None:
        if self.complete:
            self._surplus = True
            return
        before = self.buffered
        self._feed_exactly(data)
        if self.buffered > before:
            self._silent = 0
        elif not self.complete:
            self._silent += len(data)
            if self._silent > _SILENT:
                raise MalformedError("chunk extensions or trailers too long")

    def on_message_begin(self) -> None:
        if self.complete:
            raise _SurplusError

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        # llhttp keeps blanks after a value, which are not part of it (RFC 9110 section 5.5).
        self._fields.append((name, value.rstrip(b" \t")))
        if len(name) == _CODING_LENGTH and name.lower() == _CODING:
            self._codings.append(value)

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = self.status = parser.get_status_code()
        fields = self._fields
        self._fields = []  # where the next head or the trailers go
        if len(fields) > MAX_FIELDS:
            raise MalformedError(f"more than {MAX_FIELDS} header fields")
        if self.reason != b"OK" and len(self.reason.translate(None, _CONTROL)) != len(self.reason):
            raise MalformedError("control bytes in the reason")
        if self._codings or self._old:
            self._check_framing(fields)
        if status not in _FINAL:
            self._note_interim(status)
            return
        self.headers = fields
        self.head_done = True
        if self._bare:
            self.complete = True
        if status == _NO_CONTENT or not parser.should_keep_alive():
            self._look_for_end(fields)

    def _look_for_end(self, fields: list[Header]) -> None:
        framed = bool(self._codings) or any(name.lower() == b"content-length" for name, _ in fields)
        if self.status != _NO_CONTENT:
            self._close = True
            self._until_eof = not framed
        elif framed or not self._parser.should_keep_alive():
            # RFC 9110 section 8.6, RFC 9112 section 6.1: who frames a 204 may send a body, later.
            self._close = True

    def _check_framing(self, fields: list[Header]) -> None:
        """Judge transfer codings, and what the first bytes of the segment did not tell: the version."""
        version = self._parser.get_http_version()
        codings = self._codings
        if codings and (len(codings) > 1 or codings[0].lower() != b"chunked"):
            raise MalformedError("unknown transfer coding")
        if version != "1.1" and (codings or version != "1.0"):
            raise MalformedError(f"version {version}")
        if version == "1.0" and any(n.lower() == b"connection" and b"close" in v.lower() for n, v in fields):
            # llhttp prefers `keep-alive` under HTTP/1.0; RFC 9112 section 9.3 does not.
            self._close = True

    def _note_interim(self, status: int) -> None:
        """Swallow a 1xx answer, a whole message to llhttp (RFC 9110 section 15.2)."""
        self._interim += 1
        if status == _SWITCHING:
            raise MalformedError("switched protocols without being asked")
        if status not in _INTERIM:
            raise MalformedError(f"status {status}")
        if self._interim > MAX_INTERIM:
            raise MalformedError(f"more than {MAX_INTERIM} interim answers")
        self._codings.clear()
        self._old = True
        self.reason = b""

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)
        self.buffered += len(data)

    def on_message_complete(self) -> None:
        if self.head_done:
            self.complete = True
