"""An upstream that does exactly what it is told, byte for byte, on real sockets.

    with ScriptedUpstream([head(), send(ANSWER), close()], [head(), reset()]) as upstream:
        pool = AsyncPool(upstream.endpoint, Upstream(url="http://scripted"))

One script per connection, in the order they are accepted; the last one serves all further connections, too.
A script is a list of steps, each a callable that gets the `Peer`; at its end the connection is closed.
What went wrong in a thread is raised when the `with` block ends.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

from strangle_mw.core.model import Endpoint

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType

    Step = Callable[["Peer"], None]

PATIENCE = 20.0
"""Seconds after which a test is stuck; nothing that goes well waits for it."""


class GoneError(Exception):
    """The client has closed the connection; ends a script in silence."""


class Peer:
    """The upstream's side of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        sock.settimeout(PATIENCE)

    def receive(self) -> None:
        try:
            data = self.sock.recv(65_536)
        except TimeoutError:
            raise
        except OSError:  # reset, or closed under our feet at the end of the test
            data = b""
        if not data:
            raise GoneError
        self.rest += data

    def read_until(self, mark: bytes) -> bytes:
        while mark not in self.rest:
            self.receive()
        end = self.rest.index(mark) + len(mark)
        data, self.rest = self.rest[:end], self.rest[end:]
        return data

    def read(self, count: int) -> bytes:
        while len(self.rest) < count:
            self.receive()
        data, self.rest = self.rest[:count], self.rest[count:]
        return data


def head() -> Step:
    """Read the head of a request."""

    def step(peer: Peer) -> None:
        peer.heads.append(peer.read_until(b"\r\n\r\n"))

    return step


def body(count: int) -> Step:
    """Read so many bytes of a body."""

    def step(peer: Peer) -> None:
        peer.bodies.append(peer.read(count))

    return step


def chunked_body() -> Step:
    """Read a chunked body as it is on the wire, through the last chunk."""

    def step(peer: Peer) -> None:
        wire = b""
        while not wire.endswith(b"\r\n0\r\n\r\n") and wire != b"0\r\n\r\n":
            wire += peer.read_until(b"\r\n")
        peer.bodies.append(wire)

    return step


def send(data: bytes) -> Step:
    """Send bytes in one call."""

    def step(peer: Peer) -> None:
        try:
            peer.sock.sendall(data)
        except ConnectionError:
            raise GoneError from None

    return step


def close() -> Step:
    """Close: with bytes unread in the kernel that is a reset, as in life."""

    def step(peer: Peer) -> None:
        peer.sock.close()

    return step


def half_close() -> Step:
    """Send an end of stream, and go on reading."""

    def step(peer: Peer) -> None:
        try:
            peer.sock.shutdown(socket.SHUT_WR)
        except OSError:  # the client was faster
            raise GoneError from None

    return step


def reset() -> Step:
    """Close with a reset, whatever was read."""

    def step(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sock.close()

    return step


def unwrap() -> Step:
    """End TLS properly, with a closure alert."""

    def step(peer: Peer) -> None:
        with contextlib.suppress(OSError):
            peer.sock.unwrap()  # type: ignore[attr-defined]

    return step


def wait(event: threading.Event) -> Step:
    """Stall until told."""

    def step(_: Peer) -> None:
        assert event.wait(PATIENCE), "nobody said go on"

    return step


def tell(event: threading.Event) -> Step:
    """Say that this point is reached."""

    def step(_: Peer) -> None:
        event.set()

    return step


def until_gone() -> Step:
    """Read and forget, until the client has closed."""

    def step(peer: Peer) -> None:
        with contextlib.suppress(GoneError):
            while True:
                peer.receive()
                peer.rest = b""

    return step


def forever(*steps: Step) -> Step:
    """Repeat until the client has closed."""

    def step(peer: Peer) -> None:
        while True:
            for inner in steps:
                inner(peer)

    return step


class ScriptedUpstream:
    """A server of scripts, on loopback TCP, TLS (`context`) or a Unix socket (`path`)."""

    def __init__(self, *scripts: list[Step], context: ssl.SSLContext | None = None, path: str = "") -> None:
        self.scripts = scripts
        self.context = context
        self.path = path
        self.peers: list[Peer] = []
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._listener.bind(path or ("127.0.0.1", 0))
        self._listener.listen(128)

    @property
    def endpoint(self) -> Endpoint:
        if self.path:
            return Endpoint(scheme="unix", host="", port=0, authority=b"localhost", socket=self.path)
        port = self._listener.getsockname()[1]
        authority = b"localhost:%d" % port
        if self.context is not None:
            return Endpoint(scheme="https", host="localhost", port=port, authority=authority)
        return Endpoint(scheme="http", host="127.0.0.1", port=port, authority=authority)

    @property
    def connections(self) -> int:
        return len(self.peers)

    @property
    def heads(self) -> list[bytes]:
        return [head for peer in self.peers for head in peer.heads]

    @property
    def bodies(self) -> list[bytes]:
        return [body for peer in self.peers for body in peer.bodies]

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(PATIENCE)
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a script is stuck"
        if self.errors and exc is None:
            raise self.errors[0]

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                peer = Peer(sock)
                self.peers.append(peer)
                self._start(self._serve, peer, self.scripts[min(len(self.peers), len(self.scripts)) - 1])

    def _serve(self, peer: Peer, script: list[Step]) -> None:
        try:
            if self.context is not None:
                peer.sock = self.context.wrap_socket(peer.sock, server_side=True, suppress_ragged_eofs=True)
            for step in script:
                step(peer)
        except (GoneError, ConnectionError):
            pass
        except BaseException as exc:
            # A client that refuses our certificate is its own business; its test looks at the client.
            if self.context is None or not isinstance(exc, OSError):
                self.errors.append(exc)
        finally:
            peer.sock.close()
