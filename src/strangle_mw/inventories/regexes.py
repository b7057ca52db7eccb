"""Takes a regular expression over a path apart: what is literal, and what varies.

Made for Django's `re_path`; what cannot be taken apart becomes one parameter.
"""

from __future__ import annotations

import re

from strangle_mw.core.inventory import ANYTHING, Param, join

# One element of an expression, but for groups, and what repeats it.
_REPEAT = re.compile(r"(?:[*+?]|\{[0-9]*,?[0-9]*\})[?+]?")
_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[^\\]", re.DOTALL)
_LITERAL = re.compile(r"\\[^A-Za-z0-9]|[^\\.^$*+?{}\[\]|()]")
_NAMED = re.compile(r"\(\?P<(\w+)>(.*)\)", re.DOTALL)
_END = re.compile(r"(?<!\\)(?:\\\\)*(\$|\\Z)$")


def path_parts(regex: str, *, ends: bool) -> tuple[str | Param, ...]:
    """Return the parts of the paths that an expression finds; one that `ends` must reach the path's end.

    Without `^` the expression may begin anywhere, without `$` more may follow (Django searches).
    """
    before, after = not regex.startswith("^"), ends and not regex.endswith(("$", r"\Z"))
    body = regex.removeprefix("^")
    if end := _END.search(body):
        body = body[: end.start(1)]
    parts = (Param("", body),) if _has_branches(body) else tuple(_parts(body))
    rest = (Param("", ANYTHING),)
    before = before and getattr(next(iter(parts), None), "regex", "") != ANYTHING
    return join(*(rest * before), *parts, *(rest * after))


def _parts(text: str) -> list[str | Param]:
    found: list[str | Param] = []
    at = 0
    while at < len(text):
        length = _group(text, at) if text[at] == "(" else len(_atom(text, at))
        atom, at = text[at : at + length], at + length
        repeat = _REPEAT.match(text, at)
        at = at if repeat is None else repeat.end()
        found.append(_part(atom, repeat[0] if repeat else ""))
    return found


def _part(atom: str, repeat: str) -> str | Param:
    if not repeat and _LITERAL.fullmatch(atom):
        return atom.removeprefix("\\")
    named = _NAMED.fullmatch(atom)
    if named is None:
        return Param("", atom + repeat)
    return Param(named[1], f"(?:{named[2]}){repeat}" if repeat else named[2])


def _atom(text: str, at: int) -> str:
    found = _ATOM.match(text, at)
    return found[0] if found else text[at:]


def _group(text: str, start: int) -> int:
    """Return the length of a group with everything in it."""
    depth, at = 0, start
    while at < len(text):
        depth += (text[at] == "(") - (text[at] == ")")
        at += 1 if text[at] in "()" else len(_atom(text, at))
        if not depth:
            break
    return at - start


def _has_branches(text: str) -> bool:
    """Tell whether the expression has alternatives outside of groups."""
    at = 0
    while at < len(text):
        if text[at] == "|":
            return True
        at += _group(text, at) if text[at] == "(" else len(_atom(text, at))
    return False
