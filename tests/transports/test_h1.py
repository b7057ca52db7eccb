"""The codec alone: what is read, what is refused, and that segments do not matter."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strangle_mw.transports.h1 import (
    LAST_CHUNK,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_INTERIM,
    MalformedError,
    ResponseParser,
    frame_body,
    frame_chunk,
    serialize_head,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass
class Read:
    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    complete: bool
    reusable: bool


def read(*segments: bytes, method: str = "GET", parser: ResponseParser | None = None) -> Read:
    parser = parser or ResponseParser()
    parser.start(method)
    body = b""
    for segment in segments:
        parser.feed(segment)
        body += parser.take()
    assert parser.head_done
    return Read(parser.status, parser.reason, parser.headers, body, parser.complete, parser.reusable)


def feed_all(parser: ResponseParser, segments: Iterable[bytes]) -> None:
    for segment in segments:
        parser.feed(segment)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted({p for p in places if 0 < p < len(data)}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def bytewise(data: bytes) -> list[bytes]:
    return cut(data, range(len(data)))


# --- writing


def test_a_head_is_written_as_given() -> None:
    head = serialize_head(b"GET", b"/base", b"/a%2Fb?x=1", b"h", b"x-empty: \r\nx: \xff\r\n\r\n")
    assert head == b"GET /base/a%2Fb?x=1 HTTP/1.1\r\nhost: h\r\nx-empty: \r\nx: \xff\r\n\r\n"


def test_chunks() -> None:
    assert frame_chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert frame_body(b"abc") == b"3\r\nabc\r\n0\r\n\r\n"
    assert frame_body(b"") == LAST_CHUNK


# --- reading


def test_a_plain_answer() -> None:
    answer = read(OK + b"Content-Length: 5\r\nSet-Cookie: a\r\nset-cookie: b\r\nX-Empty:\r\n\r\nhello")
    assert answer == Read(
        200,
        b"OK",
        [(b"Content-Length", b"5"), (b"Set-Cookie", b"a"), (b"set-cookie", b"b"), (b"X-Empty", b"")],
        b"hello",
        complete=True,
        reusable=True,
    )


def test_blanks_around_a_value_are_not_part_of_it() -> None:
    assert read(OK + b"A: \t v w \t\r\nContent-Length: 0\r\n\r\n").headers[0] == (b"A", b"v w")


def test_latin_1_values_and_an_empty_reason_pass() -> None:
    answer = read(b"HTTP/1.1 299 \r\nA: \xe4\r\nContent-Length: 0\r\n\r\n")
    assert (answer.status, answer.reason, answer.headers[0]) == (299, b"", (b"A", b"\xe4"))


def test_chunks_are_joined_and_trailers_dropped() -> None:
    answer = read(CHUNKED + b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\nConnection: close\r\n\r\n")
    assert answer.body == b"abcde"
    assert answer.headers == [(b"Transfer-Encoding", b"chunked")]
    assert answer.reusable


def test_trailers_do_not_leak_into_the_next_answer() -> None:
    parser = ResponseParser()
    read(CHUNKED + b"0\r\nX-Trailer: 1\r\n\r\n", parser=parser)
    assert read(OK + b"Content-Length: 0\r\n\r\n", parser=parser).headers == [(b"Content-Length", b"0")]


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n"])
def test_without_length_the_end_of_the_stream_ends_the_body(start: bytes) -> None:
    parser = ResponseParser()
    answer = read(start + b"A: b\r\n\r\nab", b"cd", parser=parser)
    assert (answer.body, answer.complete) == (b"abcd", False)
    assert parser.feed_eof()
    assert parser.complete
    assert not parser.reusable


CLOSING = OK + b"Connection: close\r\n"
CUT = [
    OK,
    OK + b"Content-Length: 3\r\n\r\nab",
    CLOSING + b"Content-Length: 3\r\n\r\nab",
    CHUNKED,
    CHUNKED + b"1\r\na\r\n0\r\n",
    CLOSING + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nab",
]


@pytest.mark.parametrize("data", CUT)
def test_an_end_before_the_end_is_a_cut(data: bytes) -> None:
    parser = ResponseParser()
    parser.feed(data)
    assert not parser.feed_eof()
    assert not parser.complete


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, Close\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: close\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: close, keep-alive\r\n",
    ],
)
def test_the_connection_ends_when_the_upstream_says_so(head: bytes) -> None:
    answer = read(head + b"Content-Length: 2\r\n\r\nok")
    assert (answer.body, answer.complete, answer.reusable) == (b"ok", True, False)


def test_http_1_0_may_keep_alive() -> None:
    assert read(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n").reusable


# --- answers without a body


@pytest.mark.parametrize("segments", [bytewise, lambda data: [data]])
@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_head_has_no_body_and_the_next_answer_is_read_afresh(
    segments: Callable[[bytes], list[bytes]], framing: bytes
) -> None:
    parser = ResponseParser()
    answer = read(*segments(OK + framing + b"\r\n"), method="HEAD", parser=parser)
    assert (answer.body, answer.complete, answer.reusable) == (b"", True, True)
    after = read(OK + b"Content-Length: 2\r\n\r\nok", parser=parser)
    assert (after.body, after.reusable) == (b"ok", True)


def test_head_after_an_interim_answer() -> None:
    data = b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 5\r\n\r\n"
    answer = read(data, method="HEAD")
    assert (answer.status, answer.headers, answer.reusable) == (200, [(b"Content-Length", b"5")], True)


@pytest.mark.parametrize("surplus", [b"hello", b"\r\n", b"h"])
@pytest.mark.parametrize("apart", [True, False])
def test_a_body_after_head_is_not_delivered(surplus: bytes, *, apart: bool) -> None:
    data = OK + b"Content-Length: 5\r\n\r\n"
    answer = read(*([data, surplus] if apart else [data + surplus]), method="HEAD")
    assert (answer.body, answer.complete, answer.reusable) == (b"", True, False)


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (b"HTTP/1.1 204 No Content\r\n", True),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n", False),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n", False),
        (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n", False),
        (b"HTTP/1.1 304 Not Modified\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n", True),
    ],
)
def test_204_and_304_have_no_body(head: bytes, *, reusable: bool) -> None:
    answer = read(head + b"\r\n")
    assert (answer.body, answer.complete, answer.reusable) == (b"", True, reusable)
    spoiled = read(head + b"\r\nhello")
    assert (spoiled.body, spoiled.complete, spoiled.reusable) == (b"", True, False)


# --- interim answers


def test_interim_answers_are_swallowed() -> None:
    interim = (
        b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 9\r\n\r\n"
    )
    answer = read(interim * 8 + OK + b"Content-Length: 2\r\n\r\nok")
    assert (answer.status, answer.reason, answer.body) == (200, b"OK", b"ok")
    assert answer.headers == [(b"Content-Length", b"2")]
    assert answer.reusable


def test_framing_of_an_interim_answer_is_forgotten() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert read(interim + CHUNKED + b"1\r\na\r\n0\r\n\r\n").body == b"a"
    assert read(interim + OK + b"\r\nab").complete is False


def test_interim_answers_are_counted_per_answer() -> None:
    parser = ResponseParser()
    for _ in range(3):
        assert read(
            b"HTTP/1.1 100 C\r\n\r\n" * MAX_INTERIM + OK + b"Content-Length: 0\r\n\r\n", parser=parser
        ).reusable


# --- surplus


@pytest.mark.parametrize(
    "surplus", [b"H", b"\r", b"\n", b"\r\n\r\n", b"x", b"\x00", OK + b"Content-Length: 1\r\n\r\ny"]
)
@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 2\r\n\r\nok",
        OK + b"Content-Length: 2\r\n\r\n\r\n",
        OK + b"Content-Length: 0\r\n\r\n",
        CHUNKED + b"2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 204 N\r\n\r\n",
    ],
)
def test_surplus_bytes_spoil_the_connection_and_not_the_answer(answer: bytes, surplus: bytes) -> None:
    clean = read(answer)
    assert clean.reusable
    for segments in ([answer + surplus], [answer, surplus], bytewise(answer + surplus)):
        spoiled = read(*segments)
        assert (spoiled.status, spoiled.headers, spoiled.body) == (clean.status, clean.headers, clean.body)
        assert (spoiled.complete, spoiled.reusable) == (True, False)


# --- refused

MALFORMED = {
    "not http": b"SSH-2.0-OpenSSH\r\n",
    "tls": b"\x15\x03\x01\x00\x02\x02\x16",
    "line before": b"\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "rtsp": b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "icy": b"ICE/1.0 200 OK\r\n\r\n",
    "http 0.9": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "http 2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "http 2 after interim": b"HTTP/1.1 100 C\r\n\r\nHTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status 99": b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n",
    "status 600": b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n",
    "status 2000": b"HTTP/1.1 2000 X\r\nContent-Length: 0\r\n\r\n",
    "nul in reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
    "escape in reason": b"HTTP/1.1 200 \x1b[31m\r\nContent-Length: 0\r\n\r\n",
    "cr in reason": b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
    "switching": b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "switching, bare": b"HTTP/1.1 101 S\r\n\r\n",
    "interim flood": b"HTTP/1.1 100 C\r\n\r\n" * (MAX_INTERIM + 1) + OK + b"Content-Length: 0\r\n\r\n",
    "coding gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding gzip": OK + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "coding identity": OK + b"Transfer-Encoding: identity\r\n\r\nx",
    "coding twice in a list": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "coding twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding in two fields": OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding with a blank": OK + b"Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n",
    "coding with a comma": OK + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "coding empty": OK + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "coding under 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both framings": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both framings, other order": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "length twice": OK + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "length list": OK + b"Content-Length: 0, 0\r\n\r\n",
    "length signed": OK + b"Content-Length: +0\r\n\r\n",
    "length empty": OK + b"Content-Length:\r\n\r\n",
    "length huge": OK + b"Content-Length: 99999999999999999999\r\n\r\n",
    "bare lf": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare lf in a field": OK + b"A: b\nContent-Length: 0\r\n\r\n",
    "bare cr in a value": OK + b"A: b\rX: y\r\nContent-Length: 0\r\n\r\n",
    "nul in a value": OK + b"A: b\x00\r\nContent-Length: 0\r\n\r\n",
    "control in a value": OK + b"A: b\x0b\r\nContent-Length: 0\r\n\r\n",
    "folded": OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "blank before colon": OK + b"A : b\r\nContent-Length: 0\r\n\r\n",
    "empty name": OK + b": b\r\nContent-Length: 0\r\n\r\n",
    "name not a token": OK + b"A(b): c\r\nContent-Length: 0\r\n\r\n",
    "name beyond ascii": OK + b"\xc4: c\r\nContent-Length: 0\r\n\r\n",
    "fields": OK + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n",
    "chunk size 0x": CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "chunk size signed": CHUNKED + b"+1\r\na\r\n0\r\n\r\n",
    "chunk size blank": CHUNKED + b"1 \r\na\r\n0\r\n\r\n",
    "chunk size huge": CHUNKED + b"fffffffffffffffff\r\na\r\n0\r\n\r\n",
    "chunk with lf": CHUNKED + b"1\na\r\n0\r\n\r\n",
    "chunk too long": CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
    "chunk extension with lf": CHUNKED + b"1;a=\nb\r\na\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_refused_whole_and_byte_by_byte(data: bytes) -> None:
    for segments in ([data], bytewise(data)):
        parser = ResponseParser()
        with pytest.raises(MalformedError) as caught:
            feed_all(parser, segments)
        assert not parser.complete
        assert str(caught.value)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_head_size_is_limited_to_the_byte(method: str) -> None:
    frame = OK + b"Content-Length: 0\r\nA: \r\n\r\n"
    fits = frame.replace(b"A: ", b"A: " + b"x" * (MAX_HEAD - len(frame)))
    for segments in ([fits], cut(fits, range(0, MAX_HEAD, 999)), cut(fits, [MAX_HEAD - 1])):
        assert read(*segments, method=method).reusable
    over = fits.replace(b"A: ", b"A: x")
    for segments in ([over], cut(over, range(0, MAX_HEAD, 999)), cut(over, [MAX_HEAD])):
        parser = ResponseParser()
        parser.start(method)
        with pytest.raises(MalformedError, match="head longer"):
            feed_all(parser, segments)


def test_a_long_segment_after_a_short_head() -> None:
    body = b"x" * MAX_HEAD * 3
    answer = read(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert (answer.body, answer.reusable) == (body, True)


def test_a_head_that_never_ends_is_refused() -> None:
    parser = ResponseParser()
    parser.feed(OK)
    with pytest.raises(MalformedError, match="head longer"):
        feed_all(parser, repeat(b"A: b\r\n", MAX_HEAD))


@pytest.mark.parametrize("start", [CHUNKED + b"1\r\na\r\n0\r\nA: ", CHUNKED + b"1;"])
def test_trailers_and_extensions_are_bounded(start: bytes) -> None:
    parser = ResponseParser()
    parser.feed(start)
    with pytest.raises(MalformedError, match="too long"):
        feed_all(parser, repeat(b"x" * 1000, 200))


def test_extensions_are_bounded_between_bytes_not_in_all() -> None:
    chunk = b"1;" + b"x" * 1000 + b"\r\na\r\n"
    assert read(CHUNKED, *[chunk] * 200, LAST_CHUNK).body == b"a" * 200


def test_switching_protocols_is_named() -> None:
    with pytest.raises(MalformedError, match="switched protocols"):
        ResponseParser().feed(MALFORMED["switching"])


def test_a_reason_is_short_and_without_the_body() -> None:
    parser = ResponseParser()
    with pytest.raises(MalformedError) as caught:
        parser.feed(CHUNKED + b"zz-secret-zz\r\n")
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 100


# --- laws

tokens = st.text("abcdefgXYZ-_!09", min_size=1, max_size=12).map(str.encode)
values = st.binary(max_size=20).map(
    lambda v: bytes(c for c in v if c in b"\t" or (c > 31 and c != 127)).strip(b" \t")
)
fields = st.lists(st.tuples(tokens, values), max_size=6).map(
    lambda pairs: [(n, v) for n, v in pairs if n.lower() not in {b"connection", b"upgrade"}]
)
bodies = st.binary(max_size=200)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, str]:
    """A valid answer's bytes, and the method of its request."""
    method = draw(st.sampled_from(["GET", "HEAD"]))
    head = b"".join(b"%b: %b\r\n" % pair for pair in draw(fields))
    interim = b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" * draw(st.integers(0, 2))
    start = interim + b"HTTP/1.1 %d %b\r\n" % (
        draw(st.sampled_from([200, 404, 503])),
        draw(st.sampled_from([b"", b"OK"])),
    )
    body = draw(bodies)
    if draw(st.booleans()):
        whole = start + head + b"Content-Length: %d\r\n\r\n" % len(body)
        return whole + (b"" if method == "HEAD" else body), method
    whole = start + b"Transfer-Encoding: Chunked\r\n" + head + b"\r\n"
    if method == "GET":
        pieces = cut(body, draw(st.lists(st.integers(1, 200), max_size=4))) if body else []
        whole += b"".join(map(frame_chunk, pieces)) + draw(
            st.sampled_from([LAST_CHUNK, b"0\r\nT: x\r\n\r\n"])
        )
    return whole, method


@given(answers(), st.lists(st.integers(1, 600), max_size=8))
def test_segments_do_not_matter(answer: tuple[bytes, str], places: list[int]) -> None:
    data, method = answer
    whole = read(data, method=method)
    assert whole.reusable
    assert read(*cut(data, places), method=method) == whole


@given(st.lists(answers(), min_size=2, max_size=4))
def test_one_parser_reads_answer_after_answer(sequence: list[tuple[bytes, str]]) -> None:
    parser = ResponseParser()
    for data, method in sequence:
        assert read(data, method=method, parser=parser) == read(data, method=method)


@given(answers(), st.lists(st.integers(1, 600), max_size=4), st.binary(min_size=1, max_size=30))
def test_whatever_follows_an_answer_spoils_the_connection(
    answer: tuple[bytes, str], places: list[int], surplus: bytes
) -> None:
    data, method = answer
    spoiled = read(*cut(data + surplus, places), method=method)
    assert spoiled.complete
    assert not spoiled.reusable
    assert spoiled.body == read(data, method=method).body


@given(answers(), st.integers(0, 600), st.integers(0, 255), st.lists(st.integers(1, 600), max_size=6))
@settings(max_examples=300)
def test_damaged_bytes_have_one_reading(
    answer: tuple[bytes, str], place: int, byte: int, places: list[int]
) -> None:
    data, method = answer
    place %= len(data)
    damaged = data[:place] + bytes([byte]) + data[place + 1 :]
    assert outcome([damaged], method) == outcome(cut(damaged, places), method)


@given(
    st.lists(
        st.sampled_from(
            [OK, CHUNKED, b"0\r\n", b"\r\n", b"A: b\r\n", b"HTTP/1.1 ", b"1\r\na\r\n", b"x", b"\n"]
        ),
        max_size=9,
    )
)
def test_pieces_of_answers_have_one_reading(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    assert outcome([data] if data else [], "GET") == outcome(pieces, "GET") == outcome(bytewise(data), "GET")


def outcome(segments: list[bytes], method: str) -> object:
    """What a client would see: a complete answer, an unfinished one, or a refusal."""
    parser = ResponseParser()
    parser.start(method)
    body = b""
    try:
        for segment in segments:
            if segment:
                parser.feed(segment)
            body += parser.take()
    except MalformedError:
        return "refused"
    if not parser.head_done:
        return "no head"
    return parser.status, parser.headers, body, parser.complete, parser.reusable, parser.feed_eof()
