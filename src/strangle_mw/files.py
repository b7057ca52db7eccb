"""Reads a table file into plain data: TOML, JSON, YAML. What the data means is `config`'s business."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from strangle_mw.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping
    from pathlib import Path


def read_file(path: Path) -> Mapping[str, Any]:
    """Read a table file by its ending; raise `ConfigError` that names the file and the line."""
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise _refuse(path, "must end in .toml, .json, .yaml or .yml", "file-type")
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise _refuse(path, f"there is no such file{_nearest(path)}", "file-missing") from None
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise _refuse(path, f"cannot be read: {reason}", "file-unreadable") from None
    data = parse(path, text)
    if not isinstance(data, dict):
        raise _refuse(path, "must hold a table with `routes`", "file-shape")
    return {k: v for k, v in data.items() if k != "$schema"}


def _refuse(path: Path, what: str, id_: str) -> ConfigError:
    return ConfigError([Problem(str(path), what, id_)])


def _nearest(path: Path) -> str:
    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix.lower() in _PARSERS]
    except OSError:
        return f" (nor a folder {str(path.parent)!r})"
    near = difflib.get_close_matches(path.name, names, 1, 0.5)
    return f"; did you mean {str(path.parent / near[0])!r}?" if near else ""


def _toml(path: Path, text: str) -> object:
    import tomllib

    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # TOMLDecodeError, and integers beyond all measure
        raise _refuse(path, f"is not TOML: {exc}", "toml-syntax") from None


def _json(path: Path, text: str) -> object:
    import json

    def once(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
        return _without_twins(path, pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as exc:
        raise _refuse(path, f"is not JSON: {exc}", "json-syntax") from None


def _yaml(path: Path, text: str) -> object:
    try:
        import yaml
    except ModuleNotFoundError:
        raise _refuse(path, "needs PyYAML: pip install 'strangle-mw[yaml]'", "yaml-missing") from None

    class Loader(yaml.SafeLoader):
        """YAML 1.1 without tags that build objects, and without keys given twice."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
        loader.flatten_mapping(node)
        pairs = [
            (loader.construct_object(k, deep=True), loader.construct_object(v, deep=True))
            for k, v in node.value
        ]
        return _without_twins(path, pairs)

    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        for name in ("context_mark", "problem_mark"):
            if (mark := getattr(exc, name, None)) is not None:
                mark.buffer = None  # else the line is told, and it may hold a secret
        raise _refuse(path, f"is not YAML: {' '.join(str(exc).split())}", "yaml-syntax") from None


def _without_twins(path: Path, pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise _refuse(path, f"has the key {key!r}, which is not text", "key-type")
        if key in found:
            raise _refuse(path, f"has the key {key!r} twice in one table", "key-twice")
        found[key] = value
    return found


_PARSERS: Mapping[str, Callable[[Path, str], object]] = {
    ".toml": _toml,
    ".json": _json,
    ".yaml": _yaml,
    ".yml": _yaml,
}
