"""The table of faults: what an upstream can do wrong, and what must follow. Data and its Markdown, no tests."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.transports.upstream import PATIENCE, close, forever, head, reset, send, until_gone, wait

from servers import request

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.transports.upstream import Peer, Step

START = b"HTTP/1.1 200 OK\r\n"
OK = START + b"Content-Length: 2\r\n\r\nok"
PART = START + b"Content-Length: 9\r\n\r\nabc"
CHUNKS = START + b"Transfer-Encoding: chunked\r\n\r\n"
LONG_CHUNK = b"a0000\r\n" + b"a" * 0xA0000 + b"\r\n"
"""More than is ever read at once, so that the answer has begun."""

SERVE = forever(head(), send(OK))

TARGET = "/m/fault"
GET = request("GET", TARGET)
POST = request("POST", TARGET, [("Content-Length", "2")], b"ab")
HEAD = request("HEAD", TARGET)
UPLOAD = request("POST", TARGET, [("Content-Length", str(1 << 26))])
"""Only the head: its body is sent as long as nothing is answered, and fills every buffer on the way."""

SHORT = {"timeout": 0.4, "idle_timeout": 0.4}
"""Seconds for faults in which time must run out."""


@dataclass(frozen=True)
class Fault:
    """One row.

    `script` makes the steps of the first connection to the upstream; the event is set once the client has
    its answer. Further connections are served as they should be. `sees` is the status, the problem's type if
    the answer is the library's, and `cut` if it is not whole; `wsgi` the same where threads differ. `again`
    says whether the next request goes out on a connection that was there before, `seen` how often the
    upstream read the request, `before` how many requests went well first.
    """

    what: str
    script: Callable[[threading.Event], list[Step]] | None
    sees: str
    again: bool
    seen: int = 1
    wsgi: str = ""
    ask: bytes = GET
    before: int = 0
    urls: tuple[str, ...] = ("http://127.0.0.1:{port}",)
    settings: dict[str, Any] = field(default_factory=dict)

    def expected(self, kind: str) -> str:
        return self.wsgi if kind == "wsgi" and self.wsgi else self.sees


def answers(data: bytes, *then: Step) -> Callable[[threading.Event], list[Step]]:
    """Read a request, send these bytes; go on as a good server would unless told how it ends."""
    return lambda _: [head(), send(data), *(then or (SERVE,))]


def trickle(data: bytes, gap: float) -> Step:
    """Send byte by byte, with so many seconds between them, as long as somebody listens."""

    def step(peer: Peer) -> None:
        pause = threading.Event()
        for at in range(len(data)):
            send(data[at : at + 1])(peer)
            pause.wait(gap)

    return step


def unread(peer: Peer) -> None:
    """Wait for a request, and leave it in the kernel."""
    peer.sock.recv(1, socket.MSG_PEEK)


def again_and_again(data: bytes) -> Step:
    """Send the same bytes until the other side has closed."""

    def step(peer: Peer) -> None:
        while True:
            send(data)(peer)

    return step


FAULTS = [
    Fault("refuses the connection", None, "502 upstream-connect", again=False, seen=0),
    Fault("refuses at one of two addresses", lambda _: [SERVE], "200", again=True, urls=("http://127.0.0.1:{dead}", "http://127.0.0.1:{port}")),
    Fault("speaks no TLS on an https address", lambda _: [send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), until_gone()],
          "502 upstream-connect", again=False, seen=0, urls=("https://127.0.0.1:{port}",)),
    Fault("does not end the TLS handshake in `connect_timeout`", lambda done: [wait(done)], "504 upstream-connect", again=False, seen=0,
          urls=("https://127.0.0.1:{port}",), settings={"connect_timeout": 0.4}),
    Fault("resets without reading the request", lambda _: [unread, reset()], "502 upstream-head", again=False, seen=0),
    Fault("resets after the request, before any byte", lambda _: [head(), reset()], "502 upstream-head", again=False),
    Fault("resets in the head", answers(START + b"Content-Le", reset()), "502 upstream-head", again=False),
    Fault("resets in the body", answers(PART, reset()), "200, cut", again=False),
    Fault("resets in a chunked body", answers(CHUNKS + b"3\r\nabc\r\n", reset()), "200, cut", again=False),
    Fault("resets in a body that only its end would end", answers(START + b"\r\nabc", reset()), "200, cut", again=False),
    Fault("closes after the request, before any byte", lambda _: [head(), close()], "502 upstream-head", again=False),
    Fault("closes in the head", answers(START + b"Content-Le", close()), "502 upstream-head", again=False),
    Fault("closes after the head, before the body", answers(START + b"Content-Length: 9\r\n\r\n", close()), "200, cut", again=False,
          wsgi="502 upstream-body"),
    Fault("closes in the body (`Content-Length` too large)", answers(PART, close()), "200, cut", again=False),
    Fault("closes in a chunk", answers(CHUNKS + b"9\r\nabc", close()), "200, cut", again=False),
    Fault("closes before the last chunk", answers(CHUNKS + b"3\r\nabc\r\n", close()), "200, cut", again=False),
    Fault("ends a body without length by closing", answers(START + b"\r\nabc", close()), "200", again=False),
    Fault("sends no byte of the head in `timeout`", lambda _: [head(), until_gone()], "504 upstream-head", again=False, settings=SHORT),
    Fault("sends the head in drops, past `timeout`", lambda _: [head(), trickle(START + b"A: " + b"a" * 1000, 0.05)],
          "504 upstream-head", again=False, settings={**SHORT, "idle_timeout": PATIENCE}),
    Fault("stalls in the body for `idle_timeout`", answers(PART, until_gone()), "200, cut", again=False, settings=SHORT),
    Fault("sends the body in drops, each within `idle_timeout`",
          lambda _: [head(), send(START + b"Content-Length: 6\r\n\r\n"), trickle(b"abcdef", 0.12), SERVE], "200", again=True,
          settings={"timeout": 0.6, "idle_timeout": 0.6}),
    Fault("sends garbage", answers(b"\x00\x01 not http\r\n\r\n", until_gone()), "502 upstream-head", again=False),
    Fault("sends garbage for a chunk size, together with the head", answers(CHUNKS + b"3\r\nabc\r\nzz\r\n", until_gone()),
          "502 upstream-head", again=False),
    Fault("sends garbage for a chunk size, later", answers(CHUNKS + LONG_CHUNK + b"zz\r\n", until_gone()), "200, cut", again=False),
    Fault("sends a head over 64 KiB", answers(START + b"A: " + b"a" * 70_000 + b"\r\n\r\n", until_gone()), "502 upstream-head", again=False),
    Fault("sends a head that never ends", lambda _: [head(), send(START), again_and_again(b"A: a\r\n" * 500)], "502 upstream-head", again=False),
    Fault("sends more than 256 header fields", answers(START + b"A: a\r\n" * 257 + b"Content-Length: 0\r\n\r\n", until_gone()),
          "502 upstream-head", again=False),
    Fault("sends `Content-Length` and `Transfer-Encoding`",
          answers(START + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", until_gone()), "502 upstream-head", again=False),
    Fault("sends two lengths", answers(START + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", until_gone()), "502 upstream-head", again=False),
    Fault("sends an unknown transfer coding", answers(START + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", until_gone()),
          "502 upstream-head", again=False),
    Fault("sends two answers to one request", answers(OK + START + b"Content-Length: 4\r\n\r\nevil"), "200", again=False),
    Fault("sends a surplus byte", answers(OK + b"x"), "200", again=False),
    Fault("sends a surplus line end", answers(OK + b"\r\n"), "200", again=False),
    Fault("sends a body after HEAD", answers(OK), "200", again=False, ask=HEAD),
    Fault("sends a body with 204", answers(b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok"), "204", again=False),
    Fault("sends 100, then the answer", answers(b"HTTP/1.1 100 Continue\r\n\r\n" + OK), "200", again=True, ask=POST),
    Fault("sends 103, then the answer", answers(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK), "200", again=True),
    Fault("sends 103 without end", lambda _: [head(), again_and_again(b"HTTP/1.1 103 Early Hints\r\n\r\n")], "502 upstream-head", again=False),
    Fault("sends 101 unasked", answers(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", until_gone()), "502 upstream-head", again=False),
    Fault("answers 503 itself", answers(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nok"), "503", again=True),
    Fault("says `Connection: close`", answers(START + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", until_gone()), "200", again=False),
    Fault("answers 401 and does not read the upload", lambda done: [head(), send(b"HTTP/1.1 401 Who\r\nContent-Length: 2\r\n\r\nno"), wait(done)],
          "401", again=False, ask=UPLOAD),
    Fault("answers 413 during the upload and resets",
          answers(b"HTTP/1.1 413 Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno", reset()), "413", again=False, ask=UPLOAD),
    Fault("resets during the upload without an answer", lambda _: [head(), reset()], "502 upstream-send", again=False, ask=UPLOAD),
    Fault("never reads the upload", lambda done: [head(), wait(done)], "504 upstream-send", again=False, ask=UPLOAD, settings=SHORT),
    Fault("closes an idle connection before the next request", answers(OK, close()), "200", again=True, before=1),
    Fault("closes a used connection upon a GET", answers(OK, head(), close()), "200", again=True, seen=2, before=1),
    Fault("closes a used connection upon a POST", answers(OK, head(), close()), "502 upstream-head", again=False, ask=POST, before=1),
    Fault("resets a used connection in the head", answers(OK, head(), send(START), reset()), "502 upstream-head", again=False, before=1),
    Fault("sends an answer on an idle connection, unasked", answers(OK + START + b"Content-Length: 4\r\n\r\nevil", until_gone()), "200", again=True, before=1),
]  # fmt: skip


def as_markdown() -> str:
    """Write the table as it stands in `docs/forwarding.md`."""
    lines = [
        "| the upstream ... | the client sees | connection used again | the upstream saw the request | the wrapped app |",
        "|---|---|---|---|---|",
    ]
    for fault in FAULTS:
        sees = _cell(fault.sees) + (f" (WSGI: {_cell(fault.wsgi)})" if fault.wsgi else "")
        times = {0: "not at all", 1: "once", 2: "twice"}[fault.seen]
        lines.append(f"| {fault.what} | {sees} | {'yes' if fault.again else 'no'} | {times} | is not asked |")
    return "\n".join(lines)


def _cell(sees: str) -> str:
    status, _, more = sees.partition(" ")
    return f"{status} `{more}`" if more.startswith("upstream-") else sees


if __name__ == "__main__":
    import sys

    sys.stdout.write(as_markdown() + "\n")
