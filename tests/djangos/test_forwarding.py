"""Requests with a route: they arrive upstream as they came, and answers as they were given, in every way."""

import hashlib

import pytest

from djangos.ways import MIDDLEWARE_WAYS, VIEWS, WAYS, project
from strangle_mw import Respond, Route

BIG = b"0123456789abcdef" * 20_000


def table(echo):
    return [
        Route("/m/*", to=echo.address, name="m"),
        Route("/down/*", to="http://127.0.0.1:1", name="down"),
        Route("/off/*", to="http://127.0.0.1:1", fallback="off"),
        Route("/gone", respond=Respond(status=410, body="gone")),
        Route("/canary/*", to=echo.address, stage="canary", weight=0.01, name="canary"),
        Route("/cached/", to=echo.address, stage="canary", weight=0.01, sticky=["header:X-Key", "cookie"]),
    ]


@pytest.fixture(scope="module", params=WAYS)
def app(request, echo):
    with project(request.param, table(echo)) as driver:
        yield driver


@pytest.mark.parametrize(
    "target",
    [
        "/m/x", "/m/a%2Fb/%7e?q=%zz&e&e=1", "/m/caf%C3%A9?x=%C3%A9", "/m/caf%E9", "/m/100%25", "/m/a%20b%2525",
    ],
)  # fmt: skip
def test_the_target_arrives_as_it_was_sent(app, target):
    seen = app.ask(target)
    assert (seen.status, seen.ended) == (200, True)
    assert f'"GET {target} HTTP/1.1"'.encode() in seen.body


def test_headers_arrive_and_ours_are_added(app, echo):
    app.ask("/m/x", headers=((b"x-a", b"caf\xe9"), (b"x-forwarded-for", b"6.6.6.6"), (b"x-real-ip", b"6")))
    got = dict(echo.last["headers"])
    assert got["x-a"] == "caf\xe9"
    assert got["x-forwarded-for"] == "192.0.2.1"
    assert got["x-forwarded-host"] == "h.example"
    assert "x-real-ip" not in got


@pytest.mark.parametrize("body", [b"", b"a=1", BIG], ids=["none", "small", "big"])
def test_a_body_arrives(app, echo, body):
    seen = app.ask("/m/x", method="POST", body=[body[:5], body[5:]] if body else [], length=len(body))
    assert seen.status == 200
    assert (echo.last["length"], echo.last["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def test_a_chunked_body_arrives(app, echo):
    assert app.ask("/m/x", body=[b"one", b"two"], chunked=True).status == 200
    assert echo.last["sha256"] == hashlib.sha256(b"onetwo").hexdigest()


def test_an_answer_arrives_to_the_byte(app):
    seen = app.ask("/m/cookies")
    assert (seen.status, seen.body) == (201, b"ok")
    assert seen.all(b"set-cookie") == [b"a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", b"b=2"]
    assert seen.header(b"x-empty") == b""
    assert seen.header(b"content-type") == b"text/plain"
    assert seen.header(b"keep-alive") is None


@pytest.mark.parametrize(
    ("method", "target", "status", "length"),
    [("HEAD", "/m/big", 200, b"3000000"), ("HEAD", "/m/chunked", 200, None), ("GET", "/m/none", 204, None),
     ("GET", "/m/unchanged", 304, None)],
)  # fmt: skip
def test_an_answer_without_a_body_is_given_no_length(app, method, target, status, length):
    seen = app.ask(target, method=method)
    assert (seen.status, seen.body, seen.header(b"content-length")) == (status, b"", length)
    assert (seen.ended, seen.error) == (True, None)


@pytest.mark.parametrize(
    ("target", "length", "content_type"),
    [("/m/big", 3_000_000, b"text/plain"), ("/m/chunked", 11, b"text/plain"), ("/m/untilclose", 13, None)],
)
def test_a_long_answer_arrives_whole(app, target, length, content_type):
    seen = app.ask(target)
    assert (len(seen.body), seen.header(b"content-type"), seen.ended) == (length, content_type, True)


@pytest.mark.parametrize("target", ["/m/cutlength", "/m/cutchunks"])
def test_an_answer_that_is_cut_stays_cut(app, target):
    seen = app.ask(target)
    assert (seen.status, seen.body, seen.ended) == (200, b"half", False) or seen.status == 502
    assert seen.status == 502 or seen.error is not None


def test_what_the_library_answers_itself(app):
    assert (app.ask("/gone").status, app.ask("/gone").body) == (410, b"gone")
    assert app.ask("/m/../x").status == 400
    seen = app.ask("/off/x")
    assert seen.status == 502
    assert seen.header(b"content-type") == b"application/problem+json"


@pytest.mark.parametrize("body", [b"a=1&b=2", BIG], ids=["small", "big"])
def test_the_legacy_app_answers_for_an_upstream_that_is_down_and_reads_the_body(app, body):
    form = ((b"content-type", b"application/x-www-form-urlencoded"),) if body is not BIG else ()
    seen = app.ask("/down/x", body=[body[:4], body[4:]], headers=form)
    assert seen.status == 200
    assert b'"fallback": "connect"' in seen.body
    assert hashlib.sha256(body).hexdigest().encode() in seen.body
    assert (b'"post": {"a": ["1"], "b": ["2"]}' in seen.body) is bool(form)


def test_a_canary_marks_the_answer_of_the_legacy_app(app):
    seen = app.ask("/canary/x")
    (cookie,) = [c for c in seen.all(b"set-cookie") if b"strangle_id=" in c]
    assert b"HttpOnly" in cookie
    assert b"Max-Age=31536000" in cookie
    assert b'"fallback": null' in seen.body


def test_a_canary_names_what_a_cache_has_to_look_at(app):
    seen = app.ask("/cached/")
    assert b"for all" in seen.body
    vary = b", ".join(seen.all(b"vary"))
    assert vary.startswith(b"Accept-Language")
    assert b"X-Key" in vary
    assert b'no-cache="set-cookie"' in b", ".join(seen.all(b"cache-control"))


def test_stages_and_fallbacks_are_counted(app):
    from strangle_mw.django import engine

    engine().states.take_counts()
    app.ask("/down/x")
    app.ask("/canary/x")
    app.ask("/m/x")
    counts = {(k.route, k.side, k.outcome): n for k, n in engine().states.take_counts().items()}
    assert counts == {
        ("down", "legacy", "fallback:connect"): 1,
        ("canary", "legacy", "2xx"): 1,
        ("m", "modern", "2xx"): 1,
    }


@pytest.mark.parametrize("way", MIDDLEWARE_WAYS)
def test_middlewares_further_out_change_answers_as_they_like(way, echo):
    with project(way, table(echo), before=[VIEWS + "changing"]) as app:
        seen = app.ask("/m/cookies")
        assert [c for c in map(bytes.strip, seen.all(b"set-cookie")) if c.startswith(b"a=ours")]
        assert b"b=2" in seen.all(b"set-cookie")
        assert (seen.header(b"x-empty"), seen.header(b"x-ours")) == (b"filled", b"1")


MULTIPART = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
MULTIPART_TYPE = ((b"content-type", b"multipart/form-data; boundary=x"),)


@pytest.mark.parametrize("way", MIDDLEWARE_WAYS)
@pytest.mark.parametrize(
    ("middleware", "target"), [("reading", "/m/x"), ("peeking", "/m/x"), ("peeking", "/down/x")]
)
def test_a_body_that_was_read_before_is_sent_all_the_same_or_refused(way, echo, middleware, target, caplog):
    with project(way, table(echo), before=[VIEWS + middleware]) as app:
        seen = app.ask(target, body=MULTIPART, headers=MULTIPART_TYPE)
        if middleware == "reading" and "wsgi" in way:  # it is gone
            assert seen.status == 500
            assert "has read the body" in caplog.text
        else:
            assert seen.status == 200
            assert hashlib.sha256(MULTIPART).hexdigest().encode() in seen.body


@pytest.mark.parametrize("way", MIDDLEWARE_WAYS)
@pytest.mark.parametrize("target", ["/m/x", "/down/x"])
def test_a_chunked_body_that_was_asked_for_before_is_sent_all_the_same(way, echo, target):
    """Django takes a body without a `Content-Length` for none, and leaves it where it is (under WSGI)."""
    with project(way, table(echo), before=[VIEWS + "peeking"]) as app:
        seen = app.ask(target, body=[b"one", b"two"], chunked=True)
    assert seen.status == 200
    if target == "/m/x":
        assert echo.last["sha256"] == hashlib.sha256(b"onetwo").hexdigest()


@pytest.mark.parametrize(
    ("script", "path", "raw"),
    [
        ("", "/m/x", "/m/x"),
        ("", "/m/café", "/m/caf%C3%A9"),
        ("", "/m/café", ""),
        ("", "/m/caf%E9", "/m/caf%E9?q"),
        ("", "/m/a%2525", "/m/a%252525"),
        ("/app", "/m/x", "/app/m/x"),
        ("/äpp", "/m/x", "/%C3%A4pp/m/x"),
        ("/app", "/m/x", ""),
    ],
)
def test_the_path_is_read_as_the_server_gave_it(script, path, raw):
    """Django writes its own reading of the path into the environ, as text; ours is bytes (PEP 3333)."""
    from urllib.parse import unquote_to_bytes

    from strangle_mw.django.exchange import as_received

    given = as_received({"SCRIPT_NAME": script, "PATH_INFO": path, "RAW_URI": raw})
    found = (given["SCRIPT_NAME"] + given["PATH_INFO"]).encode("latin-1")
    assert found == (unquote_to_bytes(raw.partition("?")[0]) if raw else (script + path).encode())


def test_a_script_name_that_is_forced_is_no_part_of_what_was_asked(echo):
    """The proxy in front has taken it away: as under `wrap`, the route matches what the server got."""
    from django.test import override_settings

    for way in ("wsgi wrapped", "wsgi middleware"):
        with override_settings(FORCE_SCRIPT_NAME="/public"), project(way, table(echo)) as app:
            assert b'"GET /m/x HTTP/1.1"' in app.ask("/m/x").body
