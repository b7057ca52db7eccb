"""Example texts for regular expressions: values of parameters that a request could have.

What is found is checked against the expression itself; nothing of a framework or a table is known here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from re import _parser as regex_parser  # type: ignore[attr-defined]  # the standard library's own parse tree
from typing import TYPE_CHECKING, Any, Final

from strangle_mw.core.inventory import unnamed

if TYPE_CHECKING:
    from collections.abc import Iterable

PLAUSIBLE: Final = (
    # First what fits least: no slug, then a slug that is no word, and so on. No literal of a table is so.
    "zq~9.x", "zq-x9", "zqxy", "70419", "7.25", "123e4567-e89b-42d3-a456-426614174999",
    "zq~9.x/zq8/zqy", "2024-02-29", "2024", "07", "9", "3f786850e387550fdab836ed7e6dc881de23001b",
)  # fmt: skip

MOST: Final = 12
"""Examples of one expression."""

_CATEGORIES = {"CATEGORY_DIGIT": "74", "CATEGORY_WORD": "zq", "CATEGORY_SPACE": " "}
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


@lru_cache(maxsize=4096)
def samples(regex: str) -> tuple[str, ...]:
    """Return texts that a regular expression fits as a whole, different in kind; () if none is found."""
    try:
        compiled = re.compile(unnamed(regex), re.ASCII)
        made = _sequence(regex_parser.parse(unnamed(regex), re.ASCII))
    except (re.error, RecursionError, OverflowError):
        return ()
    found = (text for text in (*PLAUSIBLE, *made) if compiled.fullmatch(text))
    return tuple(dict.fromkeys(found))[:MOST]


def _sequence(tree: Iterable[Any]) -> list[str]:
    """Return texts for a sequence of a parse tree: the n-th has the n-th possibility of each part."""
    found = [""]
    for op, argument in tree:
        found = _joined(found, _possibilities(str(op), argument))
    return found


def _joined(before: list[str], after: list[str]) -> list[str]:
    if not before or not after:
        return []
    many = range(min(max(len(before), len(after)), MOST))
    return [before[n % len(before)] + after[n % len(after)] for n in many]


def _possibilities(op: str, argument: Any) -> list[str]:
    """Return texts for one node; none for what is not understood (the check would sort them out)."""
    if op == "LITERAL":
        return [chr(argument)]
    if op in ("ANY", "NOT_LITERAL"):
        return ["x", "y"]
    if op == "IN":
        return _characters(argument)
    if op == "BRANCH":
        return [text for branch in argument[1] for text in _sequence(branch)][:MOST]
    if op in ("SUBPATTERN", "ATOMIC_GROUP"):
        return _sequence(argument[-1] if op == "SUBPATTERN" else argument)
    if op in _REPEATS:
        least, _, body = argument
        texts = [text * max(least, 1) for text in _sequence(body)]
        return texts if least else [*texts, ""]
    return [""]  # an anchor or an assertion takes no text


def _characters(items: Iterable[tuple[Any, Any]]) -> list[str]:
    found: list[str] = []
    negated = False
    for op, argument in items:
        kind = str(op)
        negated = negated or kind == "NEGATE"
        if kind == "LITERAL":
            found.append(chr(argument))
        elif kind == "RANGE":
            found += map(chr, reversed(argument))
        elif kind == "CATEGORY":
            found += _CATEGORIES.get(str(argument), "~")
    return ["x", "7", "~"] if negated else found[:MOST]
