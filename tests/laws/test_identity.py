"""Laws of identity (P8): no request carries a token that we did not mint for it; session cookies stay here.

What remains of cookies is read by the parsers of the frameworks themselves.
"""

from functools import cache
from urllib.parse import unquote

import pytest
from django.http.cookie import parse_cookie as django
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import cookie_parser as starlette
from support import Reader
from werkzeug.http import parse_cookie as werkzeug

from strangle_mw import Identity, IdentityTokens, Route
from strangle_mw.config import load
from strangle_mw.core.decision import Forward, Reject, prepare
from strangle_mw.core.identity import HEADER, withhold, without_cookies
from strangle_mw.identity import IdentityError, Verifier
from strangle_mw.identity.minting import make_minter
from strangle_mw.wsgi import READER

SECRET = "s" * 32
"""One secret for all upstreams: not even then is a token good for two of them."""
NAMES = ["orders", "leads"]
VERIFIERS = {n: Verifier(n, secrets=SECRET) for n in NAMES}


USER = []
"""Who asks next."""


@cache
def snapshot(allowed):
    routes = [Route(f"/{n}/*", to=n, identity=True) for n in NAMES] + [Route("/m/*", to="orders")]
    return load(
        {"upstreams": {n: {"url": "http://m"} for n in NAMES}, "routes": routes},
        identify=lambda _: USER[0] and Identity(USER[0], from_cookie=False),
        identity=IdentityTokens(secrets=dict.fromkeys(NAMES, SECRET)),
        allow_headers=allowed,
        mint=make_minter,
    )


FORGED = make_minter(IdentityTokens(secrets={"orders": SECRET}), ["orders"]).minter.mint(
    "orders", Identity("root"), "GET", b"/orders/x", b""
)
users = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


SPELLED = [
    case(f"strangle{c}identity") for c in "-_." for case in (str.lower, str.upper, str.title, str.swapcase)
]
spellings = st.sampled_from(
    [*SPELLED, *SPELLED, "strangle-identity-x", "x-strangle-identity", "strangle-identit"]
)
token_names = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True)
options = st.lists(spellings | st.sampled_from(["close", "", "x-a", "keep-alive"]), max_size=3).map(", ".join)
fields = st.one_of(
    st.tuples(spellings, st.sampled_from([FORGED.decode(), "", "root"])),
    st.tuples(st.sampled_from(["Connection", "connection", "Trailer", "TE"]), options),
    st.tuples(token_names, st.sampled_from(["1", FORGED.decode()])),
)
segments = st.text("abz09-~", min_size=1, max_size=4)
targets = st.tuples(
    st.sampled_from([*NAMES, "m"]), st.lists(segments, max_size=3), st.text("ab=&%2f?/", max_size=6)
)


def wsgi_environ(method, path, query, headers):
    """What a server makes of a request that folds all names into those of CGI, and joins doubled ones."""
    environ = {"REQUEST_METHOD": method, "QUERY_STRING": query, "wsgi.url_scheme": "http", "PATH_INFO": path}
    for name, value in headers:
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ


def decide(found, driver, method, path, query, headers):
    headers = [("Host", "h.example"), *headers]
    if driver == "wsgi":
        environ = wsgi_environ(method, path, query, headers)
        return prepare(found, method, path.encode(), path, environ, READER)
    lower = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers]
    source = {"method": method, "query": query.encode(), "headers": lower}
    return prepare(found, method, path.encode(), unquote(path), source, Reader())


@given(
    users,
    targets,
    st.lists(fields, max_size=6),
    st.sampled_from([(), ("strangle_identity", "strangle.identity"), ("Strangle-Identity",)]),
    st.sampled_from(["GET", "POST", "PURGE"]),
    st.sampled_from(["asgi", "wsgi"]),
)
def test_no_request_carries_a_token_that_we_did_not_mint_for_it(
    user, target, headers, allowed, method, driver
):
    (upstream, parts, query), USER[:] = target, [user]
    path = "/" + "/".join([upstream, *parts])
    decision = decide(snapshot(allowed), driver, method, path, query, headers)
    if isinstance(decision, Reject):
        assert decision.status in (400, 502), decision  # framing and the like; a user that is no JSON
        return
    assert isinstance(decision, Forward)
    told = [v for n, v in decision.headers if n.replace(b"_", b"-").replace(b".", b"-") == HEADER]
    assert len(told) == (user is not None and upstream != "m")
    for token in told:
        asked = {"method": method, "path": path, "query": query}
        assert VERIFIERS[upstream].verify(token, **asked).subject == user
        for other in set(NAMES) - {upstream}:
            with pytest.raises(IdentityError, match="audience"):
                VERIFIERS[other].verify(token, **asked)
        with pytest.raises(IdentityError, match="request"):
            VERIFIERS[upstream].verify(token, **{**asked, "path": path + "/x"})


# --- cookies

WITHHELD = frozenset([b"sessionid", b"csrftoken"])
PARSERS = {
    "django": lambda value: django(value.decode("utf-8", "replace")),
    "starlette": lambda value: starlette(value.decode("latin-1")),
    "werkzeug": lambda value: werkzeug(value.decode("latin-1")).to_dict(),
}
NAMED = [b"sessionid", b"csrftoken", b"a", b"b", b"sessionid2", b"xcsrftoken", b"", b"Sessionid"]
VALUES = [b"1", b"", b'"2"', b'"3', b"sessionid", b"=", b"a=sessionid", b"x y", b"%3b", "é".encode()]
ASCII = [b"", b"", b" ", b"\t", b"  "]
UNICODE = [*ASCII, *(c.encode() for c in "\xa0\x85\u2003")]


@st.composite
def pairs(draw, blanks=ASCII):
    blank = st.sampled_from(blanks)
    name, value = draw(st.sampled_from(NAMED)), draw(st.sampled_from(VALUES))
    text = draw(blank) + name + draw(blank) + b"=" + draw(blank) + value + draw(blank)
    return draw(st.sampled_from([text, text, text, name, b""]))


def headers_of(pair, separators):
    ended = st.tuples(pair, st.sampled_from(separators)).map(b"".join)
    return st.lists(ended, max_size=5).map(b"".join)


def read(value, parser):
    """Return the cookies that have a name, as a framework reads them; one without means nothing."""
    return {n: v for n, v in PARSERS[parser](value).items() if n}


@given(headers_of(pairs(), [b";", b"; "]), st.sampled_from(sorted(PARSERS)))
def test_each_framework_reads_the_other_cookies_as_before(value, parser):
    wanted = {n: v for n, v in read(value, parser).items() if n.encode() not in WITHHELD}
    assert read(withhold(value, WITHHELD), parser) == wanted


@given(headers_of(pairs(UNICODE), [b";", b"; ", b",", b", "]), st.sampled_from(sorted(PARSERS)))
def test_no_framework_reads_a_session_cookie(value, parser):
    """Nor one that takes the comma for a semicolon, with which WSGI servers have joined two headers."""
    left = withhold(value, WITHHELD)
    for text in (left, left.replace(b",", b";")):
        found = {n.encode() for n, v in read(text, parser).items() if v}
        assert not found & WITHHELD


def naive(text):
    """The specification: pairs between semicolons, each without one of ours and all that commas join to it."""
    if "sessionid" not in text and "csrftoken" not in text:
        return text
    kept = []
    for pair in text.split(";"):
        parts = [(part.partition("=")[0].strip(), part) for part in pair.split(",")]
        ours = [at for at, (name, _) in enumerate(parts) if name in ("sessionid", "csrftoken")]
        ours = [at for at in ours if at == 0 or "=" in parts[at][1]]
        left = ",".join(part for _, part in (parts[: ours[0]] if ours else parts))
        kept += [left] if left or not ours else []
    return ";".join(kept).strip(" \t") if ";".join(kept).strip(" \t;") else ""


@given(headers_of(pairs(), [b";", b"; ", b",", b", "]))
def test_the_filter_equals_its_naive_specification(value):
    assert withhold(value, WITHHELD).decode() == naive(value.decode())


def browser(said):
    """What a browser sends after a `Set-Cookie` (RFC 6265bis sections 5.6 and 5.8.3); b"" for nothing."""
    pair = said.partition(b";")[0]
    name, equals, value = pair.partition(b"=")
    name, value = (name.strip(b" \t"), value.strip(b" \t")) if equals else (b"", pair.strip(b" \t"))
    return name + b"=" + value if name else value


@given(
    pairs(UNICODE),
    st.sampled_from([b"", b"=", b" =", b"\t= "]),
    st.sampled_from([b"", b"; Path=/", b";sessionid=1"]),
)
def test_no_upstream_makes_a_browser_send_a_session_cookie(pair, before, attributes):
    said = (b"set-cookie", before + pair + attributes)
    told = without_cookies([said, (b"x", b"1")], WITHHELD)
    assert told in ([said, (b"x", b"1")], [(b"x", b"1")])
    sent = browser(said[1])
    if said in told:
        assert not {n.encode() for parser in PARSERS for n in read(sent, parser)} & WITHHELD
    else:
        assert any(name in sent for name in WITHHELD)
