"""A law of apps in this process: they see what they would see behind their own server, reached over HTTP."""

from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers import request, serve, talk

MODULE = "drivers.in_process_apps"
OWN = {"asgi": "uvicorn-httptools", "wsgi": "gunicorn-gthread"}
# What differs by nature: which way a request goes, its id, and the words of one connection.
BY_NATURE = ("x-by", "x-request-id", "connection", "http_x_by", "http_x_request_id", "http_connection")


@pytest.fixture(scope="module")
def fronts():
    """Both kinds of servers with the strangled app, before both kinds with the bare one."""
    with ExitStack() as stack:
        own = {
            f"STRANGLE_TEST_{kind.upper()}": f"http://127.0.0.1:{port}"
            for kind, name in OWN.items()
            for port in [stack.enter_context(serve(name, MODULE, STRANGLE_TEST_BARE="1"))]
        }
        yield {kind: stack.enter_context(serve(name, MODULE, **own)) for kind, name in OWN.items()}


segments = st.sampled_from(
    ["a", "b", "x.y", "caf%C3%A9", "%E2%82%AC", "a%2Fb", "a%20b", "%61", "a+b", "a;v=1", "%25", "~", "a=b", "%FF", "a%2fb"]
)  # fmt: skip
paths = st.one_of(
    st.tuples(st.sampled_from(["plain", "strip"]), st.lists(segments, max_size=3).map("/".join)),
    st.tuples(st.just("re"), st.sampled_from(["a", "7", "caf%C3%A9", "x.y", "a;v=1"])),
)
queries = st.sampled_from(["", "a=1", "a=b+c&e&z=%zz", "q=%C3%A9&q=2", "?x=/?", "a=%2F%23"])
FIELDS = [
    ("X-Two", "1"), ("X-Two", "2"), ("X-Empty", ""), ("Cookie", "a=1; b=2"), ("Accept", "*/*"), ("X-Text", "caf\xc3\xa9"),
    ("Connection", "X-Hop"), ("X-Hop", "1"), ("Keep-Alive", "timeout=9"), ("TE", "trailers"), ("Authorization", "Basic eA=="),
    ("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=6.6.6.6"),
    ("X-Forwarded-Prefix", "/evil"), ("X-Real-IP", "6.6.6.6"), ("X-Original-URL", "/evil"), ("Remote-User", "root"), ("Strangle-Shadow", "1"),
    ("Via", "1.1 other"), ("Proxy", "http://evil"), ("Content-Type", "text/plain; charset=utf-8"), ("User-Agent", "law/1"),
    ("Upgrade", "h2c"), ("Trailer", "X-Late"), ("X-Late", "1"), ("Referer", "http://h.example/"),
]  # fmt: skip
fields = st.lists(st.sampled_from(FIELDS), max_size=6, unique_by=lambda f: f if f[0] == "X-Two" else f[0])
bodies = st.one_of(
    st.none(), st.just(b""), st.binary(max_size=40), st.sampled_from([b"x" * 65_536, b"y" * 70_000])
)
framings = st.sampled_from(["length", "chunked", "1.0"])


def written(kind, way, method, path, query, headers, body, framing):
    """Write one request; the way it goes is told by a header."""
    target = f"/{kind}/{path[0]}/{path[1]}" + (f"?{query}" if query else "")
    headers, data = [*headers, ("X-By", way)], body or b""
    if body is not None and framing == "chunked":
        headers.append(("Transfer-Encoding", "chunked"))
        data = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (data[:7], data[7:]) if p) + b"0\r\n\r\n"
    elif body is not None:
        headers.append(("Content-Length", str(len(data))))
    asked = request(method, target, headers, data)
    return asked.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1) if framing == "1.0" else asked


def seen(reply):
    """Tell what the app has seen, without what differs by nature."""
    if reply.status != 200:
        return reply.status
    told = reply.json()
    if "environ" in told:
        told["environ"] = {k: v for k, v in told["environ"].items() if k.lower() not in BY_NATURE}
        assert told["foreign"] == [] or all(k.startswith("gunicorn.") for k in told["foreign"])
        del told["foreign"]
    else:
        told["headers"] = [h for h in told["headers"] if h[0] not in BY_NATURE]
        del told["keys"], told["state"]
    return told


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.parametrize("front", OWN)
@settings(max_examples=60)
@given(
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PURGE"]),
    paths,
    queries,
    fields,
    bodies,
    framings,
)
def test_an_app_sees_what_it_would_see_behind_its_own_server(
    fronts, front, kind, method, path, query, headers, body, framing
):
    there, here = (
        talk(fronts[front], written(kind, way, method, path, query, headers, body, framing))
        for way in ("http", "call")
    )
    assert seen(here) == seen(there)
