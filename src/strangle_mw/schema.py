"""Writes the JSON Schema of a table file from the declarations, so that the two cannot differ."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal

from strangle_mw.config import Document

_SCALARS: Mapping[Any, Mapping[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `strangle.toml`, `.json` and `.yaml`."""
    definitions: dict[str, Any] = {}
    root = _table(Document, definitions)
    root["properties"]["$schema"] = {"type": "string", "description": "for editors; not read"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "strangle-mw route table",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def _table(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    properties, required = {}, []
    for field in dataclasses.fields(cls):
        if field.metadata.get("python_only"):
            continue
        key = field.metadata.get("key", field.name)
        hint = field.metadata.get("type", hints[field.name])
        properties[key] = {
            **_value(hint, definitions),
            "description": field.metadata["doc"],
            **_default(field),
        }
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(key)
    table: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**table, "required": required} if required else table


def _default(field: dataclasses.Field[Any]) -> dict[str, Any]:
    if field.default is dataclasses.MISSING or field.default is None:
        return {}
    value = field.default
    return {"default": list(value) if isinstance(value, tuple) else value}


def _value(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        options = [_value(a, definitions) for a in arguments if a is not type(None)]
        return options[0] if len(options) == 1 else {"anyOf": options}
    if origin is Literal:
        return {"enum": [a for a in arguments if a != ""]}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _value(arguments[1], definitions)}
    if origin in (Sequence, list):
        return {"type": "array", "items": _value(arguments[0], definitions)}
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"enum": [m.value for m in hint]}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _reference(hint, definitions)
    return dict(_SCALARS[hint])


def _reference(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    if cls.__name__ not in definitions:
        definitions[cls.__name__] = {}
        definitions[cls.__name__] = _table(cls, definitions)
    return {"$ref": f"#/$defs/{cls.__name__}"}
