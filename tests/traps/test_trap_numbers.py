"""Every trap has a test that bears its number."""

import re
from pathlib import Path


def test_the_traps_are_complete():
    text = "".join(p.read_text("utf-8") for p in Path(__file__).parent.glob("test_trap_*.py"))
    assert {int(n) for n in re.findall(r"^def test_trap_([0-9]{2})_", text, re.MULTILINE)} == {*range(1, 33)}
