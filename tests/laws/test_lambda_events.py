"""Laws of Lambda events: a function behind mangum sees what it would see over HTTP, in every format."""

import base64
import json
import socket
import threading
from urllib.parse import unquote_to_bytes

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from lambda_functions import HOST, KINDS, METHODS, App, running, views

from servers import DEADLINE, read_reply
from strangle_mw.core.lambda_events import LambdaCall, body_limit, encode_event, make_event, may_fit

SEGMENTS = [
    "a", "b.c", "%2F", "a%2Fb", "%2f%2F", "%C3%A9", "%e2%82%ac", "%ff", "%25", "%2520", "%20", "+", "a+b", "%zz", "%",
    ";v=1", ":@", "~", "!$&'()*,", "%3F", "%23", "%00", "..", "", '"<>[]^`{|}',
]  # fmt: skip
NAMES = [
    "a",
    "b%5B%5D",
    "c+d",
    "%C3%A9",
    "",
    "%ff",
]  # never two spellings of one name: mangum keeps one of them
VALUES = ["", "1", "a%20b", "a+b", "%2B", "%26%3D", "=", "%C3%A9", "%ff", "%zz", "%", "a;b", "/?:@", "%00"]
FIELDS = [b"x-a", b"x-b", b"accept", b"x-forwarded-proto", b"cookie"]
TYPES = [
    b"application/json", b"text/plain; charset=utf-8", b"text/plain; charset=latin-1", b"application/octet-stream",
    b"application/x-www-form-urlencoded", b"application/vnd.api+json", b"",
]  # fmt: skip

paths = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4).map(lambda s: "/" + "/".join(s))
queries = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=5).map(
    lambda pairs: "&".join(f"{n}={v}" for n, v in pairs)
)
texts = st.text(
    st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"]), max_size=8
)
values = st.one_of(texts.map(str.encode), st.sampled_from([b"\xe9", b"\xff\xfe", b"a, b", b"a=1; b=2"])).map(
    bytes.strip
)
bodies = st.one_of(st.just(b""), st.binary(max_size=30), texts.map(str.encode))


@st.composite
def calls(draw):
    path = draw(paths.filter(lambda p: not p.startswith("//")))
    body = draw(bodies)
    headers = [(b"host", HOST), *draw(st.lists(st.tuples(st.sampled_from(FIELDS), values), max_size=5))]
    if body:
        headers.append((b"content-length", b"%d" % len(body)))
        if type_ := draw(st.sampled_from(TYPES)):
            headers.append((b"content-type", type_))
    method = draw(st.sampled_from(METHODS))
    return LambdaCall(
        method, path.encode(), draw(queries).encode(), headers, "192.0.2.1", "1.1", "http", body, "/*",
        {"*": path.encode()}, "all", "r-1", 1.5, "f", "",
    )  # fmt: skip


@pytest.fixture(scope="module")
def function():
    with running() as found:
        yield found


@given(calls(), st.sampled_from(KINDS))
def test_a_function_sees_what_it_would_see_over_http(function, call, kind):
    over_http = function.over_http(call)
    function.invoke(kind, call)
    told, seen = views(kind, over_http, function.app.seen)
    assert seen == told


# --- the same with a real server


@pytest.fixture(scope="module")
def server():
    """An app under uvicorn, and one connection to it."""
    app = App()
    app.answer = (200, [(b"content-length", b"0")], b"")
    config = uvicorn.Config(
        app.asgi, http="httptools", loop="asyncio", lifespan="off", proxy_headers=False, log_config=None
    )
    front = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=front.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with socket.create_connection(listener.getsockname(), DEADLINE) as connection:
                yield app, connection
        finally:
            front.should_exit = True
            thread.join(DEADLINE)


def written(call):
    """Write a request as a client would."""
    target = call.path + (b"?" + call.query if call.query else b"")
    lines = [b"%b %b HTTP/1.1\r\n" % (call.method.encode(), target)]
    return b"".join([*lines, *(b"%b: %b\r\n" % h for h in call.headers), b"\r\n", call.body])


@settings(max_examples=30)
@given(calls())
def test_a_function_sees_what_an_app_sees_under_uvicorn(function, server, call):
    app, connection = server
    connection.sendall(written(call))
    assert read_reply(connection, head_only=call.method == "HEAD").status == 200
    assert function.over_http(call) == app.seen
    for kind in KINDS:
        function.invoke(kind, call)
        told, seen = views(kind, app.seen, function.app.seen)
        assert seen == told


# --- any bytes

raw = st.binary(max_size=12)
anything = st.builds(
    LambdaCall,
    method=st.sampled_from(METHODS),
    path=raw.map(lambda b: b"/" + b),
    query=raw,
    headers=st.lists(
        st.tuples(st.sampled_from([*FIELDS, b"host", b"content-type", b"x_y"]), raw), max_size=4
    ),
    peer=st.sampled_from(["", "192.0.2.1", "2001:db8::1"]),
    http_version=st.sampled_from(["1.0", "1.1", "2", "3"]),
    scheme=st.just("http"),
    body=raw,
    template=st.sampled_from(["", "/*", "/a/{x}", "/a/{x:int}/*"]),
    parameters=st.dictionaries(st.sampled_from(["x", "*"]), raw, max_size=2),
    route=st.text(max_size=5),
    request_id=st.just("r"),
    now=st.floats(0, 4e9),
    function=st.sampled_from(["f", "123456789012:function:f"]),
    qualifier=st.sampled_from(["", "live", "7"]),
)


@given(anything, st.sampled_from(KINDS))
def test_any_request_is_an_event_and_loses_nothing_that_json_can_say(call, kind):
    encoded = encode_event(make_event(kind, call))
    event = json.loads(encoded)
    path = event["rawPath"] if kind == "2.0" else event["path"]
    assert path.isascii()
    assert unquote_to_bytes(path) == unquote_to_bytes(call.path)
    if kind == "2.0":
        assert unquote_to_bytes(event["rawQueryString"]) == unquote_to_bytes(call.query)
    body = event.get("body") or ""
    assert (base64.b64decode(body) if event["isBase64Encoded"] else body.encode()) == call.body
    names = event["headers"] if kind == "2.0" else event["multiValueHeaders"]
    told = {n.lower() for n in names} | ({"cookie"} if "cookies" in event else set())
    assert told == {n.decode() for n, _ in call.headers}
    # What could fit is never refused before it is read: an event is longer than the body in it.
    assert len(encoded) >= len(call.body)
    assert may_fit(kind, len(call.body))
    assert not may_fit(kind, body_limit(kind) + 1)
