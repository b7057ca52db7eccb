"""Both ends of a forwarded WebSocket: servers in front, upstreams behind, and frames on raw sockets."""

import asyncio
import base64
import hashlib
import json
import os
import queue
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed

from servers import DEADLINE, free_port, stop, wait_for

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


@dataclass(frozen=True)
class Server:
    """How a server is started, and what of a WebSocket it can pass on (docs/websocket.md)."""

    command: str
    denial: bool = True  # can refuse a handshake with any answer
    accept_headers: bool = True
    client_code: bool = True  # tells the code of the client's close frame
    client_reason: bool = True
    no_status: bool = True  # tells a close frame without a code from a lost connection
    any_code: bool = True  # can send any close code, not 1000 and 3000-4999 alone
    reason: bool = True  # can send a reason
    empty: bool = True  # can send an empty message
    params: bool = True  # hands on `;params`
    duplicates: bool = True  # keeps headers of one name apart
    repeated: bool = True  # can send a name twice in a refusal


SERVERS = {
    "uvicorn-sansio": Server("uvicorn --ws websockets-sansio --no-proxy-headers --log-level warning --port {port} {app}"),
    "uvicorn-wsproto": Server("uvicorn --ws wsproto --no-proxy-headers --log-level warning --port {port} {app}"),
    "hypercorn": Server("hypercorn --bind 127.0.0.1:{port} {app}", client_code=False, no_status=False),
    "daphne": Server("daphne -v 0 -b 127.0.0.1 -p {port} {app}", denial=False, accept_headers=False, client_reason=False, no_status=False, any_code=False, reason=False, empty=False, params=False, duplicates=False),
    "granian": Server("granian --interface asgi --host 127.0.0.1 --port {port} {app}", accept_headers=False, client_reason=False, no_status=False, repeated=False),
    "gunicorn": Server("gunicorn -k asgi --no-control-socket -b 127.0.0.1:{port} {app}", denial=False, client_reason=False),
}  # fmt: skip


@contextmanager
def serve(name, **environment):
    """Run a server with `websocket_app:asgi`; yields its port, shows its log if the test fails."""
    port = free_port()
    command = SERVERS[name].command.format(port=port, app="websocket_app:asgi").split()
    folder = Path(__file__).parent
    folders = os.pathsep.join(map(str, (folder, folder.parent)))
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", *command],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": folders, **environment},
            start_new_session=True,
        )
        try:
            wait_for(port, child, log)
            yield port
        finally:
            stop(child)
            log.seek(0)
            sys.stdout.write(f"--- {name}\n{log.read()}")


def wait_for_entry(entries, target):
    while True:
        found, entry = entries.get(timeout=DEADLINE)
        if found == target:
            return entry


class Upstream:
    """A real WebSocket server in a thread; the last segment of the path says what it does."""

    def __init__(self):
        self._ends = queue.Queue()
        self.open = threading.Semaphore(0)
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(DEADLINE)
        self.address = f"http://127.0.0.1:{self.port}"

    async def _run(self, ready):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with serve_websockets(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._request,
            process_response=self._response,
            select_subprotocol=lambda _, offered: next((o for o in offered if o.startswith("v")), None),
            max_size=2**25,
            compression="deflate",
        ) as server:
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._stop.wait()

    def close(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE)

    @staticmethod
    def _request(connection, request):
        path, _, query = request.path.partition("?")
        if path.endswith("/deny"):
            response = connection.respond(int(query), "denied: é\n")
            response.headers["X-Why"] = "because"
            response.headers["Set-Cookie"] = "a=1"
            response.headers["Set-Cookie"] = "b=2"
            return response
        return None

    @staticmethod
    def _response(_, request, response):
        if "/cookies" in request.path:
            response.headers["Set-Cookie"] = "a=1; Path=/"
            response.headers["Set-Cookie"] = "b=2"
            response.headers["X-Up"] = "1"

    async def _serve(self, connection):
        path, _, query = connection.request.path.partition("?")
        name, given = path.rpartition("/")[2], {k: v[0] for k, v in parse_qs(query).items()}
        self.open.release()
        try:
            await getattr(self, f"do_{name}", self.do_told)(connection, given)
            await connection.wait_closed()
        except ConnectionClosed:
            pass
        self._ends.put((connection.request.path, (connection.close_code, connection.close_reason)))

    def end(self, target):
        """Wait for the end of the connection that asked for this; return the code and reason that came."""
        return wait_for_entry(self._ends, target)

    async def do_told(self, connection, _):
        request = connection.request
        headers = [[n.lower(), v] for n, v in request.headers.raw_items()]
        await connection.send(json.dumps({"target": request.path, "headers": headers}))

    async def do_echo(self, connection, _):
        async for message in connection:
            await connection.send(message)

    async def do_fragments(self, connection, given):
        size = int(given["size"])
        await connection.send("é" * size for _ in range(3))
        await connection.send(b"\xff" * size for _ in range(3))

    async def do_count(self, connection, given):
        for number in range(int(given["to"])):
            await connection.send(str(number) if number % 2 else str(number).encode())

    async def do_sum(self, connection, given):
        """Answer the digest of so many messages, with their kinds, in order."""
        digest = hashlib.sha256()
        for _ in range(int(given["to"])):
            message = await connection.recv()
            digest.update(b"t" + message.encode() if isinstance(message, str) else b"b" + message)
        await connection.send(digest.hexdigest())

    async def do_close(self, connection, given):
        if "code" in given:
            await connection.close(int(given["code"]), given.get("reason", ""))
        else:
            await connection.close(None)

    async def do_ping(self, connection, _):
        latency = await (await connection.ping(b"from upstream"))
        await connection.send(f"pong after {latency >= 0}")

    async def do_big(self, connection, given):
        await connection.send(b"x" * int(given["size"]))

    async def do_drop(self, connection, _):
        connection.transport.abort()


class RawUpstream:
    """Sends exactly what the last segment of the path asks for (`SCRIPTS`), on raw sockets."""

    def __init__(self):
        self._seen = queue.Queue()
        self._arrived = queue.Queue()
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._over.set()
        self._listener.close()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        with sock:
            sock.settimeout(DEADLINE)
            head = read_head(sock)
            target = head.split(b" ")[1].decode()
            self._arrived.put((target, None))
            name = target.partition("?")[0].rpartition("/")[2]
            answer, cut = SCRIPTS[name](head)
            sock.sendall(answer)
            if cut == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif cut == "deaf":
                self._over.wait(DEADLINE)
            elif cut == "wait":
                self._watch(sock, target, patient=name in ("stays", "stall"))

    def _watch(self, sock, target, *, patient):
        """Note what comes, until the other side closes or is lost."""
        seen = []
        try:
            while patient or not seen or seen[-1][0] != CLOSE:
                seen.append(read_frame(sock))
        except (EOFError, OSError):
            pass
        self._seen.put((target, seen))

    def arrived(self, target):
        """Wait for the handshake that asks for this."""
        wait_for_entry(self._arrived, target)

    def seen(self, target):
        """Wait for the end of the connection that asked for this; return the frames that came."""
        return wait_for_entry(self._seen, target)


def switch(head, *more):
    key = next(
        line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
    )
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
    fields = [b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + accept, *more]
    return b"HTTP/1.1 101 Switching Protocols\r\n" + b"\r\n".join(fields) + b"\r\n\r\n"


def frame(opcode, payload=b"", *, fin=True, masked=False, reserved=0):
    """Write one frame (RFC 6455 section 5.2)."""
    mask = b"\x01\x02\x03\x04" if masked else b""
    size = len(payload)
    kind = size if size < 126 else 126 if size < 65_536 else 127
    length = b"" if kind < 126 else struct.pack("!H" if kind == 126 else "!Q", size)
    if masked:
        payload = bytes(b ^ mask[at % 4] for at, b in enumerate(payload))
    return bytes([fin << 7 | reserved << 4 | opcode, masked << 7 | kind]) + length + mask + payload


def closing(code, reason=b""):
    return struct.pack("!H", code) + reason


def read_exactly(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_frame(sock):
    """Read one frame: its opcode, FIN bit and unmasked payload."""
    first, second = read_exactly(sock, 2)
    size = second & 127
    if size > 125:
        size = int.from_bytes(read_exactly(sock, 2 if size == 126 else 8), "big")
    mask = read_exactly(sock, 4) if second & 128 else b"\0\0\0\0"
    payload = read_exactly(sock, size)
    return first & 15, bool(first & 128), bytes(b ^ mask[at % 4] for at, b in enumerate(payload))


def read_head(sock):
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += read_exactly(sock, 1)
    return data


def shake_hands(port, target, *fields):
    """Open a WebSocket on a raw socket; returns the socket and the server's head."""
    sock = socket.create_connection(("127.0.0.1", int(port)), DEADLINE)
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: h.example",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *fields,
    ]
    sock.sendall("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
    return sock, read_head(sock)


SCRIPTS = {
    # Answers to the handshake that are none.
    "stall": lambda head: (b"", "wait"),
    "nothing": lambda head: (b"", ""),
    "garbage": lambda head: (b"\x00\x01 not http\r\n\r\n", ""),
    "wrongkey": lambda head: (switch(head.replace(b"ec-websocket-key: ", b"ec-websocket-key: x")), "wait"),
    "noupgrade": lambda head: (switch(head).replace(b"Upgrade: websocket\r\n", b""), "wait"),
    "unasked": lambda head: (switch(head, b"Sec-WebSocket-Protocol: v9"), "wait"),
    "extension": lambda head: (switch(head, b"Sec-WebSocket-Extensions: permessage-deflate"), "wait"),
    "cutreply": lambda head: (switch(head)[:60], "reset"),
    "interim": lambda head: (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "wait"),
    # Refusals.
    "ignored": lambda head: (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nKeep-Alive: 5\r\nX-A: \r\n\r\n5\r\nhello\r\n0\r\n\r\n", "wait"),
    "untilclose": lambda head: (b"HTTP/1.1 403 No\r\nConnection: close\r\n\r\nuntil the end", ""),
    "empty": lambda head: (b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 99\r\nContent-Length: 0\r\n\r\n", "wait"),
    "twoframings": lambda head: (b"HTTP/1.1 403 No\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", "wait"),
    # After the handshake.
    "together": lambda head: (switch(head) + frame(TEXT, b"at once") + frame(BINARY, b"\x00") + frame(CLOSE, closing(4001, b"soon")), "wait"),
    "reset": lambda head: (switch(head) + frame(TEXT, b"last words"), "reset"),
    "end": lambda head: (switch(head), ""),
    "nocode": lambda head: (switch(head) + frame(CLOSE), "wait"),
    "stays": lambda head: (switch(head) + frame(CLOSE, closing(1001, b"but stays")), "wait"),
    "split": lambda head: (switch(head) + frame(TEXT, b"\xc3", fin=False) + frame(PING, b"p") + frame(CONT, b"\xa9!", fin=False) + frame(CONT, b"") + frame(CLOSE, closing(1000)), "wait"),
    "badutf8": lambda head: (switch(head) + frame(TEXT, b"\xff\xfe"), "wait"),
    "reserved": lambda head: (switch(head) + frame(TEXT, b"x", reserved=4), "wait"),
    "masked": lambda head: (switch(head) + frame(TEXT, b"x", masked=True), "wait"),
    "opcode": lambda head: (switch(head) + frame(3, b"x"), "wait"),
    "orphan": lambda head: (switch(head) + frame(CONT, b"x"), "wait"),
    "badclose": lambda head: (switch(head) + frame(CLOSE, closing(1005)), "wait"),
    "toobig": lambda head: (switch(head) + frame(BINARY, b"")[:1] + b"\x7f" + struct.pack("!Q", 2**24 + 1), "wait"),
    "quiet": lambda head: (switch(head), "wait"),
    "deaf": lambda head: (switch(head), "deaf"),
}  # fmt: skip
