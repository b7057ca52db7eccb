"""Numbers to tables: spread, targets, plain and Markdown text, JSON; and progress on a terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(slots=True)
class Table:
    """One measurement's result: text for people, `data` for programs.

    The first `labels` columns and the last one hold words, all others numbers.
    """

    title: str
    columns: list[str]
    labels: int = 2
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)
    failed: bool = False

    def text(self) -> str:
        """Return the table in columns, words to the left and numbers to the right."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[index]) for line in lines) for index in range(len(self.columns))]
        body = ["  ".join(map(_cell, line, widths, self._words())).rstrip() for line in lines]
        rule = "  ".join("-" * width for width in widths)
        return "\n".join([self.title, "", body[0], rule, *body[1:], *self._notes("")])

    def markdown(self) -> str:
        """Return the table in Markdown."""
        marks = [":--" if left else "--:" for left in self._words()]
        lines = [" | ".join(line) for line in [self.columns, marks, *self.rows]]
        return "\n".join([f"### {self.title}", "", *(f"| {line} |" for line in lines), *self._notes("- ")])

    def _words(self) -> list[bool]:
        last = len(self.columns) - 1
        return [index < self.labels or index == last for index in range(len(self.columns))]

    def _notes(self, bullet: str) -> list[str]:
        return ["", *(f"{bullet}{note}" for note in self.notes)] if self.notes else []


def _cell(text: str, width: int, left: bool) -> str:
    return text.ljust(width) if left else text.rjust(width)


def number(value: float) -> str:
    """Return a number with about three digits."""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def ratio(value: float) -> str:
    """Return a ratio, small ones as a fraction."""
    if value >= 0.2 or value <= 0:
        return f"{value:.2f}"
    return f"1/{1 / value:,.1f}".removesuffix(".0") if value > 0.01 else f"1/{1 / value:,.0f}"


def spread(values: Sequence[float]) -> str:
    """Return the median and, of several values, the least and the greatest."""
    middle = number(median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))}..{number(max(values))})"


def at_most(value: float, limit: float, text: str) -> str:
    """Return a target with its verdict."""
    return f"{text}: {'met' if value <= limit else 'missed'}"


def at_least(value: float, limit: float, text: str) -> str:
    """Return a target with its verdict."""
    return f"{text}: {'met' if value >= limit else 'missed'}"


class Progress:
    """One line on a terminal that says what is being measured; nothing elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()

    def say(self, text: str) -> None:
        """Replace the line."""
        if self.live:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the line."""
        self.say("")
