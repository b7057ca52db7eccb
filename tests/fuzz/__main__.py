"""Fuzz one boundary until something breaks: `python -m tests.fuzz NAME [libFuzzer options]`; see README.md.

Only the wiring of atheris lives here.
"""

import sys
import tempfile
from pathlib import Path

from tests.fuzz.harnesses import HARNESSES
from tests.fuzz.seeds import SEEDS


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in HARNESSES:
        sys.exit(f"usage: python -m tests.fuzz {{{','.join(HARNESSES)}}} [libFuzzer options]")
    import atheris  # not a dependency of the tests: only needed here

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS[name]):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.instrument_all()
        atheris.Setup([sys.argv[0], *sys.argv[2:], corpus], HARNESSES[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
