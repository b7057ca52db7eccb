"""Pools of apps in this process: how apps are found or refused at the start, and WSGI apps called by hand."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from strangle_mw import ConfigError, ForwardError, Route, strangle
from strangle_mw.transports.wsgi_answer import AppAnswer, Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def legacy(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("299 Legacy", [])
    return []


# --- found at the start

MODULES = {
    "shop_fine": "def wsgi(environ, start_response):\n    pass\n\nasync def asgi(scope, receive, send):\n    pass\n\nclass site:\n    app = wsgi\n",
    "shop_raises": "import shop_broken\n",
    "shop_broken": "\n\n1 / 0\n",
    "shop_syntax": "def app(:\n",
    "shop_exits": "raise SystemExit(3)\n",
    "shop_no_app": "app = 7\n\nclass Factory:\n    def __init__(self, x):\n        pass\n    def __call__(self):\n        pass\n",
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text, "utf-8")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("to", ["wsgi:shop_fine:wsgi", "asgi:shop_fine:asgi", "wsgi:shop_fine:site.app"])
def test_an_app_is_found_by_its_name(modules: Path, to: str) -> None:
    assert strangle(legacy, [Route("/m/*", to=to)]).engine.snapshot.upstreams[to].in_process


PROBLEMS = {
    "asgi:shop_nowhere:app": "cannot import 'shop_nowhere': ModuleNotFoundError",
    "asgi:shop_fine:app": "there is no 'app' in 'shop_fine', or not yet",
    "asgi:shop_fine:site.other": "there is no 'site.other' in 'shop_fine'",
    "asgi:shop_raises:app": "shop_broken.py:3)",
    "asgi:shop_syntax:app": "SyntaxError",
    "asgi:shop_exits:app": "SystemExit: 3",
    "asgi:shop_no_app:app": "is no app, but int",
    "asgi:shop_fine:wsgi": "is WSGI; write wsgi = 'shop_fine:wsgi'",
    "wsgi:shop_fine:asgi": "is ASGI; write asgi = 'shop_fine:asgi'",
}


@pytest.mark.parametrize("to", PROBLEMS)
def test_an_app_that_cannot_be_had_is_a_problem_of_the_table(modules: Path, to: str) -> None:
    with pytest.raises(ConfigError) as caught:
        strangle(legacy, [Route("/m/*", to=to)])
    (problem,) = caught.value.problems
    kind = to.partition(":")[0]
    assert (problem.where, problem.id) == (f"upstreams.{to}.{kind}", "app-missing")
    assert PROBLEMS[to] in problem.what
    assert "Traceback" not in problem.what
    assert "\n" not in problem.what.strip() or "SyntaxError" in problem.what


def test_all_problems_are_told_at_once(modules: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        strangle(legacy, [Route(f"/{at}", to=to) for at, to in enumerate(PROBLEMS)])
    assert len(caught.value.problems) == len(PROBLEMS)


# --- the body that a WSGI app reads


def broken(*pieces: bytes, error: Exception) -> Iterator[bytes]:
    yield from pieces
    raise error


def test_a_body_that_broke_off_stays_so() -> None:
    source = Source(broken(b"abc", error=ForwardError("send", "gone", status=400)))
    assert source.read(3) == b"abc"
    for _ in range(3):
        with pytest.raises(OSError, match="broke off"):
            source.read(1)
    assert isinstance(source.failure, ForwardError)


def test_a_body_is_read_by_any_amount() -> None:
    source = Source(iter([b"abc", b"", b"defg"][::2]))
    assert [source.read(2), source.read(2), source.read(10), source.read(1)] == [b"ab", b"c", b"defg", b""]


# --- the answer of a WSGI app


@contextmanager
def answered(app: Any, method: str = "GET", source: Source | None = None) -> Iterator[AppAnswer]:
    left: list[bool] = []
    answer = AppAnswer(lambda: left.append(True), method, "up")
    try:
        answer.begin(app, {}, source)
        yield answer
    finally:
        answer.close()
        answer.close()
        assert left == [True]


def test_a_list_is_whole_at_once_and_has_a_length() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 Fine", [("X-A", "1")])
        return [b"ab", b"", b"c"]

    with answered(app) as answer:
        assert (answer.status, answer.reason, answer.complete) == (200, b"Fine", True)
        assert answer.headers == [(b"x-a", b"1"), (b"content-length", b"3")]
        assert answer.take() == b"abc"


def test_the_head_may_change_until_the_first_bytes() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b""
        try:
            raise ZeroDivisionError
        except ZeroDivisionError as exc:
            start_response("500 Bad", [("X-A", "1")], (type(exc), exc, exc.__traceback__))
        yield b"sorry"

    with answered(app) as answer:
        assert (answer.status, answer.headers, answer.take()) == (500, [(b"x-a", b"1")], b"sorry")
        assert (answer.complete, answer.read(), answer.complete) == (False, b"", True)


def test_the_head_may_not_change_later() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"a"
        try:
            raise ZeroDivisionError
        except ZeroDivisionError as exc:
            start_response("500 Bad", [], (type(exc), exc, exc.__traceback__))

    with answered(app) as answer:
        assert answer.take() == b"a"
        with pytest.raises(ForwardError) as caught:
            answer.read()
        assert caught.value.stage == "body"
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_what_is_written_comes_first() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        write = start_response("200 OK", [])
        write(b"a")
        with pytest.raises(TypeError):
            write("b")
        return iter([b"c"])

    with answered(app) as answer:
        assert (answer.take(), answer.read(), answer.read()) == (b"a", b"c", b"")


@pytest.mark.parametrize("close", [None, ZeroDivisionError, SystemExit])
@pytest.mark.parametrize("read", [True, False])
def test_close_is_called_once_whatever_happens(close: type[BaseException] | None, *, read: bool) -> None:
    calls = []

    class Result:
        def __iter__(self) -> Iterator[bytes]:
            yield b"a"
            raise ZeroDivisionError

        def close(self) -> None:
            calls.append(True)
            if close is not None:
                raise close

    def app(environ: Any, start_response: Any) -> Result:
        start_response("200 OK", [])
        return Result()

    with answered(app) as answer:
        assert answer.take() == b"a"
        if read:
            with pytest.raises(ForwardError):
                answer.read()
    assert calls == [True]
    with pytest.raises(RuntimeError, match="closed"):
        answer.read()


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_head_alone_does_not_run_the_app_to_its_end(method: str) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK" if method == "HEAD" else "304 Same", [("Content-Length", "9")])
        yield b"a"
        raise AssertionError

    with answered(app, method) as answer:
        assert (answer.complete, answer.take()) == (True, b"")


@pytest.mark.parametrize("pieces", [[b"abc"], [b"abcd", b"e"], [b"abcde"], [b"ab", b"cde"]])
def test_an_answer_is_held_to_its_length(pieces: list[bytes]) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "4")])
        yield from pieces

    def whole() -> None:
        with answered(app) as answer:
            while not answer.complete:
                answer.read()

    with pytest.raises(ForwardError):
        whole()


def test_an_answer_to_half_a_request_is_none() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        with pytest.raises(OSError, match="broke off"):
            source.read(1)
        start_response("200 OK", [])
        return [b"as if nothing had happened"]

    failure = ForwardError("send", "gone", status=400)
    source = Source(broken(error=failure))
    with pytest.raises(ForwardError) as caught, answered(app, "POST", source):
        pass
    assert caught.value is failure
