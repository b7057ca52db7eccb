"""Becomes `python -m awslambdaric HANDLER`, and sees to it that the process does not outlive lambda-dev.

Run as a file, by `worker`: it imports nothing of the library, and the function's process gets a fresh
interpreter. A function that hangs would else live on when lambda-dev is killed.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Ask for a SIGKILL at the parent's death (prctl(2), PR_SET_PDEATHSIG; execve keeps it), then exec."""
    parent, handler = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        import ctypes
        import signal

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before it could be watched
        return
    os.execv(sys.executable, [sys.executable, "-m", "awslambdaric", handler])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
