"""What an app in this process is shown: scopes and environs, and what never gets into them."""

import sys

import pytest
from support import decide

from strangle_mw import ForwardError, Route
from strangle_mw.core.calls import asgi_scope, final_status, scope_of_environ, websocket_scope, wsgi_environ
from strangle_mw.core.hygiene import CHUNKED

SERVER = {
    "asgi": {"version": "3.0", "spec_version": "2.4"},
    "client": ("192.0.2.1", 5),
    "server": ("10.0.0.1", 80),
    "root_path": "/app",
}
FOREIGN_SCOPE = dict.fromkeys(
    ("user", "auth", "session", "router", "path_params", "endpoint", "app", "state", "strangle.fallback", "route", "extensions")
)  # fmt: skip
ENVIRON = {
    "SERVER_NAME": "h", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": "5",
    "SCRIPT_NAME": "/app", "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.errors": sys.stderr, "wsgi.multithread": True,
    "wsgi.multiprocess": False, "wsgi.run_once": False,
}  # fmt: skip
FOREIGN_ENVIRON = dict.fromkeys(
    ("werkzeug.request", "strangle.fallback", "wsgi.file_wrapper", "wsgi.input", "wsgi.websocket", "wsgi.early_hints", "beaker.session",
     "wsgiorg.routing_args", "REMOTE_USER", "AUTH_TYPE", "PATH_TRANSLATED", "SSL_CLIENT_CERT", "gunicorn.socket", "HTTP_X_LEFT_BEHIND")
)  # fmt: skip


async def app(scope, receive, send):
    """Stands for an app; never called."""


def forward(target="/m/x", method="GET", headers=(("Host", "h.example"),), route=None, **more):
    found = decide(Route(**{"path": "/m/*", "to": app, **(route or {})}), target, method, headers, **more)
    assert found.upstream.in_process
    return found


def test_a_scope_has_these_keys_and_no_others():
    made = asgi_scope(forward("/m/x?a=b+c"), {**SERVER, **FOREIGN_SCOPE}, 0)
    headers = made.pop("headers")
    assert made == {
        "type": "http", "asgi": SERVER["asgi"], "http_version": "1.1", "method": "GET", "scheme": "http", "path": "/m/x",
        "raw_path": b"/m/x", "query_string": b"a=b+c", "root_path": "", "client": SERVER["client"], "server": SERVER["server"],
    }  # fmt: skip
    assert headers[0] == (b"host", b"h.example")
    assert type(headers[0]) is tuple


def test_an_environ_has_these_keys_and_no_others():
    made = wsgi_environ(forward("/m/x?a=b+c"), {**ENVIRON, **FOREIGN_ENVIRON}, 0)
    ours = {k: made.pop(k) for k in [*made] if k.startswith(("HTTP_X_", "HTTP_FORWARDED", "HTTP_VIA"))}
    assert made == {
        **ENVIRON, "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/m/x", "QUERY_STRING": "a=b+c", "RAW_URI": "/m/x?a=b+c",
        "REQUEST_URI": "/m/x?a=b+c", "HTTP_HOST": "h.example",
    }  # fmt: skip
    assert sorted(ours) == [
        "HTTP_FORWARDED",
        "HTTP_VIA",
        "HTTP_X_FORWARDED_HOST",
        "HTTP_X_FORWARDED_PROTO",
        "HTTP_X_REQUEST_ID",
    ]


def test_a_scope_that_is_made_of_an_environ_has_what_a_servers_own_would_have():
    made = scope_of_environ(forward(), {**ENVIRON, **FOREIGN_ENVIRON}, 0)
    assert made == {
        **asgi_scope(forward(), {**SERVER, "server": ("h", 80)}, 0),
        "asgi": made["asgi"],
        "headers": made["headers"],
    }


@pytest.mark.parametrize(
    ("environ", "client", "server"),
    [
        ({"REMOTE_ADDR": "", "SERVER_NAME": "unix:/s", "SERVER_PORT": ""}, None, ("unix:/s", None)),
        ({"REMOTE_ADDR": "::1", "SERVER_NAME": "h", "SERVER_PORT": "x"}, ("::1", 0), ("h", None)),
        ({}, None, ("", None)),
    ],
)
def test_a_peer_without_an_address_or_a_port(environ, client, server):
    made = scope_of_environ(forward(), environ, 0)
    assert (made["client"], made["server"]) == (client, server)


PATHS = {
    "/m/caf%C3%A9": "/m/café",
    "/m/a%20b": "/m/a b",
    "/m/%FF": "/m/\ufffd",
    "/m/a;v=1": "/m/a;v=1",
    "/m/%25": "/m/%",
}


@pytest.mark.parametrize("target", PATHS)
def test_the_path_is_decoded_once_and_told_raw(target):
    made = asgi_scope(forward(target), SERVER, 0)
    assert (made["path"], made["raw_path"]) == (PATHS[target], target.encode())
    environ = wsgi_environ(forward(target), ENVIRON, 0)
    assert environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace") == PATHS[target]
    assert environ["RAW_URI"] == target


@pytest.mark.parametrize(
    ("route", "sent"),
    [({"strip_prefix": "/m"}, "/x"), ({"path": "/m/{id}", "rewrite": "/new/{id}"}, "/new/x")],
)
def test_the_path_is_that_after_the_rewrite(route, sent):
    found = forward("/m/x", route=route)
    assert asgi_scope(found, SERVER, 0)["path"] == sent
    assert wsgi_environ(found, ENVIRON, 0)["PATH_INFO"] == sent


@pytest.mark.parametrize(
    ("length", "version", "told"),
    [(CHUNKED, "1.1", True), (CHUNKED, "2", False), (3, "1.1", False), (0, "1.1", False)],
)
def test_the_framing_is_told_as_it_would_stand_on_the_wire(length, version, told):
    found = forward(
        headers=[("Host", "h"), ("Content-Length", "3")] if length == 3 else [("Host", "h")],
        http_version=version,
    )
    headers = asgi_scope(found, SERVER, length)["headers"]
    assert ((b"transfer-encoding", b"chunked") in headers) is told
    assert ("HTTP_TRANSFER_ENCODING" in wsgi_environ(found, ENVIRON, length)) is told
    assert (wsgi_environ(found, ENVIRON, length).get("CONTENT_LENGTH") == "3") is (length == 3)


def test_what_is_told_does_not_change_what_is_forwarded():
    found = forward()
    first = asgi_scope(found, SERVER, CHUNKED)
    first["headers"].append((b"x-more", b"1"))
    assert (b"x-more", b"1") not in asgi_scope(found, SERVER, 0)["headers"]
    assert asgi_scope(found, SERVER, 0)["headers"][1:] == found.headers


def test_headers_of_one_name_are_joined_in_an_environ():
    sent = [
        ("Host", "h"),
        ("X-Two", "1"),
        ("X-Two", "2"),
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
        ("Content-Type", "t/p"),
    ]
    made = wsgi_environ(forward(headers=sent), ENVIRON, 0)
    assert (made["HTTP_X_TWO"], made["HTTP_COOKIE"], made["CONTENT_TYPE"]) == ("1,2", "a=1; b=2", "t/p")
    assert "HTTP_CONTENT_TYPE" not in made


def test_a_websocket_is_offered_denial_and_nothing_else():
    given = {**SERVER, **FOREIGN_SCOPE, "scheme": "wss", "subprotocols": ["v1"]}
    made = websocket_scope(
        forward(), {**given, "extensions": {"websocket.http.response": {"x": 1}, "tls": {}}}
    )
    assert made["extensions"] == {"websocket.http.response": {}}
    assert websocket_scope(forward(), given)["extensions"] == {}
    assert (made["type"], made["scheme"], made["subprotocols"]) == ("websocket", "wss", ["v1"])
    assert set(made) == {*asgi_scope(forward(), SERVER, 0), "subprotocols", "extensions"} - {"method"}


@pytest.mark.parametrize("status", [200, 404, 599])
def test_final_statuses(status):
    assert final_status(status) == status


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 600, 700, -200, "200", None, 200.0, True, b"200"])
def test_what_is_no_final_status(status):
    with pytest.raises(ForwardError) as caught:
        final_status(status)
    assert (caught.value.stage, caught.value.status, caught.value.request_sent) == ("head", 502, True)
