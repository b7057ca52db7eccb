"""What the fuzzers run: one function for each boundary, from bytes to nothing or an `AssertionError`.

Only promises are checked here, on any bytes; where bytes come from is up to `__main__` (atheris) and
`test_seeds` (the seeds alone). No harness may touch a socket.
"""

import re
import sys
from pathlib import Path

for _folder in ("", "tests", "tests/laws", "src"):  # as pytest has it, for runs by hand
    _path = str(Path(__file__).parents[2] / _folder)
    if _path not in sys.path:
        sys.path.append(_path)

from tests.laws.codec_reading import check_against_naive, cut, outcome  # noqa: E402
from tests.laws.test_paths import NAMED, decide, naive_route  # noqa: E402

from strangle_mw import ForwardError, Route  # noqa: E402
from strangle_mw.core.answers import answer_headers  # noqa: E402
from strangle_mw.core.decision import LEGACY, Forward, Reject  # noqa: E402
from strangle_mw.core.hygiene import HOP_BY_HOP, Hygiene, forward_headers, read_fields  # noqa: E402
from strangle_mw.core.messages import Refused, RequestHead  # noqa: E402

METHODS = ("GET", "HEAD", "POST")
TABLE = [
    Route(path="/a/*", to="http://m"),
    Route(path="/a/b/*", to="legacy"),
    Route(path="/a/b/c", to="http://m"),
    Route(path="/b/{p}", to="http://m"),
    Route(path="/b/{p:int}/x", to="http://m"),
    Route(path="/ab", to="http://m"),
]
MARKER = b"strangle-0123456789abcdef01234567"
OURS = (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"forwarded", b"x-request-id")
FORBIDDEN = HOP_BY_HOP | {
    b"host",
    b"x-real-ip",
    b"x-original-url",
    b"x-rewrite-url",
    b"proxy",
    b"remote-user",
}
_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+: [\t\x20-\x7e\x80-\xff]*").fullmatch


def response_parser(data):
    """P5 to P7: an answer has one reading, whatever the segments, and it is that of RFC 9112."""
    method = METHODS[data[0] % len(METHODS)] if data else "GET"
    step = data[1] % 16 + 1 if len(data) > 1 else 1
    wire = data[2:]
    assert outcome(cut(wire, range(0, len(wire), step)), method) == outcome(cut(wire, ()), method)
    check_against_naive(wire, method)


def path_confusion(data):
    """P1, P2: what is forwarded has the same route under every naive reading, and is sent as it came."""
    path = "/" + "".join(chr(b) if b < 0x80 else f"%{b:02x}" for b in data[:60].replace(b"?", b""))
    if "%ff" in path.lower():
        return  # the naive readings mark a slash that is data with this byte
    decision = decide(TABLE, path)
    found = {name: naive_route(TABLE, read(path)) for name, read in NAMED.items()}
    if isinstance(decision, Forward):
        assert set(found.values()) == {decision.route.index}, found
        assert decision.target == path.encode() + b"?q=1&&%zz=+%2f"
    elif decision is LEGACY:
        assert set(found.values()) == {None}, found
    else:
        assert isinstance(decision, Reject)
        assert decision.status == 400


def request_headers(data):
    """P5, P9 to P11: what is sent is well formed, has one framing, and says of the client what we saw."""
    headers = _headers(data)
    head = RequestHead("POST", b"/m", b"", headers, "http", "192.0.2.1")
    try:
        fields, length, *_ = forward_headers(head, Hygiene(MARKER))
    except Refused as refused:
        assert refused.status in (400, 508)  # noqa: PT017 - it may be refused, in this way
        return
    assert fields.endswith(b"\r\n")
    assert all(_LINE(line) for line in fields.split(b"\r\n")[: -2 if fields != b"\r\n" else -1]), fields
    names = [name for name, _ in read_fields(fields)]
    assert names.count(b"content-length") == (length >= 0 and b"content-length" in [n for n, _ in headers])
    assert not set(names) & FORBIDDEN
    assert all(names.count(name) <= 1 for name in OURS)
    assert (b"x-forwarded-for", b"192.0.2.1") in read_fields(fields)
    assert not [n for n in names if b"_" in n or b"." in n or n.startswith(b"strangle-")]
    assert [n for n in names if n.startswith(b"x-forwarded-") and n not in OURS] == []
    assert read_fields(fields)[-2 if names[-1] == b"x-request-id" else -1] == (b"via", b"1.1 " + MARKER)


def answer_fields(data):
    """P5, P11: what crosses to the client has valid names and values, and nothing of the hop."""
    headers = _headers(data)
    try:
        kept = answer_headers(headers, data[0] % 2 * 104 + 200 if data else 200)
    except ForwardError as exc:
        assert (exc.stage, exc.status) == ("head", 502)  # noqa: PT017 - it may be refused, in this way
        return
    assert all(_LINE(name + b": " + value) for name, value in kept)
    assert not {name for name, _ in kept} & (HOP_BY_HOP | {b"date", b"server"})
    cookies = [v for n, v in headers if n.lower() == b"set-cookie"]
    assert [v for n, v in kept if n == b"set-cookie"] in (cookies, [])


def _headers(data):
    """Read pairs from bytes: a line each, in lower case as servers give them."""
    lines = [line.partition(b":") for line in data[:400].split(b"\n") if line]
    return [(name.lower(), value) for name, _, value in lines]


HARNESSES = {h.__name__: h for h in (response_parser, path_confusion, request_headers, answer_fields)}
