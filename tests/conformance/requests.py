"""The table, first part: what of a request's head arrives upstream, and what is refused."""

from __future__ import annotations

from tests.conformance import differences as but
from tests.conformance.checks import (
    LEGACY,
    NOTHING,
    OK,
    REFUSED,
    UPSTREAMS_HOST,
    begins,
    cookies,
    has,
    hex_digits,
    lacks,
    line,
    never_says,
    only,
    order,
    problem,
    received,
    status,
)
from tests.conformance.model import Case
from tests.servers import request

OURS = [
    "host",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "forwarded",
    "via",
    "x-request-id",
]


def get(target, *headers, **more):
    return request("GET", target, headers, **more)


PATH = "the path arrives byte for byte"
QUERY = "the query arrives byte for byte"
REWRITE = "a prefix is stripped, a template filled"
TWO_WAYS = "a path that could be read in two ways is refused"
TARGETS = [
    Case(id="path-encoded-slash", what=PATH, send=get("/m/a%2Fb/x?q=a"), upstream=[line("GET /m/a%2Fb/x?q=a")],
         differs=[but.NO_RAW_PATH(upstream=[line("GET /m/a/b/x?q=a")])]),
    Case(id="path-double-slash", what=PATH, send=get("/m/a%2Fb//c"), upstream=[line("GET /m/a%2Fb//c")],
         differs=[but.NO_RAW_PATH(upstream=[line("GET /m/a/b//c")])]),
    Case(id="path-needless-quoting", what=PATH, send=get("/re/%41b"), upstream=[line("GET /new/%41b/x")],
         differs=[but.NO_RAW_PATH(upstream=[line("GET /new/Ab/x")])]),
    Case(id="path-bytes", what=PATH, send=get("/m/caf%C3%A9/~x;v=1"), upstream=[line("GET /m/caf%C3%A9/~x;v=1")]),
    Case(id="path-bare", what=PATH, send=get("/m"), upstream=[line("GET /m")]),
    Case(id="path-slash", what=PATH, send=get("/m/"), upstream=[line("GET /m/")]),
    Case(id="query-bytes", what=QUERY, send=get("/m/x?q=a+b&e&z=%zz"), upstream=[line("GET /m/x?q=a+b&e&z=%zz")]),
    Case(id="query-bare", what=QUERY, send=get("/only-get?x"), upstream=[line("GET /only-get?x")]),
    Case(id="query-empty", what=QUERY, send=get("/m/?"), upstream=[line("GET /m/")]),
    Case(id="strip", what=REWRITE, send=get("/api/x?a=b"), upstream=[line("GET /x?a=b"), has("x-forwarded-prefix", "/api")]),
    Case(id="strip-whole", what=REWRITE, send=get("/api"), upstream=[line("GET /")]),
    Case(id="template", what=REWRITE, send=get("/re/7?a"), upstream=[line("GET /new/7/x?a")]),
    Case(id="slashes", what=TWO_WAYS, send=get("//m/x"), upstream=[NOTHING], client=[status(400)],
         differs=[but.ONE_SLASH(upstream=[line("GET /m/x")])]),
    Case(id="dot-segments", what=TWO_WAYS, send=get("/m/../x"), upstream=[NOTHING], client=[problem(400, "ambiguous-path")]),
    Case(id="absolute-form", what="absolute-form target: its authority goes before `Host`", send=request("GET", "http://a.example/m/x?q", host="b.example"),
         upstream=[line("GET /m/x?q"), has("x-forwarded-host", "a.example")],
         differs=[but.HOST_INSTEAD(upstream=[line("GET /m/x?q"), has("x-forwarded-host", "b.example")]),
                  but.NO_ABSOLUTE(upstream=[NOTHING], client=[status(400)])]),
    Case(id="asterisk", what="`OPTIONS *` is the wrapped app's", send=request("OPTIONS", "*"), upstream=[NOTHING], client=[OK, LEGACY]),
    Case(id="method-own", what="any method passes", send=request("PURGE", "/m/x"), upstream=[line("PURGE /m/x")]),
    Case(id="method-lower", what="a method's case is kept", send=request("get", "/m/x"), upstream=[line("get /m/x")],
         differs=[but.METHODS_REFUSED(upstream=[NOTHING], client=[status(400)]), but.METHODS_UPPER(upstream=[line("GET /m/x")])]),
]  # fmt: skip

REPLACED = "forwarding headers of the client are replaced"
FRAMINGS = "two framings are refused"
REQUEST_ID = "`X-Request-ID` is kept, or made"
HOST = "`Host` is the upstream's, or the client's where asked for"
CONDITIONS = "routes may ask for hosts and headers"
HEADERS = [
    Case(id="order", what="headers keep their order", send=get("/m/x", ("X-C", "1"), ("X-A", "2"), ("X-B", "3")), upstream=[order(("x-c", "1"), ("x-a", "2"), ("x-b", "3"))]),
    Case(id="duplicates", what="a repeated header stays repeated", send=get("/m/x", ("X-Dup", "1"), ("X-Other", "2"), ("X-Dup", "3")), upstream=[has("x-dup", "1", "3")],
         differs=[but.JOINED(upstream=[has("x-dup", "1, 3")]), but.LAST_ONLY(upstream=[has("x-dup", "3")])]),
    Case(id="empty", what="empty values are kept", send=get("/m/x", ("X-Empty", "")), upstream=[has("x-empty", "")]),
    Case(id="cookies", what="two `Cookie` lines stay readable", send=get("/m/x", ("Cookie", "a=1"), ("Cookie", "b=2")), upstream=[cookies("a=1", "b=2")],
         differs=[but.COMMAS(upstream=[has("cookie", "a=1, b=2")]), but.LAST_ONLY(upstream=[has("cookie", "b=2")])]),
    Case(id="cookie-line", what="two `Cookie` lines stay readable", send=get("/m/x", ("Cookie", "a=1; b=2,3")), upstream=[has("cookie", "a=1; b=2,3")]),
    Case(id="nothing-added", what="nothing is added but what the reference names", send=get("/m/x", ("X-Mine", "1")),
         upstream=[only("x-mine", *OURS), has("x-forwarded-for", "127.0.0.1"), has("x-forwarded-host", "h.example"), has("x-forwarded-proto", "http")]),
    Case(id="nominated", what="what `Connection` names stays behind", send=get("/m/x", ("X-Hop", "1"), ("Connection", "keep-alive, x-hop"), ("X-Keep", "1"), close=False),
         upstream=[lacks("x-hop", "connection"), has("x-keep", "1")]),
    Case(id="hop-by-hop", what="hop-by-hop headers stay behind",
         send=get("/m/x", ("Keep-Alive", "x"), ("TE", "trailers"), ("Proxy-Authorization", "Basic x"), ("Upgrade", "foo"), ("Proxy-Connection", "x"), ("X-Keep", "1")),
         upstream=[lacks("keep-alive", "te", "proxy-authorization", "upgrade", "proxy-connection", "connection"), has("x-keep", "1")]),
    Case(id="forwarded", what=REPLACED,
         send=get("/m/x", ("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6"), ("X-Original-URL", "/6.6.6.6")),
         upstream=[never_says("6.6.6.6"), has("x-forwarded-for", "127.0.0.1"), has("x-forwarded-proto", "http")]),
    Case(id="forwarded-host", what=REPLACED, send=get("/m/x", ("X-Forwarded-Host", "evil.example")), upstream=[never_says("evil.example"), has("x-forwarded-host", "h.example")]),
    Case(id="forwarded-spelling", what=REPLACED, send=get("/m/x", ("X_Forwarded_For", "6.6.6.6"), ("X.Real.IP", "6.6.6.6"), ("Strangle_Identity", "6.6.6.6")),
         upstream=[never_says("6.6.6.6"), has("x-forwarded-for", "127.0.0.1")]),
    Case(id="request-id-kept", what=REQUEST_ID, send=get("/m/x", ("X-Request-ID", "01J-a.b/c")), upstream=[has("x-request-id", "01J-a.b/c")]),
    Case(id="request-id-made", what=REQUEST_ID, send=get("/m/x"), upstream=[hex_digits("x-request-id", 32)]),
    Case(id="request-id-invalid", what=REQUEST_ID, send=get("/m/x", ("X-Request-ID", "two words")), upstream=[hex_digits("x-request-id", 32)]),
    Case(id="underscore", what="`X_Name` and `X.Name` do not pass as `X-Name`", send=get("/m/x", ("X_Team", "1"), ("X.Crew", "2"), ("X-Keep", "3")),
         upstream=[lacks("x_team", "x-team", "x.crew", "x-crew"), has("x-keep", "3")],
         differs=[but.MERGED(upstream=[has("x-team", "1"), lacks("x_team", "x.crew", "x-crew")])]),
    Case(id="rules", what="header rules of a route", send=get("/rules", ("Cookie", "a=1"), ("X-Team", "old")), upstream=[has("x-team", "t"), lacks("cookie")]),
    Case(id="via", what="`Via` is kept and continued", send=get("/m/x", ("Via", "1.1 theirs")), upstream=[begins("via", "1.1 theirs")]),
    Case(id="host", what=HOST, send=get("/m/x"), upstream=[UPSTREAMS_HOST]),
    Case(id="host-preserved", what=HOST, send=get("/preserve"), upstream=[has("host", "h.example")]),
    Case(id="host-case", what=CONDITIONS, send=get("/hosted", host="M.Example:80"), upstream=[line("GET /hosted")]),
    Case(id="header-condition", what=CONDITIONS, send=get("/beta", ("X-Beta", "1")), upstream=[line("GET /beta")]),
    *[Case(id=f"legacy-{name}", what="what no route names is the wrapped app's", send=asked, upstream=[NOTHING], client=[OK, LEGACY]) for name, asked in {
        "method": request("POST", "/only-get", [("Content-Length", "0")]),
        "host": get("/hosted", host="other.example"),
        "header": get("/beta", ("X-Beta", "2")),
        "prefix": get("/ma"),
        "root": get("/"),
    }.items()],
    Case(id="two-hosts", what="two `Host` are refused", send=get("/m/x", ("Host", "other.example")), upstream=[NOTHING], client=[status(400)],
         differs=[but.LAST_ONLY(upstream=[has("x-forwarded-host", "other.example")])]),
    Case(id="length-and-chunked", what=FRAMINGS, send=request("POST", "/m/x", [("Content-Length", "5"), ("Transfer-Encoding", "chunked")], b"0\r\n\r\n"), upstream=[NOTHING], client=[REFUSED],
         differs=[but.AS_CHUNKED(upstream=[received(b"")], client=[OK])]),
    Case(id="two-lengths", what=FRAMINGS, send=request("POST", "/m/x", [("Content-Length", "1"), ("Content-Length", "2")], b"ab"), upstream=[NOTHING], client=[REFUSED],
         differs=[but.LAST_ONLY(upstream=[has("content-length", "2"), received(b"ab")])]),
    Case(id="unknown-coding", what=FRAMINGS, send=request("POST", "/m/x", [("Transfer-Encoding", "gzip, chunked")], b"0\r\n\r\n"), upstream=[NOTHING], client=[REFUSED]),
]  # fmt: skip

CASES = [*TARGETS, *HEADERS]
