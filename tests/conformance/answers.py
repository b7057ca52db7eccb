"""The table, third part: what of an answer reaches the client."""

from __future__ import annotations

from tests.conformance import differences as but
from tests.conformance.acts import first_event, leave
from tests.conformance.checks import (
    CUT,
    HANGS,
    NOTHING,
    OK,
    WHOLE,
    answered,
    at_most_one,
    body,
    fact,
    not_from,
    problem,
    status,
)
from tests.conformance.model import Case
from tests.servers import request


def get(target, *headers, **more):
    return request("GET", target, headers, **more)


def head(target):
    return request("HEAD", target)


NO_BODY = "HEAD, 204, 304: no body"
KINDS = "answers: chunked, until the end, without a reason"
CHUNKS_CUT = "a chunked answer that is cut stays cut"
ALL_SIZES = "answer heads of 64 KiB pass, larger ones are a 502"
RULES = "header rules of a route"
ANSWERS = [
    Case(id="set-cookie", what="two `Set-Cookie`, a comma in one, stay two", send=get("/m/cookies"), client=[status(201), answered("set-cookie", "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2"), body(b"ok")]),
    Case(id="answer-headers", what="an answer's headers arrive, empty ones too", send=get("/m/cookies"), client=[answered("x-empty", ""), answered("content-length", "2"), answered("content-type", "text/plain")]),
    Case(id="answer-hop-by-hop", what="an answer's hop-by-hop headers stay behind", send=get("/m/cookies"), client=[answered("x-hop"), not_from("keep-alive", "timeout=9"), not_from("connection", "X-Hop")]),
    Case(id="date-server", what="`Date` and `Server` are the server's own, once", send=get("/m/cookies"), client=[status(201), at_most_one("date", "server"), not_from("date", "then"), not_from("server", "echo")]),
    Case(id="rules-answer", what=RULES, send=get("/rules/cookies"), client=[answered("x-made", "1"), answered("x-empty")]),
    *[Case(id=f"head-{n}", what=NO_BODY, send=head(f"/m/{n}"), client=[status(s), body(b"")],
           differs=[but.LAST_CHUNK(client=[status(s), body(b"0\r\n\r\n")])] if n == "chunked" else [])
      for n, s in {"x": 200, "cookies": 201, "chunked": 200, "none": 204, "unchanged": 304}.items()],
    Case(id="no-content", what=NO_BODY, send=get("/m/none"), client=[status(204), body(b""), answered("x-a", "1")]),
    Case(id="not-modified", what=NO_BODY, send=get("/m/unchanged"), client=[status(304), body(b""), answered("etag", '"x"')]),
    Case(id="interim", what="1xx answers of the upstream are swallowed", send=get("/m/early"), client=[OK, body(b"ok")]),
    Case(id="chunked", what=KINDS, send=get("/m/chunked"), client=[OK, body(b"hello world"), WHOLE]),
    Case(id="until-close", what=KINDS, send=get("/m/untilclose"), client=[OK, body(b"until the end"), WHOLE]),
    Case(id="no-reason", what=KINDS, send=get("/m/noreason"), client=[status(299), body(b""), WHOLE]),
    Case(id="answer-trailers", what="trailers are dropped", send=get("/m/trailers"), client=[OK, body(b"hello"), answered("x-sum"), answered("trailer"), WHOLE]),
    Case(id="big", what="big answers stream through", send=get("/m/big"), client=[OK, body(b"x" * 3_000_000), WHOLE]),
    Case(id="first-event", what="the first event of a stream (SSE) arrives at once", send=first_event("/m/gated"), client=[fact("first"), fact("second")]),
    Case(id="client-leaves", what="a client that leaves ends a silent stream at once", send=leave("/m/events", late="/quick/events"), client=[fact("gone", "at once")],
         differs=[but.LATE(client=[fact("gone", "late")])]),
    Case(id="client-leaves-talk", what="a client that leaves ends a stream with its next event", send=leave("/m/ticks"), client=[fact("gone", "at once")]),
    Case(id="cut-length-answer", what="an answer with a length that is cut stays cut", send=get("/m/cutlength"), client=[CUT], differs=[but.STAYS_OPEN(client=[HANGS])]),
    Case(id="cut-chunks-answer", what=CHUNKS_CUT, send=get("/m/cutchunks"), client=[CUT], differs=[but.STAYS_OPEN(client=[HANGS]), but.ANSWER_COMPLETE(client=[OK, body(b"half"), WHOLE])]),
    Case(id="cut-idle-answer", what=CHUNKS_CUT, send=get("/quick/events"), client=[CUT], differs=[but.STAYS_OPEN(client=[HANGS]), but.ANSWER_COMPLETE(client=[OK, body(b"data: 1\n\n"), WHOLE])]),
    Case(id="head-64k", what=ALL_SIZES, send=get("/m/head-65536"), client=[OK, body(b"ok")]),
    Case(id="head-over-64k", what=ALL_SIZES, send=get("/m/head-65537"), client=[problem(502, "upstream-head")]),
]  # fmt: skip

_FAILURES = {
    "refused": ("/dead/x", 502, "upstream-connect"),
    "closed-before-the-head": ("/m/nothing", 502, "upstream-head"),
    "closed-in-the-head": ("/m/cuthead", 502, "upstream-head"),
    "garbage": ("/m/garbage", 502, "upstream-head"),
    "answer-two-lengths": ("/m/twolengths", 502, "upstream-head"),
    "switching-protocols": ("/m/switch", 502, "upstream-head"),
    "no-head-in-time": ("/quick/stall", 504, "upstream-head"),
}
FAILURES = [
    Case(id=name, what="failures are told as problems: 502, 504", send=get(target), client=[problem(code, reason)])
    for name, (target, code, reason) in _FAILURES.items()
]  # fmt: skip

OTHERS = [
    Case(id="redirect", what="redirects and fixed answers of a route", send=get("/old/a?b=c"), upstream=[NOTHING], client=[answered("location", "/new/a?b=c")]),
    Case(id="respond", what="redirects and fixed answers of a route", send=get("/gone"), upstream=[NOTHING], client=[status(410), body(b"gone")]),
    Case(id="respond-head", what="redirects and fixed answers of a route", send=head("/gone"), upstream=[NOTHING], client=[status(410), body(b"")]),
]  # fmt: skip

CASES = [*ANSWERS, *FAILURES, *OTHERS]
