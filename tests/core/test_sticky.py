"""The sticky split (design section 4.1): the frozen vectors, where keys come from, what marks an answer, pins."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from strangle_mw.core.messages import RequestHead
from strangle_mw.core.sticky import (
    Key,
    Mark,
    bucket,
    compile_sources,
    find_key,
    is_address,
    make_pin,
    mark_headers,
    mark_wsgi_headers,
    read_pin,
    vary_names,
)

FILE = Path(__file__).with_name("sticky_vectors.txt")
ID = "0123456789abcdef0123456789abcdef"
OTHER = "f" * 32


def read_vectors():
    """Yield (group, key, bucket): both texts are the inside of a JSON string."""
    for line in FILE.read_bytes().decode("ascii").splitlines():
        if not line.startswith("#"):
            group, key, number = line.split("\t")
            yield json.loads(f'"{group}"'), json.loads(f'"{key}"'), int(number)


VECTORS = list(read_vectors())


# --- the bucket


def test_the_vectors_are_frozen():
    """A change would move users of running canaries; it needs a new formula, not a new number here."""
    assert len(VECTORS) == 1000
    assert sha256(FILE.read_bytes()).hexdigest().startswith("3cc8f98cffc52c3e3e58038a")
    assert VECTORS[:2] == [("checkout", "u1", 6747), ("search", "u1", 4357)]


def test_bucket_gives_the_vectors():
    assert [v for v in VECTORS if bucket(v[0], v[1]) != v[2]] == []


def test_the_vectors_hold_what_goes_wrong_elsewhere():
    keys = [k for _, k, _ in VECTORS]
    assert {"", " ", "a\nb", "a\tb", '"', "\\n", "\0", "😀", "e\u0301"} <= set(keys)
    assert max(map(len, keys)) == 1000
    assert {"", "🛒", "größe"} <= {g for g, _, _ in VECTORS}
    assert {0, 1, 499, 500, 4999, 5000, 9998, 9999} <= {n for g, _, n in VECTORS if g == "checkout"}
    cuts = [n for g, k, n in VECTORS if g + k == "checkoutu1"]
    assert len(cuts) == len(set(cuts)) == 9  # the length in front keeps group and key apart


IV = [
    0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
    0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
]  # fmt: skip
SIGMA = [
    "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
    "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
]  # fmt: skip
MIXED = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]  # fmt: skip
WORD = 2**64 - 1


def blake2b_of_8_bytes(data):
    """RFC 7693 section 3, written out: what another language would compute."""
    state = [IV[0] ^ 0x01010000 ^ 8, *IV[1:]]
    blocks = [data[i : i + 128] for i in range(0, len(data), 128)] or [b""]
    for number, block in enumerate(blocks, start=1):
        last = number == len(blocks)
        words = [int.from_bytes(block.ljust(128, b"\0")[i : i + 8], "little") for i in range(0, 128, 8)]
        v = state + IV
        v[12] ^= len(data) if last else 128 * number
        v[14] ^= WORD if last else 0
        for turn in range(12):
            order = iter(SIGMA[turn % 10])
            for a, b, c, d in MIXED:
                for first, second in ((32, 24), (16, 63)):
                    v[a] = (v[a] + v[b] + words[int(next(order), 16)]) & WORD
                    v[d] = rotated(v[d] ^ v[a], first)
                    v[c] = (v[c] + v[d]) & WORD
                    v[b] = rotated(v[b] ^ v[c], second)
        state = [h ^ v[i] ^ v[i + 8] for i, h in enumerate(state)]
    return state[0].to_bytes(8, "little")


def rotated(word, by):
    return (word >> by | word << 64 - by) & WORD


def test_the_vectors_are_those_of_the_rfc():
    for group, key, number in VECTORS[::10]:
        text = str(len(group)) + ":" + group + key
        digest = blake2b_of_8_bytes(text.encode("utf-8"))
        assert number == int.from_bytes(digest, "big") * 10_000 // 2**64, (group, key)


@pytest.mark.parametrize(
    "codes",
    [[0xD800], [0xDFFF], [0x61, 0xD83D], [0xDC80, 0xD800], [0xDC7F], [0xDD00], [0xDC80], [0xDC80, 0x61]],
)
def test_text_that_is_none_has_a_bucket_too(codes):
    half = "".join(map(chr, codes))
    assert 0 <= bucket("g", half) < 10_000
    assert 0 <= bucket(half, "k") < 10_000
    assert bucket("g", half) == bucket("g", half)


def test_bytes_that_are_no_utf_8_are_hashed_as_they_came():
    digest = blake2b_of_8_bytes(b"1:g\xff\x80")
    assert bucket("g", "\udcff\udc80") == int.from_bytes(digest, "big") * 10_000 >> 64


# --- keys


def head(*headers, query=b"", path=b"/", method="GET"):
    return RequestHead(method, path, query, list(headers))


def cookies(*values):
    return head(*((b"cookie", v.encode("latin-1")) for v in values))


def ann(_head):
    return "ann"


OWN = f"strangle_id={ID}"
FULL = head(
    (b"x-user", b" u1 "),
    (b"x-two", b"a"),
    (b"x-two", b"b"),
    (b"x-empty", b" "),
    (b"cookie", f'c=4; quoted="5"; empty=; {OWN}'.encode()),
    query=b"q=3&q=4&empty=&u=%C3%A9&plus=a+b",
)


@pytest.mark.parametrize(
    ("sticky", "text"),
    [
        (["header:X-User"], "u1"),
        (["header:x-user"], "u1"),
        (["header:X-Two"], "a, b"),
        (["header:X-Empty"], None),
        (["header:X-None"], None),
        (["cookie:c"], "4"),
        (["cookie:C"], None),
        (["cookie:quoted"], "5"),
        (["cookie:empty"], None),
        (["cookie:none"], None),
        (["query:q"], "3"),
        (["query:empty"], None),
        (["query:u"], "é"),
        (["query:plus"], "a b"),
        (["query:none"], None),
        (["cookie"], ID),
        (["user"], "ann"),
        (["header:None", "query:q", "cookie"], "3"),
        (["cookie:none", "cookie", "user"], ID),
        (["user", "header:X-User"], "ann"),
        ([], None),
    ],
)
def test_the_first_source_that_has_a_key_gives_it(sticky, text):
    assert find_key(compile_sources(sticky), FULL, ann) == Key(text, wants_cookie=False)


@pytest.mark.parametrize(
    ("sticky", "user", "expected"),
    [
        (["user", "cookie"], None, Key(None, wants_cookie=True)),
        (["cookie"], None, Key(None, wants_cookie=True)),
        (["cookie", "user"], None, Key(None, wants_cookie=True)),
        (["user", "cookie"], lambda _: None, Key(None, wants_cookie=True)),
        (["user", "cookie"], lambda _: "", Key(None, wants_cookie=True)),
        (["user"], None, Key(None)),
        (["cookie:strangle_id"], None, Key(None)),
        # A key from elsewhere needs no cookie, and one beside it would win next time, with another bucket.
        (["user", "cookie"], ann, Key("ann")),
        (["cookie", "user"], ann, Key("ann")),
    ],
)
def test_the_own_cookie_is_wanted_when_there_is_no_key_at_all(sticky, user, expected):
    assert find_key(compile_sources(sticky), head((b"accept", b"*/*")), user) == expected


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([OWN], ID),
        ([f"a=b; {OWN}"], ID),
        ([f"a=b;{OWN};c=d"], ID),
        ([f"a=b;\t{OWN} ; c=d"], ID),
        ([f" {OWN}\t"], ID),
        (["a=b", OWN], ID),  # HTTP/2 may split them (RFC 9113 section 8.2.3)
        ([f"{OWN}; strangle_id={OTHER}"], ID),
        ([f"strangle_id=; {OWN}"], ID),  # one that is not ours does not hide ours
        (["strangle_id=forged", OWN], ID),
        ([f"strangle_id={ID.upper()}"], None),
        ([f"strangle_id={ID}0"], None),
        ([f"strangle_id={ID[1:]}"], None),
        ([f"strangle_id={ID[1:]}g"], None),
        ([f'strangle_id="{ID}"'], None),
        ([f"strangle_id= {ID}"], None),
        ([f"strangle_id={ID} x"], None),
        ([f"Strangle_id={ID}"], None),
        ([f"xstrangle_id={ID}"], None),
        ([f"a=b strangle_id={ID}"], None),
        ([f"a=strangle_id={ID}"], None),
        ([f"strangle_id={ID}\n"], None),
        ([f"strangle_id={'é' * 32}"], None),
        (["strangle_id"], None),
        ([], None),
    ],
)
def test_the_own_cookie_is_32_lower_case_hexadecimal_digits_or_missing(values, text):
    key = find_key(compile_sources(["cookie"]), cookies(*values))
    assert key == Key(text, wants_cookie=text is None)


@pytest.mark.parametrize("times", [1, 2])
def test_the_user_is_asked_once_at_most(times):
    asked = []
    request = head()
    key = find_key(compile_sources(["user"] * times + ["cookie"]), request, asked.append)
    assert key.wants_cookie
    assert asked == [request]


def test_nobody_asks_for_the_user_if_that_is_no_source():
    def fail(_head):
        raise AssertionError

    assert find_key(compile_sources(["cookie", "header:X-User"]), FULL, fail).text == ID


def test_one_user_has_one_key_wherever_the_name_stands():
    name = "José à"  # ends in 0xA0, which Latin-1 takes for a blank
    raw = name.encode()
    request = head((b"x-user", raw), (b"cookie", b"u=" + raw + b"; b=1"), query=b"u=Jos%C3%A9%20%C3%A0")
    for source in ("header:X-User", "cookie:u", "query:u", "user"):
        assert find_key(compile_sources([source]), request, lambda _: name).text == name, source


def test_a_header_that_is_no_utf_8_is_a_key_by_its_bytes():
    key = find_key(compile_sources(["header:X-User"]), head((b"x-user", b"\xff\xe9"))).text
    assert bucket("g", key) == int.from_bytes(blake2b_of_8_bytes(b"1:g\xff\xe9"), "big") * 10_000 >> 64


def test_the_clients_address_is_never_a_key():
    requests = [RequestHead("GET", b"/", b"", [], peer=peer) for peer in ("192.0.2.1", "192.0.2.2", "")]
    for sticky in (["user", "cookie"], ["cookie"], ["user"]):
        assert {find_key(compile_sources(sticky), r).text for r in requests} == {None}


@pytest.mark.parametrize(
    "source", ["ip", "peer", "address", "header", "header:", "query:", "cookie:", "", "user:x"]
)
def test_what_is_no_source_is_left_out(source):
    assert compile_sources([source]) == ()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("header:X-Forwarded-For", True),
        ("header:x_real_ip", True),
        ("header:Forwarded", True),
        ("header:CF-Connecting-IP", True),
        ("header:X-User", False),
        ("cookie:forwarded", False),
        ("user", False),
    ],
)
def test_headers_that_carry_the_clients_address_are_known(source, expected):
    assert is_address(source) is expected


# --- marks


@pytest.mark.parametrize(
    ("sticky", "names"),
    [
        (["user", "cookie"], ("Cookie", "Authorization")),
        (["cookie"], ("Cookie",)),
        (["cookie:session", "cookie"], ("Cookie",)),
        (["header:X-Tenant"], ("X-Tenant",)),
        (["header:X-Tenant", "header:x-tenant", "user"], ("x-tenant", "Cookie", "Authorization")),
        (["header:Authorization", "user"], ("Authorization", "Cookie")),
        (["query:q"], ()),
        ([], ()),
    ],
)
def test_vary_names(sticky, names):
    assert vary_names(compile_sources(sticky)) == names


VARY = ("Cookie", "Strangle-Pin")


def marked(headers, mark, method="GET"):
    """Return what is added, the same for both interfaces."""
    pairs = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers]
    found = mark_headers(pairs, mark, method)
    wsgi = mark_wsgi_headers(headers, mark, method)
    assert found[: len(pairs)] == pairs
    assert [(n.encode("latin-1"), v.encode("latin-1")) for n, v in wsgi] == found
    return [(n.decode(), v.decode()) for n, v in found[len(pairs) :]]


@pytest.mark.parametrize(
    ("headers", "vary"),
    [
        ([], "Cookie, Strangle-Pin"),
        ([("Content-Type", "text/html")], "Cookie, Strangle-Pin"),
        ([("Vary", "Accept")], "Cookie, Strangle-Pin"),
        ([("Vary", "Accept, cookie")], "Strangle-Pin"),
        ([("vary", "accept"), ("VARY", " COOKIE ,strangle-pin")], None),
        ([("Vary", "*")], None),
        ([("Vary", "Accept, *")], None),
        ([("Vary", "")], "Cookie, Strangle-Pin"),
        ([("Vary", "Cookies, X-Cookie")], "Cookie, Strangle-Pin"),
        ([("Cache-Control", "max-age=60")], "Cookie, Strangle-Pin"),
        (
            [("Cache-Control", "private")],
            "Cookie, Strangle-Pin",
        ),  # a browser keeps it, and its user may log in
        ([("Cache-Control", "no-cache")], "Cookie, Strangle-Pin"),
        ([("Cache-Control", "no-store")], None),
        ([("cache-control", "max-age=0, No-Store")], None),
        ([("Cache-Control", "private"), ("Cache-Control", "no-store")], None),
        ([("Cache-Control", "no-store, must-understand")], "Cookie, Strangle-Pin"),
        ([("Cache-Control", 'x="a, no-store, b"')], "Cookie, Strangle-Pin"),
        ([("Cache-Control", r'x="a\", no-store, b"')], "Cookie, Strangle-Pin"),
        ([("Cache-Control", 'x="", no-store')], None),
        ([("Cache-Control", 'x="a, no-store')], "Cookie, Strangle-Pin"),
        ([("Cache-Control", "no-store-at-all")], "Cookie, Strangle-Pin"),
        ([("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=60")], "Cookie, Strangle-Pin"),
    ],
)
def test_vary_names_what_chose_the_side(headers, vary):
    assert marked(headers, Mark(VARY)) == ([] if vary is None else [("vary", vary)])
    assert marked(headers, Mark(VARY), "HEAD") == marked(headers, Mark(VARY))


def test_names_of_the_mark_are_not_repeated():
    assert marked([], Mark(("X-Tenant", "x-tenant", "Cookie", "X-TENANT"))) == [("vary", "X-TENANT, Cookie")]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_an_answer_that_no_cache_keeps_needs_no_vary(method):
    assert marked([], Mark(VARY), method) == []
    assert [n for n, _ in marked([], Mark(VARY, ID.encode()), method)] == ["set-cookie"]


@pytest.mark.parametrize("mark", [Mark(), Mark((), b"")])
def test_an_empty_mark_changes_nothing(mark):
    assert marked([("A", "1"), ("A", "2")], mark) == []


@pytest.mark.parametrize(("secure", "end"), [(True, "; Secure"), (False, "")])
def test_the_cookie(secure, end):
    cookie = f"strangle_id={ID}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax{end}"
    assert marked([("Set-Cookie", "a=b")], Mark((), ID.encode(), secure=secure)) == [("set-cookie", cookie)]
    sent = cookies(cookie.partition(";")[0])
    assert find_key(compile_sources(["cookie"]), sent) == Key(ID)


@pytest.mark.parametrize(
    ("headers", "guarded"),
    [
        ([("Cache-Control", "public")], True),
        ([("Cache-Control", "s-maxage=60")], True),
        ([("cache-control", "S-MaxAge=60, stale-while-revalidate=5")], True),
        ([("Cache-Control", "max-age=60")], True),
        ([("Expires", "Wed, 21 Oct 2026 07:28:00 GMT")], True),
        ([("Last-Modified", "Wed, 21 Oct 2026 07:28:00 GMT")], True),  # RFC 9111 section 4.2.2
        ([("Cache-Control", "public, no-store"), ("CDN-Cache-Control", "max-age=60")], True),
        ([("Cache-Control", 'public, no-cache="x"')], True),
        ([("Cache-Control", 'public, private="x"')], True),
        ([("Cache-Control", 'x="never ends')], True),
        ([], False),
        ([("Cache-Control", "")], False),
        ([("Cache-Control", "private, max-age=60")], False),
        ([("Cache-Control", "no-cache"), ("Expires", "0")], False),
        ([("Cache-Control", "no-store, max-age=60")], False),
        ([("Cache-Control", "public"), ("Cache-Control", "no-store")], False),
        ([("Cache-Control", 'x="public"')], False),
        ([("ETag", '"public"')], False),
    ],
)
def test_no_cache_hands_one_clients_id_to_all(headers, guarded):
    added = marked(headers, Mark((), ID.encode()))
    assert [n for n, _ in added] == ["set-cookie", "cache-control"][: 1 + guarded]
    assert added[1:] == ([("cache-control", 'no-cache="set-cookie"')] if guarded else [])
    assert marked(headers, Mark((), b"")) == []


def test_headers_of_a_wrapped_app_may_be_any_pairs():
    assert mark_headers((p for p in [[b"A", b"1"]]), Mark(VARY), "GET") == [
        [b"A", b"1"],
        (b"vary", b"Cookie, Strangle-Pin"),
    ]
    odd = [("X-Odd", "\u20ac"), ("Vary", "\u20ac")]  # not allowed by PEP 3333; the server's to refuse
    assert mark_wsgi_headers(odd, Mark(VARY), "GET") == [*odd, ("vary", "Cookie, Strangle-Pin")]


@pytest.mark.parametrize("piece", ['"', '\\"', '"\\', 'a="b', ",", '"\\"', "a"])
def test_a_hostile_cache_control_is_read_in_linear_time(piece):
    assert marked([("Cache-Control", piece * 60_000)], Mark(VARY)) == [("vary", "Cookie, Strangle-Pin")]


# --- pins

SECRET = b"0123456789abcdef"


@pytest.mark.parametrize("side", ["modern", "legacy"])
def test_a_pin_is_read_until_it_is_over(side):
    token = make_pin(SECRET, side, 1_764_000_000)
    assert read_pin(token, SECRET, 1_763_999_999.9) == side
    assert read_pin(token, SECRET, 1_764_000_000.0) is None
    assert read_pin(token, b"another secret, of someone", 0.0) is None


def test_the_format_of_a_pin_is_fixed():
    """HMAC-SHA256 by RFC 2104, written out, over b"strangle-pin SIDE.EXPIRES"."""
    pad = SECRET.ljust(64, b"\0")
    inner = sha256(bytes(b ^ 0x36 for b in pad) + b"strangle-pin modern.1764000000").digest()
    mac = sha256(bytes(b ^ 0x5C for b in pad) + inner).hexdigest()
    assert make_pin(SECRET, "modern", 1_764_000_000) == f"modern.1764000000.{mac}"


GOOD = make_pin(SECRET, "modern", 1_764_000_000)
MAC = GOOD.rpartition(".")[2]


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "modern",
        "legacy",
        "modern.1764000000",
        "modern.1764000000.",
        f"legacy.1764000000.{MAC}",
        f"modern.1764000001.{MAC}",
        f"modern.9999999999.{MAC}",
        f"modern.01764000000.{MAC}",
        f"modern.+1764000000.{MAC}",
        f"modern. 1764000000.{MAC}",
        f"modern.1_764_000_000.{MAC}",
        f"modern.١٧٦٤٠٠٠٠٠٠.{MAC}",
        f"modern.{'9' * 150}.{MAC}",
        f"modern.1e9.{MAC}",
        f"modern.inf.{MAC}",
        f"modern.nan.{MAC}",
        f"Modern.1764000000.{MAC}",
        f"modern.1764000000.{MAC.upper()}",
        f"modern.1764000000.{MAC[:-1]}",
        f"modern.1764000000.{MAC}0",
        f"modern.1764000000.{MAC}\n",
        f"modern.1764000000.{'é' * 64}",
        f"shadow.1764000000.{MAC}",
        f".1764000000.{MAC}",
        f"{GOOD}.x",
        f" {GOOD}",
        f"{GOOD}, {GOOD}",  # two headers, joined
        GOOD * 2,
        "x" * 1_000_000,
        "\ud800",
        "\0" * 20,
    ],
)
def test_what_is_no_pin_chooses_nothing(value):
    assert read_pin(GOOD, SECRET, 0.0) == "modern"
    assert read_pin(value, SECRET, 0.0) is None


@pytest.mark.parametrize("expires", [-1, 10**15])
def test_a_pin_for_no_time_is_never_read(expires):
    assert read_pin(make_pin(SECRET, "modern", expires), SECRET, -5.0) is None


def test_without_a_secret_there_are_no_pins():
    assert read_pin(make_pin(b"", "modern", 1_764_000_000), b"", 0.0) is None
