"""Writes a new table file: whole or not at all, and never over another one unasked."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import copymode

from strangle_mw.errors import StrangleError


class WriteError(StrangleError):
    """The file cannot be written; nothing was changed."""


def write_table(name: str, text: str, *, force: bool) -> None:
    """Write a file at once; raise `FileExistsError` if it is there and `force` is not given.

    Raises `WriteError` if the folder does not take it. A symbolic link stays one.
    """
    path = Path(name)
    if not force and os.path.lexists(path):
        raise FileExistsError(name)
    target = path.resolve()
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with draft.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            _place(draft, target, force=force)
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        raise
    except OSError as exc:
        raise WriteError(f"{name} cannot be written: {exc.strerror}") from None


def _place(draft: Path, target: Path, *, force: bool) -> None:
    if force:
        if target.exists():
            copymode(target, draft)
        draft.replace(target)
        return
    try:
        os.link(draft, target)  # unlike a rename, refuses what somebody has made in between
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        draft.replace(target)
