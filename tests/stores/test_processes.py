"""One store, many processes: no edit and no count is lost, and a fork carries nothing over that it may not."""

import subprocess
import sys
from pathlib import Path

import pytest

from strangle_mw.core.overrides import parse_overrides

PROGRAM = [sys.executable, "-W", "error", str(Path(__file__).parent / "edits.py")]


@pytest.mark.parametrize("kept", ["sqlite", "redis"], indirect=True)
def test_no_edit_of_another_process_is_lost(kept):
    """For SQLite they also race to make the file."""
    commands = [[*PROGRAM, "many", kept.url, str(n), "10"] for n in range(4)]
    children = [subprocess.Popen(c, stdin=subprocess.PIPE) for c in commands]
    for child in children:
        child.stdin.close()
    assert [child.wait(60) for child in children] == [0] * 4
    store = kept.open()
    found = parse_overrides(store.read(0))
    assert found.routes.keys() == {f"{p} {n}" for p in range(4) for n in range(10)}
    assert found.revision == 40
    assert store.counts() == {"edits": 40}


@pytest.mark.parametrize(
    ("kept", "routes"),
    [
        ("memory", ["before", "meanwhile", "parent"]),
        ("sqlite", ["before", "child", "meanwhile", "parent"]),
        ("redis", ["before", "child", "meanwhile", "parent"]),
    ],
    indirect=["kept"],
)
def test_a_store_outlives_a_fork(kept, routes):
    done = subprocess.run(
        [*PROGRAM, "forked", kept.url], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["0", "0", *routes], done.stderr
    assert done.stderr == ""
