"""What lambda-dev prints: the functions' own output behind their names, and what happens to them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LINE: Final = 65_536
"""Bytes of output without an end of line that are kept back."""

_COLOURS: Final = ("36", "35", "34", "33")
_STYLES: Final = {"good": "32", "bad": "31", "quiet": "2", "": ""}


class Terminal:
    """Prints to `stream`; in colour if `colours`. A reader that has gone is told to `on_closed`, once."""

    def __init__(self, stream: TextIO | None = None, *, colours: bool = False) -> None:
        self._stream = stream or sys.stdout
        self._colours = colours
        self.on_closed: Callable[[], None] = lambda: None
        self.closed = False

    def paint(self, text: str, code: str) -> str:
        """Colour a text, if there are colours."""
        return f"\033[{code}m{text}\033[0m" if self._colours and code else text

    def line(self, text: str = "", style: str = "") -> None:
        """Print one line of lambda-dev's own; `style` is good, bad, quiet or ""."""
        self._write(self.paint(text, _STYLES[style]) + "\n")

    def output(self, name: str, number: int) -> Output:
        """Return what prints the output of the function called `name`, the `number`-th here."""
        return Output(self, self.paint(f"{name} |", _COLOURS[number % len(_COLOURS)]))

    def _write(self, text: str) -> None:
        if self.closed:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except UnicodeEncodeError:  # a terminal of another encoding
            encoding = self._stream.encoding or "ascii"
            self._stream.write(text.encode(encoding, "replace").decode(encoding))
            self._stream.flush()
        except OSError:
            self.closed = True
            self.on_closed()


class Output:
    """Prints one function's lines behind its name."""

    def __init__(self, terminal: Terminal, prefix: str) -> None:
        self._terminal = terminal
        self._prefix = prefix

    def lines(self, data: bytes) -> None:
        """Print what a process wrote: whole lines.

        The runtime client ends the lines of a traceback by CR and indents them by NO-BREAK SPACE, so that
        CloudWatch keeps them together; people read them apart.
        """
        text = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " ")
        for line in text.removesuffix("\n").split("\n"):
            self.line(line)

    def line(self, text: str, style: str = "") -> None:
        """Print one line; `style` as in `Terminal.line`."""
        self._terminal.line(f"{self._prefix} {self._terminal.paint(text, _STYLES[style])}".rstrip())
