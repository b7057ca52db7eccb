"""RFC 9112 read naively (slow, whole, written without a look at the codec), and the codec compared with it.

Which bytes are tried is up to the laws and the fuzzers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from strangle_mw.transports.h1 import MalformedError, ResponseParser

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?").fullmatch
_FIELD = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*"
).fullmatch
_CHUNK = re.compile(rb"([0-9A-Fa-f]+)(?:[ \t]*;[^\r\n]*)?\r\n").match


class NaiveError(Exception):
    """The bytes are no answer to that request."""


@dataclass
class Reading:
    """One answer: `complete` says that it ends by itself, `end` where; without `head_done` nothing holds."""

    head_done: bool = False
    status: int = 0
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    complete: bool = False
    until_eof: bool = False
    end: int = 0


def read_naively(data: bytes, method: str) -> Reading:
    """Read the one answer at the start of `data`, interim answers before it included."""
    at = 0
    while True:
        end = data.find(b"\r\n\r\n", at)
        if end < 0:
            return Reading()
        version, status, headers = _head(data[at:end])
        at = end + 4
        if status == 101:
            raise NaiveError("switched")
        if status >= 200:
            break
        # llhttp skips line ends between two heads. Both belong to one exchange, so that nothing is misread.
        while data[at : at + 1] in (b"\r", b"\n"):
            at += 1
    length, chunked = _framing(version, headers)
    found = Reading(True, status, headers, end=at)
    if method == "HEAD" or status in (204, 304):
        found.complete = True
    elif chunked:
        found.body, found.complete, found.end = _chunks(data, at)
    elif length is None:
        found.body, found.until_eof, found.end = data[at:], True, len(data)
    else:
        found.body = data[at : at + length]
        found.complete = len(found.body) == length
        found.end = at + length
    return found


def _head(head: bytes) -> tuple[bytes, int, tuple[tuple[bytes, bytes], ...]]:
    line, *lines = head.split(b"\r\n")
    start = _STATUS(line)
    fields = [_FIELD(each) for each in lines]
    if start is None or None in fields:
        raise NaiveError("malformed head")
    return start[1], int(start[2]), tuple((f[1], f[2]) for f in fields if f is not None)


def _framing(version: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> tuple[int | None, bool]:
    """Section 6.3, without its leniencies: one field that says how long the body is, or none."""
    found = [(n.lower(), v) for n, v in headers if n.lower() in (b"content-length", b"transfer-encoding")]
    if not found:
        return None, False
    name, value = found[0]
    if len(found) == 1 and name == b"content-length" and re.fullmatch(rb"[0-9]+", value):
        return int(value), False
    if len(found) == 1 and name != b"content-length" and value.lower() == b"chunked" and version == b"1":
        return None, True
    raise NaiveError("not one framing")


def _chunks(data: bytes, at: int) -> tuple[bytes, bool, int]:
    body = b""
    while True:
        line = _CHUNK(data, at)
        if line is None:
            if b"\r\n" in data[at:]:
                raise NaiveError("malformed chunk")
            return body, False, len(data)
        size, at = int(line[1], 16), line.end()
        if size == 0:
            break
        body += data[at : at + size]
        if data[at + size : at + size + 2] != b"\r\n"[: max(0, len(data) - at - size)][:2]:
            raise NaiveError("chunk longer than its size")
        if len(data) < at + size + 2:
            return body, False, len(data)
        at += size + 2
    return body, *_trailers(data, at)


def _trailers(data: bytes, at: int) -> tuple[bool, int]:
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return False, len(data)
        if end == at:
            return True, end + 2
        if _FIELD(data[at:end]) is None:
            raise NaiveError("malformed trailer")
        at = end + 2


def cut(data, places):
    """Cut bytes into segments at these places."""
    edges = [0, *sorted({p for p in places if 0 < p < len(data)}), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a != b]


def outcome(segments, method):
    """What the codec makes of an answer: all that a pool acts on; None if refused, () without a whole head."""
    parser = ResponseParser()
    parser.start(method)
    body = b""
    try:
        for segment in segments:
            parser.feed(segment)
            body += parser.take()
    except MalformedError as exc:
        assert 0 < len(str(exc)) < 200  # noqa: PT017 - it may be refused, in this way
        assert not parser.complete
        return None
    if not parser.head_done:
        assert (parser.complete, parser.reusable, body) == (False, False, b"")
        return ()
    seen = parser.status, tuple(parser.headers), body, parser.complete, parser.reusable
    return *seen, parser.feed_eof()


def check_against_naive(data, method):
    """The codec may refuse more than the naive reading does, and never reads anything otherwise."""
    seen = outcome(cut(data, ()), method)
    if not seen:
        return
    status, headers, body, complete, reusable, whole_at_eof = seen
    try:
        naive = read_naively(data, method)
    except NaiveError as exc:
        # A head was accepted; what is wrong comes later, and is not all there yet.
        assert str(exc) in ("malformed chunk", "malformed trailer"), seen  # noqa: PT017 - it may be refused, in this way
        assert not complete
        return
    assert naive.head_done
    assert (status, headers) == (naive.status, naive.headers)
    assert body == naive.body
    assert complete == naive.complete
    assert whole_at_eof == (naive.complete or naive.until_eof)
    assert not (reusable and naive.end != len(data)), "bytes are left over"
