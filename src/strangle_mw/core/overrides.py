"""Overrides: what operators change live, on top of the table; strictly read and purely changed.

The document is the only thing that reaches a process from outside while it runs, so this is where promise
P20 is kept: it can choose a stage or a weight for a route that code or file defines, and nothing else. One
doubt about any part refuses the whole document. Where documents are kept is `stores`.
"""

from __future__ import annotations

import hmac
import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from strangle_mw.core.dials import BASIS_POINTS, Dial, basis_points, make_dial
from strangle_mw.core.events import MAX_TIME, UNSAFE, safe_text
from strangle_mw.core.model import Stage
from strangle_mw.errors import Problem, StrangleError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from strangle_mw.core.compiled import CompiledRoute
    from strangle_mw.core.routing import RouteTable

    Check = Callable[[object, str], Any]

MAX_DOCUMENT = 4 << 20
"""Bytes of a document beyond which it is not read; `rollback --all` of 10,000 routes writes 2 MiB."""

MAX_REVISION = (1 << 53) - 1
"""The highest revision: every reader of JSON keeps it exactly (RFC 8259 section 6)."""

MAX_NAME = 500
"""Characters of a route's name beyond which no override could name it."""

FORMAT = 1
_MAX_DEPTH = 4  # document > overrides > one of them > what was declared
_MAX_DIGITS = 20
_CENTURY = 100 * 365 * 24 * 3600 * 1000  # milliseconds
_BY, _WHY = 200, 1000  # characters
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_MAC = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


class OverridesError(StrangleError):
    """A document of overrides is refused as a whole; `reason` is a sentence that is safe to show."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Override:
    """Stage or weight of one route, or both; `points` are basis points, `at` is Unix seconds.

    `force` moves to a modern stage without waiting for a good health answer; `declared` is what the table
    said when the override was made.
    """

    stage: Stage | None
    points: int | None
    by: str
    at: float
    why: str
    force: bool = False
    declared: Dial | None = None


@dataclass(frozen=True, slots=True)
class Kill:
    """The kill switch, turned: every route is `legacy`; who did it, when (Unix seconds) and why."""

    by: str
    at: float
    why: str


@dataclass(frozen=True, slots=True)
class Overrides:
    """All live changes of one revision; revisions only grow."""

    revision: int = 0
    kill: Kill | None = None
    routes: Mapping[str, Override] = field(default_factory=dict)


NO_OVERRIDES: Final = Overrides()
"""What holds as long as nothing was ever stored."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What overrides make of one table.

    `dials` holds the routes whose override acts; `problems` says which do not; `contradicted` names the
    routes that the table declares otherwise than when the override was made.
    """

    dials: Mapping[str, Dial]
    problems: tuple[Problem, ...] = ()
    contradicted: frozenset[str] = frozenset()


def latest_revision(now: float) -> int:
    """Return the highest revision that a reader should follow at a time (Unix seconds).

    It lies a century ahead, which allows for every clock that is wrong, and moves on: a document of the
    highest revision of all could never be replaced by a newer one, not even to turn the kill switch.
    """
    return min(int(now * 1000) + _CENTURY, MAX_REVISION)


def parse_overrides(text: bytes, key: bytes = b"", latest: int = MAX_REVISION) -> Overrides:
    """Read a document; no bytes at all are a store that has none.

    With `key` the document must carry its HMAC; `latest` is the highest revision it may have. Raises
    `OverridesError` for everything else, and nothing but that, whatever the bytes are.
    """
    if not text:
        return NO_OVERRIDES
    data = _load(text)
    if key:
        given = data.get("mac")
        if not isinstance(given, str) or not _MAC.fullmatch(given):
            raise OverridesError("the document is not signed, and a key is set here")
        if not hmac.compare_digest(given, _mac(data, key)):
            raise OverridesError(
                "the document is signed with another key, or was changed after it was signed"
            )
    found = _overrides(data, "the document")
    if found.revision > latest:
        raise OverridesError(f"the document has a revision of a time to come: {found.revision}")
    return found


def encode_overrides(overrides: Overrides, key: bytes = b"") -> bytes:
    """Write a document: canonical JSON in ASCII, with its HMAC if there is a key.

    Raises `OverridesError` for what `parse_overrides` would refuse.
    """
    data: dict[str, Any] = {
        "format": FORMAT,
        "revision": overrides.revision,
        "kill": None if overrides.kill is None else _kill_data(overrides.kill),
        "overrides": {name: _override_data(o) for name, o in overrides.routes.items()},
    }
    if key:
        data["mac"] = _mac(data, key)
    text = _canonical(data)
    parse_overrides(text, key)
    return text


def apply_overrides(table: RouteTable, overrides: Overrides) -> Applied:
    """Turn the dials of the routes that the table has; what cannot act is told and changes nothing."""
    dials: dict[str, Dial] = {}
    problems: list[Problem] = []
    contradicted: set[str] = set()
    for name, override in overrides.routes.items():
        route = table.by_name.get(name)
        found = _turn(route, override)
        if isinstance(found, Dial):
            dials[name] = found
        else:
            problems.append(Problem(f"override of {safe_text(name, MAX_NAME)!r}", *found))
        if route is not None and override.declared not in (None, route.staging.dial):
            contradicted.add(name)
    return Applied(dials, tuple(problems), frozenset(contradicted))


def with_override(overrides: Overrides, route: str, override: Override, now: float) -> Overrides:
    """Add or replace the override of one route; `now` is Unix seconds, for the next revision."""
    return replace(_next(overrides, now), routes={**overrides.routes, route: override})


def without(overrides: Overrides, routes: Collection[str] | None, now: float) -> Overrides:
    """Take away the overrides of these routes, or all of them for None; `now` as in `with_override`."""
    kept = {n: o for n, o in overrides.routes.items() if routes is not None and n not in routes}
    return replace(_next(overrides, now), routes=kept)


def with_kill(overrides: Overrides, kill: Kill | None, now: float) -> Overrides:
    """Turn the kill switch, back with None; `now` as in `with_override`."""
    return replace(_next(overrides, now), kill=kill)


def _next(overrides: Overrides, now: float) -> Overrides:
    # Milliseconds, so that a store that has lost everything starts above what workers have seen.
    return replace(overrides, revision=max(overrides.revision + 1, int(now * 1000)))


def _turn(route: CompiledRoute | None, override: Override) -> Dial | tuple[str, str]:
    """Return the dial that an override makes, or what is wrong with it and the problem's id."""
    if route is None:
        return "the table has no such route; the override is ignored", "override-route"
    if route.action is None:
        return "the route has no modern side; the override is ignored", "override-legacy"
    declared = route.staging.dial.stage
    stage = override.stage or declared
    if stage is Stage.CANARY:
        percent = route.declared.weight
        points = override.points if override.points is not None else percent and basis_points(percent)
        if points is None:
            return "stage 'canary' needs a weight; the override is ignored", "override-weight"
        return make_dial(stage, int(points), overridden=True)
    if override.stage is None:
        what = f"a weight acts in stage 'canary', the route is in {declared.value!r}; it is ignored"
        return what, "override-weight"
    return make_dial(stage, 0, overridden=True)


def _canonical(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def _mac(data: Mapping[str, Any], key: bytes) -> str:
    return hmac.new(key, _canonical({k: v for k, v in data.items() if k != "mac"}), "sha256").hexdigest()


def _kill_data(kill: Kill) -> dict[str, Any]:
    return {"by": kill.by, "at": kill.at, "why": kill.why}


def _override_data(override: Override) -> dict[str, Any]:
    declared = override.declared
    data: dict[str, Any] = {
        "stage": override.stage,
        "weight": override.points,
        "force": override.force,
        "by": override.by,
        "at": override.at,
        "why": override.why,
        "declared": declared and {"stage": declared.stage, "weight": declared.points},
    }
    return {k: v for k, v in data.items() if v is not None}


def _load(text: bytes) -> dict[str, Any]:
    """Read JSON in UTF-8 whose root is an object: no twins, no NaN, nothing deep, no endless numbers."""
    if len(text) > MAX_DOCUMENT:
        raise OverridesError(f"the document has {len(text)} bytes; at most {MAX_DOCUMENT} are read")
    if _is_deep(text):
        raise OverridesError(f"the document is nested more than {_MAX_DEPTH} deep")
    try:
        data = json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_constant, parse_int=_digits)
    except ValueError as exc:  # JSONDecodeError, UnicodeDecodeError
        raise OverridesError(f"the document is not JSON: {safe_text(str(exc), 100)}") from None
    return _table(data, "the document")


def _is_deep(text: bytes) -> bool:
    """Tell whether brackets are nested too deep, those in texts left out."""
    depth = 0
    for token in _TOKENS.finditer(text):
        if token[0] in (b"[", b"{"):
            depth += 1
            if depth > _MAX_DEPTH:
                return True
        elif token[0] in (b"]", b"}"):
            depth -= 1
    return False


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise OverridesError(f"the document has the key {_quoted(name)} twice")
        found[name] = value
    return found


def _constant(name: str) -> object:
    raise OverridesError(f"the document has {name}, which is not JSON")


def _digits(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise OverridesError("the document has a number out of range")
    return int(text)


def _quoted(text: str) -> str:
    return f"'{safe_text(text, 80)}'"


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise OverridesError(f"{where} must be an object")
    return value


def _members(value: object, where: str, required: Mapping[str, Check], optional: Mapping[str, Check]) -> Any:
    """Check an object's members, each by its own rule; return what the rules make of them."""
    data, rules = _table(value, where), {**required, **optional}
    for name in data:
        if name not in rules:
            raise OverridesError(f"{where} has an unknown key {_quoted(name)}")
    for name in required:
        if name not in data:
            raise OverridesError(f"{where} lacks the key {name!r}")
    return {name: rules[name](member, f"{name!r} of {where}") for name, member in data.items()}


def _number(value: object, where: str, kinds: tuple[type, ...], low: float, high: float) -> Any:
    # `type`, not `isinstance`: JSON's true is no number. NaN fails every comparison.
    if type(value) not in kinds or not low <= value <= high:  # type: ignore[operator]
        raise OverridesError(f"{where} must be a number from {low:.0f} to {high:.0f}")
    return value


def _revision(value: object, where: str) -> int:
    return int(_number(value, where, (int,), 1, MAX_REVISION))


def _points(value: object, where: str) -> int:
    return int(_number(value, where, (int,), 0, BASIS_POINTS))


def _at(value: object, where: str) -> float:
    return float(_number(value, where, (int, float), 0, MAX_TIME))


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise OverridesError(f"{where} must be true or false")
    return value


def _stage(value: object, where: str) -> Stage:
    if not isinstance(value, str) or value not in _STAGES:
        raise OverridesError(f"{where} must be one of {', '.join(_STAGES)}")
    return _STAGES[value]


def _format(value: object, where: str) -> int:
    if type(value) is not int or value != FORMAT:
        raise OverridesError(f"{where} must be {FORMAT}: this version reads no other")
    return value


def _text(limit: int) -> Check:
    def check(value: object, where: str) -> str:
        if not isinstance(value, str) or len(value) > limit or UNSAFE.search(value):
            raise OverridesError(f"{where} must be text of at most {limit} characters, none of control")
        return value

    return check


def _dial(value: object, where: str) -> Dial:
    found = _members(value, where, {"stage": _stage, "weight": _points}, {})
    return Dial(found["stage"], found["weight"])


def _override(value: object, where: str) -> Override:
    found = _members(value, where, _OVERRIDE, _OVERRIDE_MORE)
    stage, points = found.pop("stage", None), found.pop("weight", None)
    if stage is None and points is None:
        raise OverridesError(f"{where} has neither 'stage' nor 'weight'")
    return Override(stage, points, **found)


def _routes(value: object, where: str) -> dict[str, Override]:
    routes = _table(value, where)
    for name in routes:
        if not name:
            raise OverridesError(f"a name in {where} is empty")
        _text(MAX_NAME)(name, f"a name in {where}")
    return {name: _override(o, f"the override of {_quoted(name)}") for name, o in routes.items()}


def _killed(value: object, where: str) -> Kill | None:
    return None if value is None else Kill(**_members(value, where, _WHO, {}))


def _overrides(value: object, where: str) -> Overrides:
    found = _members(value, where, _DOCUMENT, {"mac": _text(64)})
    return Overrides(found["revision"], found["kill"], found["overrides"])


_STAGES: Mapping[str, Stage] = {stage.value: stage for stage in Stage}
_WHO: Mapping[str, Check] = {"by": _text(_BY), "at": _at, "why": _text(_WHY)}
_OVERRIDE: Mapping[str, Check] = {**_WHO, "force": _flag}
_OVERRIDE_MORE: Mapping[str, Check] = {"stage": _stage, "weight": _points, "declared": _dial}
_DOCUMENT: Mapping[str, Check] = {
    "format": _format,
    "revision": _revision,
    "kill": _killed,
    "overrides": _routes,
}
