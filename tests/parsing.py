"""Syntax trees of Python files, for tests that read the package's own code."""

import ast
import gc
from pathlib import Path


def parsed(path):
    """Parse a file while nothing is collected.

    What other tests have left may run code of its own when it is collected (finalizers, greenlets); in the
    midst of a parse CPython 3.11 takes that for a fault: "AST constructor recursion depth mismatch".
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(Path(path).read_text("utf-8"))
    finally:
        if was_enabled:
            gc.enable()
