"""The dial of a route: the stage and weight in force, whoever has set them.

Only the value and how a declared route is read as one live here; who may turn a dial is `overrides`, what a
stage does with a request is `decision`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from strangle_mw.core.model import LEGACY_TARGET, Stage

if TYPE_CHECKING:
    from strangle_mw.core.model import Route

BASIS_POINTS = 10_000
"""The weight that is everybody: weights are kept as whole hundredths of a percent."""

# Where no weight acts, it is what the stage amounts to, so that equal dials are equal values.
_FIXED = {Stage.LEGACY: 0, Stage.SHADOW: 0, Stage.MODERN: BASIS_POINTS, Stage.RETIRED: BASIS_POINTS}


@dataclass(frozen=True, slots=True)
class Dial:
    """Stage and weight in force for one route; `points` are basis points 0..10000.

    `overridden` says that an override has set them, `label` is the stage's name; neither takes part in
    comparisons.
    """

    stage: Stage
    points: int = BASIS_POINTS
    overridden: bool = field(default=False, compare=False)
    label: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Counters need it with every request, and an enum is slow to ask.
        object.__setattr__(self, "label", self.stage.value)


def make_dial(stage: Stage, points: int, *, overridden: bool = False) -> Dial:
    """Make a dial whose `points` are those given in stage `canary`, and the stage's own otherwise."""
    return Dial(stage, _FIXED.get(stage, points), overridden)


def basis_points(percent: float) -> int:
    """Turn a weight as users write it (percent, 0..100) into basis points; half a point is rounded up.

    Weights outside are problems of their table, told elsewhere; here they count as the nearer end.
    """
    return int(min(100.0, max(0.0, percent)) * 100 + 0.5)


def declared_dial(route: Route) -> Dial:
    """Return the dial that a declaration gives its route; `to="legacy"` has no modern side to dial to."""
    if route.to == LEGACY_TARGET:
        return make_dial(Stage.LEGACY, 0)
    return make_dial(Stage(route.stage), basis_points(route.weight or 0.0))


def dial_words(dial: Dial) -> str:
    """Say a stage and its weight in words: `canary 5 %`."""
    return f"canary {dial.points / 100:g} %" if dial.stage is Stage.CANARY else dial.stage.value
