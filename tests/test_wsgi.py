"""The WSGI driver without a server: the default route's objects, which path counts, the specification."""

import io
import json
import threading
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from echo import Echo
from strangle_mw import Route, strangle
from strangle_mw.errors import ForwardError

MODERN = Route("/m/*", to="http://127.0.0.1:1", fallback="off")


@pytest.fixture
def echo():
    upstream = Echo()
    yield upstream
    upstream.close()


def environ(path="/x", **more):
    found = {
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "REQUEST_METHOD": "GET",
        "REMOTE_ADDR": "192.0.2.1",
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        **more,
    }
    setup_testing_defaults(found)
    return found


class Answer:
    def __call__(self, status, headers, exc_info=None):
        self.status, self.headers = status, headers
        return lambda _: None


def call(app, asked):
    answer = Answer()
    result = app(asked, answer)
    try:
        answer.body = b"".join(result)
    finally:
        if hasattr(result, "close"):
            result.close()
    return answer


def legacy(environ, start_response):
    start_response("299 Legacy", [])
    return [b"legacy"]


def test_the_default_route_hands_on_the_very_objects_and_the_apps_own_result():
    seen, result = [], [b"x"]

    def app(environ, start_response):
        seen.append((environ, start_response))
        return result

    asked = environ()
    before, answer = dict(asked), Answer()
    assert strangle(app, [MODERN])(asked, answer) is result
    assert seen[0][0] is asked
    assert seen[0][1] is answer
    assert asked == before


def test_an_error_of_the_wrapped_app_passes():
    def broken(environ, start_response):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        strangle(broken, [MODERN])(environ(), Answer())


@pytest.mark.parametrize(
    ("asked", "forwarded"),
    [
        (environ("/m/x"), True),
        (environ("/m/x", RAW_URI="/m/x?a=b"), True),
        (environ("/m/x", REQUEST_URI="/m/x"), True),
        (environ("/m/x", REQUEST_URI="http://h.example/m/x"), True),
        # RAW_URI goes before REQUEST_URI, and neither counts where it says something else
        (environ("/m/x", RAW_URI="/m/x", REQUEST_URI="/other"), True),
        (environ("/x", RAW_URI="/m/x"), False),
        (environ("/m/x", RAW_URI="/x"), True),
        # SCRIPT_NAME is part of the path
        (environ("/x", SCRIPT_NAME="/m"), True),
        (environ("/m/x", SCRIPT_NAME="/app"), False),
        (environ("/m/x", SCRIPT_NAME="/app", RAW_URI="/app/m/x"), False),
    ],
)
def test_which_path_counts(asked, forwarded):
    assert call(strangle(legacy, [MODERN]), asked).status == (
        "502 Bad Gateway" if forwarded else "299 Legacy"
    )


def test_without_a_raw_target_the_decoded_path_is_quoted_once(echo):
    app = strangle(legacy, [Route("/m/*", to=echo.address)])
    answer = call(app, environ("/m/caf\u00c3\u00a9 %41"))
    assert json.loads(answer.body)["line"] == "GET /m/caf%C3%A9%20%2541 HTTP/1.1"
    app.engine.close()


@pytest.mark.parametrize("target", ["x", "chunked", "none", "big", "cookies"])
def test_forwarding_keeps_to_the_specification(echo, target):
    app = strangle(legacy, [Route("/m/*", to=echo.address)])
    answer = call(validator(app), environ(f"/m/{target}"))
    assert answer.status[:1] == "2"
    app.engine.close()


def test_a_reason_is_always_given(echo):
    app = strangle(legacy, [Route("/m/*", to=echo.address)])
    assert call(app, environ("/m/noreason")).status == "299 Unknown"
    assert call(app, environ("/m/cookies")).status == "201 Made"
    app.engine.close()


def post(path, body, **more):
    return environ(path, REQUEST_METHOD="POST", **{"wsgi.input": io.BytesIO(body), **more})


@pytest.mark.parametrize("length", [3, 70_000])
def test_a_body_is_read_no_further_than_its_length(echo, length):
    app = strangle(legacy, [Route("/m/*", to=echo.address)])
    body = io.BytesIO(b"x" * length + b"GET / HTTP/1.1\r\n\r\n")
    answer = call(app, post("/m/x", b"", **{"wsgi.input": body, "CONTENT_LENGTH": str(length)}))
    assert json.loads(answer.body)["length"] == length
    assert body.read(3) == b"GET"
    app.engine.close()


@pytest.mark.parametrize("length", ["5", "99999"])
def test_a_body_that_ends_early_is_refused(echo, length):
    app = strangle(legacy, [Route("/m/*", to=echo.address)])
    assert call(app, post("/m/x", b"abc", CONTENT_LENGTH=length)).status == "400 Bad Request"
    assert echo.requests == 0
    app.engine.close()


def test_a_chunked_body_needs_an_end():
    app = strangle(legacy, [MODERN])
    asked = post("/m/x", b"abc", HTTP_TRANSFER_ENCODING="chunked")
    assert call(app, asked).status == "411 Length Required"


def test_a_chunked_body_of_a_server_that_ends_it(echo):
    app = strangle(legacy, [Route("/m/*", to=echo.address)])
    asked = post("/m/x", b"abc", HTTP_TRANSFER_ENCODING="chunked", **{"wsgi.input_terminated": True})
    asked.pop("CONTENT_LENGTH", None)
    found = json.loads(call(app, asked).body)
    assert found["length"] == 3
    assert ["transfer-encoding", "chunked"] in found["headers"]
    app.engine.close()


@pytest.mark.parametrize("length", ["+1", "1,1", "x", "-1", " "])
def test_a_bad_length_is_refused(length):
    assert (
        call(strangle(legacy, [MODERN]), post("/m/x", b"a", CONTENT_LENGTH=length)).status
        == "400 Bad Request"
    )


def test_two_spellings_of_a_length_are_two_lengths():
    asked = post("/m/x", b"a", CONTENT_LENGTH="1", HTTP_CONTENT_LENGTH="1")
    assert call(strangle(legacy, [MODERN]), asked).status == "400 Bad Request"


def test_a_cut_answer_raises_and_close_may_be_called_at_any_time(echo):
    app = strangle(legacy, [Route("/m/*", to=echo.address)])
    result = app(environ("/m/cutlength"), Answer())
    with pytest.raises(ForwardError):
        list(result)
    result.close()
    result.close()
    app.engine.close()


def test_an_answer_that_is_not_read_gives_its_connection_up(echo):
    app = strangle(legacy, [Route("/m/*", to=echo.address)])
    result = app(environ("/m/events"), Answer())
    assert next(iter(result)).startswith(b"data: 1")
    result.close()
    assert echo.client_left.wait(10)
    app.engine.close()


def test_many_threads_share_one_pool(echo):
    app = strangle(legacy, [Route("/m/*", to=echo.address)])
    wrong = []

    def work(number):
        for turn in range(10):
            found = json.loads(call(app, environ(f"/m/{number}/{turn}")).body)
            if found["line"] != f"GET /m/{number}/{turn} HTTP/1.1":
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert echo.requests == 160
    assert echo.connections <= 16
    app.engine.close()


def test_an_http_2_body_that_nothing_declares_is_not_lost():
    asked = post("/m/x", b"important", SERVER_PROTOCOL="HTTP/2")
    asked.pop("CONTENT_LENGTH", None)
    assert call(strangle(legacy, [MODERN]), asked).status == "411 Length Required"
    assert (
        call(strangle(legacy, [MODERN]), environ("/m/x", SERVER_PROTOCOL="HTTP/2")).status
        == "502 Bad Gateway"
    )


class Breaking(io.BytesIO):
    def read(self, *_):
        raise ConnectionResetError


def test_a_body_that_breaks_off_is_a_bad_request(echo):
    app = strangle(legacy, [Route("/m/*", to=echo.address)])
    answer = call(app, post("/m/x", b"", CONTENT_LENGTH="5", **{"wsgi.input": Breaking()}))
    assert answer.status == "400 Bad Request"
    assert json.loads(answer.body)["type"] == "urn:strangle-mw:bad-body"
    app.engine.close()


def test_empty_cgi_variables_are_no_headers(echo):
    app = strangle(legacy, [Route("/m/*", to=echo.address)])
    found = json.loads(call(app, environ("/m/x", CONTENT_TYPE="", CONTENT_LENGTH="", HTTP_X_EMPTY="")).body)[
        "headers"
    ]
    names = [n for n, _ in found]
    assert "content-type" not in names
    assert "content-length" not in names
    assert ["x-empty", ""] in found
    app.engine.close()


def test_an_answer_may_be_read_past_its_end(echo):
    app = strangle(legacy, [Route("/m/*", to=echo.address)])
    result = iter(app(environ("/m/big"), Answer()))
    assert sum(map(len, result)) == 3_000_000
    assert list(result) == []
    app.engine.close()


def test_a_server_without_raw_target_is_warned_of_once(caplog):
    app = strangle(legacy, [MODERN])
    for _ in range(3):
        call(app, environ("/x"))
    assert caplog.text.count("gives no raw request target") == 1
    call(strangle(legacy, [MODERN]), environ("/x", RAW_URI="/x"))
    assert caplog.text.count("gives no raw request target") == 1
