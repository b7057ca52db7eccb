"""Answers as functions return them: the documented shapes of every format, and whatever else they may send."""

import base64
import json

import pytest

from strangle_mw.core.answers import answer_headers
from strangle_mw.core.lambda_answers import LambdaResult, read_answer
from strangle_mw.errors import ForwardError
from strangle_mw.transports import h1

KINDS = ["2.0", "1.0", "rest", "alb"]
STRICT = ["1.0", "rest", "alb"]
PROXIES = ["1.0", "rest"]

JSON = (b"content-type", b"application/json")
PLAIN = (b"content-type", b"text/plain")


def read(kind, answer, method="GET"):
    payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return read_answer(kind, payload, method)


def length(body):
    return (b"content-length", str(len(body)).encode())


def test_a_whole_answer_of_2_0():
    answer = {
        "statusCode": 201,
        "headers": {"Content-Type": "text/plain", "X-Many": "a,b", "Set-Cookie": "own=0"},
        "cookies": ["a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2"],
        "body": "Küche",
        "isBase64Encoded": False,
    }
    assert read("2.0", answer) == LambdaResult(
        201,
        [
            PLAIN,
            (b"x-many", b"a,b"),
            (b"set-cookie", b"own=0"),
            (b"set-cookie", b"a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT"),
            (b"set-cookie", b"b=2"),
            length("Küche".encode()),
        ],
        "Küche".encode(),
    )


def test_a_whole_answer_of_1_0_and_rest():
    for kind in PROXIES:
        answer = {
            "statusCode": 404,
            "headers": {"Content-Type": "text/plain", "SET-COOKIE": "lost=1", "X-One": "1"},
            "multiValueHeaders": {"Set-Cookie": ["a=1", "b=2"], "x-two": ["1", "2"], "X-None": []},
            "body": "no",
        }
        assert read(kind, answer) == LambdaResult(
            404,
            [
                PLAIN,
                (b"x-one", b"1"),
                (b"set-cookie", b"a=1"),
                (b"set-cookie", b"b=2"),
                (b"x-two", b"1"),
                (b"x-two", b"2"),
                length(b"no"),
            ],
            b"no",
        )


ALB_MAPS = [
    ({"headers": {"A": "1", "Set-Cookie": "x=1"}}, [(b"a", b"1"), (b"set-cookie", b"x=1")]),
    ({"multiValueHeaders": {"Set-Cookie": ["x=1", "y=2"]}}, [(b"set-cookie", b"x=1"), (b"set-cookie", b"y=2")]),
    ({"headers": {"A": "1"}, "multiValueHeaders": {"B": ["2"]}}, [(b"b", b"2")]),
    ({"headers": {"A": "1"}, "multiValueHeaders": {}}, [(b"a", b"1")]),
    ({"headers": {"A": "1"}, "multiValueHeaders": None}, [(b"a", b"1")]),
]  # fmt: skip


@pytest.mark.parametrize(("maps", "found"), ALB_MAPS)
def test_a_whole_answer_of_alb(maps, found):
    answer = {"statusCode": 200, "statusDescription": "200 Fine", "isBase64Encoded": False, **maps}
    assert read("alb", answer) == LambdaResult(200, [*found, length(b"")], b"", b"Fine")


DESCRIPTIONS = [
    ("200 OK", b"OK"),
    ("200 Très bien", b""),
    ("404 Not Found", b""),
    ("200", b""),
    ("200 a\r\nSet-Cookie: x", b""),
    ("OK", b""),
    ("200 " + "x" * 65, b""),
    (200, b""),
    (None, b""),
]


@pytest.mark.parametrize(("described", "reason"), DESCRIPTIONS)
def test_the_reason_phrase_of_alb(described, reason):
    answer = {"statusCode": 200, "statusDescription": described}
    assert read("alb", answer).reason == reason
    assert read("rest", answer).reason == b""


# --- status

STATUSES = [
    (200, 200), ("201", 201), (503.0, 503), (599, 599), ("200", 200),
    (99, None), (100, None), (101, None), (199, None), (600, None), (999, None), (1000, None), (0, None), (-200, None),
    ("99", None), ("0200", None), ("200 OK", None), (" 200", None), ("٢٠٠", None), ("", None), ("2e2", None),
    (200.5, None), (True, None), (None, None), ([200], None), ({}, None), (10**400, None), (1e300, None),
]  # fmt: skip


@pytest.mark.parametrize(("told", "status"), STATUSES)
def test_statuses(told, status):
    for kind in KINDS:
        if status is not None:
            assert read(kind, {"statusCode": told}).status == status
        else:
            assert refused(kind, {"statusCode": told}).startswith(
                "statusCode must be a number from 200 to 599"
            )


def refused(kind, answer, method="GET"):
    """Return what is wrong with an answer: always one error, of one kind."""
    with pytest.raises(ForwardError) as caught:
        read(kind, answer, method)
    error = caught.value
    assert (error.stage, error.status, error.request_sent, error.stale) == ("head", 502, True, False)
    start = "the function's answer is malformed: "
    assert error.reason.startswith(start)
    assert "\n" not in error.reason
    assert len(error.reason) < 200
    return error.reason.removeprefix(start)


# --- 2.0 without a status

INFERRED = [
    (b'{"message":"hi"}', b'{"message":"hi"}'),
    (b'{ "a" : [1, 2.50, "\\u00e9"] }', b'{ "a" : [1, 2.50, "\\u00e9"] }'),
    (b'"Hello from Lambda!"', b"Hello from Lambda!"),
    (b'"\\u20ac"', "€".encode()),
    (b'""', b""),
    (b"17", b"17"),
    (b"null", b"null"),
    (b"true", b"true"),
    (b"[]", b"[]"),
    (b'{"headers":{"a":"b"},"body":"x"}', b'{"headers":{"a":"b"},"body":"x"}'),
    (b'{"statuscode":200}', b'{"statuscode":200}'),
]


@pytest.mark.parametrize(("payload", "body"), INFERRED)
def test_an_answer_of_2_0_without_status_is_the_body(payload, body):
    assert read("2.0", payload) == LambdaResult(200, [JSON, length(body)], body)


@pytest.mark.parametrize("payload", [p for p, _ in INFERRED])
def test_other_formats_need_a_status(payload):
    for kind in STRICT:
        missing = payload.startswith(b"{")
        wanted = "statusCode is missing" if missing else "it must be an object with statusCode, not "
        assert refused(kind, payload).startswith(wanted)


# --- headers

VALUES = [
    ("text", b"text"), ("", b""), (" a \t", b"a"), ("\u2003a", "\u2003a".encode()), ("é€", "é€".encode()), (7, b"7"), (-1.5, b"-1.5"), (True, b"true"),
    (False, b"false"), (10**400, b"1" + b"0" * 400),
    (None, "must be a text, not null"), ([], "must be a text, not a list"), ({}, "must be a text, not an object"),
    ("a\r\nb", "holds control characters"), ("a\nb", "holds control characters"), ("\x00", "holds control characters"),
    ("\x7f", "holds control characters"), ("\ud800", "holds half a character (a lone surrogate)"),
]  # fmt: skip


@pytest.mark.parametrize(("told", "value"), VALUES)
def test_header_values(told, value):
    for kind in KINDS:
        maps = [("headers", {"X-A": told})]
        if kind != "2.0":
            maps.append(("multiValueHeaders", {"X-A": [told]}))
        for field, values in maps:
            answer = {"statusCode": 200, field: values}
            if isinstance(value, bytes):
                assert read(kind, answer).headers == [(b"x-a", value), length(b"")]
            else:
                assert refused(kind, answer) == f'{field}["X-A"] {value}'


@pytest.mark.parametrize("name", ["", " ", "a b", "a:", "é", "a\r\n", "a\x00", "\ud800", "?", "Ⅷ"])
def test_header_names(name):
    for kind in KINDS:
        assert refused(kind, {"statusCode": 200, "headers": {name: "1"}}).endswith("has no valid name")


SHAPES = [
    (KINDS, {"headers": []}, "headers must be an object, not a list"),
    (KINDS, {"headers": "a: b"}, "headers must be an object, not a text"),
    (STRICT, {"multiValueHeaders": [["a", "b"]]}, "multiValueHeaders must be an object, not a list"),
    (STRICT, {"multiValueHeaders": {"A": "b"}}, 'multiValueHeaders["A"] must be a list, not a text'),
    (STRICT, {"multiValueHeaders": {"A": [["b"]]}}, 'multiValueHeaders["A"] must be a text, not a list'),
    (["2.0"], {"cookies": "a=1"}, "cookies must be a list, not a text"),
    (["2.0"], {"cookies": [None]}, "cookies must be a text, not null"),
    (["2.0"], {"cookies": ["a=1\r\nX: y"]}, "cookies holds control characters"),
    (KINDS, {"isBase64Encoded": "true"}, "isBase64Encoded must be a boolean, not a text"),
    (KINDS, {"isBase64Encoded": 1}, "isBase64Encoded must be a boolean, not a number"),
    (STRICT, {"body": {"a": 1}}, "body must be a text, not an object"),
    (STRICT, {"body": 1}, "body must be a text, not a number"),
    (KINDS, {"body": [1], "isBase64Encoded": True}, "body must be a text, not a list"),
    (KINDS, {"body": "\ud83d"}, "body holds half a character (a lone surrogate)"),
]


@pytest.mark.parametrize(
    ("kind", "fields", "wrong"), [(k, fields, wrong) for kinds, fields, wrong in SHAPES for k in kinds]
)
def test_wrong_shapes(kind, fields, wrong):
    assert refused(kind, {"statusCode": 200, **fields}) == wrong


MANY = {f"h{n}": "x" for n in range(h1.MAX_FIELDS)}
LARGE = {"a": "x" * (h1.MAX_HEAD - 1)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fits", [MANY, LARGE], ids=["many", "large"])
def test_as_many_headers_as_of_any_upstream(kind, fits):
    field = "multiValueHeaders" if kind == "alb" else "headers"

    def answer(headers):
        listed = {n: [v] for n, v in headers.items()} if kind == "alb" else headers
        return {"statusCode": 204, field: listed}

    assert len(read(kind, answer(fits)).headers) == len(fits)
    assert refused(kind, answer({**fits, "b": "y"})) == "headers must be at most 256, with 65536 bytes"


def test_null_is_as_good_as_absent():
    for kind in KINDS:
        fields = ["headers", "multiValueHeaders", "cookies", "body", "isBase64Encoded", "statusDescription"]
        answer = {"statusCode": 200, **dict.fromkeys(fields)}
        assert read(kind, answer) == LambdaResult(200, [length(b"")], b"")


def test_each_format_reads_its_own_fields():
    answer = {"statusCode": 200, "multiValueHeaders": {"A": ["1"]}, "cookies": ["c=1"]}
    assert read("2.0", answer).headers == [(b"set-cookie", b"c=1"), length(b"")]
    for kind in STRICT:
        assert read(kind, answer).headers == [(b"a", b"1"), length(b"")]


# --- bodies

TYPES = {
    "2.0": b"application/json",
    "1.0": b"text/plain; charset=utf-8",
    "rest": b"application/json",
    "alb": b"application/octet-stream",
}


@pytest.mark.parametrize(("kind", "type_"), TYPES.items())
def test_a_body_without_a_type_gets_that_of_the_front(kind, type_):
    assert read(kind, {"statusCode": 200, "body": "<p>"}).headers == [
        (b"content-type", type_),
        length(b"<p>"),
    ]
    assert read(kind, {"statusCode": 302, "body": ""}).headers == [length(b"")]
    named = {"statusCode": 200, "body": "<p>", "headers": {"CONTENT-TYPE": "text/html"}}
    assert read(kind, named).headers == [(b"content-type", b"text/html"), length(b"<p>")]


JSON_BODIES = [
    ({"a": "é"}, b'{"a":"\\u00e9"}'),
    ([1, 2.5], b"[1,2.5]"),
    (7, b"7"),
    (False, b"false"),
    ({"a": "\ud800"}, b'{"a":"\\ud800"}'),
]


@pytest.mark.parametrize(("told", "body"), JSON_BODIES)
def test_a_body_of_2_0_may_be_any_json(told, body):
    assert read("2.0", {"statusCode": 200, "body": told}) == LambdaResult(200, [JSON, length(body)], body)


BASE64 = [
    (base64.b64encode(bytes(range(256))).decode(), bytes(range(256))),
    (base64.encodebytes(bytes(90)).decode(), bytes(90)),
    ("YQ==\r\n", b"a"),
    ("", b""),
    ("YQ=", None), ("YQ", None), ("YQ===", None), ("Y Q==", None), ("_-8=", None), ("=YQ=", None), ("YQ==YQ==", None),
    ("é", None), ("\ud800", None), ("no!", None),
]  # fmt: skip


@pytest.mark.parametrize(("told", "body"), BASE64)
def test_base64(told, body):
    for kind in KINDS:
        answer = {
            "statusCode": 200,
            "headers": {"Content-Type": "text/plain"},
            "body": told,
            "isBase64Encoded": True,
        }
        if body is None:
            assert refused(kind, answer) == "body is not base64, as isBase64Encoded says"
        else:
            assert read(kind, answer) == LambdaResult(200, [PLAIN, length(body)], body)


LENGTHS = [
    # method, status, the function's own lengths, its body -> what the client reads
    ("GET", 200, ["99"], "abc", b"3", b"abc"),
    ("GET", 200, ["x", "1"], "abc", b"3", b"abc"),
    ("GET", 200, [], "", b"0", b""),
    ("POST", 204, ["3"], "abc", None, b""),
    ("GET", 304, ["3"], "abc", None, b""),
    ("HEAD", 200, ["99"], "", b"99", b""),
    ("HEAD", 200, ["99"], "abc", b"99", b""),
    ("HEAD", 200, [], "abc", b"3", b""),
    ("HEAD", 200, [], "", None, b""),
    ("HEAD", 200, ["9", "9"], "", None, b""),
    ("HEAD", 200, ["-9"], "", None, b""),
    ("HEAD", 204, ["9"], "", None, b""),
]


@pytest.mark.parametrize(("method", "status", "own", "body", "told", "sent"), LENGTHS)
def test_lengths(method, status, own, body, told, sent):
    for kind in PROXIES:
        headers = {"Content-Length": own, "Content-Type": ["text/plain"]}
        answer = {"statusCode": status, "multiValueHeaders": headers, "body": body}
        wanted = [PLAIN] if told is None else [PLAIN, (b"content-length", told)]
        assert read(kind, answer, method) == LambdaResult(status, wanted, sent)


def test_the_length_of_an_inferred_answer_to_head():
    assert read("2.0", b'{"a":1}', "HEAD") == LambdaResult(200, [JSON, (b"content-length", b"7")], b"")


# --- payloads that are no JSON

PRELUDE = b'{"statusCode":200,"headers":{}}' + bytes(8) + b"the body"
PAYLOADS = [
    (b"", "it is not JSON"),
    (b" ", "it is not JSON"),
    (b"{", "it is not JSON"),
    (b'{"statusCode":200} x', "it is not JSON"),
    (b"NaN", "it is not JSON"),
    (b'{"statusCode":200,"body":-Infinity}', "it is not JSON"),
    (b'{"statusCode":' + b"9" * 5000 + b"}", "it is not JSON"),
    (b"\xef\xbb\xbf{}", "it is not JSON"),
    (b'"\xff"', "it is not UTF-8"),
    ('{"statusCode":200}'.encode("utf-16"), "it is not UTF-8"),
    (b"[" * 200_000, "it is nested too deeply"),
    (b'{"statusCode":200,"body":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "it is nested too deeply"),
    (PRELUDE, "response streaming is not supported"),
]


@pytest.mark.parametrize(("payload", "wrong"), PAYLOADS, ids=[str(p[:20]) for p, _ in PAYLOADS])
def test_payloads_that_are_no_answer(payload, wrong):
    for kind in KINDS:
        assert refused(kind, payload) == wrong


def test_a_number_that_json_cannot_say_again():
    payload = b'{"statusCode":200,"body":[1e999]}'
    assert refused("2.0", payload) == "body holds a number that is out of range"
    assert refused("2.0", b'{"statusCode":200,"headers":{"a":1e999}}').startswith(
        'headers["a"] must be a text'
    )


def test_a_long_name_is_shortened_for_the_log():
    assert '..."]' not in refused("2.0", {"statusCode": 200, "headers": {"x" * 5000: None}})
    assert "xxx...] must" in refused("2.0", {"statusCode": 200, "headers": {"x" * 5000: None}})


def test_what_the_hop_takes_is_left_to_the_headers_of_answers():
    answer = {
        "statusCode": 200,
        "headers": {"Transfer-Encoding": "chunked", "Connection": "X-Hop", "X-Hop": "1"},
    }
    found = read("rest", answer)
    assert answer_headers(found.headers, found.status) == [length(b"")]
