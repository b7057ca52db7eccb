"""What the load goes through: the modern service and a server with the strangled app, as real processes."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from chaos.load import CONNECTIONS
from chaos.service import read_journal
from servers import free_port, request, talk, wait_for
from strangle_mw.stores import open_store

HERE = Path(__file__).parent
SOURCES = os.pathsep.join([str(HERE.parent), str(HERE.parents[1])])

# A connection that a server closes just when the client sends on it would be the client's trouble. One worker
# of gunicorn would take all connections of the load, so none may have more than a little over half of them.
FRONTS = {
    "gunicorn": ["gunicorn", "-k", "gthread", "-w", "2", "--threads", "4", "--keep-alive", "75", "--worker-connections", str(CONNECTIONS // 2 + 4), "--no-control-socket", "-b", "127.0.0.1:{port}", "chaos.strangled:wsgi"],
    "uvicorn": ["uvicorn", "--loop", "asyncio", "--timeout-keep-alive", "75", "--log-level", "warning", "--port", "{port}", "chaos.strangled:asgi"],
}  # fmt: skip
WORKERS = {"gunicorn": 2, "uvicorn": 1}
PLACES = {"gunicorn": 2, "uvicorn": 64}
"""Half of gunicorn's threads may wait for the modern side; a coroutine that waits keeps nobody else."""


class Modern:
    """The modern service: started, killed and stopped on one port."""

    def __init__(self, journal):
        self._journal = journal
        # Bound, never listening: while the service is down its port stays free, and refuses connections.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port = self._place.getsockname()[1]
        self._child = None
        self.start()

    def start(self):
        command = [sys.executable, str(HERE / "modern.py"), str(self.port), str(self._journal)]
        self._child = subprocess.Popen(command)

    def kill(self):
        self._child.kill()
        self._child.wait()

    def stop(self):
        os.kill(self._child.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self._child.pid, signal.SIGCONT)

    def answer(self, mode):
        """Say how it answers from now on; it must be up."""
        assert talk(self.port, request("GET", f"/control/{mode}")).body == b"{}"

    def close(self):
        self.kill()
        self._place.close()


class Stand:
    """The modern service, and one kind of server before it; `folder` holds journals, log and store."""

    def __init__(self, kind, folder):
        self.kind = kind
        self.folder = folder
        self.port = free_port()
        self.store = f"sqlite:///{folder}/store.db?timeout=20"
        self._log = folder / "log"
        self.modern = Modern(folder / "modern")
        environment = {
            "PYTHONPATH": SOURCES,
            "STRANGLE_TEST_UPSTREAM": f"http://127.0.0.1:{self.modern.port}",
            "STRANGLE_TEST_FOLDER": str(folder),
            "STRANGLE_TEST_PLACES": str(PLACES[kind]),
            "STRANGLE_TEST_STORE": self.store,
        }
        command = [part.format(port=self.port) for part in FRONTS[kind]]
        with self._log.open("w") as log:
            self._front = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", *command],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def __enter__(self):
        try:
            with self._log.open() as log:
                wait_for(self.port, self._front, log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        """End the server gracefully, so that it stores what it has counted, and the service at once."""
        self._front.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._front.wait(5)
        with suppress(ProcessLookupError):
            os.killpg(self._front.pid, signal.SIGKILL)
        self._front.wait()
        self.modern.close()
        sys.stdout.write(f"--- {self.kind}\n{self.log}")

    @property
    def alive(self):
        return self._front.poll() is None

    @property
    def log(self):
        return self._log.read_text()

    def open_files(self, pids):
        """Count what the server's processes have open; 0 where the system does not tell."""
        return sum(len(list(Path(f"/proc/{pid}/fd").glob("*"))) for pid in pids)

    def executed(self, side):
        """Return what one side has carried out: (method, path, user)."""
        return read_journal(self.folder / side)

    def stored(self):
        """Return the counters and the events that the server has stored."""
        store = open_store(self.store)
        try:
            return store.counts(), store.events(1000)
        finally:
            store.close()
