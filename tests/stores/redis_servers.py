"""Real Redis servers for tests: started on a free port or a socket, killed, stopped, started again."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from programs import require
from servers import DEADLINE, free_port

QUIET = ("--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning")


class RedisServer:
    """One server in a folder of its own; what it holds is lost when it ends.

    `options` are those of redis-server; `tls` a `trustme` authority: then it speaks nothing else.
    """

    def __init__(self, *options, tls=None):
        self.program = require("redis-server")
        self._folder = tempfile.TemporaryDirectory(prefix="redis")
        self.folder = Path(self._folder.name)
        self.port = free_port()
        self.socket = self.folder / "redis.sock"
        self.options = [
            *QUIET,
            "--dir",
            str(self.folder),
            "--unixsocket",
            str(self.socket),
            "--bind",
            "127.0.0.1",
        ]
        self.options += ["--port", "0", *self._secure(tls)] if tls else ["--port", str(self.port)]
        self.options += options
        self.child = None
        self.start()

    def _secure(self, authority):
        authority.cert_pem.write_to_path(self.folder / "ca.pem")
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(self.folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(self.folder / "cert.pem")
        files = {"cert": "cert.pem", "key": "key.pem", "ca-cert": "ca.pem"}
        named = [(f"--tls-{name}-file", str(self.folder / file)) for name, file in files.items()]
        return [
            "--tls-port",
            str(self.port),
            "--tls-auth-clients",
            "no",
            *(o for pair in named for o in pair),
        ]

    def url(self, database=0, user="", **options):
        patient = {"socket_timeout": 20, "socket_connect_timeout": 20}
        query = "&".join(f"{n}={v}" for n, v in {**patient, **options}.items())
        return f"redis://{user}127.0.0.1:{self.port}/{database}?{query}"

    def start(self):
        """Start, and return when it answers."""
        with (self.folder / "log").open("ab") as log:
            self.child = subprocess.Popen([self.program, *self.options], stdout=log, stderr=log)
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.connect(str(self.socket))
                client.sendall(b"PING\r\n")
                if client.recv(64).startswith((b"+PONG", b"-NOAUTH")):  # and not -LOADING
                    return
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(0.02)
                break
        raise RuntimeError(f"redis-server did not start:\n{(self.folder / 'log').read_text()}")

    def kill(self):
        """End it at once, as a crash would; its data is gone."""
        self.child.kill()
        self.child.wait()
        self.socket.unlink(missing_ok=True)

    @contextmanager
    def stopped(self):
        """Let it hang: it accepts connections and says nothing."""
        os.kill(self.child.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.child.pid, signal.SIGCONT)

    def close(self):
        self.kill()
        self._folder.cleanup()
