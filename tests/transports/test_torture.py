"""Torture in the manner of curl's test suite: the n-th socket operation fails, for n = 1, 2, 3 and so on.

After each run: an exchange has either gone well or raised `ForwardError`; a cut message never looks complete
(promise P6); the connection is not used again (P7); the upstream was asked once, but for the one documented
replacement (P14); the pool goes on; no descriptor, task or place in the bulkhead is lost.

Both pools run here through real sockets of this thread, whose methods fail on demand; the upstream's threads
are left alone.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import socket
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from tests.transports.clients import Clients, read_all, request_head
from tests.transports.upstream import (
    Peer,
    ScriptedUpstream,
    chunked_body,
    close,
    head,
    reset,
    send,
    until_gone,
)

from strangle_mw.core.exchange import Send, exchange
from strangle_mw.core.fallback import SAFE_METHODS
from strangle_mw.core.model import Tls
from strangle_mw.errors import ForwardError
from strangle_mw.transports.h1 import LAST_CHUNK, frame_body, frame_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from tests.transports.clients import Answer, Client
    from tests.transports.upstream import Step


ERRORS = {"reset": errno.ECONNRESET, "broken pipe": errno.EPIPE, "timed out": errno.ETIMEDOUT}
HALF, END, SHORT, AGAIN = "half, then reset", "end of stream", "short", "not now"
HARMLESS = (SHORT, AGAIN)
FAULTS = {
    "asyncio": [*ERRORS, HALF, END, SHORT, AGAIN],
    "threads": [*ERRORS, HALF, END, SHORT],  # there EAGAIN is the kernel's word for a timeout
}
DATA = bytes(range(256)) * 40
PIECES = [DATA[:4000], DATA[4000:4001], DATA[4001:]]
TOO_MANY = 400


@dataclass
class Faults:
    """Makes the n-th operation of this thread's TCP sockets fail; `seen` lists what was done."""

    at: int
    kind: str
    seen: list[str] = field(default_factory=list)
    thread: int = field(default_factory=threading.get_ident)

    @property
    def fired(self) -> bool:
        return len(self.seen) >= self.at

    def due(self, sock: socket.socket, name: str) -> bool:
        if threading.get_ident() != self.thread or sock.family != socket.AF_INET:
            return False  # the upstream's, or the event loop's own pipe
        self.seen.append(name)
        return len(self.seen) == self.at

    def error(self, sock: socket.socket | None = None) -> OSError:
        if self.kind == AGAIN:
            return BlockingIOError(errno.EAGAIN, "not now")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # what has failed once does not come to life again
        return OSError(ERRORS.get(self.kind, errno.ECONNRESET), f"{self.kind}, as planned")

    def connect(self, real: Callable[..., Any], sock: socket.socket, address: object) -> None:
        if self.kind not in ERRORS:
            real(sock, address)
        if self.kind not in HARMLESS:
            raise self.error()

    def recv(self, real: Callable[..., Any], sock: socket.socket, size: int, flags: int = 0) -> Any:
        if self.kind == SHORT:
            return real(sock, 1, flags)
        if self.kind == HALF:
            real(sock, 1, flags)
        if self.kind == END:
            return b""
        raise self.error(sock)

    def recv_into(self, real: Callable[..., Any], sock: socket.socket, buffer: memoryview) -> Any:
        if self.kind == SHORT:
            return real(sock, buffer[:1])
        if self.kind == HALF:
            real(sock, buffer[:1])
        if self.kind == END:
            return 0
        raise self.error(sock)

    def sendmsg(self, real: Callable[..., Any], sock: socket.socket, buffers: Iterable[bytes]) -> Any:
        return self.send(_socket.socket.send, sock, b"".join(buffers))

    def send(self, real: Callable[..., Any], sock: socket.socket, data: bytes, flags: int = 0) -> Any:
        if self.kind in (SHORT, HALF):
            sent = real(sock, memoryview(data)[:1], flags)
            if self.kind == SHORT:
                return sent
        raise self.error(sock)

    def sendall(self, real: Callable[..., Any], sock: socket.socket, data: bytes, flags: int = 0) -> None:
        if self.kind == SHORT:  # what is short, `sendall` repeats itself
            return real(sock, data, flags)  # type: ignore[no-any-return]
        if self.kind == HALF:
            real(sock, memoryview(data)[: len(data) // 2], flags)
        raise self.error(sock)

    def setsockopt(self, real: Callable[..., Any], sock: socket.socket, *option: Any) -> None:
        if self.kind in (*HARMLESS, END):
            real(sock, *option)
        else:
            raise self.error(sock)

    def close(self, real: Callable[..., Any], sock: socket.socket) -> None:
        real(sock)  # whatever it reports, the descriptor is gone (close(2))
        if self.kind in ERRORS:
            raise OSError(errno.EIO, "closing failed, as planned")


OPERATIONS = {
    # Where setsockopt or close fail asyncio itself loses the socket; that is not for us to survive.
    "asyncio": ("connect", "recv", "recv_into", "send", "sendmsg"),
    "threads": ("connect", "recv", "send", "sendall", "setsockopt", "close"),
}


def plant(patch: pytest.MonkeyPatch, faults: Faults, kind: str) -> None:
    """Put the faults between this thread and the kernel."""
    for name in OPERATIONS[kind]:
        patch.setattr(socket.socket, name, _failing(name, getattr(socket.socket, name), faults))
    make = socket.socket.__init__

    def init(self: socket.socket, *args: Any, **more: Any) -> None:
        make(self, *args, **more)
        new = more.get("fileno") is None and len(args) < 4
        if new and faults.due(self, "socket") and faults.kind in ERRORS:
            _socket.socket.close(self)
            raise OSError(errno.EMFILE, "no descriptors, as planned")

    patch.setattr(socket.socket, "__init__", init)


def _failing(name: str, real: Callable[..., Any], faults: Faults) -> Callable[..., Any]:
    fault = getattr(faults, name)

    def operation(sock: socket.socket, *args: Any) -> Any:
        return fault(real, sock, *args) if faults.due(sock, name) else real(sock, *args)

    return operation


# --- the upstream

START = b"HTTP/1.1 200 OK\r\n"
WHOLE = START + b"Content-Length: %d\r\n\r\n" % len(DATA) + DATA
CHUNKED = [START + b"Transfer-Encoding: chunked\r\n\r\n", *map(frame_chunk, PIECES), LAST_CHUNK]
ANSWERS = {  # a method each, so that it can be told which request came how often
    b"GET": [WHOLE],
    b"OPTIONS": CHUNKED,
    b"QUERY": [b"HTTP/1.1 103 Early Hints\r\n\r\n", WHOLE],
    b"POST": [WHOLE],
    b"PATCH": [WHOLE.replace(b"Content-Length", b"Connection: close\r\nContent-Length")],
    b"PUT": [WHOLE],
    b"TRACE": [WHOLE],
}


def serve(peer: Peer) -> None:
    """Answer whatever comes whole, and keep it."""
    while True:
        head()(peer)
        wire = peer.heads[-1]
        if b"Transfer-Encoding" in wire:
            chunked_body()(peer)
        elif b"Content-Length" in wire or wire.startswith(b"PUT"):
            peer.bodies.append(peer.read(len(DATA)))
        for part in ANSWERS[method_of(wire)]:
            send(part)(peer)


def method_of(wire: bytes) -> bytes:
    return wire.partition(b" ")[0]


# --- the client


@dataclass(frozen=True)
class Request:
    """One request; a streamed `body` is a list."""

    method: str
    body: bytes | list[bytes] = b""
    chunked: bool = True


EXCHANGES = {
    "get, then chunks": [Request("GET"), Request("OPTIONS")],
    "chunks, then post": [Request("OPTIONS"), Request("POST", DATA)],
    "post and close, then get": [Request("PATCH", DATA), Request("GET")],
    "streamed chunks, then interim": [Request("POST", PIECES), Request("QUERY")],
    "interim, then streamed length": [Request("QUERY"), Request("PUT", PIECES, chunked=False)],
}

AFTER = Request("TRACE")
"""What is asked once nothing fails any more."""


def perform(client: Client, request: Request) -> bytes | None:
    """Forward as a driver does, by `core.exchange`; None for an orderly failure."""
    conversation = exchange(request.method, OneEndpoint(), replayable=isinstance(request.body, bytes))
    answer: Answer | None = None
    try:
        effect = next(conversation)
        while isinstance(effect, Send):
            try:
                answer = client.send(
                    request.body, method=request.method, chunked=request.chunked, fresh=effect.fresh
                )
            except ForwardError as exc:
                effect = conversation.throw(exc)
            else:
                effect = conversation.send(answer.status)
    except ForwardError:
        return None
    assert answer is not None
    return read_or_fail(answer)


class OneEndpoint:
    """An endpoint without a breaker."""

    def __len__(self) -> int:
        return 1

    def choose(self, tried: Collection[int]) -> int | None:
        return 0

    def settle(self, endpoint: int, outcome: object) -> None:
        pass

    def spend(self) -> bool:
        return True


def read_or_fail(answer: Answer) -> bytes | None:
    try:
        return read_all(answer)
    except ForwardError:
        return None
    finally:
        answer.close()


def torment(kind: str, requests: list[Request], faults: Faults) -> None:
    """Run the exchanges with one fault, judge what came of it, and see that the pool goes on."""
    descriptors = open_descriptors()
    with ScriptedUpstream([serve]) as server, Clients(kind) as clients:
        client = clients(server.endpoint)
        with pytest.MonkeyPatch.context() as patch:
            plant(patch, faults, kind)
            found = [perform(client, request) for request in requests]
            assert client.pool.in_flight == 0
        assert perform(client, AFTER) == DATA, "the pool does not go on"
        client.close()
    assert open_descriptors() <= descriptors, "a descriptor was left open"
    judge(requests, found, server)
    if faults.kind in HARMLESS or not faults.fired:
        assert found == [DATA] * len(requests)


def judge(requests: list[Request], found: list[bytes | None], server: ScriptedUpstream) -> None:
    sent = [method_of(wire) for wire in server.heads]
    for at, (request, data) in enumerate(zip(requests, found, strict=True)):
        assert data in (DATA, None), "a cut answer looked complete (P6)"
        replaceable = at > 0 and isinstance(request.body, bytes) and request.method in SAFE_METHODS
        most = 2 if replaceable else 1
        assert sent.count(request.method.encode()) <= most, "sent more than once (P14)"
        assert data is None or request.method.encode() in sent
    for content in server.bodies:
        assert content in (DATA, b"".join(map(frame_chunk, PIECES)) + LAST_CHUNK, frame_body(DATA)), (
            "a cut request looked complete (P6)"
        )
    failed = {r.method.encode() for r, data in zip(requests, found, strict=True) if data is None}
    for peer in server.peers:
        for wire in peer.heads[:-1]:
            assert method_of(wire) not in failed, "a spoiled connection was used again (P7)"


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


CASES = [
    (kind, fault, name)
    for kind, faults in FAULTS.items()
    for fault in faults
    for at, name in enumerate(EXCHANGES)
    if fault in ("reset", HALF, END) or at % 3 == 0  # the others take the same ways
]


@pytest.mark.parametrize(("kind", "fault", "name"), CASES)
def test_the_nth_operation_fails(kind: str, fault: str, name: str) -> None:
    requests = EXCHANGES[name]
    done: set[str] = set()
    for n in range(1, TOO_MANY):
        faults = Faults(n, fault)
        torment(kind, requests, faults)
        if not faults.fired:
            break
        done.add(faults.seen[n - 1])
    assert n > 6, "hardly anything was made to fail"
    assert n < TOO_MANY - 1, "the exchange never ends"
    for one_of in ({"socket"}, {"connect"}, {"recv", "recv_into"}, {"send", "sendall"}):
        assert done & one_of, f"{one_of} never failed"
    if "and close" in name and "close" in OPERATIONS[kind]:
        assert "close" in done


# --- the wire is cut at every byte

BODY = b"0123456789" * 3
CUTS = {
    "length": START + b"Content-Length: 30\r\n\r\n" + BODY,
    "chunks": CHUNKED[0] + frame_chunk(BODY[:9]) + frame_chunk(BODY[9:]) + b"0\r\nX-Trailer: 1\r\n\r\n",
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + START + b"Content-Length: 30\r\n\r\n" + BODY,
}
ENDS = {"closed": close, "reset": reset}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Tls]:
    file = str(tmp_path_factory.mktemp("ca") / "ca.pem")
    root = trustme.CA()
    root.cert_pem.write_to_path(file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    root.issue_cert("localhost").configure_cert(context)
    return context, Tls(ca=file)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("answer", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("kind", FAULTS)
def test_the_answer_is_cut_at_every_byte(
    kind: str, answer: bytes, end: str, authority: tuple[ssl.SSLContext, Tls], *, tls: bool
) -> None:
    places = range(0, len(answer), 7 if tls else 1)  # a handshake each
    scripts = [[head(), send(answer[:n]), ENDS[end]()] for n in places]
    whole = [head(), send(answer), until_gone()]
    context, settings = authority if tls else (None, Tls())
    with ScriptedUpstream(*scripts, whole, context=context) as server, Clients(kind) as clients:
        client = clients(server.endpoint, tls=settings)
        for n in places:
            assert perform(client, Request("GET")) is None, f"complete after {n} bytes (P6)"
            assert (client.pool.idle, client.pool.in_flight) == (0, 0)
        assert perform(client, Request("GET")) == BODY
        assert len(server.heads) == server.connections == len(places) + 1, "sent more than once (P14)"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("body", [BODY, [BODY[:9], BODY[9:]]], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", FAULTS)
def test_the_upstream_leaves_at_every_byte_of_the_request(
    kind: str, body: bytes | list[bytes], end: str
) -> None:
    wire = request_head(body, "POST", chunked=not isinstance(body, bytes))
    wire += BODY if isinstance(body, bytes) else b"".join(map(frame_chunk, body)) + LAST_CHUNK
    scripts = [[take(n), ENDS[end]()] for n in range(len(wire))]
    whole = [take(len(wire)), send(CUTS["length"]), until_gone()]
    with ScriptedUpstream(*scripts, whole) as server, Clients(kind) as clients:
        client = clients(server.endpoint)
        for _ in scripts:
            assert perform(client, Request("POST", body)) is None
            assert (client.pool.idle, client.pool.in_flight) == (0, 0)
        assert perform(client, Request("POST", body)) == BODY
        assert server.connections == len(scripts) + 1, "sent more than once (P14)"
        assert server.bodies[-1] == wire


def take(count: int) -> Step:
    """Read so many bytes of a request."""

    def step(peer: Peer) -> None:
        peer.bodies.append(peer.read(count))

    return step
