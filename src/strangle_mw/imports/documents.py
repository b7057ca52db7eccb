"""Reads what others have written: JSON, or YAML with CloudFormation's short tags, as plain data.

The text is not trusted: size, depth and number of values are bounded, and no tag builds an object. What
the data means is the importers' business.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from strangle_mw.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a file; CloudFormation takes templates of 1 MB."""
MAX_DEPTH: Final = 60
"""Values inside values; what an importer walks, it walks by recursion."""
MAX_VALUES: Final = 300_000
"""Values of a document, those that YAML aliases repeat counted each time."""

_YAML_ENDINGS = (".yaml", ".yml", ".template")
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # what PowerShell's `>` writes


def read_document(name: str) -> object:
    """Read a file of JSON or YAML, `-` for standard input; raise `ConfigError` that names it."""
    raw = _read(name)
    try:
        text = raw.decode(_MARKS.get(raw[:2], "utf-8-sig"))
    except UnicodeDecodeError:
        raise refuse(name, "is not UTF-8 text", "import-text") from None
    return read_text(name, text)


def read_text(name: str, text: str) -> object:
    """Read JSON or YAML; `name` is what problems call it."""
    if not text.strip():
        raise refuse(name, "is empty", "import-empty")
    if text.lstrip()[0] in "{[":
        try:
            return _checked(name, _json(name, text))
        except ValueError as exc:
            # Flow style YAML may start like JSON, but then the file's name says so.
            if not name.lower().endswith(_YAML_ENDINGS):
                raise refuse(name, f"is not JSON: {exc}", "import-syntax") from None
        except RecursionError:
            raise _too_deep(name) from None
    return _checked(name, _yaml(name, text))


def refuse(where: str, what: str, id_: str) -> ConfigError:
    """Make the error that says what is wrong with a file."""
    return ConfigError([Problem(where, what, id_)])


def _too_deep(name: str) -> ConfigError:
    return refuse(name, f"is nested deeper than {MAX_DEPTH} levels", "import-depth")


def _read(name: str) -> bytes:
    try:
        if name == "-":
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        what = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise refuse(name, f"cannot be read: {what}", "import-unreadable") from None
    if len(raw) > MAX_BYTES:
        raise refuse(name, f"is larger than {MAX_BYTES // 1024 // 1024} MiB", "import-size")
    return raw


def _json(name: str, text: str) -> object:
    def once(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
        return _without_twins(name, pairs)

    return json.loads(text, object_pairs_hook=once)


def _without_twins(name: str, pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise refuse(name, f"has the key {key!r} twice in one table", "import-twice")
        found[key] = value
    return found


def _checked(name: str, data: object) -> object:
    """Refuse what is too much, and values that JSON has not; aliases count as often as they are used."""
    left = MAX_VALUES
    stack = [(data, 0)]
    while stack:
        value, depth = stack.pop()
        left -= 1
        if depth > MAX_DEPTH:
            raise _too_deep(name)
        if left < 0:
            raise refuse(name, f"holds more than {MAX_VALUES} values", "import-size")
        if isinstance(value, dict):
            stack += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list):
            stack += [(part, depth + 1) for part in value]
        elif isinstance(value, str):
            if any("\ud800" <= c <= "\udfff" for c in value):
                raise refuse(name, "holds half a surrogate pair, which is no text", "import-text")
        elif value is not None and not isinstance(value, int | float):
            raise refuse(name, f"holds a {type(value).__name__}, which is no plain data", "import-syntax")
    return data


def _yaml(name: str, text: str) -> object:
    try:
        import yaml
    except ModuleNotFoundError:
        raise refuse(name, "needs PyYAML: pip install 'strangle-mw[yaml]'", "yaml-missing") from None
    loader = _loader(name)
    try:
        depth = 0
        for event in yaml.parse(text, loader):  # without recursion, so that what follows may recur
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise _too_deep(name)
        return yaml.load(text, loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise refuse(name, f"is not YAML: {' '.join(str(exc).split())}", "import-syntax") from None


def _loader(name: str) -> Any:
    """Make a SafeLoader whose keys are text, whose dates are text, and which knows CloudFormation's tags."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    no_types = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")
    implicit = {
        first: [(tag, pattern) for tag, pattern in found if tag not in no_types]
        for first, found in base.yaml_implicit_resolvers.items()
    }
    loader: Any = type("Loader", (base,), {"yaml_implicit_resolvers": implicit})

    def mapping(self: Any, node: Any) -> dict[str, object]:
        pairs: list[tuple[str, object]] = []
        merged: list[object] = []
        for key, node_value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise refuse(name, "has a key that is not text", "import-syntax")
            value = self.construct_object(node_value, deep=True)
            if key.tag == "tag:yaml.org,2002:merge":
                merged += value if isinstance(value, list) else [value]
            else:
                pairs.append((key.value, value))  # as it is written: a key `on` is no boolean here
        own = _without_twins(name, pairs)
        for more in {id(m): m for m in merged}.values():  # the same alias a thousand times says it once
            own = {**more, **own} if isinstance(more, dict) else own
        return own

    def short(self: Any, suffix: str, node: Any) -> object:
        """Read `!Ref x` as what it is short for: `{"Ref": "x"}`."""
        value: object = node.value
        if isinstance(node, yaml.MappingNode):
            value = mapping(self, node)
        elif isinstance(node, yaml.SequenceNode):
            value = [self.construct_object(n, deep=True) for n in node.value]
        elif suffix == "GetAtt":
            value = node.value.split(".", 1)
        return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}

    loader.add_constructor("tag:yaml.org,2002:map", mapping)
    loader.add_multi_constructor("!", short)
    return loader
