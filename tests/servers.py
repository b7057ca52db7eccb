"""Real servers for tests: each supported WSGI and ASGI server as a child process, and raw HTTP over sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

DEADLINE = 20.0

# None may say who the client is but the socket: each server's handling of X-Forwarded-* is off.
_GUNICORN = [
    "gunicorn",
    "--forwarded-allow-ips",
    "192.0.2.1",
    "--no-control-socket",
    "-b",
    "127.0.0.1:{port}",
]
ASGI = {
    "uvicorn-httptools": ["uvicorn", "--http", "httptools", "--loop", "asyncio", "--no-proxy-headers", "--log-level", "warning", "--port", "{port}", "{module}:asgi"],
    "uvicorn-h11": ["uvicorn", "--http", "h11", "--loop", "asyncio", "--no-proxy-headers", "--log-level", "warning", "--port", "{port}", "{module}:asgi"],
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:{port}", "{module}:asgi"],
    "daphne": ["daphne", "-v", "0", "-b", "127.0.0.1", "-p", "{port}", "{module}:asgi"],
    "granian-asgi": ["granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", "{port}", "--no-ws", "{module}:asgi"],
    "gunicorn-asgi": [*_GUNICORN, "-k", "asgi", "{module}:asgi"],
}  # fmt: skip
WSGI = {
    "gunicorn-sync": [*_GUNICORN, "-k", "sync", "{module}:wsgi"],
    "gunicorn-gthread": [*_GUNICORN, "-k", "gthread", "--threads", "8", "{module}:wsgi"],
    "gunicorn-gevent": [*_GUNICORN, "-k", "gevent", "{module}:wsgi"],
    "waitress": ["waitress", "--listen", "127.0.0.1:{port}", "{module}:wsgi"],
    "cheroot": ["cheroot", "--bind", "127.0.0.1:{port}", "{module}:wsgi"],
    "granian-wsgi": ["granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", "{port}", "{module}:wsgi"],
}  # fmt: skip
SERVERS = {**ASGI, **WSGI}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@contextmanager
def serve(name, module, *, more=(), judge=None, **environment):
    """Run a server with `module:asgi` or `module:wsgi`; yields its port, shows its log if the test fails.

    `more` are further arguments. With `judge`, which looks at the log, the server is asked to end; else it is ended.
    """
    port = free_port()
    command = [part.format(port=port, module=module) for part in SERVERS[name]]
    folders = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", *command, *more],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": folders, **environment},
            start_new_session=True,
        )
        try:
            wait_for(port, child, log)
            yield port
        finally:
            stop(child, 0.3 if judge else 0)
            log.seek(0)
            text = log.read()
            sys.stdout.write(f"--- {name}\n{text}")
        if judge:
            judge(text)


def stop(child, patience=0):
    """Ask a server to end, if it is given some seconds for it; end it with its workers."""
    if patience:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(patience)  # some wait for a second, or for idle connections
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def wait_for(port, child, log):
    """Wait until the server answers: connecting is not enough, gunicorn listens before its worker runs."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        with suppress(OSError):
            talk(port, b"GET /ready HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            return
        with suppress(subprocess.TimeoutExpired):
            child.wait(0.02)
            break
    log.seek(0)
    raise RuntimeError(f"the server did not start ({child.returncode}):\n{log.read()}")


@dataclass
class Reply:
    """One answer as it came: what was read until the end of the connection or of the message."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    complete: bool
    raw: bytes = field(repr=False, default=b"")

    def header(self, name):
        return next((v for n, v in self.headers if n == name.lower()), None)

    def all(self, name):
        return [v for n, v in self.headers if n == name.lower()]

    def json(self):
        return json.loads(self.body)


def connect(port, timeout=DEADLINE):
    """Open a connection to a server of this machine."""
    return socket.create_connection(("127.0.0.1", int(port)), timeout)


def talk(port, request, timeout=DEADLINE, method=None):
    """Send raw bytes on a new connection and read one answer to its end."""
    with connect(port, timeout) as sock:
        sock.sendall(request)
        return read_reply(sock, head_only=(method or request.split(b" ")[0]) == b"HEAD")


def read_reply(sock, *, head_only=False, data=b""):
    """Read one answer, behind `data` that was read already; `complete` is False when it was cut."""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            raise ConnectionError(f"closed in the head: {data!r}")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = [(n.lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines)]
    status = int(status_line.split(" ")[1])
    if status == 100:  # the server's own answer to Expect: 100-continue
        return read_reply(sock, head_only=head_only, data=rest)
    assert status >= 200, "an interim answer of the upstream reached the client"
    fields = dict(headers)
    if head_only or status in (204, 304):
        return Reply(status, headers, rest, True, data)
    if fields.get("transfer-encoding", "").lower() == "chunked":
        body, complete = _read_chunks(sock, rest)
    elif "content-length" in fields:
        body, complete = _read_until(sock, rest, int(fields["content-length"]))
    else:
        body, complete = _read_until(sock, rest, None)
    return Reply(status, headers, body, complete, data)


def _read_until(sock, body, length):
    while length is None or len(body) < length:
        try:
            more = sock.recv(65536)
        except ConnectionResetError:
            return body, False
        if not more:
            return body, length is None
        body += more
    return body[:length], True  # cheroot takes trailers for the next request, and answers that, too


def _read_chunks(sock, data):
    body = b""
    while True:
        while b"\r\n" not in data:
            data, ok = _more(sock, data)
            if not ok:
                return body, False
        size, _, data = data.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        while len(data) < length + 2:
            data, ok = _more(sock, data)
            if not ok:
                return body + data[:length], False
        body, data = body + data[:length], data[length + 2 :]
        if length == 0:
            return body, True


def _more(sock, data):
    try:
        more = sock.recv(65536)
    except ConnectionResetError:
        more = b""
    return data + more, bool(more)


def request(method, target, headers=(), body=b"", *, host="h.example", close=True):
    """Write a request as bytes; nothing is added but Host, and Connection unless `close` is off."""
    lines = [f"{method} {target} HTTP/1.1"]
    fields = [("Host", host), *headers] if host is not None else list(headers)
    if close:
        fields.append(("Connection", "close"))
    lines += [f"{n}: {v}" for n, v in fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
