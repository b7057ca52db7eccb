"""Laws of the sticky split: monotone, exact, independent, even; marks lose nothing; nobody forges a pin."""

from collections import Counter
from functools import cache
from itertools import combinations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from support import decide

from strangle_mw import Route
from strangle_mw.core.decision import Forward
from strangle_mw.core.messages import RequestHead
from strangle_mw.core.sticky import (
    Key,
    Mark,
    bucket,
    bucket_of,
    compile_sources,
    find_key,
    make_pin,
    mark_headers,
    mark_wsgi_headers,
    read_pin,
    vary_names,
)

anything = st.text(st.characters(categories=["L", "M", "N", "P", "S", "Z", "C"]), max_size=20)


# --- the bucket


def is_modern(group, percent, user):
    """Ask the front door which side a user of a canary is on."""
    route = Route(
        "/m/*", to="http://m", stage="canary", weight=percent, sticky=["header:X-User"], group=group
    )
    headers = [("X-User", user)] if user else []
    return isinstance(decide(route, "/m/x", headers=headers), Forward)


users = st.text("abcxyz0189@.-", max_size=12)
names = st.text("abcxyz0189 :", min_size=1, max_size=8)
percents = st.integers(0, 10_000).map(lambda n: n / 100)


@given(names, users, percents, percents)
def test_a_higher_weight_takes_nobody_away(group, user, one, two):
    low, high = sorted((one, two))
    assert is_modern(group, low, user) <= is_modern(group, high, user)


@given(names, users.filter(bool))
def test_a_user_changes_sides_at_one_weight(group, user):
    number = bucket(group, user)
    assert not is_modern(group, number / 100, user)
    assert is_modern(group, (number + 1) / 100, user)


@given(names, users, st.integers(1, 9999).map(lambda n: n / 100))
def test_the_ends_are_exact_and_need_no_key(group, user, between):
    assert not is_modern(group, 0, user)
    assert is_modern(group, 100, user)
    assert not is_modern(group, between, "")


@given(names, users, percents)
def test_routes_of_a_group_move_together(group, user, percent):
    canary = {"stage": "canary", "weight": percent, "sticky": ["header:X-User"], "group": group}
    table = [Route("/page", to="http://a", **canary), Route("POST /api/*", to="http://b", **canary)]
    asked = [("/page", "GET"), ("/page", "POST"), ("/api/1?q=1", "POST")]
    decided = [decide(table, target, method, headers=[("X-User", user)]) for target, method in asked]
    assert len({isinstance(d, Forward) for d in decided}) == 1


@given(anything, anything)
@example("", "")
@example("\ud800", "\udfff")
def test_every_text_has_a_bucket(group, key):
    assert 0 <= bucket(group, key) <= 9999
    assert bucket_of(group)(key) == bucket(group, key)  # whose group was hashed before


@given(anything, anything, anything, st.sampled_from(["GET", "POST"]))
def test_equal_inside_a_group_whatever_else_a_request_is(group, key, path, method):
    raw = key.encode("utf-8", "surrogatepass")
    assume(raw.strip(b" \t\r\n") == raw != b"" and b"\x0b" not in raw and b"\x0c" not in raw)
    one = RequestHead("GET", b"/page", b"", [(b"x-user", raw)], peer="192.0.2.1")
    two = RequestHead(
        method, b"/api/" + path.encode("utf-8", "replace"), b"q=1", [(b"a", b"b"), (b"x-user", raw)]
    )
    sources = compile_sources(["user", "header:X-User"])
    first, second = find_key(sources, one).text, find_key(sources, two).text
    assert first is not None
    assert bucket(group, first) == bucket(group, second)


GROUPS = ("checkout", "search", "a", "b", "leads", "leads2", "")
USERS = 100_000


@cache
def buckets(group, number=bucket, users=USERS):
    return [number(group, f"user{i}") for i in range(users)]


@pytest.mark.parametrize("group", GROUPS[:3])
def test_buckets_are_even(group):
    """chi-square over 100 bins; four standard deviations around one."""
    counts = Counter(n // 100 for n in buckets(group))
    expected = USERS / 100
    statistic = sum((counts[i] - expected) ** 2 / expected for i in range(100)) / 99
    assert 1 - 4 * (2 / 99) ** 0.5 < statistic < 1 + 4 * (2 / 99) ** 0.5


def overlap(one, two, number=bucket, users=USERS):
    """Return how far the users in the first 5 % of two groups are off what chance gives, in deviations."""
    both = zip(buckets(one, number, users), buckets(two, number, users), strict=True)
    expected = users * 0.05 * 0.05
    return (sum(a < 500 and b < 500 for a, b in both) - expected) / expected**0.5


@pytest.mark.parametrize(("one", "two"), list(combinations(GROUPS, 2)))
def test_groups_are_independent(one, two):
    counts = Counter((a // 1000, b // 1000) for a, b in zip(buckets(one), buckets(two), strict=True))
    expected = USERS / 100
    statistic = sum((counts[i, j] - expected) ** 2 / expected for i in range(10) for j in range(10)) / 99
    assert 1 - 4 * (2 / 99) ** 0.5 < statistic < 1 + 4 * (2 / 99) ** 0.5
    assert abs(overlap(one, two)) < 4


def test_the_measure_of_independence_can_tell():
    """FNV-1a with the salt behind the key, which has been in use, keeps two short names apart: none is in both."""

    def by_fnv(group, key):
        number = 0x811C9DC5
        for byte in f"{key}{group}".encode():
            number = (number ^ byte) * 0x01000193 & 0xFFFFFFFF
        return number % 1000 * 10

    assert overlap("a", "b", by_fnv, 20_000) < -4


# --- keys

PIECES = ["strangle_id=", "strangle_id", "a=b", "0" * 32, "f" * 32, "F" * 32, "0" * 31, "=", '"', "x", "é"]
pairs = st.lists(st.sampled_from(PIECES), max_size=3).map("".join)


@given(st.lists(pairs, max_size=4), st.sampled_from(["; ", ";", " ;", ";\t"]))
def test_the_own_cookie_is_the_first_valid_one(cookies, divider):
    value = divider.join(cookies).strip(" \t")
    valid = [
        text
        for name, _, text in (c.partition("=") for c in cookies)
        if name == "strangle_id" and len(text) == 32 and set(text) <= set("0123456789abcdef")
    ]
    head = RequestHead("GET", b"/", b"", [(b"cookie", value.encode("utf-8"))])
    expected = Key(valid[0]) if valid else Key(None, wants_cookie=True)
    assert find_key(compile_sources(["cookie"]), head) == expected


SOURCES = ["user", "cookie", "header:X-A", "header:x-b", "cookie:c", "query:q", "nonsense", "header:"]
values = st.sampled_from([b"", b" ", b"1", b"a b", b"\xff", "é".encode()])


@given(
    st.lists(st.sampled_from(SOURCES), max_size=5),
    st.lists(st.tuples(st.sampled_from([b"x-a", b"x-b", b"cookie"]), values | values.map(lambda v: b"c=" + v)), max_size=4),
    st.sampled_from([b"", b"q=1", b"q=", b"q=%ff", b"x=1"]),
    st.sampled_from([None, "", "ann"]),
)  # fmt: skip
def test_the_first_source_with_a_key_wins(sticky, headers, query, user):
    head = RequestHead("GET", b"/", query, headers, peer="192.0.2.1")
    alone = [find_key(compile_sources([source]), head, lambda _: user).text for source in sticky]
    found = find_key(compile_sources(sticky), head, lambda _: user)
    assert found.text == next((text for text in alone if text), None)
    assert found.wants_cookie == (found.text is None and "cookie" in sticky)
    assert found.text is None or 0 <= bucket("g", found.text) <= 9999


# --- marks

NAMES = [
    "Vary",
    "vary",
    "Cache-Control",
    "cache-control",
    "Set-Cookie",
    "Expires",
    "Last-Modified",
    "CDN-Cache-Control",
    "ETag",
    "X",
]
VALUES = [
    "", "*", "Cookie", "Accept, cookie", "no-store", "private", "public", "max-age=60", "no-cache", 'no-cache="x"',
    "must-understand, no-store", 's-maxage=1, x="no-store, private"', 'x="', "a=b; Path=/", "\xe9", ",,", '\\"',
]  # fmt: skip
answers = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=6)
marks = st.builds(
    Mark,
    st.sampled_from(SOURCES).flatmap(
        lambda s: st.just(vary_names(compile_sources([s, "header:X-B", "cookie"])))
    )
    | st.just(()),
    st.sampled_from([b"", b"0" * 32]),
    st.booleans(),
)
methods = st.sampled_from(["GET", "HEAD", "POST"])


@given(answers, marks, methods)
def test_a_mark_keeps_every_header_and_their_order(headers, mark, method):
    raw = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers]
    before = list(raw)
    found = mark_headers(raw, mark, method)
    assert raw == before
    assert found[: len(raw)] == raw
    added = [n for n, _ in found[len(raw) :]]
    assert added == [n for n in (b"vary", b"set-cookie", b"cache-control") if n in added]
    assert (b"set-cookie" in added) == bool(mark.cookie)
    assert b"cache-control" not in added or b"set-cookie" in added
    wsgi = mark_wsgi_headers(headers, mark, method)
    assert [(n.encode("latin-1"), v.encode("latin-1")) for n, v in wsgi] == found


@given(answers, marks, st.sampled_from(["GET", "HEAD"]))
def test_a_marked_answer_varies_by_all_that_chose_the_side(headers, mark, method):
    found = mark_wsgi_headers(headers, mark, method)
    listed = [name.strip().lower() for n, v in found if n.lower() == "vary" for name in v.split(",")]
    control = [v for n, v in headers if n.lower() == "cache-control"]
    if not any("no-store" in v for v in control):
        assert "*" in listed or {n.lower() for n in mark.vary} <= set(listed)
    again = mark_wsgi_headers(found, mark._replace(cookie=b""), method)
    assert again == found  # names are not repeated


# --- pins

secrets = st.binary(min_size=16, max_size=64)
sides = st.sampled_from(["modern", "legacy"])
moments = st.integers(0, 2**40)


@given(secrets, sides, moments, st.integers(0, 2**41))
def test_a_pin_is_read_until_it_is_over(secret, side, expires, now):
    assert read_pin(make_pin(secret, side, expires), secret, now) == (side if now < expires else None)


@given(secrets, secrets, sides, moments)
def test_a_pin_of_another_secret_is_none(secret, other, side, expires):
    # RFC 2104: a key is padded with zeros up to 64 bytes.
    assume(secret.rstrip(b"\0") != other.rstrip(b"\0"))
    assert read_pin(make_pin(other, side, expires), secret, -1.0) is None


@given(secrets, sides, moments, st.data())
def test_a_changed_pin_is_none(secret, side, expires, data):
    token = make_pin(secret, side, expires)
    at = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(at, min(at + 3, len(token))))
    changed = token[:at] + data.draw(st.text("0123456789abcdef.modernlgcy+- \n٣é", max_size=3)) + token[end:]
    assume(changed != token)
    assert read_pin(changed, secret, -1.0) is None


shaped = st.builds("{}.{}.{:064x}".format, sides, moments, st.integers(0, 2**260))


@given(anything | shaped, st.binary(max_size=32), st.floats())
def test_no_text_is_a_pin_or_raises(value, secret, now):
    assert read_pin(value, secret, now) is None
