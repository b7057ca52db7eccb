"""httpbin, an application that nobody here wrote: every endpoint of it, wrapped and forwarded, byte for byte.

Nothing may differ but `RANDOM`, what the server in front writes itself (`ITS_OWN`), and what forwarding is
documented to do (`ADDED`, `in_front`). All servers have one seed for the hashes of sets: `Allow` is written from one.
"""

import json
import re
from base64 import b64encode
from contextlib import ExitStack
from hashlib import md5

import pytest

from servers import connect, read_reply, request, serve

pytest.importorskip(
    "httpbin", reason="httpbin is not installed (make test does: pip install --no-deps httpbin)"
)

HOST = "h.example"
ADDED = [
    ("X-Forwarded-For", "127.0.0.1"),
    ("X-Forwarded-Host", HOST),
    ("X-Forwarded-Proto", "http"),
    ("Forwarded", f'for=127.0.0.1;host="{HOST}";proto=http'),
]
"""What forwarding adds to a request (docs/forwarding.md), and httpbin tells; `Via` and `X-Request-ID` it hides."""
RANDOM = re.compile(
    rb'(?<=\nDate: )[^\r]+|(?<=\nLast-Modified: )[^\r]+|(?<=\nETag: )[0-9a-f]{32}(?=\r)|(?<=nonce=")\w+|(?<=opaque=")\w+'
    rb"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    re.IGNORECASE,
)
ITS_OWN = ("server", "date", "connection", "transfer-encoding")


def digest(method, uri, qop="auth", user="u", password="p"):
    """Write an `Authorization` that httpbin accepts: it does not ask who made the nonce."""

    def h(*parts):
        return md5(":".join(parts).encode()).hexdigest()

    more = (h(""),) if qop == "auth-int" else ()
    answer = h(h(user, "r", password), "n", "00000001", "c", qop, h(method, uri, *more))
    return (
        f'Digest username="{user}", realm="r", nonce="n", uri="{uri}", qop={qop}, nc=00000001, cnonce="c", '
        f'response="{answer}", algorithm=MD5'
    )


def basic(text):
    return ("Authorization", f"Basic {b64encode(text.encode()).decode()}")


CHUNKED = ("Transfer-Encoding", "chunked")
FORM = ((("Content-Type", "application/x-www-form-urlencoded"),), b"a=1&a=2&b=%C3%A9+x")
MULTIPART = (
    (("Content-Type", "multipart/form-data; boundary=xx"),),
    b'--xx\r\nContent-Disposition: form-data; name="f"; filename="f.bin"\r\n\r\n\x00\xff\r\n--xx--\r\n',
)
BODIES = [
    FORM,
    MULTIPART,
    ((("Content-Type", "application/json"),), b'{"a": [1, 2.0, "\xc3\xa9"]}'),
    ((("Content-Type", "application/octet-stream"),), bytes(range(256)) * 400),
    ((("Content-Type", "text/plain"), ("Content-Encoding", "x")), b""),
    ((CHUNKED, FORM[0][0]), b"4\r\na=1&\r\n3;x\r\nb=2\r\n0\r\n\r\n"),
]
CODES = (204, 301, 304, 305, 401, 402, 404, 406, 407, 418, 429, 500, 502, 503, 504, 599)

# Each rule of httpbin's URL map with targets to ask for, and with headers where they matter.
SAMPLES = {
    "/": ["/"],
    "/absolute-redirect/<int:n>": ["/absolute-redirect/1", "/absolute-redirect/3"],
    "/anything": [
        "/anything",
        "/anything?a=1&a=2&b=%20%C3%A9&c&=d&%zz",
        ("/anything", [("X-A", "1"), ("X-A", "2"), ("x-empty", ""), ("X-Latin", "caf\xe9")]),
        ("/anything", [("Cookie", "a=1; b=2"), ("Accept-Encoding", "gzip, br"), ("Origin", "http://o")]),
    ],
    "/anything/<path:anything>": ["/anything/a/b", "/anything/~a/%C3%A9/:x@,?q=%2F//..", "/anything/a/"],
    "/base64/<value>": ["/base64/SFRUUEJJTg==", "/base64/%3F"],
    "/basic-auth/<user>/<passwd>": [
        "/basic-auth/u/p",
        ("/basic-auth/u/p", [basic("u:p")]),
        ("/basic-auth/u/p", [basic("u:q")]),
    ],
    "/bearer": ["/bearer", ("/bearer", [("Authorization", "Bearer t")])],
    "/brotli": ["/brotli"],
    "/bytes/<int:n>": ["/bytes/5000?seed=7", "/bytes/0"],
    "/cache": ["/cache", ("/cache", [("If-None-Match", '"x"')])],
    "/cache/<int:value>": ["/cache/60"],
    "/cookies": ["/cookies", ("/cookies", [("Cookie", 'a=1; b="x y"; c=')])],
    "/cookies/delete": ["/cookies/delete?a=1&b"],
    "/cookies/set": ["/cookies/set?a=1&b=x%20y%3B"],
    "/cookies/set/<name>/<value>": ["/cookies/set/a/b%20c"],
    "/deflate": ["/deflate"],
    "/delay/<delay>": ["/delay/0", "/delay/0.01"],
    "/delete": ["/delete"],
    "/deny": ["/deny"],
    "/digest-auth/<qop>/<user>/<passwd>": [
        "/digest-auth/auth/u/p",
        ("/digest-auth/auth/u/p", [("Authorization", digest("GET", "/digest-auth/auth/u/p"))]),
        ("/digest-auth/auth/u/q", [("Authorization", digest("GET", "/digest-auth/auth/u/q"))]),
    ],
    "/digest-auth/<qop>/<user>/<passwd>/<algorithm>": ["/digest-auth/auth-int/u/p/SHA-256"],
    "/digest-auth/<qop>/<user>/<passwd>/<algorithm>/<stale_after>": [
        "/digest-auth/auth-int/u/p/MD5/2",
        (
            "/digest-auth/auth-int/u/p/MD5/2",
            [
                ("Authorization", digest("GET", "/digest-auth/auth-int/u/p/MD5/2", "auth-int")),
                ("Cookie", "stale_after=2; fake=fake_value"),
            ],
        ),
    ],
    "/drip": ["/drip?duration=0&numbytes=5&delay=0", "/drip?numbytes=0", "/drip?duration=0&code=500"],
    "/encoding/utf8": ["/encoding/utf8"],
    "/etag/<etag>": [
        "/etag/e",
        ("/etag/e", [("If-None-Match", '"e", "f"')]),
        ("/etag/e", [("If-Match", '"f"')]),
    ],
    "/forms/post": ["/forms/post"],
    "/get": ["/get", "/get?x=%00%ff"],
    "/gzip": ["/gzip"],
    "/headers": ["/headers"],
    "/hidden-basic-auth/<user>/<passwd>": [
        "/hidden-basic-auth/u/p",
        ("/hidden-basic-auth/u/p", [basic("u:p")]),
    ],
    "/html": ["/html"],
    "/image": ["/image", *(("/image", [("Accept", f"image/{kind}")]) for kind in ("webp", "*", "gif"))],
    "/image/jpeg": ["/image/jpeg"],
    "/image/png": ["/image/png"],
    "/image/svg": ["/image/svg"],
    "/image/webp": ["/image/webp"],
    "/ip": ["/ip"],
    "/json": ["/json"],
    "/links/<int:n>": ["/links/3"],
    "/links/<int:n>/<int:offset>": ["/links/3/1"],
    "/patch": ["/patch"],
    "/post": ["/post"],
    "/put": ["/put"],
    "/range/<int:numbytes>": [
        "/range/1000?chunk_size=100",
        *(("/range/26", [("Range", f"bytes={part}")]) for part in ("3-7", "-5", "20-", "30-40")),
        "/range/0",
    ],
    "/redirect-to": ["/redirect-to?url=http://o/%3Fx&status_code=307", "/redirect-to?url=//o/x"],
    "/redirect/<int:n>": ["/redirect/1", "/redirect/2", "/redirect/2?absolute=true"],
    "/relative-redirect/<int:n>": ["/relative-redirect/1", "/relative-redirect/2"],
    "/response-headers": [
        "/response-headers?X-A=1&X-B=&X-A=2&Set-Cookie=a%3D1&Set-Cookie=b%3D2&Content-Type=text/plain",
    ],
    "/robots.txt": ["/robots.txt"],
    "/static/<path:filename>": [
        "/static/favicon.ico",
        ("/static/favicon.ico", [("If-Modified-Since", "Wed, 21 Oct 2099 07:28:00 GMT")]),
        ("/static/favicon.ico", [("Range", "bytes=0-9")]),
        "/static/none",
    ],
    "/status/<codes>": [
        "/status/200",
        "/status/x",
        "/status/201:1,500:0",
        *(f"/status/{code}" for code in CODES),
    ],
    "/stream-bytes/<int:n>": ["/stream-bytes/5000?seed=7&chunk_size=999", "/stream-bytes/0"],
    "/stream/<int:n>": ["/stream/3", "/stream/0"],
    "/user-agent": ["/user-agent", ("/user-agent", [("User-Agent", "x/1 (y)")])],
    "/uuid": ["/uuid"],
    "/xml": ["/xml"],
}
ELSEWHERE = [("GET", "/none"), ("POST", "/get"), ("PURGE", "/anything"), ("GET", "/redirect/0")]
"""What httpbin has no endpoint for, or fails at."""
STRANGE = [
    *(("GET", f"/anything/{path}") for path in ("a%2Fb//c/../d", "%5C;x=1/./%ff%00", "%", "a|b")),
    ("GET", "//get"),
    ("GET", "/get/"),
]
"""Paths that are read in many ways, and all of them are below `/*`: both sides get them as they were sent."""


def rules():
    from httpbin import app

    return {rule.rule: rule.methods for rule in app.url_map.iter_rules()}


def asked():
    """Return what is asked: `(method, target, headers, body)`; every method of every rule at least once."""
    found = []
    for rule, methods in rules().items():
        first, *others = SAMPLES[rule]
        for method in sorted(methods):
            headers, body = FORM if method in ("POST", "PUT", "PATCH", "DELETE") else ((), b"")
            found.append((method, *_sample(first, headers), body))
        found += [("GET", *_sample(other), b"") for other in others]
    found += [("POST", "/anything", *body) for body in BODIES]
    return found + [(method, target, (), b"") for method, target in (*ELSEWHERE, *STRANGE)]


def _sample(sample, headers=()):
    target, more = (sample, ()) if isinstance(sample, str) else sample
    return target, (*headers, *more)


class Client:
    """Asks over one connection as long as the server keeps it."""

    def __init__(self, port):
        self.port = port
        self.sock = None

    def ask(self, method, target, headers=(), body=b""):
        self.sock = self.sock or connect(self.port)
        framing = [("Content-Length", str(len(body)))] if body and CHUNKED not in headers else []
        self.sock.sendall(request(method, target, [*headers, *framing], body, host=HOST, close=False))
        reply = read_reply(self.sock, head_only=method == "HEAD")
        assert reply.complete
        if reply.header("connection") == "close":
            self.close()
        return reply

    def close(self):
        if self.sock is not None:
            self.sock.close()
            self.sock = None


@pytest.fixture(scope="module")
def start():
    """Start a server with httpbin: `start(name, table)`; without a table it is bare. Returns a client."""
    with ExitStack() as stack:

        def started(name, table=None):
            environment = {} if table is None else {"STRANGLE_TEST_TABLE": json.dumps(table)}
            port = stack.enter_context(serve(name, "real.httpbin_app", PYTHONHASHSEED="0", **environment))
            client = Client(port)
            stack.callback(client.close)
            return client

        yield started


@pytest.fixture(scope="module")
def bare(start):
    return start("gunicorn-gthread")


@pytest.fixture(scope="module", params=["gunicorn-gthread", "uvicorn-httptools"])
def wrapped(request, start):
    return start(request.param, {"routes": []}), request.param


@pytest.fixture(scope="module", params=["gunicorn-gthread", "uvicorn-httptools"])
def forwarding(request, start, bare):
    upstream = {
        "url": f"http://127.0.0.1:{bare.port}",
        "host": "preserve",
        "breaker": {"failures": 0, "ratio": 0},  # it answers 500 and 503 when asked to
    }
    return start(request.param, {"routes": [{"path": "/*", "to": "bin"}], "upstreams": {"bin": upstream}})


def exact(reply):
    """Return an answer as it came, but for what is random in it."""
    return RANDOM.sub(b"*", reply.raw.partition(b"\r\n\r\n")[0] + b"\r\n"), _body(reply)


def in_front(reply):
    """Return an answer as another server writes it: names in lower case, without what it says itself.

    An absolute `Location` of the public host is a path behind a forwarding route (proxy trap 27).
    """
    lines = [f"\n{n}: {v}\r".encode("latin-1") for n, v in reply.headers if n not in ITS_OWN]
    head = RANDOM.sub(b"*", b"".join(lines))
    return reply.status, head, _body(reply)


def _body(reply):
    body = RANDOM.sub(b"*", reply.body)
    return body[:4] + body[8:] if body.startswith(b"\x1f\x8b") else body  # the time in a gzip header


def test_every_endpoint_of_httpbin_is_asked():
    assert set(SAMPLES) == set(rules())


def test_an_empty_table_changes_no_byte(bare, wrapped):
    client, name = wrapped
    told, requests = exact, asked()
    if name != "gunicorn-gthread":  # for others httpbin refuses chunked requests
        told, requests = in_front, [r for r in requests if CHUNKED not in r[2]]
    assert [r for r in requests if told(client.ask(*r)) != told(bare.ask(*r))] == []


def test_forwarding_changes_what_is_documented_and_no_other_byte(bare, forwarding):
    wrong = []
    for method, target, headers, body in asked():
        status, head, text = in_front(bare.ask(method, target, (*headers, *ADDED), body))
        expected = status, head.replace(f"\nlocation: http://{HOST}/".encode(), b"\nlocation: /"), text
        if in_front(forwarding.ask(method, target, headers, body)) != expected:
            wrong.append((method, target, headers))
    assert wrong == []


def test_what_forwarding_adds_to_a_request(bare, forwarding):
    target = "/headers?show_env=1"
    sent = [("X-Forwarded-For", "192.0.2.1"), ("Via", "1.1 front"), ("X-A", "1")]
    seen = bare.ask("GET", target, sent).json()["headers"]
    behind = forwarding.ask("GET", target, [*sent, ("Connection", "keep-alive, X-B"), ("X-B", "1")]).json()[
        "headers"
    ]
    assert seen == {"Host": HOST, **dict(sent)}
    via, request_id = behind.pop("Via"), behind.pop("X-Request-Id")
    assert behind == {"Host": HOST, "X-A": "1", **dict(ADDED)}
    assert re.fullmatch(r"1\.1 front,1\.1 \S+", via)
    assert len(request_id) == 32
