"""The wrapped app's own URL map, as plain data: what a framework's reader finds, and nothing of a framework.

Only the types live here; reading is `inventories`, joining with a table is `coverage`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

ANY_SEGMENT: Final = "[^/]+"
ANYTHING: Final = ".*"

WEBSOCKET: Final = "WEBSOCKET"
"""What stands among an endpoint's methods for a WebSocket; a table decides on its handshake as on a GET."""

NOISE: Final = frozenset(("HEAD", "OPTIONS"))
"""Methods that frameworks add by themselves."""

_NAMED_GROUP = re.compile(r"\(\?P<\w+>")


@dataclass(frozen=True, slots=True)
class Param:
    """A part of a path that varies: `regex` is what fits (ASCII, whole)."""

    name: str
    regex: str = ANY_SEGMENT

    def __str__(self) -> str:
        return f"{{{self.name}}}" if self.name else self.regex


@dataclass(frozen=True)
class AppEndpoint:
    """One endpoint of the wrapped app.

    `rule` is the framework's own text, under which its requests are counted, `rules` further texts of it;
    `path` literal text and parameters in turn, decoded; `methods` empty for any; `hosts` names or
    `*.example.com`, empty for any. `opaque`: an app or folder that is not looked into; `loose_slash`: a
    trailing slash may be there or not.
    """

    rule: str
    path: Sequence[str | Param] = field(repr=False)
    name: str = ""
    view: str = ""
    methods: frozenset[str] = frozenset()
    hosts: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    opaque: bool = False
    loose_slash: bool = False

    @cached_property
    def text(self) -> str:
        """The path to be shown, `/orders/{id}`; the same for every framework."""
        return "".join(str(p) for p in self.path)

    @cached_property
    def regex(self) -> re.Pattern[str] | None:
        """What a decoded path of this endpoint looks like; None if that cannot be written as one regex."""
        parts = [re.escape(p) if isinstance(p, str) else f"(?:{unnamed(p.regex)})" for p in self.path]
        try:
            text = "".join(parts)
            text = text.removesuffix("/") + "/?" if self.loose_slash else text
            return re.compile(text, re.ASCII | re.DOTALL)
        except re.error:
            return None

    def takes(self, method: str) -> bool:
        """Tell whether requests with this method are the endpoint's; HEAD follows GET."""
        return not self.methods or method in self.methods or (method == "HEAD" and "GET" in self.methods)


@dataclass(frozen=True, slots=True)
class UrlMap:
    """All endpoints of an app; `problem` says why there are none, "" if they were read."""

    endpoints: Sequence[AppEndpoint] = ()
    framework: str = ""
    problem: str = ""


def unnamed(regex: str) -> str:
    """Take the names off a regular expression's groups, so that several can stand in one."""
    return _NAMED_GROUP.sub("(?:", regex)


def join(*parts: str | Param) -> tuple[str | Param, ...]:
    """Put the parts of a path together, neighbouring literals in one; empty ones are left out."""
    found: list[str | Param] = []
    for part in parts:
        if isinstance(part, str) and found and isinstance(found[-1], str):
            found[-1] += part
        elif part != "":
            found.append(part)
    return tuple(found)
