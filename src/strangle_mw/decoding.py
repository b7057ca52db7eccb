"""Turns plain data (of a file, a dict) into declarations, with every problem named by its place.

Shapes and types only: what a route means is `core.compile`, what a document holds `config`.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import msgspec

from strangle_mw.core.model import Upstream
from strangle_mw.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


class Decoder:
    """Turns plain data into declarations field by field, so that one mistake does not hide the next."""

    def __init__(self, problems: list[Problem], *, from_file: bool) -> None:
        self._problems = problems
        self._from_file = from_file

    def table(self, cls: type[T], data: object, where: str) -> T | None:
        """Build a dataclass from a mapping; None if anything in it is wrong."""
        kind: Any = type(data) if isinstance(data, cls) else cls
        fields, hints, values = _fields(kind), _hints(kind), {}
        if isinstance(data, cls):
            data = {k: getattr(data, f.name) for k, f in fields.items()}
        if not isinstance(data, Mapping):
            self.note(where, f"must be a table, not {kind_of(data)}", "type")
            return None
        for key, value in data.items():
            field = fields.get(str(key))
            if field is None or (self._from_file and field.metadata.get("python_only")):
                self._unknown(_join(where, str(key)), str(key), fields)
            elif value is not field.default:
                hint = hints[field.name] if callable(value) else field.metadata.get("type", hints[field.name])
                if isinstance(value, Upstream):
                    hint = Upstream
                before = len(self._problems)
                converted = self.value(hint, value, _join(where, str(key)))
                if len(self._problems) == before:  # else it keeps its default, and the rest is checked, too
                    values[field.name] = converted
        missing = [k for k, f in fields.items() if f.name not in values and _is_required(f)]
        for key in missing:
            if key not in data:
                self.note(_join(where, key), "is missing", "missing")
        return None if missing else cast("T", kind(**values))

    def value(self, hint: Any, value: object, where: str) -> Any:
        """Convert one value to a field's type; tables and lists item by item."""
        options = (
            typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        )
        for option in options:
            origin, arguments = typing.get_origin(option), typing.get_args(option)
            if dataclasses.is_dataclass(option) and (
                len(options) == 1 or isinstance(value, Mapping | cast("type", option))
            ):
                return self.table(cast("type[Any]", option), value, where)
            if origin is Mapping and isinstance(value, Mapping):
                return {str(k): self.value(arguments[1], v, _join(where, str(k))) for k, v in value.items()}
            if origin in (Sequence, list) and isinstance(value, Sequence) and not isinstance(value, str):
                return [self.value(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value)]
        return self._scalar(hint, value, where)

    def _scalar(self, hint: Any, value: object, where: str) -> Any:
        if hint is Any or (typing.get_args(hint) and callable(value)):
            return value
        if any(typing.get_origin(p) is Callable for p in typing.get_args(hint)):
            self.note(where, "must be a function", "type")
            return None
        choices = _choices(hint)
        if isinstance(value, date) and hint is str:
            value = value.isoformat()  # TOML and YAML have dates of their own
        if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
            self.note(where, "holds half a surrogate pair, which is no text", "type")
            return None
        try:
            return msgspec.convert(value, hint)
        except msgspec.ValidationError as exc:
            what = str(exc).partition(" - at ")[0]
            if choices:
                known = ", ".join(map(repr, choices))
                what = f"must be one of {known}, not {value!r}{_near(str(value), choices)}"
            elif what.startswith("Expected"):
                what = f"must be {_plain(hint)}, not {kind_of(value)}"
            self.note(where, what, "choice" if choices else "type")
            return None

    def _unknown(self, where: str, key: str, fields: Mapping[str, dataclasses.Field[Any]]) -> None:
        if key in fields:
            self.note(where, "can only be given in Python, not in a file", "python-only")
        else:
            self.note(where, f"there is no such key{_near(key, list(fields))}", "unknown-key")

    def note(self, where: str, what: str, id_: str) -> None:
        """Note one problem at a place of the document."""
        self._problems.append(Problem(where or "the table", what, id_))


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _near(text: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(text, [str(k) for k in known], 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


@lru_cache
def _fields(cls: type) -> Mapping[str, dataclasses.Field[Any]]:
    """Return a declaration's fields by the keys that files use."""
    return {f.metadata.get("key", f.name): f for f in dataclasses.fields(cls) if f.init}


@lru_cache
def _hints(cls: type) -> Mapping[str, Any]:
    return typing.get_type_hints(cls)


def _choices(hint: Any) -> list[str]:
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return [str(m.value) for m in hint]
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return [str(c) for p in parts if typing.get_origin(p) is Literal for c in typing.get_args(p) if c != ""]


def _plain(hint: Any) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): ""}
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    told = [
        names.get(p)
        or {Mapping: "a table", Sequence: "a list", list: "a list"}.get(typing.get_origin(p), "a table")
        for p in parts
        if p is not type(None)
    ]
    return " or ".join(dict.fromkeys(told))


def kind_of(value: object) -> str:
    """Name the type of a value in a user's words."""
    kinds: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "true or false"),
        (str, "text"),
        ((int, float), "a number"),
        (Mapping, "a table"),
        (Sequence, "a list"),
    ]
    return next((name for kind, name in kinds if isinstance(value, kind)), type(value).__name__)
