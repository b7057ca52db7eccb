"""Load for the live tests: threads that ask on kept connections, and keep every answer that is not a 200."""

import http.client
import threading
import time
from contextlib import contextmanager


class Load:
    """Asks one path from several threads until it is stopped."""

    def __init__(self, port, path, threads=3):
        self.port = port
        self.path = path
        self.answers = 0
        self.failures = []
        self.sides = set()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        while not self._stop.is_set():
            try:
                connection.request("GET", self.path)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException) as exc:
                self.failures.append(repr(exc))
                connection.close()
                continue
            self.answers += 1
            self.sides.add("legacy" if body.startswith(b"legacy") else "modern")
            if answer.status != 200:
                self.failures.append((answer.status, body[:200]))
        connection.close()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(20)


def ask(port, path="/m/x"):
    """Ask once on a connection of its own; return the status and which side answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, "legacy" if body.startswith(b"legacy") else "modern"
    finally:
        connection.close()


def until(condition, seconds=20.0):
    """Wait until something is so; return the seconds that took, or fail."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "it did not come about in time"
        time.sleep(0.005)
    return time.monotonic() - start


@contextmanager
def timed(label):
    start = time.monotonic()
    yield
    print(f"{label}: {time.monotonic() - start:.3f} s")
