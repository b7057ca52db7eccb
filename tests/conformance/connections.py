"""The table, last part: what connections carry, one request after the other."""

from __future__ import annotations

from tests.conformance import differences as but
from tests.conformance.acts import again, one_by_one, pipelined
from tests.conformance.checks import OK, WHOLE, answered, body, fact, line
from tests.conformance.model import Case
from tests.servers import request


def get(target, *, close=False):
    return request("GET", target, close=close)


_THREE = [f"GET /m/{n} HTTP/1.1" for n in range(3)]

HTTP_1_0 = "HTTP/1.0 clients are answered"
CASES = [
    Case(id="keep-alive", what="a client's connection is used again", send=one_by_one(*[get(f"/m/{n}") for n in range(3)]), client=[fact("lines", _THREE)],
         differs=[but.ONE_REQUEST(client=[fact("lines", _THREE[:1])])]),
    Case(id="pipelined", what="pipelined requests are answered in order", send=pipelined(get("/m/0"), get("/m/1"), get("/m/2", close=True)), client=[fact("order", [0, 1, 2])],
         differs=[but.ONE_REQUEST(client=[fact("order", [0])])]),
    Case(id="upstream-reused", what="an upstream's connection is used again", send=again(get("/m/x", close=True), 5), client=[OK, fact("reused")]),
    Case(id="http-1.0", what=HTTP_1_0, send=b"GET /m/x HTTP/1.0\r\n\r\n", upstream=[line("GET /m/x")], client=[OK, WHOLE]),
    Case(id="http-1.0-chunked", what=HTTP_1_0, send=b"GET /m/chunked HTTP/1.0\r\n\r\n", client=[OK, answered("transfer-encoding"), body(b"hello world")],
         differs=[but.CHUNKED_ANYWAY(client=[OK, answered("transfer-encoding", "chunked"), body(b"hello world")])]),
]  # fmt: skip
