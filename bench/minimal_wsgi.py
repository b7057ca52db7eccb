"""The smallest honest blocking forwarder: what forwarding costs when nothing is checked.

A blocking socket with httptools and a pool of kept connections. It copies method, target, headers and both
bodies as they come. No hygiene, no timeouts, no errors: the floor, not a proxy.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import httptools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CHUNK = 65_536


class Connection:
    """One connection to the upstream, carrying one exchange at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.parser = httptools.HttpResponseParser(self)

    def begin(self, request: bytes) -> None:
        """Send the head of a request and forget the exchange before."""
        self.reason = b""
        self.headers: list[tuple[str, str]] = []
        self.chunks: list[bytes] = []
        self.headed = self.done = False
        self.socket.sendall(request)

    def read(self) -> None:
        """Read what comes next."""
        data = self.socket.recv(CHUNK)
        if not data:
            raise ConnectionError("the upstream closed the connection")
        self.parser.feed_data(data)

    def on_status(self, status: bytes) -> None:
        self.reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.headed = True

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)

    def on_message_complete(self) -> None:
        self.done = True
        self.kept = self.parser.should_keep_alive()  # the parser forgets it with the message


def forwarder(port: int) -> Callable[..., Iterable[bytes]]:
    """Return the WSGI app that sends everything to a local port."""
    pool: list[Connection] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        connection = pool.pop() if pool else Connection(port)
        connection.begin(_head(environ))
        if environ.get("CONTENT_LENGTH"):
            _upload(connection, environ)
        while not connection.headed:
            connection.read()
        status = f"{connection.parser.get_status_code()} {connection.reason.decode('latin-1')}"
        start_response(status, connection.headers)
        return _body(connection, pool)

    return app


def _head(environ: dict[str, Any]) -> bytes:
    fields = [f"{environ['REQUEST_METHOD']} {environ['RAW_URI']} HTTP/1.1\r\n"]
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            fields.append(f"{key[5:].replace('_', '-')}: {value}\r\n")
    framing = ((key, environ.get(key)) for key in ("CONTENT_TYPE", "CONTENT_LENGTH"))
    fields.extend(f"{key.replace('_', '-')}: {value}\r\n" for key, value in framing if value)
    fields.append("\r\n")
    return "".join(fields).encode("latin-1")


def _upload(connection: Connection, environ: dict[str, Any]) -> None:
    while chunk := environ["wsgi.input"].read(CHUNK):
        connection.socket.sendall(chunk)


def _body(connection: Connection, pool: list[Connection]) -> Iterator[bytes]:
    while True:
        yield b"".join(connection.chunks)
        connection.chunks.clear()
        if connection.done:
            break
        connection.read()
    if connection.kept:
        pool.append(connection)
    else:
        connection.socket.close()
