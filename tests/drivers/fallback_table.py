"""The matrix of fallbacks: what can fail, what is asked, what a route says, and who then answers.

`expected` is written from the table of design section 4.3 alone, and shares no line with the code that it judges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.transports.upstream import close, forever, head, reset, send, until_gone

from strangle_mw import Breaker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.transports.upstream import Peer, Step

TARGET = "/m/a%2Cb;v=1/c?q=a+b&e&z=%zz"
NEVER = Breaker(failures=0, ratio=0)
LIMIT = 65_536
"""Bytes up to which a body is kept."""


# --- what is asked


class Body(NamedTuple):
    """A request's body: as it is framed, as it is, and whether it is kept before it is sent."""

    headers: tuple[tuple[str, str], ...]
    wire: bytes
    data: bytes
    kept: bool


def _sized(size: int) -> Body:
    data = bytes(n * 7 % 251 for n in range(size))
    return Body((("Content-Length", str(size)),), data, data, size <= LIMIT)


BODIES = {
    "none": Body((), b"", b"", kept=True),
    "1 byte": _sized(1),
    "64 KiB": _sized(LIMIT),
    "64 KiB + 1": _sized(LIMIT + 1),
    "chunked": Body((("Transfer-Encoding", "chunked"),), b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", b"abcde", kept=False),
}  # fmt: skip

SAFE = ("GET", "HEAD", "OPTIONS", "TRACE", "QUERY")
IDEMPOTENT = ("PUT", "DELETE")
OTHER = ("POST", "PATCH", "PURGE", "PROPFIND")
CLASSES = (SAFE[0], IDEMPOTENT[0], OTHER[0])
"""One method of each class, for the whole matrix; the others are tried on a part of it."""


# --- what fails


@dataclass(frozen=True)
class Failure:
    """One way to fail.

    `point` is "unsent", "sent" or "answered"; `status` is what a client gets if legacy does not answer: the
    library's own, or that of the upstream; `reason` is what legacy finds. `script` are the steps of the
    upstream, None if nothing listens; `settings` those of the upstream in the table.
    """

    point: str
    status: int
    reason: str
    script: Callable[[], list[Step]] | None
    url: str = "http://127.0.0.1:{port}"
    settings: Mapping[str, Any] = field(default_factory=dict)


def whole(peer: Peer) -> None:
    """Read a request to its end, whatever its framing."""
    head()(peer)
    fields = peer.heads[-1].lower()
    if b"transfer-encoding: chunked" in fields:
        peer.bodies.append(peer.read_until(b"0\r\n\r\n"))
    elif b"content-length: " in fields:
        peer.bodies.append(peer.read(int(fields.split(b"content-length: ")[1].split(b"\r\n")[0])))


def answer(status: int, text: bytes = b"Status") -> bytes:
    return b"HTTP/1.1 %d %s\r\nX-Modern: 1\r\nContent-Length: 6\r\n\r\nmodern" % (status, text)


def _after(*steps: Step) -> Callable[[], list[Step]]:
    return lambda: [whole, *steps]


def _answered(status: int) -> Failure:
    return Failure("answered", status, f"status-{status}", _after(send(answer(status)), until_gone()))


UNSENT = {
    "refused": Failure("unsent", 502, "connect", None),
    "no TLS": Failure("unsent", 502, "connect", lambda: [send(b"HTTP/1.1 400 No\r\n\r\n"), until_gone()], "https://127.0.0.1:{port}"),
    "bulkhead": Failure("unsent", 503, "bulkhead", _after(until_gone()), settings={"max_in_flight": 1, "pool_timeout": 0.0}),
    "breaker": Failure("unsent", 503, "breaker", None, settings={"breaker": Breaker(failures=1, open=60)}),
}  # fmt: skip
SENT = {
    "reset": Failure("sent", 502, "reset", _after(reset())),
    "garbage": Failure("sent", 502, "reset", _after(send(b"\x00\x01 not http\r\n\r\n"), until_gone())),
}
ANSWERED = {str(status): _answered(status) for status in (503, 500, 404)}
FAILURES = {**UNSENT, **SENT, **ANSWERED}

MORE = {  # tried on a part of the matrix: slow, or like others
    "unknown name": Failure("unsent", 502, "connect", None, "http://does-not-exist.invalid:{port}"),
    "connect timeout": Failure("unsent", 504, "connect-timeout", lambda: [until_gone()], "https://127.0.0.1:{port}",
                               {"connect_timeout": 0.1}),
    "closed": Failure("sent", 502, "reset", _after(close())),
    "head cut": Failure("sent", 502, "reset", _after(send(b"HTTP/1.1 200 OK\r\nContent-Le"), close())),
    "timeout": Failure("sent", 504, "timeout", _after(until_gone()), settings={"timeout": 0.1}),
    "timeout after an interim answer": Failure("sent", 504, "timeout", _after(send(b"HTTP/1.1 103 E\r\nX-Modern: 1\r\n\r\n"), until_gone()),
                                               settings={"timeout": 0.1}),
    "timeout in the head": Failure("sent", 504, "timeout", _after(send(b"HTTP/1.1 200 OK\r\nX-Modern: 1\r\n"), until_gone()),
                                   settings={"timeout": 0.1}),
    "bad header": Failure("sent", 502, "reset", _after(send(b"HTTP/1.1 200 OK\r\nA\x01: b\r\n\r\n"), until_gone())),
    "two lengths": Failure("sent", 502, "reset", _after(send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), until_gone())),
    "switch": Failure("sent", 502, "reset", _after(send(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"), until_gone())),
    **{str(status): _answered(status) for status in (200, 302, 400, 429, 501, 502, 504)},
}  # fmt: skip


# --- what a route says


@dataclass(frozen=True)
class Policy:
    """What a route says of fallback: its fields, and what they mean."""

    fields: Mapping[str, Any]
    mode: str
    shared: bool = False
    also: tuple[int, ...] = ()


# No mark of a canary, so that an answer of legacy has to be what it is without us.
CANARY = {"stage": "canary", "weight": 100, "sticky": ["query:none"]}
SERVER_ERRORS = tuple(range(500, 600))
POLICIES = {
    "canary": Policy(CANARY, "auto"),
    "modern": Policy({}, "connect"),
    "shared store": Policy({**CANARY, "shared_store": True}, "auto", shared=True),
}
MORE_POLICIES = {
    "never": Policy({**CANARY, "fallback": "never"}, "never"),
    "5xx": Policy({"fallback": "auto", "fallback_on": ["5xx"]}, "auto", also=SERVER_ERRORS),
    "off": Policy({"fallback": "off"}, "never"),
    "retired": Policy({"stage": "retired"}, "never"),
    "auto in modern": Policy({"fallback": "auto"}, "auto"),
    "connect in canary": Policy({**CANARY, "fallback": "connect"}, "connect"),
    "not built yet": Policy({**CANARY, "fallback_on": ["404", "501"]}, "auto", also=(404, 501)),
    "everything": Policy({"fallback": "auto", "fallback_on": ["5xx", "404"], "shared_store": True}, "auto", True, (404, *SERVER_ERRORS)),
    "over": Policy({"fallback": "auto", "fallback_until": "2020-02-29"}, "never"),
    "not yet over": Policy({**CANARY, "fallback_until": "9000-01-01T00:00:00"}, "auto"),
}  # fmt: skip
EVERY_POLICY = {**POLICIES, **MORE_POLICIES}


# --- who answers


def expected(failure: Failure, method: str, policy: Policy, body: Body) -> tuple[str, str | int]:
    """Say who answers: "legacy" and why, "modern" or "ours" and with which status."""
    instead = ("modern" if failure.point == "answered" else "ours", failure.status)
    if failure.point == "unsent":
        return ("legacy", failure.reason) if policy.mode != "never" else instead
    if policy.mode != "auto" or not body.kept:
        return instead
    if failure.point == "answered":
        listed = failure.status in (502, 503, 504, *policy.also) and method in SAFE
    else:
        listed = method in SAFE or (method in IDEMPOTENT and policy.shared)
    return ("legacy", failure.reason) if listed else instead


SERVE = [forever(whole, send(answer(200)))]
