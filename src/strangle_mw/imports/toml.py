"""Writes the little TOML that a table needs: strings, numbers, lists, inline tables, comments.

Text of others (names, descriptions) passes through here, so nothing that it holds may end a string or a
comment. Reading is `tomllib`'s business.
"""

from __future__ import annotations

import re
from textwrap import TextWrapper
from typing import TYPE_CHECKING

from strangle_mw.core.events import UNSAFE

if TYPE_CHECKING:
    from collections.abc import Mapping

_BARE = re.compile(r"[A-Za-z0-9_-]+")
# TOML 1.0: a basic string holds no control character but tab; quotes and backslashes are escaped.
# What turns the direction of text, or ends a line for some, is escaped, too: who reads the table sees what it
# says.
_ESCAPED = re.compile(f'["\\\\]|{UNSAFE.pattern}')
_NO_COMMENT = re.compile(f"(?![\t\n]){UNSAFE.pattern}")
_WRAP = TextWrapper(100, break_long_words=False, break_on_hyphens=False)
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def toml_key(name: str) -> str:
    """Write a key: bare where that is possible."""
    return name if _BARE.fullmatch(name) else toml_text(name)


def toml_text(text: str) -> str:
    """Write a string; raises `ValueError` for half a surrogate pair, which no TOML can hold."""
    text.encode("utf-8")
    return f'"{_ESCAPED.sub(_escape, text)}"'


def _escape(found: re.Match[str]) -> str:
    return _SHORT.get(found[0], f"\\u{ord(found[0]):04X}")


def toml_value(value: object) -> str:
    """Write a string, boolean, number, list, or table of these; raises `TypeError` for anything else."""
    if isinstance(value, str):
        return toml_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    raise TypeError(f"TOML has no {type(value).__name__}")


def toml_lines(fields: Mapping[str, object]) -> list[str]:
    """Write one line a field."""
    return [f"{toml_key(name)} = {toml_value(value)}" for name, value in fields.items()]


def toml_comment(text: str) -> list[str]:
    """Write a comment: every line of the text starts with a hash, and control characters are escaped."""
    lines = (_NO_COMMENT.sub(_escape, line) for line in text.replace("\r\n", "\n").split("\n"))
    return [f"# {part}" if part else "#" for line in lines for part in (_WRAP.wrap(line) or [""])]
