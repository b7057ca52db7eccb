"""Has the code changed? Looks at the Python files below a folder; who is told is the caller's business."""

from __future__ import annotations

import os
from typing import Final

SKIPPED: Final = frozenset({"node_modules", "__pycache__", "site-packages", "venv"})
"""Folders that hold no code of the developer's own, besides hidden ones and virtual environments."""

Seen = dict[str, tuple[int, int]]
"""Time in nanoseconds and size of each file, by its path below the folder."""


def look(folder: str) -> Seen:
    """Look at every *.py file below a folder; links to folders are not followed, unreadable ones left out."""
    found: Seen = {}
    waiting = [folder]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        if any(entry.name == "pyvenv.cfg" for entry in entries):
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name in SKIPPED:
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.name.endswith(".py"):
                    stat = entry.stat()
                    found[os.path.relpath(entry.path, folder)] = (stat.st_mtime_ns, stat.st_size)
            except OSError:
                continue
    return found


def changed(before: Seen, after: Seen) -> list[str]:
    """List the files that were added, removed or changed, sorted."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
