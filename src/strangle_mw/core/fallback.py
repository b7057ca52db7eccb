"""When the legacy app answers for the modern side: the matrix of design section 4.3 as pure functions.

Replaying a request to the legacy app is not a retry: there are two implementations, maybe two stores. So
what was sent counts, not what HTTP calls idempotent (promise P12). Who asks is `exchange`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from strangle_mw.core.messages import status_class
from strangle_mw.core.model import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strangle_mw.core.model import Route
    from strangle_mw.errors import ForwardError

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "QUERY"))
"""RFC 9110 section 9.2.1, and QUERY."""

BAD_GATEWAY = frozenset((502, 503, 504))
"""What a gateway says of a service behind it: counted like a failure to answer."""

Mode = Literal["auto", "connect", "never"]

_DEFAULTS: Mapping[Stage, Mode] = {Stage.CANARY: "auto", Stage.MODERN: "connect"}
_SHARED = frozenset(("PUT", "DELETE"))
_NOT_BUILT = frozenset((404, 501))
_SERVER_ERRORS = frozenset(range(500, 600))


@dataclass(frozen=True, slots=True)
class FallbackPolicy:
    """What one route does in one stage when its modern side fails.

    `connect`: legacy answers if nothing was sent; `auto`: also after that, as far as the matrix goes;
    `statuses` are the answers that count as a failure, `shared_store` widens `auto` to PUT and DELETE.
    """

    mode: Mode
    statuses: frozenset[int] = BAD_GATEWAY
    shared_store: bool = False

    def replaces(self, method: str, *, sent: bool) -> bool:
        """Tell whether legacy answers for a request that got no answer; `sent`: any part of it was."""
        if not sent:
            return self.mode != "never"
        if self.mode != "auto":
            return False
        return method in SAFE_METHODS or (self.shared_store and method in _SHARED)

    def refuses(self, method: str, status: int) -> bool:
        """Tell whether legacy answers instead of an answer that has this status."""
        return status in self.statuses and self.mode == "auto" and method in SAFE_METHODS


NEVER: Final = FallbackPolicy("never")


def policies(route: Route) -> Mapping[Stage, FallbackPolicy]:
    """Return a route's policy in each stage that has one; `retired` has none, whatever the route says."""
    statuses = BAD_GATEWAY
    for entry in route.fallback_on:
        statuses |= _SERVER_ERRORS if entry == "5xx" else {int(entry)}
    return {
        stage: FallbackPolicy(mode, statuses, route.shared_store)
        for stage, default in _DEFAULTS.items()
        if (mode := _mode(route.fallback) or default) != "never"
    }


def _mode(declared: str) -> Mode | None:
    modes: Mapping[str, Mode] = {"auto": "auto", "connect": "connect", "never": "never", "off": "never"}
    return modes.get(declared)


def is_listable(entry: str) -> bool:
    """Tell whether `fallback_on` may list this: "5xx", a status of its own, or what is not built yet."""
    return entry == "5xx" or (entry.isdecimal() and int(entry) in _SERVER_ERRORS | _NOT_BUILT)


def reason_of(error: ForwardError) -> str:
    """Name why there was no answer, from a closed set (promise P17)."""
    if error.stage == "pool":
        return "bulkhead" if error.status == 503 else "unsupported"  # noqa: PLR2004 - RFC 9110 section 15.6.4
    if error.status == 504:  # noqa: PLR2004 - RFC 9110 section 15.6.5
        return "connect-timeout" if error.stage == "connect" else "timeout"
    return "connect" if error.stage == "connect" else "reset"


def outcome_of(error: ForwardError) -> str:
    """Name how a request without an answer is counted: what the client is at fault for is no failure."""
    return "failed" if error.status >= 500 else status_class(error.status)  # noqa: PLR2004 - RFC 9110 section 15.5


REASONS = frozenset(
    (
        *("bulkhead", "breaker", "unsupported", "connect", "connect-timeout", "reset", "timeout"),
        *(f"status-{s}" for s in sorted(_SERVER_ERRORS | _NOT_BUILT)),
    )
)
"""Every reason of a fallback."""
