import pytest

from strangle_mw.core.paths import (
    is_plain,
    neutralize_slashes,
    quote_path,
    readings,
    request_path,
    requote,
    split,
)


@pytest.mark.parametrize(
    ("raw", "decoded", "path", "authority"),
    [
        (b"/a%2Fb", b"/a/b", b"/a%2Fb", b""),
        (b"/a%2Fb?q=1", b"/a/b", b"/a%2Fb", b""),
        (None, b"/a b%", b"/a%20b%25", b""),
        # absolute form: some servers keep it whole in both views, some reduce one of them
        (b"http://h.example/a", b"http://h.example/a", b"/a", b"h.example"),
        (b"http://h.example:81/a%20", b"/a ", b"/a%20", b"h.example:81"),
        (b"http://h.example", b"/", b"/", b"h.example"),
        (b"HTTPS://u:p@h/a", b"/a", b"/a", b"u:p@h"),
        # the views disagree: the decoded one counts, quoted once
        (b"//a", b"/a", b"/a", b""),
        (b"/m#/../x", b"/m", b"/m", b""),
        (b"/mounted/a%20b", b"/a b", b"/a%20b", b""),
        # U+FFFD for invalid UTF-8 is the same path
        (b"/%ff", "/\ufffd".encode(), b"/%ff", b""),
        (b"*", b"*", b"*", b""),
        (b"modern", b"modern", b"modern", b""),
    ],
)
def test_request_path(raw, decoded, path, authority):
    assert request_path(raw, decoded) == (path, authority)


READINGS = {
    "dot segments removed": (b"/m/../x", b"/x"),
    "encoded dot segments removed": (b"/m/%2E%2e/x", b"/x"),
    "encoded dots alone, the slash still data": (b"/r/%2e%2e/r%2Fx", b"/r%2Fx"),
    "decoded once": (b"/m%2fx", b"/m/x"),
    "backslash as slash": (b"/m\\x", b"/m/x"),
    "empty segments merged": (b"/m//x", b"/m/x"),
    "parameters stripped": (b"/m;v=1/x;y", b"/m/x"),
    "cut at #": (b"/m#/x", b"/m"),
    "cut at NUL": (b"/m%00/x", b"/m"),
    "overlong UTF-8 decoded": (b"/m/%c0%ae%c0%ae%c0%afx", b"/m/../x"),
    "three bytes for a slash": (b"/m%e0%80%afx", b"/m/x"),
    "four bytes for a slash": (b"/m%f0%80%80%afx", b"/m/x"),
    "invalid UTF-8 decoded": (b"/m%ff", "/m\ufffd".encode()),
    "all together": (b"/m/..;a/%2e%2e\\%2fx%00", b"/x"),
    "two steps of three": (b"/m/x%2f..%2f..%2fa%2fu%5c..%5c..%5cm", b"/a/u\\..\\..\\m"),
}


@pytest.mark.parametrize(("path", "reading"), READINGS.values(), ids=READINGS)
def test_reading(path, reading):
    found = list(readings(path))
    assert found[0] == path
    assert reading in found
    assert len(found) == len(set(found))


def test_a_percent_sign_that_decoding_made_is_not_decoded_again():
    assert all(b"/../" not in r for r in readings(b"/m/%252e%252e/x"))


@pytest.mark.parametrize("path", [b"/", b"/a", b"/a/b.c/", b"/a/~x", b"/a:b@c,d=e+f!$&'()*", b'/"<>[]^`{|}'])
def test_plain(path):
    assert is_plain(path)


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"a",
        b"*",
        b"//",
        b"/a//b",
        b"/.",
        b"/a/.b",
        b"/%41",
        b"/a;b",
        b"/a#",
        b"/a?b",
        b"/\\",
        b"/a b",
        b"/\x7f",
        b"/\xe9",
    ],
)
def test_not_plain(path):
    assert not is_plain(path)


def test_an_encoded_slash_makes_no_segment():
    assert split(b"/a%2Fb/c") == ["a/b", "c"]


def test_split_looks_no_further_than_needed():
    assert split(b"/a/b/c/d", 2) == ["a", "b/c/d"]


def test_requote_spells_a_reading_as_a_client_would():
    assert requote(b'/a b\xff"%41') == b"/a%20b%FF%22%41"


def test_neutralized_slashes_are_data():
    assert neutralize_slashes(b"a%2fb%5Cc") == b"a_b_c"


def test_quote_path_keeps_what_may_stand_in_a_path():
    assert quote_path(b"/a;b=c@d:e,f/%") == b"/a;b=c@d:e,f/%25"
