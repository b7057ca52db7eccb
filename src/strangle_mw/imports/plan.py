"""What an import has found: upstreams, routes, notes and problems, and how they become a table's text.

Importers fill a `Plan`; nothing of where it came from is known here.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strangle_mw.config import load
from strangle_mw.errors import ConfigError, Problem
from strangle_mw.imports.toml import toml_comment, toml_key, toml_lines, toml_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

# What is told of a table in which something else is missing.
_ECHOES = ("upstream-unused", "upstream-unknown")
_PLACE = re.compile(r"routes\[([0-9]+)\]|upstreams\.([A-Za-z0-9_-]+)")


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the table cannot say, or says in another way than where it came from."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(slots=True)
class Block:
    """An upstream or a route of the table; `active` is False for one that is only shown, as a comment.

    `place` is where it came from, `fields` what the table says, `comments` what stands above.
    """

    name: str
    place: str
    fields: dict[str, object]
    comments: list[str] = field(default_factory=list)
    active: bool = True


@dataclass(slots=True)
class Plan:
    """A table in the making; notes and problems stand in order, each once."""

    title: list[str] = field(default_factory=list)
    upstreams: list[Block] = field(default_factory=list)
    routes: list[Block] = field(default_factory=list)
    notes: dict[Note, None] = field(default_factory=dict)
    problems: dict[Problem, None] = field(default_factory=dict)

    def note(self, where: str, what: str) -> None:
        """Add a note, once."""
        self.notes[Note(where, what)] = None

    def problem(self, where: str, what: str, id_: str) -> None:
        """Add a problem, once: with any of them no table is written."""
        self.problems[Problem(where, what, id_)] = None

    def draft(self) -> str:
        """Return the table's text; with problems its first key is one that `strangle check` refuses."""
        return self._text([toml_text(str(p)) for p in self.problems])

    def _text(self, problems: Sequence[str]) -> str:
        unresolved = ["unresolved = [", *(f"    {p}," for p in problems), "]"] if problems else []
        parts = [
            [line for text in self.title for line in toml_comment(text)],
            unresolved,
            *(_lines(f"[upstreams.{toml_key(b.name)}]", b) for b in self.upstreams),
            *(_lines("[[routes]]", b) for b in self.routes),
        ]
        return "\n\n".join("\n".join(p) for p in parts if p) + "\n"

    def finish(self) -> str:
        """Load the text as the program will, tell what is wrong with it as problems, and return it."""
        text = self._text([])
        try:
            snapshot = load(tomllib.loads(text))
        except ConfigError as exc:
            self._translate(exc.problems, self.problem)
            return self.draft()
        self._translate(snapshot.warnings, lambda where, what, _: self.note(where, what))
        return self.draft() if self.problems else text

    def _translate(self, found: Iterable[Problem], tell: Callable[[str, str, str], None]) -> None:
        """Say problems of the table in terms of where it came from; known causes are not told twice."""
        known = [f"{p.where}." for p in self.problems]
        places = [b.place for b in self.routes if b.active]
        names = {b.name: b.place for b in self.upstreams}

        def source(match: re.Match[str]) -> str:
            at, name = match.groups()
            return names.get(name, match[0]) if at is None else places[int(at)]

        for problem in found:
            place = _PLACE.match(problem.where)
            where = source(place) if place else problem.where
            echo = problem.id in _ECHOES and known
            if not echo and not any(k.startswith(f"{where}.") for k in known):
                rest = problem.where[place.end() :].lstrip(".") if place else ""
                what = _PLACE.sub(source, problem.what)
                tell(where, f"`{rest}` {what}" if rest else what, problem.id)


def _lines(heading: str, block: Block) -> list[str]:
    lines = [heading, *toml_lines(block.fields)]
    shown = lines if block.active else [f"# {line}" for line in lines]
    return [*(line for text in block.comments for line in toml_comment(text)), *shown]


class Names:
    """Gives names that nothing else has, as close to the wanted ones as may be."""

    def __init__(self, taken: Sequence[str] = ()) -> None:
        self._taken = set(taken)

    def take(self, wanted: str) -> str:
        """Return the wanted name, or it with a number."""
        name = next(n for n in _numbered(wanted) if n not in self._taken)
        self._taken.add(name)
        return name


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 1
    while True:
        number += 1
        yield f"{name}-{number}"


def key_name(text: str) -> str:
    """Make a name that needs no quotes in TOML; empty if nothing of the text is left."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")


def path_of(source: str, types: Callable[[str], str] = lambda _: "") -> tuple[str, list[tuple[str, str]]]:
    """Write a path template with parameters as `path` takes them: `{user-id}` becomes `{user_id}`.

    Returns the path and the pairs (old name, new name) that differ. `types` gives a parameter's type or "".
    What cannot be expressed stays as it is, for `parse_path` to refuse.
    """
    renamed: list[tuple[str, str]] = []
    taken: set[str] = set()

    def replace(found: re.Match[str]) -> str:
        old = found[1]
        wanted = re.sub(r"[^A-Za-z0-9_]", "_", old)
        wanted = wanted if wanted and not wanted[0].isdigit() else f"p_{wanted}"
        new = next(n for n in _numbered(wanted) if n.replace("-", "_") not in taken).replace("-", "_")
        taken.add(new)
        if new != old:
            renamed.append((old, new))
        type_ = types(old)
        return f"{{{new}:{type_}}}" if type_ else f"{{{new}}}"

    return re.sub(r"\{([^{}/]*)\}", replace, source), renamed
