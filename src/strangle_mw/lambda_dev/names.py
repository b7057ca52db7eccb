"""What names a handler on the command line, and a function in a request."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from strangle_mw.errors import StrangleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from pathlib import Path

ACCOUNT: Final = "123456789012"
"""The account in the ARNs of functions that run here: the one of AWS's own examples."""

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
# The pattern of `FunctionName` in the Invoke API (botocore's model of it), in its parts.
_REFERENCE: Final = re.compile(
    r"(?:arn:aws[a-zA-Z-]*:lambda:)?(?:[a-z]{2}(?:-[a-z]+)+-\d:)?(?:\d{12}:)?(?:function:)?"
    r"(?P<name>[A-Za-z0-9_-]+)(?::(?P<qualifier>\$LATEST(?:\.PUBLISHED)?|[A-Za-z0-9_-]+))?"
)
MAX_REFERENCE: Final = 170
"""Characters of a function's name, ARN or partial ARN."""


class LambdaDevError(StrangleError):
    """lambda-dev cannot start; `problems` holds every reason."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Handler:
    """A function to run: `module` (dotted) and `attribute`; `name` is "" if it answers to any name."""

    name: str
    module: str
    attribute: str

    @property
    def shown(self) -> str:
        """The function's name, made from the module for one that answers to any."""
        return self.name or re.sub(r"[^A-Za-z0-9_-]", "-", self.module)[:64]

    def __str__(self) -> str:
        return f"{self.module}.{self.attribute}"


def parse_handler(text: str) -> Handler:
    """Read `[NAME=]module:handler` or, as AWS writes it, `module.handler`; a `ValueError` says why not."""
    name, equals, place = text.rpartition("=")
    if equals and not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no function name: letters, digits, - and _, at most 64")
    place = place.replace("/", ".")  # AWS: folder/module.handler
    module, colon, attribute = place.partition(":") if ":" in place else place.rpartition(".")
    if not colon or not module or not attribute:
        raise ValueError(f"{text!r} must be [NAME=]module:handler, as in marketing=shop.marketing:handler")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"{place!r} must name a module and a function in it, as in shop.marketing:handler")
    return Handler(name, module, attribute)


def parse_handlers(texts: Sequence[str]) -> list[Handler]:
    """Read all of them: no name twice, and at most one for any name."""
    found = [parse_handler(text) for text in texts]
    names = [handler.name for handler in found]
    if names.count("") > 1:
        raise ValueError("only one function can answer to any name: write NAME=module:handler for the others")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"the name {twice!r} is given twice")
    return found


def missing_module(module: str, folder: Path) -> str | None:
    """Say why a module cannot be found, or None; nothing is imported, not even a package that holds it."""
    path: list[str] | None = [str(folder), *sys.path]
    parts = module.split(".")
    for number, part in enumerate(parts, 1):
        spec = PathFinder.find_spec(part, path) or (_installed(part) if number == 1 else None)
        so_far = ".".join(parts[:number])
        if spec is None:
            where = f"the folder {folder}" if number == 1 else f"the package {'.'.join(parts[: number - 1])}"
            return f"there is no module {so_far!r} in {where}"
        path = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
        if path is None and number < len(parts):
            return f"{so_far!r} is a module and has no {parts[number]!r} below it"
        if number == len(parts) and spec.origin is None:
            return f"{module!r} is a folder of modules, not a module"
    return None


def _installed(module: str) -> ModuleSpec | None:
    """Ask the other finders, too: an editable installation brings one. A bare name imports nothing."""
    try:
        return find_spec(module)
    except ValueError:  # `__main__` of a program has no spec
        return None


def parse_reference(text: str) -> tuple[str, str] | None:
    """Read a request's function name, ARN or partial ARN as (name, qualifier or ""); None if it is none."""
    found = _REFERENCE.fullmatch(text) if len(text) <= MAX_REFERENCE else None
    return None if found is None else (found["name"], found["qualifier"] or "")
