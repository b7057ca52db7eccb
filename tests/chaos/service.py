"""What both sides do with a request, so that they can be told apart and counted: note it, then echo it.

Used by the modern program and by the strangled one; nothing of strangle_mw is imported here.
"""

import hashlib
import json
import os


class Journal:
    """A file with one line for each request that was carried out, whatever became of its answer.

    A line is one `write` to a file that is opened for appending: whole, also from several processes, and kept
    when the process is killed right after it.
    """

    def __init__(self, path, side):
        self._side = side
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def execute(self, method, path, user, body, **more):
        """Carry out one request and return the body of its answer."""
        os.write(self._file, f"{method} {path} {user}\n".encode())
        told = {"side": self._side, "method": method, "path": path, "user": user}
        return json.dumps({**told, "digest": digest(body), **more}).encode()


def digest(body):
    return hashlib.sha256(body).hexdigest()


def read_journal(path):
    """Return what was carried out: (method, path, user)."""
    return [tuple(line.split(" ")) for line in path.read_text().splitlines()] if path.exists() else []
