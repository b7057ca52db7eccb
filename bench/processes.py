"""Child processes: free ports, pinning, waiting for the first answer, stopping, and their CPU time."""

from __future__ import annotations

import ctypes
import http.client
import os
import resource
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPUS = {CPUS[0]}
LOAD_CPUS = set(CPUS[1:]) or SERVER_CPUS
START_SECONDS = 60.0
QUIET_SECONDS = 20.0
IDLE_CPU = 0.001
"""CPU seconds of 50 ms below which a server counts as idle: some of them look around ten times a second."""
FILES = 65_536
PR_SET_PDEATHSIG = 1


class BenchError(Exception):
    """A row that cannot be measured, with the reason."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers on a local port, and the process whose CPU time counts."""

    port: int
    pid: int
    app: int = 0
    """The process on the server's CPU, if another one is measured."""


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process: all its threads, ended ones too.

    The clock id is the one that clock_getcpuclockid(3) computes; its value is the scheduler's own sum, the
    same nanoseconds as in `/proc/PID/task/*/schedstat`.
    """
    return time.clock_gettime((~pid << 3) | 2)


def await_quiet(pid: int) -> None:
    """Wait until a process has finished what the load before left behind; at most `QUIET_SECONDS`."""
    deadline, before, now = time.monotonic() + QUIET_SECONDS, 0.0, cpu_seconds(pid)
    while now - before > IDLE_CPU and time.monotonic() < deadline:
        time.sleep(0.05)
        before, now = now, cpu_seconds(pid)


def allow_open_files() -> int:
    """Raise the limit of open files, which servers inherit, as far as it goes, and return it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def busy_seconds(cpus: set[int]) -> float:
    """Return how long these processors have worked for anyone, from `/proc/stat`."""
    wanted = {f"cpu{number}" for number in cpus}
    rows = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    ticks = sum(int(row[field]) for row in rows if row[0] in wanted for field in (1, 2, 3, 6, 7, 8))
    return ticks / os.sysconf("SC_CLK_TCK")


def only_child(pid: int) -> int:
    """Return the one child of a master process, the worker."""
    children = [entry.name for entry in Path("/proc").glob("[0-9]*") if _parent(entry) == pid]
    if len(children) != 1:
        raise BenchError(f"expected one worker under process {pid}, found {len(children)}")
    return int(children[0])


def _parent(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has just ended
        return 0


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for this process and those it starts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def child(
    command: Sequence[str], *, cpus: set[int], log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process pinned to `cpus` and stop it, with all it started, at the end."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=partial(_in_child, cpus),  # noqa: PLW1509 (the harness has one thread)
        )
    try:
        yield process
    finally:
        _stop(process)


def _in_child(cpus: set[int]) -> None:
    os.sched_setaffinity(0, cpus)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # not even a killed harness leaves servers


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def await_answer(process: subprocess.Popen[bytes], port: int, path: str, expect: bytes, log: Path) -> None:
    """Wait until the server answers `path` with 200 and the expected body; `BenchError` if it does not."""
    deadline = time.monotonic() + START_SECONDS
    while (answer := _ask(port, path)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"the server did not start: {_tail(log)}")
        time.sleep(0.02)
    if answer != (200, expect):
        raise BenchError(f"{path} was answered {answer[0]} {answer[1][:80]!r}: {_tail(log)}")


def await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the server accepts connections; `BenchError` if it does not."""
    deadline = time.monotonic() + START_SECONDS
    while not _accepts(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"the server did not start: {_tail(log)}")
        time.sleep(0.02)


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def _ask(port: int, path: str) -> tuple[int, bytes] | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (ConnectionError, http.client.BadStatusLine):
        return None
    finally:
        connection.close()


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "nothing in its log"
    missing = next((line for line in lines if line.startswith("ModuleNotFoundError")), "")
    return f"{missing} (`make bench` installs the peers)" if missing else last
