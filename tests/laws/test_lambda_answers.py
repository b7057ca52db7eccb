"""Laws of Lambda answers: what an app behind mangum sent is what is read; nothing odd escapes but one error."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lambda_functions import HOST, KINDS, running

from strangle_mw.core.answers import answer_headers
from strangle_mw.core.lambda_answers import read_answer
from strangle_mw.core.lambda_events import LambdaCall
from strangle_mw.errors import ForwardError

texts = st.text(
    st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"]), max_size=8
)
values = texts.map(lambda t: t.strip(" ").encode())
NAMES = [b"x-a", b"x-b", b"set-cookie", b"set-cookie", b"location", b"vary"]
TYPES = [
    b"text/html; charset=utf-8", b"text/plain; charset=latin-1", b"application/json", b"image/png", b"application/x-a+json", b"",
]  # fmt: skip
FRONTS = {
    "1.0": b"text/plain; charset=utf-8",
    "rest": b"application/json",
    "alb": b"application/octet-stream",
}


@st.composite
def sent(draw):
    """Return what an app sends: (status, headers, body)."""
    status = draw(st.sampled_from([200, 201, 302, 404, 500, 599, 204, 304]))
    headers = draw(st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=5))
    body = draw(st.one_of(st.just(b""), st.binary(max_size=20), texts.map(str.encode)))
    if type_ := draw(st.sampled_from(TYPES)):
        headers.append((b"content-type", type_))
    if status in (204, 304):
        return status, headers, b""
    return status, [*headers, (b"content-length", b"%d" % len(body))], body


@pytest.fixture(scope="module")
def function():
    with running() as found:
        yield found


def meant(kind, status, headers, body, method):
    """Return what a client should get, as far as mangum tells it: it joins what is repeated in 2.0."""
    found = list(headers)
    if kind == "2.0":
        grouped = {}
        for name, value in headers:
            grouped.setdefault(name, []).append(value)
        found = [(b"set-cookie", v) for v in grouped.pop(b"set-cookie", ())]
        found += [(name, b",".join(v)) for name, v in grouped.items()]
    if all(name != b"content-type" for name, _ in headers):
        if kind == "2.0":
            found.append((b"content-type", b"application/json"))  # mangum's own
        elif body:
            found.append((b"content-type", FRONTS[kind]))
    return status, sorted(found), b"" if method == "HEAD" else body


@given(sent(), st.sampled_from(KINDS), st.sampled_from(["GET", "HEAD", "POST"]))
def test_what_an_app_behind_mangum_sends_is_read(function, answer, kind, method):
    status, headers, body = function.app.answer = answer
    call = LambdaCall(
        method, b"/", b"", [(b"host", HOST)], "", "1.1", "http", b"", "/", {}, "root", "r", 0.0, "f", ""
    )  # fmt: skip
    found = read_answer(kind, function.invoke(kind, call), method)
    assert (found.status, sorted(found.headers), found.body) == meant(kind, status, headers, body, method)
    cookies = [v for n, v in headers if n == b"set-cookie"]
    assert [v for n, v in found.headers if n == b"set-cookie"] == cookies


# --- hostile answers

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 700), st.floats(), st.text(max_size=6),
    st.sampled_from(["200", "a\r\nb", "\ud800", "YQ==", "é", "\x00"]),
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
names = st.one_of(
    st.sampled_from(["Content-Type", "content-length", "A", "a", "Set-Cookie"]), st.text(max_size=4)
)
statuses = st.one_of(st.just(200), st.integers(200, 599), anything)
shaped = st.fixed_dictionaries(
    {},
    optional={
        "statusCode": statuses,
        "statusDescription": anything,
        "headers": st.one_of(st.dictionaries(names, scalars, max_size=3), anything),
        "multiValueHeaders": st.one_of(
            st.dictionaries(names, st.lists(scalars, max_size=2), max_size=3), anything
        ),
        "cookies": st.one_of(st.lists(scalars, max_size=2), anything),
        "body": anything,
        "isBase64Encoded": st.one_of(st.booleans(), anything),
    },
)
payloads = st.one_of(
    shaped.map(lambda a: json.dumps(a).encode()),
    anything.map(lambda a: json.dumps(a, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.binary(max_size=20),
)


def outcome(kind, payload, method):
    try:
        return read_answer(kind, payload, method)
    except ForwardError as error:
        return error


@given(payloads, st.sampled_from(KINDS), st.sampled_from(["GET", "HEAD"]))
def test_whatever_a_function_returns_is_an_answer_or_one_error(payload, kind, method):
    found = outcome(kind, payload, method)
    if isinstance(found, ForwardError):
        assert (found.status, found.stage, found.request_sent) == (502, "head", True)
        assert found.reason.startswith("the function's answer is malformed: ")
        assert found.reason.isascii()
        assert found.reason.isprintable()
        return
    assert 200 <= found.status <= 599
    crossed = answer_headers(found.headers, found.status)  # nothing is left for it to refuse
    lengths = [v for n, v in crossed if n == b"content-length"]
    if method == "GET" and found.status not in (204, 304):
        assert lengths == [b"%d" % len(found.body)]
    else:
        assert found.body == b""
        assert len(lengths) <= 1
    assert all(32 <= byte < 127 for byte in found.reason)
