"""Memory of one process: what is resident now, and the most that was since it was last asked to forget."""

from __future__ import annotations

from pathlib import Path

from bench.processes import BenchError

FORGET_PEAK = "5"
"""Resets `VmHWM` to what is resident now (proc_pid_clear_refs(5))."""


def resident(pid: int) -> int:
    """Return the resident bytes of a process."""
    return _status(pid, "VmRSS")


def peak(pid: int) -> int:
    """Return the most bytes that were resident since `forget_peak`."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Start the peak anew."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text(FORGET_PEAK)
    except OSError as exc:
        raise BenchError(f"the peak of memory cannot be reset: {exc}") from exc


def _status(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    if not values:
        raise BenchError(f"process {pid} has no {field}")
    return int(values[0]) * 1024
