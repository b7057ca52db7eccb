"""Files of others: what is read, and that no file is too much, too deep or too clever."""

import json
import sys

import pytest

from strangle_mw.errors import ConfigError
from strangle_mw.imports import documents
from strangle_mw.imports.documents import read_document

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.fixture
def read(tmp_path):
    def call(content, name="file.json"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_document(str(path))

    return call


@pytest.mark.parametrize(
    ("text", "name", "data"),
    [
        ('{"a": [1, true, null]}', "f.json", {"a": [1, True, None]}),
        ("a: [1, true, null]", "f.yaml", {"a": [1, True, None]}),
        ("a: 1", "f.json", {"a": 1}),  # whatever the name says
        ("{a: !Ref b}", "f.yml", {"a": {"Ref": "b"}}),
        ("{a: 1}", "f.template", {"a": 1}),
        ("- a: 2010-09-09", "f", [{"a": "2010-09-09"}]),
        ("on: 1\n443: 2\n", "f", {"on": 1, "443": 2}),
        ("a: !GetAtt b.c.d", "f", {"a": {"Fn::GetAtt": ["b", "c.d"]}}),
        ("a: !GetAtt [b, c]", "f", {"a": {"Fn::GetAtt": ["b", "c"]}}),
        ("a: !Join ['', [!Ref b, c]]", "f", {"a": {"Fn::Join": ["", [{"Ref": "b"}, "c"]]}}),
        ("a: !Sub\n  - x\n  - {b: !Ref c}", "f", {"a": {"Fn::Sub": ["x", {"b": {"Ref": "c"}}]}}),
        ("a: !Transform {Name: b}", "f", {"a": {"Fn::Transform": {"Name": "b"}}}),
        ("a: !Condition b", "f", {"a": {"Condition": "b"}}),
        ("x: &x {b: 1, c: 2}\na: {<<: *x, b: 3}", "f", {"x": {"b": 1, "c": 2}, "a": {"b": 3, "c": 2}}),
        (
            "x: &x {b: 1}\ny: &y {c: 2}\na: {<<: [*x, *y]}",
            "f",
            {"x": {"b": 1}, "y": {"c": 2}, "a": {"b": 1, "c": 2}},
        ),
        (b"\xef\xbb\xbf{}", "f", {}),
        ('{"a": 1}'.encode("utf-16"), "f", {"a": 1}),
        ("=: =", "f", {"=": "="}),
    ],
)
def test_read(read, text, name, data):
    assert read(text, name) == data


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        (b"\xff\x00", "is not UTF-8 text"),
        (b"\xff\xfea", "is not UTF-8 text"),
        ("{", "is not JSON"),
        ('{"a": 1} {}', "is not JSON"),
        ('{"a": 1, "a": 2}', "has the key 'a' twice"),
        ("a: 1\na: 2", "has the key 'a' twice"),
        ('{"a": "\\ud800"}', "half a surrogate pair"),
        ('{"\\udc00": 1}', "half a surrogate pair"),
        ("[" * 100_000, "is nested deeper than 60 levels"),
        ('{"a":' * 100_000, "is nested deeper than 60 levels"),
        ("[" * 62 + "]" * 62, "is nested deeper than 60 levels"),
        ("- " * 5000, "is nested deeper than 60 levels"),
        ('{"a": %s}' % ("9" * 5000), "is not JSON"),
        (BOMB, "holds more than 300000 values"),
        ("a: &a [*a]", "is not YAML"),
        ("a: *b", "is not YAML"),
        ("a: [1", "is not YAML"),
        ("a: 1\n---\nb: 2", "is not YAML"),
        ("\x01: 1", "is not YAML"),
        ("? [a]\n: b", "has a key that is not text"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: !!python/name:os.getcwd", "could not determine a constructor"),
        ("a: !!binary aGVsbG8=", "which is no plain data"),
        ("a: !!set {b, c}", "which is no plain data"),
        ('{"a": [%s1]}' % ("1," * 300_001), "holds more than 300000 values"),
    ],
)
def test_refused(read, content, says):
    with pytest.raises(ConfigError) as caught:
        read(content)
    assert says in str(caught.value)
    assert "file.json" in str(caught.value)


def test_one_alias_merged_many_times(read):
    keys = "".join(f"  k{n}: 1\n" for n in range(2000))
    data = read(f"big: &b\n{keys}own:\n  k0: 2\n  <<: [{'*b,' * 100_000}*b]\n")
    assert data["own"] == {**data["big"], "k0": 2}


def test_too_large(read):
    with pytest.raises(ConfigError, match="is larger than 4 MiB"):
        read(b" " * (documents.MAX_BYTES + 1))


@pytest.mark.parametrize("name", ["/nowhere/a.json", "/", "a\0b", "/dev/zero"])
def test_what_is_no_file(name):
    with pytest.raises(ConfigError, match="cannot be read|is larger than"):
        read_document(name)


def test_without_pyyaml(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert read(json.dumps({"a": 1})) == {"a": 1}
    with pytest.raises(ConfigError, match=r"needs PyYAML: pip install 'strangle-mw\[yaml\]'"):
        read("a: 1")


def test_without_the_c_library(read, monkeypatch):
    import yaml

    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert read("a: !Ref b") == {"a": {"Ref": "b"}}
    with pytest.raises(ConfigError, match="nested deeper"):
        read("- " * 200)
