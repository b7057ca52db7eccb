"""How often the app's endpoints and the table's routes were asked for, by day: the fields of a store.

Only their written form lives here, and reading it. Fields start with a tab, as no route's counters do
(`events.CounterKey`); a day is Unix days. What is counted is a closed set: a framework's rules, the table's
routes, known methods (promise P17); texts are escaped and cut (promise P18).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from strangle_mw.core.events import SIDES, CounterKey, safe_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

DAY: Final = 86_400
"""Seconds of a day."""

KEPT_DAYS: Final = 92
"""Days after which hits are forgotten: a quarter, so that what is done once a quarter is seen."""

MAX_TEXT: Final = 500

Days = dict[int, int]
"""Hits by day."""

_ENDPOINT = "\tendpoint\t"
_ROUTE = "\troute\t"
_DAY = re.compile(r"[0-9]{1,6}")  # to the year 4707


@dataclass(slots=True)
class Usage:
    """What a store knows of hits.

    `endpoints` are those of the wrapped app, by method and rule ("" for requests that it has no endpoint
    for); `routes` those of the table's routes, by route and side. `since` is the first day on which the
    app's endpoints were counted, None if they never were.
    """

    endpoints: dict[tuple[str, str], Days] = field(default_factory=dict)
    routes: dict[tuple[str, str], Days] = field(default_factory=dict)

    @property
    def since(self) -> int | None:
        """The first day on which an endpoint was counted."""
        return min((min(days) for days in self.endpoints.values()), default=None)


def usage_fields(
    hits: Mapping[tuple[str, str], int], counts: Mapping[CounterKey, int], today: int
) -> dict[str, int]:
    """Write the hits of endpoints (by method and rule), and of routes by the side that answered."""
    found = {endpoint_field(today, *key): 0 for key in hits}
    for (method, rule), number in hits.items():
        found[endpoint_field(today, method, rule)] += number
    for key, number in counts.items():
        if key.side != "shadow":
            name = f"{_ROUTE}{today}\t{key.side}\t{text_key(key.route)}"
            found[name] = found.get(name, 0) + number
    return found


def endpoint_field(day: int, method: str, rule: str) -> str:
    """Return the name under which a store counts an endpoint's hits of one day."""
    return f"{_ENDPOINT}{day}\t{method}\t{text_key(rule)}"


def text_key(text: str) -> str:
    """Return how a rule or a route's name stands in fields: escaped, without tabs, cut."""
    return safe_text(text, MAX_TEXT)


def read_usage(counts: Mapping[str, int]) -> Usage:
    """Read what a store has counted; what is of no known form is left out."""
    usage = Usage()
    for name, number in counts.items():
        found = _read(name)
        if found is not None and number > 0:
            kind, day, what, text = found
            if kind == _ENDPOINT:
                usage.endpoints.setdefault((what, text), {})[day] = number
            elif what in SIDES:
                usage.routes.setdefault((text, what), {})[day] = number
    return usage


def outdated(counts: Iterable[str], today: int) -> Collection[str]:
    """Return what the fields start with that are too old to be kept, or of a day that is still to come."""
    dated = {tuple(name.split("\t", 3)[1:3]) for name in counts if name.startswith((_ENDPOINT, _ROUTE))}
    return [
        f"\t{kind}\t{day}\t"
        for kind, day in dated
        if not _DAY.fullmatch(day) or not today - KEPT_DAYS <= int(day) <= today + 1
    ]


def hits(days: Mapping[int, int], first: int) -> int:
    """Sum up the hits from a day on."""
    return sum(number for day, number in days.items() if day >= first)


def _read(name: str) -> tuple[str, int, str, str] | None:
    if not name.startswith("\t"):
        return None
    _, kind, *rest = name.split("\t")
    if f"\t{kind}\t" not in (_ENDPOINT, _ROUTE) or len(rest) != 3:  # noqa: PLR2004 - day, method or side, text
        return None
    day, what, text = rest
    if not _DAY.fullmatch(day):
        return None
    return f"\t{kind}\t", int(day), safe_text(what, 30), text_key(text)
