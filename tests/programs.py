"""Server programs that a machine may lack: skip with a reason, or fail where CI has promised them."""

import os
import shutil

import pytest


def require(program):
    """Return a program's path; skip the test without it, or fail under STRANGLE_REQUIRE_SERVERS=1."""
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is not None:
        return path
    if os.environ.get("STRANGLE_REQUIRE_SERVERS") == "1":
        pytest.fail(f"{program} is required here and not installed")
    pytest.skip(f"{program} is not installed (Debian: apt install {program})")
