"""The loop's thread in real processes: forks, exits that leave nothing and print nothing, gevent."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("loop_process.py")
EXPECTED = {
    "unused": ["1"],
    "used": ["start", "ok", "end"],
    "threads": ["start", "ok", "end"],
    "closed": ["start", "ok", "end"],
    "background": ["start", "ok", "work done", "end"],
    "stream": ["start", "ok", "end"],
    "waiting": ["start", "ok", "body: the app ends", "end"],
    "blocked": ["start", "ok"],
    "stubborn": ["start", "ok", "end"],
    "forks": ["start", "ok", *["start", "child", "child", "end"] * 2, "parent", "parent", "end"],
}
GREEN = {
    "legacy": ["start", "first second", "no loop here, own loops: 3", "{b'ok'}", "end"],
    "killed": ["start", "ok", "end"],
}


def run(*arguments, options=("-X", "dev", "-W", "error")):
    done = subprocess.run(
        [sys.executable, *options, PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_process(name):
    assert run(name) == EXPECTED[name]


# gevent itself warns under -X dev, and asyncio of a loop that a fork's child may not close.
@pytest.mark.parametrize("name", ["threads", "stream", "waiting", "forks"])
def test_a_process_under_gevent(name):
    assert run(name, "gevent", options=()) == EXPECTED[name]


@pytest.mark.parametrize("name", GREEN)
def test_greenlets(name):
    assert run(name, "gevent", options=()) == GREEN[name]
