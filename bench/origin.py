"""The upstream of `big`, `idle` and `serveasgi`, a program of its own: bytes from one buffer, into one buffer, or silence.

Blocking sockets and a thread for each connection, megabytes at a time, so that it does not set the pace.
It knows what the measurements ask and nothing else: no chunked request, no pipelining, no errors.
"""

from __future__ import annotations

import base64
import hashlib
import random
import socket
import sys
import threading
import time

from bench.payload import DOWN, EVENTS, MODERN, SLOW, event, size_of

MEBIBYTE = 1 << 20
BLOCK = memoryview(bytes(MEBIBYTE))
STACK = 256 * 1024
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""
SLOWEST = 1.5
"""Seconds; a slow answer takes half a second at least, and not all the same, so that they do not come at once."""
PING, PONG, CLOSE = 0x89, b"\x8a", b"\x88"


def main() -> None:
    """Serve the port named in the command until it is stopped."""
    threading.stack_size(STACK)
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096) as server:
        while True:
            client, _ = server.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=_serve, args=(client,), daemon=True).start()


def _serve(client: socket.socket) -> None:
    with client:
        try:
            while head := _head(client):
                if not _answer(client, *head):
                    return
        except ConnectionError:
            return


def _head(client: socket.socket) -> tuple[bytes, int] | None:
    """Read a head; return it with the number of bytes of the body that came along."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(65_536)
        if not more:
            return None
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, len(rest)


def _answer(client: socket.socket, head: bytes, come: int) -> bool:
    """Answer one request; tell whether the connection goes on."""
    path = head.split(b" ", 2)[1].decode("ascii")
    fields = _fields(head)
    if "sec-websocket-key" in fields:
        _websocket(client, fields["sec-websocket-key"].encode())
        return False
    if path.startswith(DOWN):
        _send(client, size_of(path))
    elif path == EVENTS:
        _stream(client)
        return False
    else:
        _swallow(client, int(fields.get("content-length", "0")) - come)
        if path == SLOW:
            time.sleep(random.uniform(SLOWEST - 1, SLOWEST))
        client.sendall(_ok(len(MODERN)) + MODERN)
    return True


def _fields(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines)
    return {name.lower(): value.strip() for name, _, value in pairs}


def _ok(length: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode()


def _send(client: socket.socket, size: int) -> None:
    client.sendall(_ok(size))
    for _ in range(size // MEBIBYTE):
        client.sendall(BLOCK)
    client.sendall(BLOCK[: size % MEBIBYTE])


def _swallow(client: socket.socket, size: int) -> None:
    buffer = bytearray(MEBIBYTE)
    while size > 0:
        come = client.recv_into(buffer, min(size, MEBIBYTE))
        if not come:
            raise ConnectionError("the body was cut")
        size -= come


def _stream(client: socket.socket) -> None:
    """Send one event, and then nothing until the client leaves."""
    client.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%s\r\n" % (len(event("modern")), event("modern"))
    )
    while client.recv(4096):
        pass


def _websocket(client: socket.socket, key: bytes) -> None:
    """Accept, send one text message, and then only answer pings and the close."""
    accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
    client.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n\x81\x06modern"
    )
    while frame := client.recv(4096):
        if frame[0] == PING:
            length = frame[1] & 0x7F
            mask, data = frame[2:6], frame[6 : 6 + length]
            client.sendall(PONG + bytes([length]) + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
        else:
            client.sendall(CLOSE + b"\0")
            return


if __name__ == "__main__":
    main()
