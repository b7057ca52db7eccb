"""Laws of the request path: one reading (P1), what is matched is what is sent (P2), rewrites fill exactly."""

import re
from urllib.parse import quote, unquote, unquote_to_bytes

import naive
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import Asked, compile_routes, routes

from strangle_mw import Route
from strangle_mw.core.decision import LEGACY, Forward, Legacy, Reject, Snapshot, prepare
from strangle_mw.core.messages import RequestHead
from strangle_mw.core.paths import is_plain, readings, request_path
from strangle_mw.core.routing import RouteTable

HOSTILE = [
    "/", "/", "//", "a", "b", "ab", "1", "..", ".", "%2e%2e", "%2E", "%2f", "%2F", "%5c", "\\", ";x=1", "%3b", "#", "%23",
    "%00", "%c0%ae", "%c0%af", "%e0%80%af", "%ff", "%25", "%252f", "%20", "%c3%a9", "%61", "%zz", "%",
]  # fmt: skip
hostile_paths = st.lists(st.sampled_from(HOSTILE), max_size=9).map(lambda parts: "/" + "".join(parts))


class Reader:
    encoding = "utf-8"

    @staticmethod
    def head(source, path, authority):
        return RequestHead(source.method, path, b"q=1&&%zz=+%2f", [], authority=authority)


def decide(declared, path, method="GET", **options):
    snapshot = Snapshot(RouteTable(compile_routes(declared)), {}, **options)
    decoded = unquote_to_bytes(path).decode("utf-8", "replace")
    return prepare(snapshot, method, path.encode(), decoded, Asked(method, path), Reader())


# The readings of design section 3.4, each written on its own, from text to text that needs no more decoding.


def dots(path):
    kept = []
    parts = path.split("/")[1:]
    for part in parts:
        if part == "..":
            kept = kept[:-1]
        elif part != ".":
            kept.append(part)
    return "/" + "/".join(kept + ([""] if parts[-1] in (".", "..") else []))


def by_segment(path):
    """Split first, decode each segment: what may not be a separator any more is marked."""
    return "/" + "/".join(
        unquote(s, errors="surrogateescape").replace("/", "\udcff/") for s in path.split("/")[1:]
    )


def overlong(path):
    raw = unquote_to_bytes(path.encode("latin-1", "replace"))
    for bad, good in ((b"\xc0\xae", b"."), (b"\xc0\xaf", b"/"), (b"\xe0\x80\xaf", b"/")):
        raw = raw.replace(bad, good)
    return raw.decode("utf-8", "replace")


NAMED = {
    "as received": by_segment,
    "dot segments removed": lambda p: by_segment(dots(re.sub("%2[eE]", ".", p))),
    "decoded once": lambda p: unquote(p, errors="surrogateescape"),
    "backslash as slash": lambda p: by_segment(p.replace("\\", "/")),
    "empty segments merged": lambda p: by_segment(re.sub("//+", "/", p)),
    "parameters stripped": lambda p: by_segment(re.sub(";[^/]*", "", p)),
    "cut at #": lambda p: by_segment(p.split("#")[0]),
    "cut at NUL": lambda p: unquote(p, errors="surrogateescape").split("\0")[0],
    "overlong decoded": overlong,
    "all together": lambda p: dots(
        re.sub("//+", "/", re.sub(";[^/]*", "", overlong(re.sub(";[^/]*", "", p.split("#")[0])).split("\0")[0].split("#")[0].replace("\\", "/")))
    ),
    "decoded, dots removed": lambda p: dots(unquote(p, errors="surrogateescape")),
    "decoded, backslash, dots": lambda p: dots(unquote(p, errors="surrogateescape").replace("\\", "/")),
}  # fmt: skip


def naive_route(declared, reading):
    """The route of a reading, None for legacy; a marked slash is no separator."""
    index = naive.match(declared, Asked("GET", reading.replace("\udcff/", "\udcff")))
    return None if index is None or declared[index].to == "legacy" else index


plain_tables = st.lists(
    routes(conditional=False).filter(lambda r: r.path is not None and not r.methods), min_size=1, max_size=5
)


@given(plain_tables, hostile_paths)
def test_p1_no_forwarded_request_has_a_reading_under_another_route(declared, path):
    decision = decide(declared, path)
    found = {name: naive_route(declared, read(path)) for name, read in NAMED.items()}
    if isinstance(decision, Forward):
        assert set(found.values()) == {decision.route.index}, found
    elif decision is LEGACY:
        assert set(found.values()) == {None}, found
    else:
        assert isinstance(decision, Reject)
        assert decision.status == 400


@given(plain_tables, hostile_paths)
def test_p1_ambiguous_legacy_answers_what_reject_would_refuse(declared, path):
    from strangle_mw.core.settings import TableOptions

    strict = decide(declared, path)
    lenient = decide(declared, path, options=TableOptions(ambiguous="legacy"))
    if isinstance(strict, Reject) and strict.reason == "ambiguous-path":
        assert isinstance(lenient, Legacy)
    else:
        assert type(lenient) is type(strict)


@given(hostile_paths, st.sampled_from(["/v2/in/{*}", "/v2/in", "/v2/{*}"]))
def test_p1_the_rewritten_path_stays_inside_its_rewrite_under_every_reading(path, template):
    declared = [Route(path="/a/*", to="http://m/base", rewrite=template)]
    decision = decide(declared, "/a" + path)
    assume(isinstance(decision, Forward))
    sent = "/base" + decision.target.decode().partition("?")[0]
    inside = "/base" + template.removesuffix("/{*}")
    for name, read in NAMED.items():
        assert (read(sent) + "/").startswith(inside + "/"), name


@given(hostile_paths, st.integers(1, 6))
def test_p1_is_linear_in_the_length_of_the_path(path, times):
    # A bounded number of readings, none longer than the path, each made by one pass a step.
    found = list(readings(path.encode() * times))
    assert len(found) <= 2**11
    assert len(found) <= 4 * len(list(readings(path.encode() * 3))) + 64
    # One overlong or invalid sequence of one byte may become U+FFFD, which has three.
    assert max(map(len, found)) <= 3 * len(path.encode() * times)


@given(st.binary(max_size=12).map(lambda b: b"/" + b))
def test_plain_means_nothing_that_servers_read_differently(path):
    said_negatively = re.search(rb"[?%\\;#\x00-\x20\x7f-\xff]|//|/\.", path) is None
    assert bool(is_plain(path)) == said_negatively


@given(st.text("ab/.%2;", max_size=10).map(lambda t: "/" + t))
def test_plain_paths_have_one_reading(path):
    if is_plain(path.encode()):
        assert list(readings(path.encode())) == [path.encode()]


@given(hostile_paths)
def test_p2_without_rewrite_the_target_is_what_came(path):
    decision = decide([Route(path="/*", to="http://m")], path)
    if isinstance(decision, Forward):
        assert decision.target == path.encode() + b"?q=1&&%zz=+%2f"


@given(hostile_paths, hostile_paths)
def test_p2_a_raw_path_that_disagrees_with_the_decoded_one_is_ignored(raw, other):
    decoded = unquote_to_bytes(other)
    path, _ = request_path(raw.encode(), decoded)
    assert path == raw.encode() or unquote_to_bytes(path) == decoded


segments = st.text("abc123-._~!$&'()*+,=:@", min_size=1, max_size=5).filter(lambda s: not s.startswith("."))


@given(segments, segments, st.lists(segments, max_size=3))
def test_rewrite_fills_exactly(one, two, rest):
    declared = [Route(path="/x/{a}/r{b}.json/*", to="http://m", rewrite="/v2/{b}/of/{a}/{*}")]
    path = f"/x/{one}/r{two}.json" + "".join("/" + r for r in rest)
    decision = decide(declared, path)
    assert isinstance(decision, Forward)
    assert decision.target.partition(b"?")[0].decode() == f"/v2/{two}/of/{one}" + "".join(
        "/" + r for r in rest
    )


@given(st.lists(segments, max_size=3), st.booleans())
def test_strip_prefix_drops_whole_segments_and_keeps_one_slash(rest, trailing):
    declared = [Route(path="/api/v1/*", to="http://m", strip_prefix="/api")]
    left = "".join("/" + r for r in rest) + ("/" if trailing else "")
    decision = decide(declared, "/api/v1" + left)
    assert isinstance(decision, Forward)
    assert decision.target.partition(b"?")[0].decode() == "/v1" + left


@given(st.text(min_size=1, max_size=8).filter(lambda s: "/" not in s and s not in (".", "..")))
def test_an_encoded_literal_matches_like_its_text(text):
    quoted = quote(text, safe="")
    assume(not re.search("%2F|%5C|%00|%23|%3B|%25", quoted, re.IGNORECASE) and not text.startswith("."))
    assume(not any(ord(c) < 32 or ord(c) == 127 for c in text))
    declared = [Route(path="/p/" + quoted, to="http://m")]
    decision = decide(declared, "/p/" + quoted)
    assert isinstance(decision, Forward)
    assert decision.target.startswith(b"/p/" + quoted.encode())
