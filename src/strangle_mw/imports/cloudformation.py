"""CloudFormation templates: finds the Refactor Spaces resources and resolves what a template alone can.

Ref, Fn::GetAtt, Fn::Sub and Fn::Join are known; what they leave open, and all other functions, stay in the
text as `${NAME}` and are named. Short tags are `documents`' business.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from strangle_mw.decoding import kind_of
from strangle_mw.imports.documents import read_text
from strangle_mw.imports.fields import Unresolved

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from strangle_mw.imports.refactor_objects import Found

_PREFIX: Final = "AWS::RefactorSpaces::"
_KINDS: Final = {
    "Route": "route",
    "Service": "service",
    "Application": "application",
    "Environment": "environment",
}
_IDENTIFIERS = (
    "ApplicationIdentifier",
    "EnvironmentIdentifier",
    "ServiceIdentifier",
    "RouteIdentifier",
    "Arn",
)
_REFERENCE = re.compile(r"\$\{(!?)([^{}$]+)\}")
# What a resource may have beside its properties (CloudFormation's resource attributes).
_ATTRIBUTES = {
    "Type", "Properties", "Condition", "CreationPolicy", "DeletionPolicy", "DependsOn", "Metadata",
    "UpdatePolicy", "UpdateReplacePolicy",
}  # fmt: skip
_EXPANDED = "give the processed template: aws cloudformation get-template --template-stage Processed"


def is_template(data: object) -> bool:
    """Tell whether this is a template, or what `get-template` prints around one."""
    return isinstance(data, dict) and not data.keys().isdisjoint(
        ("Resources", "AWSTemplateFormatVersion", "TemplateBody")
    )


class Template:
    """One template; `values` are what the user says its references stand for."""

    def __init__(
        self, name: str, data: Mapping[str, object], values: Mapping[str, str], found: Found
    ) -> None:
        self._name = name
        self._data = data
        self._values = values
        self._found = found
        self._plan = found.plan
        self.used: set[str] = set()
        self._own: dict[str, str] = {}

    def read(self) -> None:
        """Take every Refactor Spaces resource."""
        body = self._data.get("TemplateBody")
        if body is not None:
            data = read_text(f"{self._name}: TemplateBody", body) if isinstance(body, str) else body
            self._data = data if isinstance(data, dict) else {}
        resources = self._data.get("Resources")
        if not isinstance(resources, dict):
            what = f"must be a table, not {kind_of(resources)}" if resources is not None else "is missing"
            self._plan.problem(f"{self._name}.Resources", what, "import-type")
            return
        types = {i: r.get("Type") for i, r in resources.items() if isinstance(r, dict)}
        self._own = {i: t for i, t in types.items() if isinstance(t, str) and t.startswith(_PREFIX)}
        for id_, resource in resources.items():
            self._resource(id_, resource)
        if not self._own:
            self._plan.problem(self._name, f"has no resource of a type {_PREFIX}...", "import-format")

    def _resource(self, id_: str, resource: object) -> None:
        place = f"{self._name}: {id_}"
        if id_.startswith("Fn::") or not isinstance(resource, dict):
            what = f"is no resource as such; {_EXPANDED}"
            self._plan.problem(place, what, "import-macro")
            return
        if resource.get("Type") == "AWS::CloudFormation::Stack":
            self._plan.note(place, "is a nested stack, which is not read; give its template, too")
        if id_ not in self._own:
            return
        for attribute in sorted(resource.keys() - _ATTRIBUTES):
            self._plan.note(place, f"the attribute {attribute!r} is not known, and not used")
        if "Condition" in resource:
            what = f"exists under the condition {resource['Condition']!r} only; taken as if that holds"
            self._plan.note(place, what)
        kind = _KINDS.get(self._own[id_].removeprefix(_PREFIX))
        properties = self.resolve(resource.get("Properties", {}))
        if kind is None:
            self._plan.note(place, f"the type {self._own[id_]} is not known, and not used")
        elif isinstance(properties, dict):
            self._found.take(kind, properties, self._name, id_=id_)
        else:
            self._plan.problem(f"{place}.Properties", "must be a table", "import-type")

    def resolve(self, value: object) -> object:
        """Replace intrinsic functions by what they stand for, `Unresolved` text where that is not known."""
        if isinstance(value, list):
            return [self.resolve(v) for v in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            [(function, argument)] = value.items()
            if function == "Ref" or function.startswith("Fn::"):
                return self._call(function, argument)
        return {k: self.resolve(v) for k, v in value.items()}

    def _call(self, function: str, argument: object) -> object:
        if function == "Ref" and isinstance(argument, str):
            return None if argument == "AWS::NoValue" else self._named(argument)
        if function == "Fn::GetAtt":
            parts = argument.split(".", 1) if isinstance(argument, str) else argument
            if isinstance(parts, list) and all(isinstance(p, str) for p in parts):
                return self._named(".".join(parts))
        if function == "Fn::Sub":
            text, more = argument if isinstance(argument, list) and len(argument) == 2 else (argument, {})  # noqa: PLR2004
            if isinstance(text, str) and isinstance(more, dict):
                return self._sub(text, more)
        if function == "Fn::Join" and isinstance(argument, list) and len(argument) == 2:  # noqa: PLR2004
            between, items = argument[0], self.resolve(argument[1])
            if (
                isinstance(between, str)
                and isinstance(items, list)
                and all(isinstance(i, str) for i in items)
            ):
                return _joined(between, items)
        if function == "Fn::ImportValue" and isinstance(name := self.resolve(argument), str):
            return self._named(name)
        return _unknown(function)

    def _named(self, name: str) -> str:
        """Return what a parameter, a resource or an attribute of one stands for."""
        if name in self._values:
            self.used.add(name)
            return self._values[name]
        resource, _, attribute = name.partition(".")
        if resource in self._own and (not attribute or attribute in _IDENTIFIERS):
            return resource
        parameters = self._data.get("Parameters")
        parameter = parameters.get(name) if isinstance(parameters, dict) else None
        default = parameter.get("Default") if isinstance(parameter, dict) else None
        if isinstance(default, str | int) and default != "":
            text = str(default).lower() if isinstance(default, bool) else str(default)
            what = f"the parameter {name} is not given; its default {text!r} is taken (--value '{name}=...')"
            self._plan.note(self._name, what)
            return text
        return _unknown(name)

    def _sub(self, text: str, more: Mapping[str, object]) -> str:
        pieces: list[str] = []
        end = 0
        for found in _REFERENCE.finditer(text):
            pieces.append(text[end : found.start()])
            end = found.end()
            literal, name = found[1], found[2].strip()
            value = self.resolve(more[name]) if name in more else None
            if literal:
                pieces.append(f"${{{name}}}")
            else:
                pieces.append(value if isinstance(value, str) else self._named(name))
        return _joined("", [*pieces, text[end:]])


def _unknown(name: str) -> Unresolved:
    return Unresolved.of(f"${{{name}}}", (name,))


def _joined(between: str, pieces: Sequence[str]) -> str:
    missing = [name for p in pieces if isinstance(p, Unresolved) for name in p.missing]
    text = between.join(pieces)
    return Unresolved.of(text, tuple(dict.fromkeys(missing))) if missing else text
