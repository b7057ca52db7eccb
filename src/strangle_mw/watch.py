"""Tells when a table file has changed, by its fingerprint; what it holds is `config`'s business.

No thread and no notification of the operating system: those know nothing of a file that is replaced through
a link, as Kubernetes does with a ConfigMap, and do not survive a fork.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

Fingerprint = tuple[str, int, int, int]
"""Real path, inode, size, modification time in nanoseconds."""

SETTLED = 0.1
"""Seconds that a file must have been left alone: an editor may still be writing it."""


class FileWatch:
    """Compares a file with what it was when it was read last."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._seen = self.fingerprint()

    def fingerprint(self) -> Fingerprint | None:
        """Return what identifies the file's content, None if there is no such file."""
        try:
            real = os.path.realpath(self._path)
            found = Path(real).stat()
        except OSError:
            return None
        return real, found.st_ino, found.st_size, found.st_mtime_ns

    def changed(self) -> bool:
        """Tell whether the file is another one than `accept` has noted."""
        return self.fingerprint() != self._seen

    def settled(self) -> bool:
        """Tell whether nobody has written the file just now."""
        found = self.fingerprint()
        return found is None or not 0 <= time() - found[3] / 1e9 < SETTLED

    def accept(self, fingerprint: Fingerprint | None) -> None:
        """Note the state of the file that was read, whether it was of use or not."""
        self._seen = fingerprint
