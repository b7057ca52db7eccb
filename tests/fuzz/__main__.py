"""Fuzz one boundary until something breaks: `python -m tests.fuzz NAME [libFuzzer options]`; see README.md.

Only the wiring of atheris lives here.
"""

import sys
import tempfile
from pathlib import Path

from tests.fuzz.seeds import SEEDS


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in SEEDS:
        sys.exit(f"usage: python -m tests.fuzz {{{','.join(SEEDS)}}} [libFuzzer options]")
    try:
        import atheris  # not a dependency of the tests: only needed here
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris")
    # The package alone: to instrument all that is loaded takes a minute.
    with atheris.instrument_imports(include=["strangle_mw"]):
        from tests.fuzz.harnesses import HARNESSES

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS[name]):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *sys.argv[2:], corpus], HARNESSES[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
