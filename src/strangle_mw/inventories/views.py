"""What a view is called and which methods it takes, as far as that can be seen without calling it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from strangle_mw.core.inventory import NOISE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_DEPTH = 30
"""Decorators around a view."""


def view_name(view: Any) -> str:
    """Return where a view stands in the code: `module.name`; its class's for an object."""
    while isinstance(view, partial):
        view = view.func
    view = getattr(view, "view_class", None) or getattr(view, "cls", None) or view
    named = view if hasattr(view, "__qualname__") else type(view)
    module = getattr(named, "__module__", None)
    return f"{module}.{named.__qualname__}" if module else str(named.__qualname__)


def without_noise(methods: Iterable[str] | None) -> frozenset[str]:
    """Leave out HEAD and OPTIONS, which frameworks add, unless nothing else is there."""
    found = frozenset(m.upper() for m in methods or ())
    return found - NOISE or found


def decorators(view: Any) -> Iterator[Any]:
    """Yield a view and what its decorators wrap, the outermost first."""
    for _ in range(MAX_DEPTH):
        yield view
        view = getattr(view, "__wrapped__", None)
        if view is None:
            return


def closed_over(function: Any, name: str) -> Any:
    """Return what a function has closed over under a name, or None."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    if code is None or not cells or name not in code.co_freevars:
        return None
    return cells[code.co_freevars.index(name)].cell_contents


def class_methods(view: type, names: Iterable[str]) -> frozenset[str]:
    """Return the methods that a class-based view has handlers for."""
    return without_noise(n for n in names if callable(getattr(view, n, None)))
