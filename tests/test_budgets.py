"""The budgets of the architecture: short functions, modules that fit in the head, documented public names."""

import ast
from pathlib import Path
from statistics import median, quantiles

import pytest

from parsing import parsed

PACKAGE = Path(__file__).parents[1] / "src" / "strangle_mw"
FILES = sorted(PACKAGE.rglob("*.py"))


def bodies():
    """Yield (place, lines of the body without its docstring) for every function."""
    for path in FILES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body:
                    yield f"{path.name}:{node.name}", node.end_lineno - body[0].lineno + 1


def test_functions_are_short():
    found = dict(bodies())
    assert max(found.values()) <= 60, sorted(found, key=found.get)[-3:]
    assert median(found.values()) <= 7
    assert quantiles(found.values(), n=20)[-1] <= 40


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_a_module_has_at_most_400_lines_and_says_what_lives_there(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    assert len(ast.get_docstring(parsed(path)) or "") > 30


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_public_names_have_docstrings(path):
    missing = []
    for node in parsed(path).body:
        if isinstance(
            node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and not node.name.startswith("_"):
            members = (
                [n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
                if isinstance(node, ast.ClassDef)
                else []
            )
            hooks = isinstance(node, ast.ClassDef) and any(
                ast.unparse(b) in ("asyncio.Protocol", "Protocol") for b in node.bases
            )
            public = [] if hooks else [m for m in members if not m.name.startswith(("_", "on_"))]
            missing += [n.name for n in (node, *public) if not ast.get_docstring(n)]
    assert missing == []
