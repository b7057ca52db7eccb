"""Which files count as code, and when they have changed; what is printed."""

import io
import os

import pytest

from strangle_mw.lambda_dev.changes import changed, look
from strangle_mw.lambda_dev.terminal import Terminal


@pytest.fixture
def folder(tmp_path):
    for name in ("app.py", "shop/events.py", "shop/deep/er.py", "data.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    for name in (
        ".venv/a.py",
        ".git/a.py",
        "node_modules/a.py",
        "env/a.py",
        "shop/__pycache__/a.py",
        ".hidden.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling.py").symlink_to(tmp_path / "nothing")
    return tmp_path


def test_only_the_developers_code_counts(folder):
    assert sorted(look(str(folder))) == ["app.py", "shop/deep/er.py", "shop/events.py"]
    assert look(str(folder / "none")) == {}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda f: (f / "app.py").write_text("x = 22\n"), ["app.py"]),
        (lambda f: os.utime(f / "app.py", ns=(1, 1)), ["app.py"]),
        (lambda f: (f / "shop" / "events.py").unlink(), ["shop/events.py"]),
        (lambda f: (f / "shop" / "new.py").write_text(""), ["shop/new.py"]),
        (lambda f: (f / "app.py").rename(f / "b.py"), ["app.py", "b.py"]),
        (lambda f: (f / "data.json").write_text("{}"), []),
        (lambda f: (f / ".venv" / "a.py").write_text("x = 22\n"), []),
    ],
)
def test_what_changes(folder, change, found):
    before = look(str(folder))
    change(folder)
    assert changed(before, look(str(folder))) == found


def test_lines_of_a_traceback_are_read_apart():
    stream = io.StringIO()
    output = Terminal(stream).output("app", 0)
    output.lines("[ERROR] boom\rTraceback:\r\xa0\xa0File \u2603\n\x1b[1mbold\x1b[0m".encode() + b"\xff\n")
    assert stream.getvalue() == (
        "app | [ERROR] boom\napp | Traceback:\napp |   File \u2603\napp | \x1b[1mbold\x1b[0m\ufffd\n"
    )


@pytest.mark.parametrize(
    ("colours", "text"), [(False, "app | x\n"), (True, "\x1b[36mapp |\x1b[0m \x1b[31mx\x1b[0m\n")]
)
def test_colours_only_where_they_are_wanted(colours, text):
    stream = io.StringIO()
    Terminal(stream, colours=colours).output("app", 0).line("x", "bad")
    assert stream.getvalue() == text


def test_a_terminal_of_another_encoding():
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, "ascii") as stream:
        Terminal(stream).line("\u2603")
        assert raw.getvalue() == b"?\n"


def test_a_reader_that_has_gone_is_told_once():
    reading, writing = os.pipe()
    os.close(reading)
    told = []
    stream = os.fdopen(writing, "w")
    terminal = Terminal(stream)
    terminal.on_closed = lambda: told.append("closed")
    terminal.line("x")
    terminal.line("y")
    assert (told, terminal.closed) == (["closed"], True)
    with pytest.raises(BrokenPipeError):
        stream.close()
