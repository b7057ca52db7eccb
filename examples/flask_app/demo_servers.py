"""The processes of the demo: two gunicorns, a Lambda function, the command `strangle`; none outlives it.

What they are started for is in `demo.py`, how gunicorn is set up in `gunicorn_conf.py`.
"""

from __future__ import annotations

import http.client
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from examples.flask_app.demo_users import HOST, PATIENCE, ask
else:  # a folder of scripts is no package when one of them is run
    from demo_users import HOST, PATIENCE, ask

T = TypeVar("T")

HERE = Path(__file__).resolve().parent
STRANGLE = Path(sys.executable).with_name("strangle")


class DemoError(Exception):
    """The demo cannot go on; the message is for the person who started it."""


@dataclass(slots=True)
class Signals:
    """Turns SIGINT, SIGTERM and SIGHUP into SystemExit, but never while they are held back."""

    held: bool = False
    pending: int = 0

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.receive)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # it is ignored under nohup
            signal.signal(signal.SIGHUP, self.receive)

    def receive(self, number: int, _frame: FrameType | None) -> None:
        if self.pending:  # the first one is on its way out already: nothing shall stop it
            return
        self.pending = number
        if not self.held:
            self.check()

    def check(self) -> None:
        """Raise what was held back, or what Python swallowed because a finalizer was running."""
        if self.pending:
            raise SystemExit(128 + self.pending)

    @contextmanager
    def delayed(self) -> Iterator[None]:
        """Let a child be born and noted down in one go: else Ctrl-C between the two leaves an orphan."""
        self.held = True
        try:
            yield
        finally:
            self.held = False
        self.check()


@dataclass(frozen=True, slots=True)
class Child:
    """One server, with `size` workers; a gunicorn if it is nothing else."""

    name: str
    port: int
    log: Path
    process: subprocess.Popen[bytes]
    size: int

    def workers(self) -> dict[int, str]:
        """Ask so often at once that each worker has its turn; return their pids, and which table each has."""
        with ThreadPoolExecutor(4 * self.size) as pool:
            answers = list(pool.map(lambda _: self.health(), range(4 * self.size)))
        return {int(found["pid"]): str(found.get("table", "")) for found in answers if "pid" in found}

    def health(self) -> dict[str, Any]:
        """Ask one worker how it is; nothing as long as it does not answer."""
        with suppress(OSError, http.client.HTTPException):
            return ask(self.port, "GET", "/healthz", timeout=2.0).json()
        return {}

    def ready(self) -> bool:
        return len(self.workers()) == self.size

    def last_lines(self, count: int = 15) -> str:
        return "\n".join(f"    {line}" for line in self.text().splitlines()[-count:])

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@dataclass(frozen=True, slots=True)
class Function(Child):
    """A Lambda function under `strangle lambda-dev`, which says in its log where it listens, and when."""

    def ready(self) -> bool:
        return "| ready, " in self.text()

    def told_port(self) -> int:
        found = re.search(r"^lambda-dev listens on http://[^:]+:(\d+);", self.text(), re.MULTILINE)
        return int(found[1]) if found else 0


@dataclass(slots=True)
class Children:
    """The processes of the demo."""

    folder: Path
    signals: Signals
    all: list[Child] = field(default_factory=list)

    def stop(self) -> None:
        """End all that are left; from here on no signal interrupts any more."""
        self.signals.held = True
        for child in self.all:
            child.process.terminate()
        while self.all:
            end(self.all[-1].process)
            self.all.pop()

    def start(
        self,
        name: str,
        module: str,
        place: socket.socket | None = None,
        *,
        size: int = 1,
        **environment: str,
    ) -> Child:
        """Serve `module:app` on a socket that is bound already, so that nobody can take the port."""
        log = self.folder / f"{name}.log"
        command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn_conf.py", "-w", str(size)]
        with self.signals.delayed(), place or bind() as bound, log.open("ab") as output:
            process = subprocess.Popen(
                [*command, "-b", f"fd://{bound.fileno()}", f"{module}:app"],
                cwd=HERE,
                env=clean_environment() | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[bound.fileno()],
                # Ctrl-C in a terminal goes to the whole group: the demo alone shall get it and end the rest.
                start_new_session=True,
            )
            child = Child(name, bound.getsockname()[1], log, process, size)
            self.all.append(child)
        return child

    def start_function(self, name: str, handler: str, *, size: int = 1) -> Function:
        """Run a Lambda function as its developer would: `handler` as in `strangle lambda-dev handler`."""
        log = self.folder / f"{name}.log"
        with self.signals.delayed(), log.open("ab") as output:
            process = subprocess.Popen(
                [STRANGLE, "lambda-dev", handler, "--port", "0", "--workers", str(size)],
                cwd=HERE,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            child = Function(name, 0, log, process, size)
            self.all.append(child)
        port = self.wait_for(child.told_port, f"{name} did not say where it listens")
        found = replace(child, port=port)
        self.all[self.all.index(child)] = found
        return found

    def kill(self, child: Child) -> socket.socket:
        """End a server and its workers in the middle of what they do; return its port, which they left."""
        with self.signals.delayed():
            os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()
            self.all.remove(child)
        return self.wait_for(partial(bind_if_free, child.port), f"{child.name} did not leave its port")

    def check(self) -> None:
        """Raise if a child has died, or somebody wants to leave."""
        self.signals.check()
        for child in self.all:
            if (code := child.process.poll()) is not None:
                reason = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
                raise DemoError(f"{child.name} died ({reason}). Its log ends with:\n{child.last_lines()}")

    def wait_for(self, get: Callable[[], T | None], otherwise: str) -> T:
        """Ask until the answer is neither nothing nor false, and return it."""
        deadline = time.monotonic() + PATIENCE
        while not (found := get()):
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(f"{otherwise} within {PATIENCE:.0f} s.")
            time.sleep(0.02)
        return found

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command `strangle` in the folder of the table; it has to succeed."""
        # It does not take long, and Ctrl-C may wait: else an orphan would go on changing the store.
        with self.signals.delayed(), in_time(f"strangle {arguments[0]}"):
            done = subprocess.run(
                [STRANGLE, *arguments],
                cwd=self.folder,
                env=clean_environment() | {"PYTHONIOENCODING": "utf-8"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                timeout=PATIENCE,
                start_new_session=True,
                check=False,
            )
        if done.returncode:
            raise DemoError(f"strangle {shlex.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done


@contextmanager
def in_time(what: str) -> Iterator[None]:
    try:
        yield
    except subprocess.TimeoutExpired:
        raise DemoError(f"{what} did not end within {PATIENCE:.0f} s.") from None


def clean_environment() -> dict[str, str]:
    """Leave out what would change gunicorn, the table or the function behind the demo's back."""
    return {
        name: value
        for name, value in os.environ.items()
        if name != "GUNICORN_CMD_ARGS" and not name.startswith(("STRANGLE_", "AWS_"))
    }


def end(process: subprocess.Popen[bytes], grace: float = 5.0) -> None:
    """Wait for a process that was asked to go; then make sure that nobody of its session is left."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def bind(port: int = 0) -> socket.socket:
    """Take a port, any free one for 0; connections to it are refused until somebody listens."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
    except OSError:
        bound.close()
        raise
    return bound


def bind_if_free(port: int) -> socket.socket | None:
    try:
        return bind(port)
    except OSError:
        return None


def listen(port: int = 0) -> socket.socket:
    """Open a listening socket; port 0 means any free one."""
    listener = bind(port)
    try:
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
