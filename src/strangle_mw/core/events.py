"""What happened and how often: events and counter keys, small and safe to show.

Only facts and their written forms live here. An event's texts are escaped and cut when it is made, so that
every sink may print them (promise P18); counter keys are a closed set (promise P17).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from strangle_mw.core.dials import BASIS_POINTS
from strangle_mw.core.model import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal[
    "override", "promote", "rollback", "kill", "unkill",
    "reload", "reload-failed",
    "store-lost", "store-back", "store-refused",
    "breaker-open", "breaker-closed", "unhealthy", "healthy",
    "retired-hit", "override-ignored", "override-waiting",
]  # fmt: skip
"""What an event may be about."""

KINDS: Final[frozenset[str]] = frozenset(get_args(Kind))

SIDES: Final = ("legacy", "modern", "shadow")

UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that move a terminal's cursor, break a line, turn the direction of text, or are none."""

MAX_TIME = 253_402_300_799.0
"""The end of the year 9999 in Unix seconds, the last that `datetime` can show."""

_LIMITS: Mapping[str, int] = {"what": 500, "route": 500, "by": 200, "worker": 200}
_OUTCOME = re.compile(r"[a-z0-9][a-z0-9:._-]{0,63}")


def safe_text(text: str, limit: int) -> str:
    """Escape what is in `UNSAFE` and cut to `limit` characters; a second time changes nothing."""
    shown = UNSAFE.sub(_escape, text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "\u2026"


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


@dataclass(frozen=True, slots=True)
class Event:
    """One fact; `at` is Unix seconds, `by` a person, `worker` the process that tells."""

    at: float
    kind: Kind
    what: str
    route: str = ""
    by: str = ""
    worker: str = ""

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            object.__setattr__(self, name, safe_text(getattr(self, name), limit))

    def as_dict(self) -> dict[str, Any]:
        """Return what a store keeps: JSON values, without the fields that are empty."""
        texts = {name: getattr(self, name) for name in _LIMITS}
        return {"at": self.at, "kind": self.kind, **{n: t for n, t in texts.items() if t}}


def read_event(data: Mapping[str, Any]) -> Event | None:
    """Read what a store has kept; None if it is no event of this version. Further keys are ignored."""
    at, kind = data.get("at"), data.get("kind")
    texts = {name: data.get(name, "") for name in _LIMITS}
    if not isinstance(at, int | float) or isinstance(at, bool) or not 0 <= at <= MAX_TIME:
        return None
    if not isinstance(kind, str) or kind not in KINDS or not all(isinstance(t, str) for t in texts.values()):
        return None
    return Event(float(at), kind, **texts)  # type: ignore[arg-type]  # `kind` is one of KINDS


class CounterKey(NamedTuple):
    """What is counted together.

    `stage` and `points` are those in force, `side` is one of `SIDES`, `outcome` a short word in ASCII.
    """

    route: str
    stage: str
    points: int
    side: str
    outcome: str

    def field(self) -> str:
        """Return the name under which a store counts: the parts with tabs between them."""
        return f"{counter_prefix(self.route)}{self.stage}\t{self.points}\t{self.side}\t{self.outcome}"

    @classmethod
    def parse(cls, field: str) -> CounterKey | None:
        """Read a `field`; None for anything that is not of the closed set."""
        route, *parts = field.split("\t")
        try:
            stage, points, side, outcome = parts
            key = cls(_unescape(route), Stage(stage).value, int(points), side, outcome)
        except ValueError:
            return None
        known = side in SIDES and 0 <= key.points <= BASIS_POINTS and _OUTCOME.fullmatch(outcome)
        return key if known and key.field() == field else None


def counter_prefix(route: str) -> str:
    """Return what every field of a route starts with, and no other route's."""
    return route.replace("\\", "\\\\").replace("\t", "\\t") + "\t"


def _unescape(name: str) -> str:
    return re.sub(r"\\([\\t])", lambda m: "\t" if m[1] == "t" else "\\", name)
