"""The table, first part: what of a request arrives upstream, and what is refused."""

from __future__ import annotations

from tests.conformance.acts import cut_upload, expecting, refused_upload, upload
from tests.conformance.checks import (
    LEGACY,
    NOTHING,
    OK,
    REFUSED,
    SOMETHING,
    fact,
    has,
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

OURS = (
    "host x-forwarded-for x-forwarded-host x-forwarded-proto forwarded via".split()
)

CHUNKED = ("Transfer-Encoding", "chunked")


def get(target, *headers, **more):
    return request("GET", target, headers, **more)


def post(target, data, *headers):
    return request("POST", target, [("Content-Length", str(len(data))), *headers], data)


def chunks(*sizes, trailers=""):
    body = b"".join(b"%x\r\n%b\r\n" % (n, b"c" * n) for n in sizes)
    return body + b"0\r\n" + trailers.encode() + b"\r\n"


def chunked(target, *sizes, headers=(), trailers=""):
    return request("POST", target, [CHUNKED, *headers], chunks(*sizes, trailers=trailers))


PATH = "the path arrives byte for byte, `%2F` too"
TARGETS = [
    Case(id="path-encoded-slash", what=PATH, send=get("/m/a%2Fb/x?q=a"), upstream=[line("GET /m/a%2Fb/x?q=a")]),
    Case(id="path-double-slash", what=PATH, send=get("/m/a%2Fb//c"), upstream=[line("GET /m/a%2Fb//c")]),
    Case(id="path-bytes", what=PATH, send=get("/m/caf%C3%A9/~x;v=1"), upstream=[line("GET /m/caf%C3%A9/~x;v=1")]),
    Case(id="path-bare", what=PATH, send=get("/m"), upstream=[line("GET /m")]),
    Case(id="path-slash", what=PATH, send=get("/m/"), upstream=[line("GET /m/")]),
    Case(id="path-stripped", what="rewrites: a prefix is stripped, a template filled", send=get("/api/x?a=b"), upstream=[line("GET /x?a=b")]),
    Case(id="path-stripped-whole", what="rewrites: a prefix is stripped, a template filled", send=get("/api"), upstream=[line("GET /")]),
    Case(id="path-rewritten", what="rewrites: a prefix is stripped, a template filled", send=get("/re/%41b"), upstream=[line("GET /new/%41b/x")]),
    Case(id="query-bytes", what="the query arrives byte for byte", send=get("/m/x?q=a+b&e&z=%zz"), upstream=[line("GET /m/x?q=a+b&e&z=%zz")]),
    Case(id="query-empty", what="the query arrives byte for byte", send=get("/m/?"), upstream=[line("GET /m/")]),
    Case(id="query-bare", what="the query arrives byte for byte", send=get("/only-get?x"), upstream=[line("GET /only-get?x")]),
    Case(id="leading-slashes", what="a path that could be read in two ways is refused", send=get("//m/x"), upstream=[NOTHING], client=[problem(400, "ambiguous-path")]),
    Case(id="dot-segments", what="a path that could be read in two ways is refused", send=get("/m/../x"), upstream=[NOTHING], client=[problem(400, "ambiguous-path")]),
    Case(id="absolute-form", what="an absolute-form target: its authority goes before `Host`", send=request("GET", "http://a.example/m/x?q", host="b.example"), upstream=[line("GET /m/x?q"), has("x-forwarded-host", "a.example")]),
    Case(id="asterisk", what="`OPTIONS *` is the wrapped app's", send=request("OPTIONS", "*"), upstream=[NOTHING], client=[OK, LEGACY]),
    Case(id="method-own", what="any method passes", send=request("PURGE", "/m/x"), upstream=[line("PURGE /m/x")]),
    Case(id="method-lower", what="a method's case is kept", send=request("get", "/m/x"), upstream=[line("get /m/x")]),
]

HEADERS = [
    Case(id="order", what="headers keep their order", send=get("/m/x", ("X-C", "1"), ("X-A", "2"), ("X-B", "3")), upstream=[order(("x-c", "1"), ("x-a", "2"), ("x-b", "3"))]),
    Case(id="duplicates", what="a repeated header stays repeated", send=get("/m/x", ("X-Dup", "1"), ("X-Other", "2"), ("X-Dup", "3")), upstream=[has("x-dup", "1", "3")]),
    Case(id="empty", what="empty values are kept", send=get("/m/x", ("X-Empty", "")), upstream=[has("x-empty", "")]),
    Case(id="cookies", what="two `Cookie` lines stay readable", send=get("/m/x", ("Cookie", "a=1"), ("Cookie", "b=2")), upstream=[has("cookie", "a=1", "b=2")]),
    Case(id="nothing-added", what="nothing is added but what the reference names", send=get("/m/x", ("X-Mine", "1")), upstream=[only("x-mine", *OURS), has("x-forwarded-for", "127.0.0.1"), has("x-forwarded-host", "h.example"), has("x-forwarded-proto", "http")]),
    Case(id="nominated", what="what `Connection` names stays behind", send=get("/m/x", ("X-Hop", "1"), ("Connection", "X-Hop"), ("X-Keep", "1")), upstream=[lacks("x-hop", "connection"), has("x-keep", "1")]),
    Case(id="hop-by-hop", what="hop-by-hop headers stay behind", send=get("/m/x", ("Keep-Alive", "x"), ("TE", "trailers"), ("Proxy-Authorization", "Basic x"), ("Upgrade", "foo"), ("Proxy-Connection", "x")), upstream=[lacks("keep-alive", "te", "proxy-authorization", "upgrade", "proxy-connection")]),
    Case(id="forwarded-replaced", what="forwarding headers of the client are replaced", send=get("/m/x", ("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6"), ("X-Original-URL", "/6.6.6.6")), upstream=[never_says("6.6.6.6"), has("x-forwarded-for", "127.0.0.1"), has("x-forwarded-proto", "http")]),
    Case(id="forwarded-host", what="forwarding headers of the client are replaced", send=get("/m/x", ("X-Forwarded-Host", "evil.example"), ("Via", "1.1 theirs")), upstream=[never_says("evil.example"), has("x-forwarded-host", "h.example")]),
    Case(id="underscore", what="`X_Name` and `X.Name` do not pass as `X-Name`", send=get("/m/x", ("X_Team", "1"), ("X.Crew", "2"), ("X-Keep", "3")), upstream=[lacks("x_team", "x-team", "x.crew", "x-crew"), has("x-keep", "3")]),
    Case(id="rules", what="header rules of a route", send=get("/rules", ("Cookie", "a=1"), ("X-Team", "old")), upstream=[has("x-team", "t"), lacks("cookie")]),
    Case(id="host-preserved", what="the upstream's `Host`, or the client's where asked for", send=get("/preserve"), upstream=[has("host", "h.example")]),
    Case(id="host-case", what="routes may ask for hosts and headers", send=get("/hosted", host="M.Example:80"), upstream=[line("GET /hosted")]),
    Case(id="beta", what="routes may ask for hosts and headers", send=get("/beta", ("X-Beta", "1")), upstream=[line("GET /beta")]),
    Case(id="two-hosts", what="two `Host` are refused", send=get("/m/x", ("Host", "other.example")), upstream=[NOTHING], client=[status(400)]),
    Case(id="length-and-chunked", what="two framings are refused", send=request("POST", "/m/x", [("Content-Length", "5"), CHUNKED], b"0\r\n\r\n"), upstream=[NOTHING], client=[REFUSED]),
    Case(id="two-lengths", what="two framings are refused", send=request("POST", "/m/x", [("Content-Length", "1"), ("Content-Length", "2")], b"ab"), upstream=[NOTHING], client=[REFUSED]),
    Case(id="unknown-coding", what="two framings are refused", send=request("POST", "/m/x", [("Transfer-Encoding", "gzip, chunked")], b"0\r\n\r\n"), upstream=[NOTHING], client=[REFUSED]),
]

STREAMS = {"uvicorn-httptools", "uvicorn-h11", "hypercorn", "granian-asgi", "gunicorn-asgi", "gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent", "cheroot"}
BODIES = [
    Case(id="no-body", what="no body: no framing; `Content-Length: 0` stays", send=get("/m/x"), upstream=[lacks("content-length", "transfer-encoding"), received(b"")]),
    Case(id="length-zero", what="no body: no framing; `Content-Length: 0` stays", send=post("/m/up", b""), upstream=[has("content-length", "0"), lacks("transfer-encoding"), received(b"")]),
    *[Case(id=f"length-{n}", what="a body with a length arrives whole, with its length", send=post("/m/up", b"b" * n), upstream=[has("content-length", str(n)), lacks("transfer-encoding"), received(b"b" * n)]) for n in (1, 65_536, 65_537, 1_000_000)],
    *[Case(id=f"chunked-{name}", what="a chunked body arrives whole, chunked", send=chunked("/m/up", *sizes), upstream=[lacks("content-length"), has("transfer-encoding", "chunked"), received(b"c" * sum(sizes))])
      for name, sizes in {"empty": (), "small": (5,), "uneven": (5, 100_000, 1), "large": (70_000,) * 10}.items()],
    Case(id="trailers", what="trailers are dropped", send=chunked("/m/up", 5, headers=[("Trailer", "X-Sum")], trailers="X-Sum: 1\r\n"), upstream=[lacks("x-sum", "trailer"), received(b"ccccc")]),
    Case(id="trailers-unannounced", what="trailers are dropped", send=chunked("/m/up", 5, trailers="X-Sum: 1\r\n"), upstream=[lacks("x-sum", "trailer"), received(b"ccccc")]),
    Case(id="streamed-length", what="an upload is sent on as it comes", send=upload(request("POST", "/m/up", [("Content-Length", "400000")]), b"x" * 200_000, b"x" * 200_000), upstream=[received(b"x" * 400_000)], client=[fact("streamed")]),
    Case(id="streamed-chunks", what="an upload is sent on as it comes", send=upload(request("POST", "/m/up", [CHUNKED]), b"5\r\nccccc\r\n", chunks(5)), upstream=[received(b"c" * 10)], client=[fact("streamed")]),
    Case(id="cut-length", what="a cut upload never looks complete upstream", send=cut_upload(request("POST", "/m/up", [("Content-Length", "400000")]), b"x" * 200_000, streams=STREAMS), upstream=[NOTHING], client=[]),
    Case(id="cut-chunks", what="a cut upload never looks complete upstream", send=cut_upload(request("POST", "/m/up", [CHUNKED]), b"5\r\nccccc\r\n5\r\nc", streams=STREAMS), upstream=[NOTHING], client=[]),
    Case(id="too-large", what="`max_body`: 413 by the length, before anything is sent", send=request("POST", "/m/up", [("Content-Length", "10000001")]), upstream=[NOTHING], client=[problem(413, "body-too-large")]),
    Case(id="too-large-chunks", what="`max_body` of a chunked body: 413 or hung up, and cut upstream", send=chunked("/m/up", *[65_536] * 170), upstream=[NOTHING], client=[REFUSED]),
    Case(id="expect", what="`Expect: 100-continue` is answered by the server and not sent on", send=expecting(request("POST", "/m/up", [("Content-Length", "5"), ("Expect", "100-continue")]), b"hello"), upstream=[lacks("expect"), received(b"hello")], client=[fact("leave"), OK]),
    Case(id="early-answer", what="an early answer reaches a client that still sends", send=refused_upload(request("POST", "/m/refuse", [("Content-Length", "4000000")]), 4_000_000), client=[status(413), fact("early")]),
]  # fmt: skip

CASES = [*TARGETS, *HEADERS, *BODIES]
