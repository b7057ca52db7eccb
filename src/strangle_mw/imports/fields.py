"""Reads the fields of one object, with every wrong type as a problem, and knows which were never asked for.

That is how nothing is dropped silently: what is left over is either known as not needed, or told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strangle_mw.decoding import kind_of
from strangle_mw.imports.plan import Plan  # noqa: TC001 - a field of a public class

if TYPE_CHECKING:
    from collections.abc import Mapping


class Unresolved(str):
    """Text with references that the document alone does not resolve; `missing` names them."""

    __slots__ = ("missing",)
    missing: tuple[str, ...]

    @classmethod
    def of(cls, text: str, missing: tuple[str, ...]) -> Unresolved:
        """Make one; the text shows each reference as `${NAME}`."""
        made = cls(text)
        made.missing = missing
        return made


def needs(plan: Plan, where: str, value: str) -> bool:
    """Note as problems what a text refers to; tell whether it is complete."""
    missing = value.missing if isinstance(value, Unresolved) else ()
    for name in missing:
        what = (
            f"refers to {name}, which is not said here: give --value '{name}=...', or what the AWS CLI lists"
        )
        plan.problem(where, what, "import-reference")
    return not missing


class Fields:
    """The fields of one object; `place` is where it stands, as problems name it."""

    def __init__(self, data: Mapping[str, object], place: str, plan: Plan) -> None:
        self.place = place
        self._data = data
        self._plan = plan
        self._asked: set[str] = set()

    def text(self, *names: str, open_: bool = False) -> str:
        """Return the first of these fields that is there, "" if none; with `open_` it may be unresolved."""
        for name in names:
            value = self._take(name)
            if value is None:
                continue
            if not isinstance(value, str):
                self._wrong(name, "text", value)
                return ""
            if isinstance(value, Unresolved) and not open_:
                self._unresolved(name, value)
            return value
        return ""

    def flag(self, name: str) -> bool | None:
        """Return a boolean; None if it is not there. Templates may write it as text."""
        value = self._take(name)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Unresolved):
            self._unresolved(name, value)
        elif isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        else:
            self._wrong(name, "true or false", value)
        return None

    def texts(self, name: str) -> list[str]:
        """Return a list of text."""
        value = self._take(name)
        if value is None:
            return []
        if isinstance(value, str) and not isinstance(value, Unresolved):
            value = [part.strip() for part in value.split(",")]  # a template's CommaDelimitedList
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(v, str) for v in found):
            self._wrong(name, "a list of text", value)
            return []
        for item in found:
            if isinstance(item, Unresolved):
                self._unresolved(name, item)
        return found

    def table(self, name: str) -> Fields:
        """Return the fields of an inner object; of an empty one if it is not there."""
        value = self._take(name)
        if value is None:
            value = {}
        elif isinstance(value, Unresolved):
            self._unresolved(name, value)
            value = {}
        elif not isinstance(value, dict):
            self._wrong(name, "a table", value)
            value = {}
        return Fields(value, f"{self.place}.{name}", self._plan)

    def rest(self, not_needed: frozenset[str]) -> set[str]:
        """Return what was not asked for and is not needed; whatever else is left becomes a note."""
        left = {k for k, v in self._data.items() if v is not None} - self._asked
        for name in sorted(left - not_needed):
            self._plan.note(self.place, f"the field {name!r} is not known, and not used")
        return left & not_needed

    def __contains__(self, name: str) -> bool:
        return self._data.get(name) is not None

    def _unresolved(self, name: str, value: Unresolved) -> None:
        needs(self._plan, f"{self.place}.{name}", value)

    def _take(self, name: str) -> object:
        self._asked.add(name)
        return self._data.get(name)

    def _wrong(self, name: str, wanted: str, value: object) -> None:
        self._plan.problem(f"{self.place}.{name}", f"must be {wanted}, not {kind_of(value)}", "import-type")
