"""The small writer of TOML against the standard library's reader."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strangle_mw.imports.toml import toml_comment, toml_key, toml_lines, toml_text, toml_value

FEW = settings(max_examples=60, deadline=None)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ['"', "\\", "\n[strangle]\n", "\r\n", "\x00\x1f\x7f", "é\u2028\u0085", '"""', "a = 1 # b", ""]
)
scalars = texts | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3), max_leaves=8
)


@FEW
@given(st.dictionaries(texts, values, max_size=4))
def test_what_is_written_is_read_again(table):
    assert tomllib.loads("\n".join(toml_lines(table))) == table


@FEW
@given(texts, st.lists(texts, max_size=3))
def test_a_table_has_any_name(name, comments):
    lines = [*(line for c in comments for line in toml_comment(c)), f"[upstreams.{toml_key(name)}]", "x = 1"]
    assert tomllib.loads("\n".join(lines)) == {"upstreams": {name: {"x": 1}}}


@FEW
@given(texts)
def test_a_comment_holds_nothing_but_itself(text):
    lines = toml_comment(text)
    assert all(line.startswith("#") for line in lines)
    assert tomllib.loads("\n".join([*lines, "a = 1"])) == {"a": 1}


def test_long_comments_are_wrapped_and_short_ones_kept():
    assert toml_comment("one\ntwo\x1b[2J\n\nthree") == ["# one", "# two\\u001B[2J", "#", "# three"]
    assert max(map(len, toml_comment("word " * 100))) <= 102


@pytest.mark.parametrize("odd", ["\u202e", "\u2028", "\x9b", "\x85", "\u2066"])
def test_a_reader_sees_what_a_table_says(odd):
    lines = [toml_text(f"a{odd}b"), *toml_comment(f"a{odd}b"), toml_key(odd)]
    assert not any(odd in line for line in lines)
    assert tomllib.loads(f"a = {lines[0]}") == {"a": f"a{odd}b"}


def test_what_toml_cannot_hold():
    with pytest.raises(UnicodeEncodeError):
        toml_text("\ud800")
    with pytest.raises(TypeError, match="NoneType"):
        toml_value(None)
    assert toml_value({}) == "{}"
