"""lambda-dev as a child process, and what it prints."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import botocore.session
from botocore.config import Config

DEADLINE = 20.0
ROOT = Path(__file__).parents[2]
START = "from strangle_mw.cli import main; main()"


class Answer:
    def __init__(self, reply):
        self.status, self.headers, self.body = reply.status, reply.headers, reply.read()

    def json(self):
        return json.loads(self.body)


class LambdaDev:
    """A running lambda-dev; `lines` is what it has printed so far."""

    def __init__(self, folder, *arguments, before="", **environment):
        self.lines = []
        self._printed = threading.Condition()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", before + START, "lambda-dev", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**inherited, **environment},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._printed:
                self.lines.append(line.rstrip("\n"))
                self._printed.notify_all()

    def until(self, text, *, times=1):
        """Wait until `text` was printed so often; returns the last line that has it."""

        def found():
            return [line for line in self.lines if text in line][times - 1 : times]

        with self._printed:
            assert self._printed.wait_for(found, DEADLINE), (text, self.lines)
            return found()[0]

    def after(self, text):
        """Wait for the line that comes behind the one that has `text`."""

        def found():
            at = next((n for n, line in enumerate(self.lines) if text in line), len(self.lines))
            return self.lines[at + 1 : at + 2]

        with self._printed:
            assert self._printed.wait_for(found, DEADLINE), (text, self.lines)
            return found()[0]

    @property
    def port(self):
        return int(self.until("lambda-dev listens on").partition(";")[0].rpartition(":")[2])

    def ask(self, method, path, body=b"", headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request(method, path, body, dict(headers))
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def invoke(self, event=None, name="app", query="", headers=()):
        body = event if isinstance(event, bytes) else json.dumps(event or {}).encode()
        return self.ask("POST", f"/2015-03-31/functions/{name}/invocations{query}", body, headers)

    def client(self):
        """Return botocore's own client; the caller closes it."""
        return botocore.session.Session().create_client(
            "lambda",
            region_name="eu-west-1",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}, read_timeout=DEADLINE),
        )

    def end(self, number=signal.SIGTERM):
        """Send a signal; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(DEADLINE)
        self._reader.join()
        self.process.stdout.close()
        return code


@contextmanager
def running(folder, *arguments, code=None, before="", **environment):
    """Run lambda-dev in a folder with some files in it; it is killed if the test fails to end it."""
    for name, text in (code or {}).items():
        (Path(folder) / name).write_text(text)
    dev = LambdaDev(folder, *arguments, "--port", "0", before=before, **environment)
    try:
        yield dev
    finally:
        dev.end()
        sys.stdout.write("\n".join(["--- lambda-dev", *dev.lines, ""]))


def alive(pid):
    """Is there such a process, one that has not ended?"""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"
