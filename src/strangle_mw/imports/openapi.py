"""From an OpenAPI 3 or Swagger 2 document to a table: one route for each path and method.

Only what selects a request is read: paths, methods, names and types of path parameters. References inside the
document are followed, others are told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from strangle_mw.core.patterns import PatternError, parse_path
from strangle_mw.decoding import kind_of
from strangle_mw.imports.plan import Block, Names, Plan, path_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")
"""Keys of a path item that are methods (OpenAPI 3.2; 3.0 and 3.1 lack `query`, Swagger 2 also `trace`)."""

_MAX_REFERENCES = 20
# A path item's other keys.
_KNOWN = ("summary", "description", "servers", "parameters", "$ref", "additionalOperations")
_EXPECTED = "an OpenAPI 3 document (`openapi: 3...`) or a Swagger 2 document (`swagger: '2.0'`)"


def import_openapi(
    name: str, data: object, *, to: str, url: str = "", stage: str = "legacy", prefix: str = ""
) -> Plan:
    """Make a plan of one document, whose file is `name`.

    `to` is what every route leads to; with `url` it is the name of an upstream at that address. `prefix` is
    put in front of every path.
    """
    plan = Plan([f"From {name}, by `strangle import openapi`."])
    if not isinstance(data, dict):
        plan.problem(name, f"must be {_EXPECTED}; this is {kind_of(data)}", "import-format")
        return plan
    version = str(data.get("openapi") or data.get("swagger") or "")
    if not version.startswith("3." if "openapi" in data else "2"):
        found = f"one of version {version!r}" if version else "a table without either key"
        plan.problem(name, f"must be {_EXPECTED}; this is {found}", "import-format")
        return plan
    if url:
        plan.upstreams.append(Block(to, "--to", {"url": url}))
    _Importer(plan, data, to, stage, prefix.rstrip("/")).run()
    return plan


class _Importer:
    """Reads one document."""

    def __init__(self, plan: Plan, data: Mapping[str, object], to: str, stage: str, prefix: str) -> None:
        self._plan = plan
        self._data = data
        self._to = to
        self._stage = stage
        self._prefix = prefix
        self._names = Names()

    def run(self) -> None:
        plan = self._plan
        if self._stage == "legacy":
            plan.title.append("Every route is in stage legacy: nothing moves until you move it.")
        self._servers()
        for key in ("webhooks", "x-webhooks"):
            if key in self._data:
                plan.note(key, "is not used: these are requests that the app sends")
        paths = self._data.get("paths", {})
        if not isinstance(paths, dict):
            plan.problem("paths", f"must be a table, not {kind_of(paths)}", "import-type")
            return
        for path in sorted(paths):
            if not path.startswith("x-"):
                self._path(path, paths[path])
        if not plan.routes and not plan.problems:
            plan.note("paths", "there are none: the wrapped app answers everything")
            plan.upstreams.clear()

    def _servers(self) -> None:
        """Tell which path the document says is in front of its own."""
        servers = self._data.get("servers")
        urls = [s.get("url") for s in servers if isinstance(s, dict)] if isinstance(servers, list) else []
        bases = {_base(u) for u in urls if isinstance(u, str)} | {
            str(self._data.get("basePath") or "").rstrip("/")
        }
        for base in sorted(bases - {"", self._prefix}):
            what = f"names the prefix {base}; the routes have {self._prefix or 'none'} (--prefix {base})"
            self._plan.note("servers" if urls else "basePath", what)

    def _path(self, path: str, item: object) -> None:
        place = f"paths.{path}"
        item = self._followed(item, place)
        if not isinstance(item, dict):
            return
        for key in sorted(item):
            if key not in METHODS and key not in _KNOWN and not key.startswith("x-"):
                self._plan.note(f"{place}.{key}", "is no method, and not used")
        if "servers" in item:
            self._plan.note(f"{place}.servers", "is not used: every route leads to the same upstream")
        more = item.get("additionalOperations")
        operations = {m.upper(): (m, item[m]) for m in METHODS if m in item}
        operations |= (
            {m: (f"additionalOperations.{m}", o) for m, o in more.items()} if isinstance(more, dict) else {}
        )
        shared = [*self._parameters(item, place)]
        before = len(self._plan.problems)
        for method, (key, operation) in operations.items():
            if len(self._plan.problems) == before:  # else the path itself is wrong, which is told once
                self._operation(path, method, f"{place}.{key}", operation, shared)

    def _operation(
        self, path: str, method: str, place: str, operation: object, shared: list[tuple[str, str]]
    ) -> None:
        if not isinstance(operation, dict):
            self._plan.problem(place, f"must be a table, not {kind_of(operation)}", "import-type")
            return
        types = dict([*shared, *self._parameters(operation, place)])
        written, renamed = path_of(path, lambda name: types.get(name, ""))
        written = f"{self._prefix}{written}"
        try:
            if written.endswith("/*"):
                raise PatternError("ends with `/*`, which would take everything below it")  # noqa: TRY301
            parse_path(written)
        except PatternError as exc:
            self._plan.problem(place.rpartition(".")[0], f"the path {path} {exc}", "import-path")
            return
        wanted = operation.get("operationId")
        name = wanted if isinstance(wanted, str) and wanted else f"{method} {written}"
        taken = self._names.take(name)
        block = Block(taken, place, {"name": taken, "path": written, "methods": [method]})
        block.fields |= {"to": self._to, "stage": self._stage}
        if taken != name:
            self._plan.note(place, f"another operation is named {name!r}; this one is {taken!r}")
        if operation.get("deprecated") is True:
            block.comments.append("deprecated")
        if ":int}" in written:
            what = "are {NAME:int} here, digits alone; anything else, -1 too, stays with the wrapped app"
            self._plan.note("integer path parameters", what)
        for old, new in renamed:
            self._plan.note(place, f"the parameter {{{old}}} is {{{new}}} here")
        if "servers" in operation:
            self._plan.note(f"{place}.servers", "is not used: every route leads to the same upstream")
        self._plan.routes.append(block)

    def _parameters(self, owner: Mapping[str, object], place: str) -> Iterator[tuple[str, str]]:
        """Yield the names of path parameters with their types in a path, "" for any."""
        found = owner.get("parameters", [])
        if not isinstance(found, list):
            self._plan.problem(f"{place}.parameters", f"must be a list, not {kind_of(found)}", "import-type")
            return
        for at, given in enumerate(found):
            where = f"{place}.parameters[{at}]"
            parameter = self._followed(given, where)
            if isinstance(parameter, dict) and parameter.get("in") == "path":
                # Swagger 2 has the type in the parameter itself.
                schema = parameter.get("schema", parameter)
                if not isinstance(schema, bool):  # JSON Schema's `true`, which says nothing
                    schema = self._followed(schema, where)
                yield str(parameter.get("name")), _type(schema) if isinstance(schema, dict) else ""

    def _followed(self, value: object, place: str) -> object:
        """Follow `$ref` inside the document; tell where that is not possible, and return nothing then."""
        for _ in range(_MAX_REFERENCES):
            if not isinstance(value, dict):
                self._plan.problem(place, f"must be a table, not {kind_of(value)}", "import-type")
                return None
            reference = value.get("$ref")
            if reference is None:
                return value
            target = self._target(reference)
            if target is None:
                what = f"refers to {reference!r}, which is not in this document; bundle it into one file"
                self._plan.problem(place, what, "import-reference")
                return None
            value = target
        self._plan.problem(place, "refers to itself", "import-reference")
        return None

    def _target(self, reference: object) -> object:
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return None
        value: object = self._data
        for part in reference[2:].split("/"):
            key = unquote(part).replace("~1", "/").replace("~0", "~")  # RFC 6901 section 4
            if isinstance(value, list) and key.isdecimal() and key.isascii() and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict):
                value = value.get(key)
            else:
                return None
        return value


def _type(schema: Mapping[str, object]) -> str:
    types = schema.get("type")
    named = [t for t in types if t != "null"] if isinstance(types, list) else [types]
    if named == ["integer"]:
        return "int"
    return "uuid" if schema.get("format") == "uuid" and named in (["string"], [None]) else ""


def _base(url: str) -> str:
    try:
        return urlsplit(url).path.rstrip("/")
    except ValueError:
        return ""
