"""The table, second part: what of a request's body arrives upstream, and when."""

from __future__ import annotations

from tests.conformance import differences as but
from tests.conformance.acts import cut_upload, expecting, refused_upload, upload
from tests.conformance.checks import (
    HANGS,
    NOTHING,
    OK,
    REFUSED,
    SOMETHING,
    fact,
    has,
    lacks,
    problem,
    received,
    status,
)
from tests.conformance.model import Case
from tests.servers import request

CHUNKED = ("Transfer-Encoding", "chunked")


def post(target, data):
    return request("POST", target, [("Content-Length", str(len(data)))], data)


def chunks(*sizes, trailers=""):
    body = b"".join(b"%x\r\n%b\r\n" % (n, b"c" * n) for n in sizes)
    return body + b"0\r\n" + trailers.encode() + b"\r\n"


def chunked(target, *sizes, headers=(), trailers=""):
    return request("POST", target, [CHUNKED, *headers], chunks(*sizes, trailers=trailers))


def declaring(target, length):
    return request("POST", target, [("Content-Length", str(length))])


NO_BODY = "no body: no framing; `Content-Length: 0` stays"
WHOLE = "a chunked body arrives whole, chunked"
TRAILERS = "trailers are dropped"
STREAMED = "an upload is sent on as it comes"
CUT = "a cut upload never looks complete upstream"
MAX_BODY = "more than `max_body`: 413 before anything is sent, or the upload is cut"
CASES = [
    Case(id="no-body", what=NO_BODY, send=request("GET", "/m/x"), upstream=[lacks("content-length", "transfer-encoding"), received(b"")]),
    Case(id="length-zero", what=NO_BODY, send=post("/m/up", b""), upstream=[has("content-length", "0"), lacks("transfer-encoding"), received(b"")]),
    *[Case(id=f"length-{n}", what="a body with a length arrives whole, with its length", send=post("/m/up", b"b" * n),
           upstream=[has("content-length", str(n)), lacks("transfer-encoding"), received(b"b" * n)])
      for n in (1, 65_536, 65_537, 3_000_000)],
    *[Case(id=f"chunked-{name}", what=WHOLE, send=chunked("/m/up", *sizes),
           upstream=[lacks("content-length"), has("transfer-encoding", "chunked"), received(b"c" * sum(sizes))],
           differs=[but.WITH_LENGTH(upstream=[has("content-length", str(sum(sizes))), lacks("transfer-encoding"), received(b"c" * sum(sizes))])])
      for name, sizes in {"empty": (), "small": (5,), "uneven": (5, 100_000, 1), "large": (70_000,) * 10}.items()],
    Case(id="trailers", what=TRAILERS, send=chunked("/m/up", 5, headers=[("Trailer", "X-Sum")], trailers="X-Sum: 1\r\n"), upstream=[lacks("x-sum", "trailer"), received(b"ccccc")]),
    Case(id="trailers-unannounced", what=TRAILERS, send=chunked("/m/up", 5, trailers="X-Sum: 1\r\n"), upstream=[lacks("x-sum", "trailer"), received(b"ccccc")],
         differs=[but.AS_HEADERS(upstream=[has("x-sum", "1"), received(b"ccccc")])]),
    Case(id="streamed-length", what=STREAMED, send=upload(declaring("/m/up", 400_000), b"x" * 200_000, b"x" * 200_000), upstream=[received(b"x" * 400_000)], client=[OK, fact("streamed")],
         differs=[but.BUFFERED(upstream=[received(b"x" * 400_000)], client=[OK, fact("streamed", False)])]),
    Case(id="streamed-chunks", what=STREAMED, send=upload(request("POST", "/m/up", [CHUNKED]), b"5\r\nccccc\r\n", chunks(5)), upstream=[received(b"c" * 10)], client=[OK, fact("streamed")],
         differs=[but.BUFFERED(upstream=[received(b"c" * 10)], client=[OK, fact("streamed", False)])]),
    Case(id="cut-length", what=CUT, send=cut_upload(declaring("/m/up", 400_000), b"x" * 200_000, unheard=but.BUFFERS), upstream=[NOTHING], client=[fact("cut")]),
    Case(id="cut-chunks", what=CUT, send=cut_upload(request("POST", "/m/up", [CHUNKED]), b"5\r\nccccc\r\n5\r\nc", unheard=but.BUFFERS), upstream=[NOTHING], client=[fact("cut")],
         differs=[but.UPLOAD_COMPLETE(upstream=[SOMETHING], client=[OK])]),
    Case(id="too-large", what=MAX_BODY, send=declaring("/m/up", 10_000_001), upstream=[NOTHING], client=[problem(413, "body-too-large")],
         differs=[but.BUFFERED(upstream=[NOTHING], client=[HANGS])]),
    Case(id="too-large-sent", what=MAX_BODY, send=post("/m/up", b"x" * 10_000_001), upstream=[NOTHING], client=[REFUSED]),
    Case(id="too-large-chunks", what=MAX_BODY, send=chunked("/m/up", *[65_536] * 170), upstream=[NOTHING], client=[REFUSED]),
    Case(id="expect", what="`Expect: 100-continue` is answered by the server, not sent on",
         send=expecting(request("POST", "/m/up", [("Content-Length", "5"), ("Expect", "100-continue")]), b"hello"), upstream=[lacks("expect"), received(b"hello")], client=[OK, fact("leave")]),
    Case(id="early-answer", what="an early answer reaches a client that still sends", send=refused_upload(declaring("/m/refuse", 4_000_000), 4_000_000), client=[status(413), fact("early")],
         differs=[but.BUFFERED(client=[status(413), fact("early", False)])]),
]  # fmt: skip
