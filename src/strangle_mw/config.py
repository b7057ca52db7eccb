"""From what a user gives (a list, a dict, a file) to a `Snapshot`, or every problem at once.

Reading files and checking shapes live here; what a route means is `core.compile`, what a table means as a
whole is `core.lint`. A problem names its place as the user wrote it: `routes[3].weight`.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from importlib.util import find_spec
from inspect import iscoroutinefunction
from ipaddress import ip_network
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import msgspec

from strangle_mw.core.compile import RouteCompiler
from strangle_mw.core.decision import Snapshot
from strangle_mw.core.hygiene import Hygiene, TrustedPeers
from strangle_mw.core.lint import duplicate_names, slow_regexes, ties, unreachable
from strangle_mw.core.messages import is_token
from strangle_mw.core.model import Route, Settings, TableOptions, Upstream
from strangle_mw.core.routing import RouteTable
from strangle_mw.errors import ConfigError, Problem
from strangle_mw.files import read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from strangle_mw.core.compiled import CompiledRoute, CompiledUpstream
    from strangle_mw.core.messages import RequestHead

Source = str | PathLike[str] | Mapping[str, Any] | Sequence[Route | Mapping[str, Any]]
"""What `strangle` takes as its routes: a file's path, a document as a dict, or a list of routes."""

T = TypeVar("T")
_log = logging.getLogger("strangle_mw")

# Settings that parse already and act in a later version (see `core.compile`).
_LATER_SETTINGS = ("identify", "serve", "store", "admin")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The whole of a file; also its JSON Schema's root."""

    trailing_slash: Literal["strict", "ignore"] = dataclasses.field(
        default="strict", metadata={"doc": "`ignore` makes `/a` and `/a/` the same path"}
    )
    ambiguous: Literal["reject", "legacy"] = dataclasses.field(
        default="reject",
        metadata={"doc": "a path that two standard readings route differently: 400, or legacy"},
    )
    strangle: Settings = dataclasses.field(
        default_factory=Settings, metadata={"doc": "settings of the middleware"}
    )
    upstreams: Mapping[str, Upstream | None] = dataclasses.field(
        default_factory=dict, metadata={"doc": "named modern targets"}
    )
    routes: Sequence[Route | None] = dataclasses.field(
        default=(), metadata={"doc": "the routes; their order is irrelevant"}
    )


def load(
    source: Source,
    *,
    hop_marker: bytes = b"strangle-none",
    draw: Callable[[], int] = lambda: 0,
    new_id: Callable[[], bytes] = lambda: b"0" * 32,
    **settings: Any,
) -> Snapshot:
    """Load a route table.

    `source` is a path to a `.toml`, `.json` or `.yaml` file, a dict of the same shape, or a list of `Route`
    objects or dicts; `settings` are those of `Settings` and go before the file's. Raises `ConfigError` with
    every problem found.
    """
    problems: list[Problem] = []
    data = _document(source)
    decoder = _Decoder(problems, from_file=isinstance(source, str | PathLike))
    document = _decode(data, decoder)
    given = {k: v for k, v in settings.items() if v not in (None, ())}
    in_code = _Decoder(problems, from_file=False).table(Settings, given, "strangle()") or Settings()
    merged = dataclasses.replace(document.strangle, **{k: getattr(in_code, k) for k in given})
    revision = blake2b(repr(data).encode("utf-8", "backslashreplace"), digest_size=6).hexdigest()
    snapshot = _compile(document, merged, problems, hop_marker)
    hygiene = dataclasses.replace(snapshot.hygiene, new_id=new_id)
    return dataclasses.replace(snapshot, revision=revision, draw=draw, hygiene=hygiene)


# What is told as missing when it was there and could not be used.
_ECHOES = {"target-missing": ("to", "redirect", "respond"), "upstream-target": ("url", "urls")}


def _without_echoes(problems: Iterable[Problem]) -> Iterator[Problem]:
    places = [p.where for p in problems]
    for problem in problems:
        causes = [f"{problem.where}.{field}" for field in _ECHOES.get(problem.id, ())]
        if not any(place.startswith(cause) for place in places for cause in causes):
            yield problem


def _decode(data: Mapping[str, Any], decoder: _Decoder) -> Document:
    """Decode a document part by part: what is right is compiled, so that its problems show, too."""
    parts = {k: v for k, v in data.items() if k not in ("routes", "upstreams")}
    document = decoder.table(Document, parts, "") or Document()
    routes, upstreams = data.get("routes", ()), data.get("upstreams", {})
    if isinstance(routes, str) or not isinstance(routes, Sequence):
        decoder.note("routes", f"must be a list, not {_kind(routes)}", "type")
        routes = ()
    if not isinstance(upstreams, Mapping):
        decoder.note("upstreams", f"must be a table, not {_kind(upstreams)}", "type")
        upstreams = {}
    return dataclasses.replace(
        document,
        routes=[decoder.table(Route, r, f"routes[{i}]") for i, r in enumerate(routes)],
        upstreams={str(n): decoder.table(Upstream, u, f"upstreams.{n}") for n, u in upstreams.items()},
    )


def _document(source: Source) -> Mapping[str, Any]:
    if isinstance(source, str | PathLike):
        return read_file(Path(source))
    if isinstance(source, Mapping):
        return source
    if isinstance(source, list | tuple):
        return {"routes": source}
    what = f"must be a file's path, a dict or a list of routes, not {type(source).__name__}"
    raise ConfigError([Problem("routes", what, "source-type")])


def _compile(document: Document, settings: Settings, problems: list[Problem], hop_marker: bytes) -> Snapshot:
    loose = document.trailing_slash == "ignore"
    compiler = RouteCompiler(document.upstreams, loose_slash=loose)
    for name, upstream in document.upstreams.items():
        if upstream is not None:
            compiler.begin(f"upstreams.{name}")
            compiler.upstreams.add(name, upstream)
    compiled = [compiler.compile(_guarded(r, i), i) for i, r in enumerate(document.routes) if r is not None]
    routes = [r for r in compiled if r is not None]
    upstreams = compiler.upstreams.compiled
    problems += compiler.problems
    problems += _check_upstreams(upstreams, compiler.upstreams.used, document)
    problems += [*duplicate_names(routes), *unreachable(routes), *_check_settings(settings)]
    if problems:
        raise ConfigError(_without_echoes(dict.fromkeys(problems)))
    return Snapshot(
        RouteTable(routes, loose_slash=loose),
        upstreams,
        TableOptions(ambiguous=document.ambiguous, trailing_slash=document.trailing_slash),
        Hygiene(
            hop_marker,
            frozenset(h.lower().encode("latin-1", "replace") for h in settings.allow_headers),
            TrustedPeers(tuple(_network(p) for p in settings.trusted_proxies)),
        ),
        settings,
        warnings=tuple(_warnings(routes, upstreams)),
    )


def _warnings(
    routes: Sequence[CompiledRoute], upstreams: Mapping[str, CompiledUpstream]
) -> Iterator[Problem]:
    yield from ties(routes)
    yield from slow_regexes(routes)
    for name, upstream in upstreams.items():
        if not upstream.declared.verify:
            yield Problem(f"upstreams.{name}.verify", "TLS certificates are NOT verified", "tls-unverified")


def _guarded(route: Route, index: int) -> Route:
    """Make a `when` that raises count as no: the wrapped app answers, and the error is told once."""
    when = route.when
    if when is None or iscoroutinefunction(when):
        return route  # the latter is refused by `core.compile`
    told: list[bool] = []

    def guarded(head: RequestHead) -> bool:
        try:
            answer = when(head)
            return bool(answer) and not hasattr(answer, "__await__")
        except Exception:  # noqa: BLE001 - logged below with its traceback; a user's code must not end a request
            if not told:
                told.append(True)
                _log.exception("routes[%d].when raised; taken for no (told once)", index)
            return False

    return dataclasses.replace(route, when=guarded)


def _check_upstreams(
    upstreams: Mapping[str, CompiledUpstream], used: set[str], document: Document
) -> Iterator[Problem]:
    for name in document.upstreams:
        if name not in used and None not in document.routes:
            yield Problem(
                f"upstreams.{name}",
                "no route uses it; remove it or name it in a route's `to`",
                "upstream-unused",
            )
    for upstream in upstreams.values():
        yield from _check_tls(f"upstreams.{upstream.name}", upstream.declared)
        if upstream.declared.http == "2" and not all(map(find_spec, ("httpx2", "h2"))):
            what = "HTTP/2 needs more packages: pip install 'strangle-mw[http2]'"
            yield Problem(f"upstreams.{upstream.name}.http", what, "http2-extra")


def _check_tls(where: str, upstream: Upstream) -> Iterator[Problem]:
    for field in ("ca", "cert", "key"):
        path = getattr(upstream.tls, field)
        if path and not Path(path).is_file():
            yield Problem(f"{where}.tls.{field}", f"there is no file {path!r}", "tls-file")


def _check_settings(settings: Settings) -> Iterator[Problem]:
    for field in _LATER_SETTINGS:
        if getattr(settings, field) is not None:
            yield Problem(f"strangle.{field}", "acts in a later version; remove it", "not-yet")
    if settings.max_body is not None and settings.max_body < 0:
        yield Problem("strangle.max_body", "must be 0 or more bytes", "max-body-range")
    for at, name in enumerate(settings.allow_headers):
        if not is_token(name.encode("latin-1", "replace")):
            yield Problem(
                f"strangle.allow_headers[{at}]", f"{name!r} cannot be the name of a header", "header-name"
            )
    for at, proxy in enumerate(settings.trusted_proxies):
        if _network(proxy) is None:
            what = f"{proxy!r} must be an address or a network like 10.0.0.0/8 (or `unix`)"
            yield Problem(f"strangle.trusted_proxies[{at}]", what, "trusted-proxy")


def _network(text: str) -> object | None:
    if text == "unix":
        return ""  # what servers report as the peer of a Unix socket
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


class _Decoder:
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
            self.note(where, f"must be a table, not {_kind(data)}", "type")
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
                what = f"must be {_plain(hint)}, not {_kind(value)}"
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


def _kind(value: object) -> str:
    kinds: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "true or false"),
        (str, "text"),
        ((int, float), "a number"),
        (Mapping, "a table"),
        (Sequence, "a list"),
    ]
    return next((name for kind, name in kinds if isinstance(value, kind)), type(value).__name__)
