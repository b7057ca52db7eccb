"""PEP 3333 to the letter, in process: what passes through is untouched, what is forwarded behaves as an app must.

Two referees of the standard library: `wsgiref.validate.validator`, around the middleware and inside it, and
`wsgiref.handlers.SimpleHandler` as the server.
"""

import io
import json
from contextlib import suppress
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

from echo import Echo
from strangle_mw import Respond, Route, Upstream, strangle
from strangle_mw.errors import ForwardError
from test_wsgi import Answer, call, environ, post

PLACES = 1
"""`max_in_flight` of the upstream below: a place that is given back twice, or never, shows at once."""


@pytest.fixture
def echo():
    upstream = Echo()
    yield upstream
    upstream.close()


@pytest.fixture
def forwarding(echo):
    app = strangle(
        plain,
        [
            Route(
                "/m/*",
                to=Upstream(url=echo.address, max_in_flight=PLACES, pool_timeout=0.0),
                fallback="off",
            ),
            Route("/dead/*", to="http://127.0.0.1:1", fallback="off"),
            Route("/gone", respond=Respond(status=410, body="gone", content_type="text/plain")),
        ],
    )
    yield app
    app.engine.close()


def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"legacy"]


def free(app):
    """Tell how many places of the upstream are free: each is taken by an answer that does not end."""
    taken = []
    while len(taken) <= PLACES:
        answer = Answer()
        result = app(environ("/m/events"), answer)
        if answer.status.startswith("503"):
            break
        taken.append(result)
    for result in taken:
        result.close()
    return len(taken)


# --- the validator, on either side


METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/m/cookies", "/m/chunked", "/m/big", "/x"])
def test_the_validator_around_it_is_content(forwarding, method, path):
    asked = post(path, b"hello", CONTENT_LENGTH="5", CONTENT_TYPE="text/plain")
    asked["REQUEST_METHOD"] = method
    assert call(validator(forwarding), asked).status[:2] == "20"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/m/none", 204), ("/m/unchanged", 304), ("/m/nothing", 502), ("/dead/x", 502), ("/gone", 410), ("/m/../x", 400)],
)  # fmt: skip
def test_the_validator_around_it_is_content_with_every_kind_of_answer(forwarding, path, status):
    assert call(validator(forwarding), environ(path)).status.startswith(str(status))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/x", "/m/x"])
def test_the_validator_inside_is_content(echo, method, path):
    app = strangle(validator(plain), [Route("/m/*", to=echo.address)], interface="wsgi")
    asked = post(path, b"hello", CONTENT_LENGTH="5", CONTENT_TYPE="text/plain")
    asked["REQUEST_METHOD"] = method
    answer = call(validator(app), asked)
    assert (answer.status, answer.body == b"legacy") == ("200 OK", path == "/x")
    app.engine.close()


def test_a_cut_answer_is_an_error_to_the_validator_too(forwarding):
    result = validator(forwarding)(environ("/m/cutlength"), Answer())
    with pytest.raises(ForwardError):
        list(result)
    result.close()
    assert free(forwarding) == PLACES


# --- what passes through to the wrapped app


class Server(SimpleHandler):
    """The reference server; its client takes `patience` writes and then is gone."""

    def __init__(self, asked, patience=None):
        self.written = io.BytesIO()
        self.patience = patience
        self.errors = io.StringIO()
        super().__init__(asked["wsgi.input"], self, self.errors, asked, multithread=True, multiprocess=False)
        self.http_version = "1.1"

    def write_bytes(self, data):
        if self.patience is not None:
            if self.patience == 0:
                raise ConnectionAbortedError
            self.patience -= 1
        self.written.write(data)

    _write = write_bytes

    def flush(self):
        pass

    @property
    def body(self):
        return self.written.getvalue().partition(b"\r\n\r\n")[2]


class Closing:
    """Counts its closes, whatever it gives."""

    def __init__(self, chunks=(b"one ", b"two"), fails=False):
        self.chunks, self.fails, self.closed = chunks, fails, 0

    def __iter__(self):
        yield from self.chunks
        if self.fails:
            raise ZeroDivisionError

    def close(self):
        self.closed += 1


class ClosingList(list):
    closed = 0

    def close(self):
        self.closed += 1


class ClosingIterator(Closing):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.left = iter(super().__iter__())

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.left)


class ClosingFile(io.BytesIO):
    closes = 0

    def close(self):
        self.closes += 1
        super().close()


def returned(kind):
    """Make what an app returns, and a look at how often it was closed."""
    if kind == "list":
        made = ClosingList([b"one ", b"two"])
        return made, lambda: made.closed
    if kind == "generator":
        counted = []

        def generate():
            try:
                yield b"one "
                yield b"two"
            finally:
                counted.append(1)

        return generate(), lambda: len(counted)
    if kind == "file wrapper":
        file = ClosingFile(b"one two")
        return FileWrapper(file, 4), lambda: file.closes
    made = (ClosingIterator if kind.startswith("iterator") else Closing)(fails=kind.endswith("fails"))
    return made, lambda: made.closed


KINDS = ["list", "generator", "file wrapper", "iterable", "iterator", "iterable fails", "iterator fails"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("patience", [None, 1, 2], ids=["to the end", "head only", "one chunk"])
def test_what_the_app_returns_is_closed_once(kind, patience):
    result, closed = returned(kind)

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return result

    strangled = strangle(app, [Route("/m/*", to="http://127.0.0.1:1")])
    server = Server(environ("/x"), patience)
    server.run(strangled)
    assert closed() == 1
    if patience is None and not kind.endswith("fails"):
        assert server.body == b"one two"


def test_a_response_that_starts_late():
    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        assert callable(write)
        yield b"late"

    server = Server(environ("/x"))
    server.run(strangle(app, [Route("/m/*", to="http://127.0.0.1:1")]))
    assert server.body == b"late"
    assert server.errors.getvalue() == ""


def test_the_write_callable_is_the_servers():
    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"written ")
        write(b"and ")
        return [b"returned"]

    server = Server(environ("/x"))
    server.run(strangle(app, [Route("/m/*", to="http://127.0.0.1:1")]))
    assert server.body == b"written and returned"


def test_a_response_may_be_started_again_with_exc_info():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            raise ZeroDivisionError
        except ZeroDivisionError as exc:
            start_response(
                "500 Broken", [("Content-Type", "text/plain")], (type(exc), exc, exc.__traceback__)
            )
        return [b"sorry"]

    server = Server(environ("/x"))
    server.run(strangle(app, [Route("/m/*", to="http://127.0.0.1:1")]))
    assert server.written.getvalue().startswith(b"HTTP/1.1 500 Broken\r\n")


# --- the body of a forwarded request


def body_case(method, data, status, length, **more):
    asked = {**post("/m/x", data), "REQUEST_METHOD": method}
    asked.pop("CONTENT_LENGTH", None)
    return pytest.param(
        {**asked, **more}, status, length, id=f"{method}-{'-'.join(more) or 'nothing'}-{status}"
    )


BODIES = [
    # Without a length and an end, a read could block for ever: no body is expected (RFC 9112 section 6.3 rule 7).
    body_case("GET", b"never read", 200, 0),
    body_case("POST", b"never read", 200, 0),
    body_case("DELETE", b"never read", 200, 0),
    body_case("GET", b"never read", 200, 0, CONTENT_LENGTH=""),
    body_case("POST", b"never read", 200, 0, CONTENT_LENGTH=""),
    body_case("POST", b"hello, and more", 200, 5, CONTENT_LENGTH="5"),
    body_case("GET", b"hello", 200, 5, CONTENT_LENGTH="5"),
    body_case("POST", b"", 200, 0, CONTENT_LENGTH="0"),
    body_case("POST", b"hello", 411, None, HTTP_TRANSFER_ENCODING="chunked"),
    body_case("POST", b"hello", 411, None, HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH=""),
    body_case("POST", b"hello", 200, 5, HTTP_TRANSFER_ENCODING="chunked", **{"wsgi.input_terminated": True}),
    body_case("POST", b"hello", 411, None, HTTP_TRANSFER_ENCODING="chunked", **{"wsgi.input_terminated": False}),
    body_case("POST", b"hello", 400, None, HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH="5", **{"wsgi.input_terminated": True}),
    body_case("POST", b"hello", 400, None, HTTP_TRANSFER_ENCODING="gzip", **{"wsgi.input_terminated": True}),
    # An end does not make a body: nothing declares one.
    body_case("POST", b"", 200, 0, **{"wsgi.input_terminated": True}),
    body_case("POST", b"short", 400, None, CONTENT_LENGTH="6", **{"wsgi.input_terminated": True}),
]  # fmt: skip


@pytest.mark.parametrize(("asked", "status", "length"), BODIES)
def test_which_body_is_read(forwarding, echo, asked, status, length):
    asked["wsgi.input"].seek(0)  # the table is shared by all runs
    answer = call(forwarding, asked)
    assert answer.status.startswith(str(status))
    if status == 200:
        assert json.loads(answer.body)["length"] == length
        assert asked["wsgi.input"].tell() == length
    assert echo.requests == (status == 200)
    assert free(forwarding) == PLACES


# --- the iterable of a forwarded answer


def exhaust(result):
    for _ in result:
        pass


def once(result):
    next(iter(result), None)


def nothing(_):
    pass


def shut(result):
    if hasattr(result, "close"):
        result.close()


def twice(result):
    shut(result)
    shut(result)


def past_the_end(result):
    left = iter(result)
    for _ in left:
        pass
    assert next(left, None) is None
    assert next(left, None) is None


USES = {
    "read and closed": (exhaust, shut),
    "read and closed twice": (exhaust, twice),
    "read and never closed": (exhaust, nothing),
    "read past the end": (past_the_end, shut),
    "read past the end, closed twice": (past_the_end, twice),
    "begun and closed": (once, shut),
    "begun and closed twice": (once, twice),
    "closed before it is read": (nothing, shut),
    "closed twice before it is read": (nothing, twice),
    "closed, then read": (shut, lambda result: suppressed(exhaust, result)),
    "closed, read, closed": (lambda result: (shut(result), suppressed(exhaust, result)), shut),
}


def suppressed(use, result):
    with suppress(RuntimeError):  # reading what is closed is the server's mistake; it must do no harm
        use(result)


@pytest.mark.parametrize("target", ["x", "cookies", "chunked", "none", "big", "untilclose"])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_connection_is_given_back_once_however_the_answer_is_used(forwarding, target, use):
    for _ in range(3):
        result = forwarding(environ(f"/m/{target}"), Answer())
        for step in use:
            step(result)
    assert free(forwarding) == PLACES
    assert json.loads(call(forwarding, environ("/m/next")).body)["line"] == "GET /m/next HTTP/1.1"


@pytest.mark.parametrize("target", ["x", "chunked", "big"])
def test_a_whole_answer_leaves_its_connection_to_the_next(forwarding, echo, target):
    for _ in range(4):
        result = forwarding(environ(f"/m/{target}"), Answer())
        exhaust(result)
        twice(result)
    assert echo.connections == 1


@pytest.mark.parametrize("use", [once, nothing], ids=["begun", "not begun"])
def test_an_abandoned_answer_ends_its_connection(forwarding, echo, use):
    result = forwarding(environ("/m/events"), Answer())
    use(result)
    twice(result)
    assert echo.client_left.wait(10)
    assert call(forwarding, environ("/m/x")).status == "200 OK"
    assert echo.connections == 2


@pytest.mark.parametrize("target", ["x", "big", "events"])
def test_a_server_that_refuses_the_head_leaves_nothing_behind(forwarding, target):
    def refuses(status, headers, exc_info=None):
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        forwarding(environ(f"/m/{target}"), refuses)
    assert free(forwarding) == PLACES


@pytest.mark.parametrize("patience", [None, 1, 2, 5])
@pytest.mark.parametrize("target", ["x", "big", "chunked"])
def test_under_the_reference_server_a_client_may_leave_at_any_time(forwarding, target, patience):
    Server(environ(f"/m/{target}"), patience).run(forwarding)
    assert free(forwarding) == PLACES


@pytest.mark.parametrize("target", ["cookies", "chunked", "none", "big"])
def test_the_reference_server_accepts_the_head(forwarding, target):
    server = Server(environ(f"/m/{target}"))
    server.run(forwarding)  # it asserts that no hop-by-hop header stands there
    assert server.errors.getvalue() == ""
    assert server.written.getvalue().startswith(b"HTTP/1.1 20")
