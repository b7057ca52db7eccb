"""Laws of the codec over any bytes: it ends, refuses in one way, reads as RFC 9112 says, cuts do not matter."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.laws.codec_reading import check_against_naive, cut, outcome

from strangle_mw.transports.h1 import MAX_HEAD, MalformedError, ResponseParser

METHODS = ["GET", "HEAD", "POST"]
FRAGMENTS = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 \r\n",
    b"HTTP/1.1 304 N\r\n", b"HTTP/1.1 103 E\r\n\r\n", b"HTTP/1.1 101 S\r\n", b"HTTP/1.1 ", b"HTTP/2.0 200 OK\r\n", b"200",
    b"Content-Length: 0\r\n", b"Content-Length: 3\r\n", b"content-length:3\r\n", b"Content-Length: +3\r\n",
    b"Content-Length: 3, 3\r\n", b"Content-Length: 0x3\r\n", b"Content-Length: 99999999999999999999\r\n", b"Content-Length:\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: Chunked \r\n", b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding:\tchunked\r\n", b"Transfer-Encoding : chunked\r\n", b"Connection: close\r\n",
    b"Connection: keep-alive\r\n", b"Upgrade: x\r\n", b"A: b\r\n", b"A:\r\n", b"A: b\rc\r\n", b"A: \x00\r\n", b"A\x00: b\r\n",
    b" folded\r\n", b"no colon\r\n", b": x\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b"0\r\n\r\n", b"0\r\n",
    b"3\r\nabc\r\n", b"3\r\nabc\r\n", b"3;x=y\r\nabc\r\n", b"3 \r\nabc\r\n", b"0x3\r\nabc\r\n", b"+3\r\nabc\r\n", b"2\r\nabc\r\n",
    b"fffffffffffffffff\r\n", b"3\nabc\n", b"abc", b"abcdef", b"\x00", b"\xff", b"T: x\r\n", b";", b":",
]  # fmt: skip
pieces = st.lists(st.sampled_from(FRAGMENTS), max_size=9).map(b"".join)
plausible = st.builds(
    lambda start, fields, body: start + b"".join(fields) + b"\r\n" + b"".join(body),
    st.sampled_from([f for f in FRAGMENTS if f.startswith(b"HTTP/1")]),
    st.lists(st.sampled_from([f for f in FRAGMENTS if b":" in f]), max_size=3),
    st.lists(st.sampled_from(FRAGMENTS), max_size=5),
)
places = st.lists(st.integers(1, 300), max_size=6)

names = st.text("abcXYZ019-_.!~", min_size=1, max_size=9).map(str.encode)
values = st.binary(max_size=12).map(lambda v: bytes(c for c in v if c > 32 and c != 127))
fields = st.lists(st.tuples(names, values), max_size=5).map(
    lambda pairs: [p for p in pairs if p[0].lower() not in {b"connection", b"upgrade"}]
)
bodies = st.lists(st.binary(min_size=1, max_size=40), max_size=4)


@st.composite
def answers(draw):
    """Return (bytes, what was meant) of a well-formed answer that says where it ends."""
    method = draw(st.sampled_from(METHODS))
    status = draw(st.sampled_from([200, 201, 404, 500, 204, 304]))
    more = draw(fields)
    content = draw(bodies) if method != "HEAD" and status not in (204, 304) else []
    kind = draw(st.sampled_from(["length", "chunked"])) if status not in (204, 304) else "none"
    headers, wire = list(more), b"".join(content)
    if kind == "length":
        headers.append((b"Content-Length", b"%d" % len(wire)))
    elif kind == "chunked":
        headers.append((b"Transfer-Encoding", b"chunked"))
        trailer = draw(st.sampled_from([b"", b"X-T: 1\r\n"]))
        wire = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in content) + b"0\r\n" + trailer + b"\r\n"
        wire = b"" if method == "HEAD" else wire
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * draw(st.integers(0, 2))
    head = b"".join(b"%b: %b\r\n" % h for h in headers)
    data = interim + b"HTTP/1.1 %d \r\n" % status + head + b"\r\n" + wire
    return data, method, (status, tuple(headers), b"".join(content))


@st.composite
def damaged(draw):
    """Return a well-formed answer in which something was put, left out or repeated."""
    data = draw(answers())[0]
    for _ in range(draw(st.integers(1, 2))):
        at, length = draw(st.integers(0, 400)) % (len(data) + 1), draw(st.integers(0, 12))
        put = draw(st.sampled_from([b"", b"", data[at : at + length], *FRAGMENTS]))
        data = data[:at] + put + data[at + length * draw(st.integers(0, 1)) :]
    return data


streams = st.one_of(damaged(), damaged(), plausible, pieces, st.binary(max_size=60))


@given(streams, st.sampled_from(METHODS), places)
def test_cuts_do_not_matter_and_nothing_but_a_refusal_escapes(data, method, at):
    whole = outcome(cut(data, ()), method)
    assert outcome(cut(data, at), method) == whole
    assert outcome(cut(data, range(len(data))), method) == whole


@given(streams, st.sampled_from(METHODS))
def test_what_is_accepted_is_what_the_rfc_says(data, method):
    check_against_naive(data, method)


framings = st.sampled_from([f for f in FRAGMENTS if f[:8].lower() in (b"content-", b"transfer")])


@given(st.lists(framings, min_size=2, max_size=3), st.lists(st.just(b"A: b\r\n"), max_size=2), st.data())
def test_no_answer_has_two_framings(framing, others, data):
    """Not even one that has no body, and not even twice the same."""
    head = b"".join(data.draw(st.permutations([*framing, *others])))
    status = data.draw(st.sampled_from([b"200", b"204", b"304", b"500", b"103"]))
    wire = b"HTTP/1.1 " + status + b" \r\n" + head + b"\r\n" + data.draw(st.sampled_from(FRAGMENTS))
    assert outcome([wire], data.draw(st.sampled_from(METHODS))) is None


@given(answers(), places)
def test_a_well_formed_answer_is_read_as_it_was_meant(answer, at):
    data, method, meant = answer
    assert outcome(cut(data, at), method) == (*meant, True, True, True)


@given(answers(), st.integers(0, 10_000), places)
def test_no_part_of_an_answer_is_complete(answer, length, at):
    """Whatever is cut off: neither the bytes nor the end of the stream make it whole (P6)."""
    data, method, _ = answer
    part = data[: length % len(data)]
    seen = outcome(cut(part, at), method)
    assert seen is not None
    if seen:
        *_, complete, reusable, whole_at_eof = seen
        assert (complete, reusable, whole_at_eof) == (False, False, False)


@given(
    st.lists(
        st.sampled_from([b"A: b\r\n", b"HTTP/1.1 102 P\r\n\r\n", b"A", b": ", b"x" * 500, b"\r\n "]),
        min_size=1,
    )
)
@settings(max_examples=50)
def test_a_head_takes_no_more_than_its_limit(parts):
    """Whatever repeats before the body, the codec has seen enough at the latest at the limit."""
    parser, fed, segment = ResponseParser(), 0, b"".join(parts)
    try:
        parser.feed(b"HTTP/1.1 200 OK\r\n")
        while not parser.head_done:
            assert fed <= MAX_HEAD + len(segment)
            parser.feed(segment)
            fed += len(segment)
    except MalformedError:
        return
    assert parser.head_done


@given(answers(), places)
def test_only_the_body_is_held(answer, at):
    data, method, (_, _, body) = answer
    parser = ResponseParser()
    parser.start(method)
    for segment in cut(data, at):
        parser.feed(segment)
        assert parser.buffered <= len(body)
    assert parser.buffered == len(body)
    assert (parser.take(), parser.buffered, parser.take()) == (body, 0, b"")
