"""The environ of an ASGI scope: PEP 3333 and what the WSGI driver reads, as gunicorn would give it."""

import sys
from functools import partial

import pytest

from bridges.harness import Exchange, body, call, scope
from strangle_mw.bridges.environ import make_environ
from strangle_mw.bridges.threads import ThreadedWSGI


def environ(*headers, **changes):
    return make_environ(scope(*headers, **changes), None)


def test_headers_that_are_cleaned_already_keep_their_names():
    environ = make_environ(scope((b"x_user", b"1")), None, cleaned=True)
    assert environ["HTTP_X_USER"] == "1"


def test_a_whole_environ():
    given = scope(
        (b"x-a", b"\xe9"),
        (b"content-type", b"text/plain"),
        (b"content-length", b"3"),
        method="POST",
        path="/é/x",
        raw_path=b"/%C3%A9/x",
        query_string=b"a=%20&b",
    )
    assert make_environ(given, "the body") == {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": "the body",
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/\xc3\xa9/x",
        "QUERY_STRING": "a=%20&b",
        "RAW_URI": "/%C3%A9/x?a=%20&b",
        "REQUEST_URI": "/%C3%A9/x?a=%20&b",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "192.0.2.2",
        "SERVER_PORT": "8080",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "4321",
        "HTTP_HOST": "h.example",
        "HTTP_X_A": "\xe9",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
    }


PATHS = {
    "plain": ({"path": "/a", "raw_path": b"/a"}, "", "/a", "/a"),
    "encoded slash": ({"path": "/a/b", "raw_path": b"/a%2Fb"}, "", "/a/b", "/a%2Fb"),
    "no raw path": ({"path": "/é b", "raw_path": None}, "", "/\xc3\xa9 b", "/%C3%A9%20b"),
    "empty raw path": ({"path": "/a", "raw_path": b""}, "", "/a", "/a"),
    "latin-1": ({"path": "/caf\ufffd", "raw_path": b"/caf%E9"}, "", "/caf\xe9", "/caf%E9"),
    "U+FFFD itself": ({"path": "/\ufffd", "raw_path": b"/%EF%BF%BD"}, "", "/\xef\xbf\xbd", "/%EF%BF%BD"),
    "latin-1, rewritten": ({"path": "/b\ufffd", "raw_path": b"/caf%E9"}, "", "/b\xef\xbf\xbd", "/caf%E9"),
    "star": ({"path": "*", "raw_path": b"*"}, "", "*", "*"),
    "root": ({"path": "/r/a", "raw_path": b"/r/a", "root_path": "/r"}, "/r", "/a", "/r/a"),
    "root alone": ({"path": "/r", "raw_path": b"/r", "root_path": "/r"}, "/r", "", "/r"),
    "root with a slash": ({"path": "/r/a", "raw_path": b"/r/a", "root_path": "/r/"}, "/r", "/a", "/r/a"),
    "root is a slash": ({"path": "/a", "raw_path": b"/a", "root_path": "/"}, "", "/a", "/a"),
    "root beside": ({"path": "/rest", "raw_path": b"/rest", "root_path": "/r"}, "/r", "/rest", "/rest"),
    "root left out": ({"path": "/a", "raw_path": b"/a", "root_path": "/r"}, "/r", "/a", "/a"),
    "root beyond ASCII": ({"path": "/é/ü", "raw_path": b"/%C3%A9/%C3%BC", "root_path": "/é"}, "/\xc3\xa9", "/\xc3\xbc", "/%C3%A9/%C3%BC"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "script", "path", "target"), PATHS.values(), ids=PATHS)
def test_paths(changes, script, path, target):
    found = environ(**changes)
    assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["RAW_URI"]) == (script, path, target)
    assert found["REQUEST_URI"] == target


HEADERS = {
    "repeated": ([(b"x-a", b"1"), (b"x-a", b""), (b"x-a", b"2, 3")], "HTTP_X_A", "1,,2, 3"),
    "cookies (HTTP/2)": ([(b"cookie", b"a=1"), (b"cookie", b"b=2; c=3")], "HTTP_COOKIE", "a=1; b=2; c=3"),
    "underscore first": ([(b"x_user", b"evil"), (b"x-user", b"true")], "HTTP_X_USER", "true"),
    "underscore last": ([(b"x-user", b"true"), (b"x_user", b"evil")], "HTTP_X_USER", "true"),
    "underscore alone": ([(b"x_user", b"evil")], "HTTP_X_USER", None),
    "upper case": ([(b"X-User", b"1")], "HTTP_X_USER", "1"),
    "beyond ASCII": ([(b"x-\xb5", b"1")], "HTTP_X-\xb5".replace("-", "_"), "1"),
    "empty": ([(b"x-user", b"")], "HTTP_X_USER", ""),
    "length twice": ([(b"content-length", b"3"), (b"content-length", b"3")], "CONTENT_LENGTH", "3"),
    "type twice": ([(b"content-type", b"a/b"), (b"content-type", b"c/d")], "CONTENT_TYPE", "c/d"),
    "no second name": ([(b"content-type", b"a/b")], "HTTP_CONTENT_TYPE", None),
    "cgi's own": ([(b"content_length", b"3")], "CONTENT_LENGTH", None),
    "framing": ([(b"transfer-encoding", b"chunked")], "HTTP_TRANSFER_ENCODING", "chunked"),
}


@pytest.mark.parametrize(("headers", "key", "value"), HEADERS.values(), ids=HEADERS)
def test_headers(headers, key, value):
    assert environ(*headers).get(key) == value


ENDS = {
    "a port": ({}, ("192.0.2.2", "8080"), ("192.0.2.1", "4321")),
    "tuples or lists": ({"server": ["::1", 80], "client": ["::1", 1]}, ("::1", "80"), ("::1", "1")),
    "Unix socket": ({"server": ("/run/x", None), "client": None}, ("h.example", "80"), ("", "")),
    "nothing said": ({"server": None, "client": None}, ("h.example", "80"), ("", "")),
    "https": ({"server": None, "scheme": "https"}, ("h.example", "443"), ("192.0.2.1", "4321")),
    "Host with a port": ({"server": None, "headers": [(b"host", b"H:81")]}, ("h", "81"), None),
    "Host of IPv6": ({"server": None, "headers": [(b"host", b"[::1]:81")]}, ("[::1]", "81"), None),
    "Host of IPv6, no port": ({"server": None, "headers": [(b"host", b"[::1]")]}, ("[::1]", "80"), None),
    "no Host": ({"server": None, "headers": []}, ("localhost", "80"), None),
    "an odd Host": ({"server": None, "headers": [(b"host", b"h:x")]}, ("h:x", "80"), None),
}


@pytest.mark.parametrize(("changes", "server", "client"), ENDS.values(), ids=ENDS)
def test_both_ends(changes, server, client):
    found = make_environ({**scope(), **changes}, None)
    assert (found["SERVER_NAME"], found["SERVER_PORT"]) == server
    assert client is None or (found["REMOTE_ADDR"], found["REMOTE_PORT"]) == client


def test_the_scheme():
    assert "HTTPS" not in environ()
    found = environ(scheme="https")
    assert (found["HTTPS"], found["wsgi.url_scheme"]) == ("on", "https")


@pytest.mark.parametrize(
    ("version", "protocol"), [("1", "HTTP/1.0"), ("1.0", "HTTP/1.0"), ("1.1", "HTTP/1.1"), ("2", "HTTP/2")]
)
def test_the_protocol(version, protocol):
    assert environ(http_version=version)["SERVER_PROTOCOL"] == protocol


def test_what_the_library_says_is_handed_on_and_nothing_else():
    found = environ(**{"strangle.fallback": "connect", "state": {"a": 1}, "extensions": {}, "app": object()})
    assert found["strangle.fallback"] == "connect"
    assert {*found} == {*environ(), "strangle.fallback"}


def test_an_environ_is_a_dict_of_its_own_with_native_strings():
    """PEP 3333: "a builtin Python dictionary", and text of latin-1 alone."""
    seen = []

    def app(environ, start_response):
        environ["x"] = seen.append(environ)
        start_response("200 OK", [])
        return []

    given = scope((b"x-a", bytes(range(0x80, 0x100))))
    ask = partial(call, ThreadedWSGI(app, 1), lambda: Exchange(*body()), given)
    assert ask().status == ask().status == 200
    one, two = seen
    assert type(one) is dict
    assert one is not two
    assert all(v.encode("latin-1") is not None for v in one.values() if isinstance(v, str))
    assert one["HTTP_X_A"].encode("latin-1") == bytes(range(0x80, 0x100))
