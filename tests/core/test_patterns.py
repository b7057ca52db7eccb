import pytest

from strangle_mw.core.patterns import PatternError, parse_path, parse_template

UUID = "6f1ed002-ab5b-4f1f-9e1d-5b2f3c3b8a10"


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/a/b", "/a/b", True),
        ("/a/b", "/a/b/", False),
        ("/a/b", "/a", False),
        ("/", "/", True),
        ("/", "/a", False),
        ("/a/", "/a/", True),
        ("/a/", "/a", False),
        ("/a/{x}", "/a/1", True),
        ("/a/{x}", "/a/", False),
        ("/a/{x}", "/a/1/2", False),
        ("/a/{x:int}", "/a/12", True),
        ("/a/{x:int}", "/a/1a", False),
        ("/a/{x:int}", "/a/+1", False),
        ("/a/{x:int}", "/a/-1", False),
        ("/a/{x:int}", "/a/1\n", False),
        ("/a/{x:int}", "/a/\u0661", False),
        ("/a/{x:int}", "/a/\u00b2", False),
        ("/a/{x:uuid}", f"/a/{UUID}", True),
        ("/a/{x:uuid}", f"/a/{UUID.upper()}", True),
        ("/a/{x:uuid}", "/a/6f1ed002", False),
        ("/a/{x:slug}", "/a/a-b_1", True),
        ("/a/{x:slug}", "/a/a.b", False),
        ("/r/{id}.json", "/r/1.json", True),
        ("/r/{id}.json", "/r/.json", False),
        ("/r/{id}.json", "/r/1.jsonx", False),
        ("/r/v{n:int}.x", "/r/v2.x", True),
        ("/r/v{n:int}.x", "/r/vv.x", False),
        ("/a/*", "/a", True),
        ("/a/*", "/a/", True),
        ("/a/*", "/a/b/c", True),
        ("/a/*", "/ab", False),
        ("/*", "/", True),
        ("/*", "/x/y", True),
        ("/a%20b", "/a b", True),
        ("/stra\u00dfe", "/stra\u00dfe", True),
    ],
)
def test_path_pattern(pattern, path, fits):
    assert parse_path(pattern).matches(path.split("/")[1:]) is fits


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("a/b", "must start with a slash: write '/a/b'"),
        ("", "must start with a slash"),
        ("/a//b", "empty segment"),
        ("//*", "empty segment"),
        ("/a/{x}/{x}", "'x' twice"),
        ("/a/{x}{y}", "two parameters"),
        ("/a/{x:float}", "unknown parameter type 'float'; use one of int, uuid, slug"),
        ("/a/{x:}", "unknown parameter type ''"),
        ("/a/{}", "no usable parameter name"),
        ("/a/{1x}", "no usable parameter name"),
        ("/a/{x", "unmatched brace"),
        ("/a/*/b", "may only stand alone at the end"),
        ("/a*", "may only stand alone at the end"),
        ("/a/../b", "dot segment"),
        ("/a?b=1", "contains '?'"),
        ("/a#b", "contains '#'"),
        ("/a\\b", "contains '\\\\'"),
        ("/a%2Fb", "contains '%2F'"),
        ("/a%zz", "contains '%'"),
        ("/a b", "contains ' '"),
        ("/a;v=1", "which servers read in different ways"),
        ("/a%3Bv", "which servers read in different ways"),
        ("/a%23b", "which servers read in different ways"),
        ("/a/%2e%2e/b", "which servers read in different ways"),
        ("/a%ff", "which servers read in different ways"),
        ("/a" * 200, "more than 128 segments"),
    ],
)
def test_bad_pattern_says_what_to_write(pattern, says):
    with pytest.raises(PatternError, match="^") as caught:
        parse_path(pattern)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("/a", "/a/*"),
        ("/a/b", "/a/{x}.b"),
        ("/a/{x}.json", "/a/{x}.j"),
        ("/a/x{x}", "/a/{x:int}"),
        ("/a/{x:int}", "/a/{x}"),
        ("/a/{x}", "/a/*"),
        ("/a/b/*", "/a/*"),
        ("/a/b/*", "/a/{x}/c"),
        ("/{x}/b", "/{x}/*"),
        ("/a/*", "/*"),
    ],
)
def test_rank_orders_segment_by_segment_from_the_left(better, worse):
    assert parse_path(better).rank < parse_path(worse).rank


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("/{x}", "/{y:int}", True),
        ("/{x:slug}", "/{y:int}", True),
        ("/{x:slug}", "/{y:uuid}", True),
        ("/{x:int}", "/{y:slug}", False),
        ("/{x:int}", "/1{y:int}", False),
        ("/{x:slug}", "/a{y:int}", True),
        ("/{x:slug}", "/a.{y:int}", False),
        ("/a{x}", "/ab{y}", True),
        ("/a{x}", "/{y}a", False),
        ("/*", "/a/{x}/*", True),
        ("/a/*", "/a", True),
        ("/a", "/a/*", False),
        ("/a/{x}", "/a/b", True),
    ],
)
def test_covers(wide, narrow, covers):
    assert parse_path(wide).covers(parse_path(narrow)) is covers


@pytest.mark.parametrize(
    ("pattern", "path", "values"),
    [
        ("/a/{x}", b"/a/1%2f2", {"x": b"1%2f2"}),
        ("/a/{x}.json", b"/a/%2e.json", {"x": b"%2e"}),
        ("/a/v{x}.json", b"/a/%76%41%2ejson", {"x": b"%41"}),
        ("/a/\u00df{x}", b"/a/%c3%9fz", {"x": b"z"}),
        ("/a/*", b"/a", {"*": b""}),
        ("/a/*", b"/a/", {"*": b"/"}),
        ("/a/*", b"/a/b/c%20", {"*": b"/b/c%20"}),
        ("/{x}/*", b"/q//z", {"x": b"q", "*": b"//z"}),
    ],
)
def test_capture_keeps_every_byte_of_a_parameter(pattern, path, values):
    assert parse_path(pattern).capture(path.split(b"/")[1:]) == values


@pytest.mark.parametrize(
    ("template", "values", "filled", "fence"),
    [
        ("/v2/{id}", {"id": b"%41"}, b"/v2/%41", ("v2",)),
        ("/v2/x-{id}/y", {"id": b"1"}, b"/v2/x-1/y", ("v2",)),
        ("/v2/{*}", {"*": b"/b/c"}, b"/v2/b/c", ("v2",)),
        ("/v2/{*}", {"*": b""}, b"/v2", ("v2",)),
        ("/v2/{*}", {"*": b"/"}, b"/v2/", ("v2",)),
        ("/{*}", {"*": b"/a"}, b"/a", ()),
        ("/fixed/path", {}, b"/fixed/path", ("fixed", "path")),
        ("/caf\u00e9/{id}", {"id": b"{id}"}, b"/caf%C3%A9/{id}", ("caf\u00e9",)),
    ],
)
def test_template(template, values, filled, fence):
    parsed = parse_template(template, ["id", "*"])
    assert parsed.fill(values) == filled
    assert parsed.fence == fence


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("v2", "must start with a slash"),
        ("/v2/{nope}", "uses {nope}, which the route's path does not provide; it has {id}"),
        ("/v2/{id", "unmatched brace"),
        ("/a//b", "empty or dot segment"),
        ("/a/../b", "empty or dot segment"),
        ("/a?x={id}", "contains '?'"),
        ("/v2{*}", "must have a slash before {*}"),
        ("/b;v=1/{id}", "which servers read in different ways"),
    ],
)
def test_bad_template_says_what_to_write(template, says):
    with pytest.raises(PatternError) as caught:
        parse_template(template, ["id", "*"] if "*" in template else ["id"])
    assert says in str(caught.value)
