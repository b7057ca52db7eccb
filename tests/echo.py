"""An upstream that says what it received, to the byte; threads and sockets only, so that nothing tidies up."""

from __future__ import annotations

import hashlib
import json
import socket
import threading


class Echo:
    """Answers every request with JSON: `line`, `headers` as sent, `length` and `sha256` of the body.

    Some paths, wherever they stand at the end of the target, answer otherwise: see `_special`.
    """

    def __init__(self, port=0):
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.requests = 0
        self.arrived = threading.Semaphore(0)
        self.connections = 0
        self.gate = threading.Event()
        self.client_left = threading.Event()
        self.last = None  # what the last whole request was, as it is told in JSON
        self.heads = 0  # requests whose head has come, whatever became of them
        self.left = 0  # clients that left while an answer had no end
        self.cuts = 0  # requests whose body ended early
        self._changed = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()
        self.gate.set()

    def wait(self, condition, seconds):
        """Wait until something that the counters tell is so; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(condition, seconds)

    def _count(self, counter, **more):
        with self._changed:
            setattr(self, counter, getattr(self, counter) + 1)
            for name, value in more.items():
                setattr(self, name, value)
            self._changed.notify_all()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._count("connections")
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        with sock:
            data = b""
            try:
                while True:
                    while b"\r\n\r\n" not in data:
                        more = sock.recv(65536)
                        if not more:
                            return
                        data += more
                    head, _, data = data.partition(b"\r\n\r\n")
                    data = self._answer(sock, head, data)
            except (OSError, EOFError):
                return

    def _answer(self, sock, head, data):
        line, *fields = head.split(b"\r\n")
        headers = [
            [n.decode("latin-1"), v.strip().decode("latin-1")]
            for n, _, v in (f.partition(b":") for f in fields)
        ]
        target = line.split(b" ")[1].partition(b"?")[0]
        if target.endswith(b"/refuse"):
            self._refuse(sock)
        self._count("heads")
        try:
            body, data = self._body(sock, {n.lower(): v for n, v in headers}, data)
        except (EOFError, OSError):
            self._count("cuts")
            raise
        told = {
            "line": line.decode("latin-1"),
            "headers": headers,
            "length": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        self._count("requests", last=told)
        self.arrived.release()
        if self._special(sock, line.split(b" ")[0], target.rpartition(b"/")[2], body):
            return data
        text = json.dumps(told).encode()
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
            text
        )
        sock.sendall(answer + (b"" if line.startswith(b"HEAD ") else text))
        return data

    def _body(self, sock, fields, data):
        if fields.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while True:
                data = self._fill(sock, data, lambda d: b"\r\n" in d)
                size, _, data = data.partition(b"\r\n")
                length = int(size, 16)
                data = self._fill(sock, data, lambda d, n=length: len(d) >= n + 2)
                body, data = body + data[:length], data[length + 2 :]
                if length == 0:
                    return body, data
        length = int(fields.get("content-length", 0))
        data = self._fill(sock, data, lambda d: len(d) >= length)
        return data[:length], data[length:]

    @staticmethod
    def _fill(sock, data, enough):
        while not enough(data):
            more = sock.recv(65536)
            if not more:
                raise EOFError
            data += more
        return data

    def _refuse(self, sock):
        """Answer before the body, and take no more of it; the answer must not be lost in a reset."""
        sock.sendall(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno\n")
        sock.shutdown(socket.SHUT_WR)
        self._count("heads")
        while sock.recv(65536):
            pass
        raise EOFError

    def _special(self, sock, method, name, body):
        answers = {
            b"cookies": b"HTTP/1.1 201 Made\r\nSet-Cookie: a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT\r\nX-Empty:\r\n"
            b"Set-Cookie: b=2\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\nDate: then\r\nServer: echo\r\n"
            b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nok",
            b"none": b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
            b"unchanged": b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n',
            b"chunked": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
            b"early": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
            b"noreason": b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n",
        }
        cut = {
            b"cutlength": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf",
            b"cutchunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            b"cuthead": b"HTTP/1.1 200 OK\r\nContent-Le",
            b"nothing": b"",
            b"garbage": b"\x00\x01 not http\r\n\r\n",
            b"untilclose": b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
            b"twolengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            b"switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        }
        if name.startswith(b"head-"):  # an answer whose head has that many bytes
            answers[name] = _long_head(int(name[5:]))
        if name in answers:
            text = answers[name]
            sock.sendall(text.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == b"HEAD" else text)
            return True
        if name in cut:
            sock.sendall(cut[name])
            sock.shutdown(socket.SHUT_RDWR)
            raise EOFError
        if name == b"stall":
            self._wait_for_end(sock)
        if name == b"events":
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            self._wait_for_end(sock)
        if name == b"gated":  # the second event comes when the test has seen the first
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            self.gate.wait()
            sock.sendall(b"data: 2\n\n")
            raise EOFError
        if name == b"ticks":
            self._tick(sock)
        if name == b"big":
            sock.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3000000\r\n\r\n"
                + b"x" * 3_000_000
            )
            return True
        return False

    def _tick(self, sock):
        """Send events until nobody takes them."""
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        sock.settimeout(0.02)
        while True:
            sock.sendall(b"data: 1\n\n")
            try:
                self._wait_for_end(sock)
            except TimeoutError:
                continue

    def _wait_for_end(self, sock):
        """Send nothing more; note when the other side gives up."""
        try:
            gone = sock.recv(1) == b""
        except TimeoutError:
            raise
        except OSError:
            gone = True
        if gone:
            self.client_left.set()
            self._count("left")
        raise EOFError


def _long_head(size):
    start, end = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", b"\r\n"
    left = size - len(start) - len(end)
    fields = []
    while left:
        length = left if left < 4000 else 2000
        fields.append(b"X-Long: " + b"l" * (length - 10) + b"\r\n")
        left -= length
    return start + b"".join(fields) + end + b"ok"
