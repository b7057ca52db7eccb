"""How far a route has moved: which side answers one request (design sections 4 and 4.1).

What a route says of its stage is compiled here, too. Which key a request has and what marks its answer is
`sticky`, what a failure leads to `fallback`. Pure: users, time and chance come in as values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from math import inf
from typing import TYPE_CHECKING, Final

from strangle_mw.core.dials import BASIS_POINTS, Dial, declared_dial
from strangle_mw.core.fallback import FallbackPolicy, is_listable, policies
from strangle_mw.core.model import LEGACY_TARGET, HeaderRules, Route, Shadow, Stage
from strangle_mw.core.sticky import (
    KeySource,
    Mark,
    bucket_of,
    compile_sources,
    find_key,
    read_pin,
    vary_names,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from strangle_mw.core.identity import Identity, Minter
    from strangle_mw.core.messages import RequestHead
    from strangle_mw.core.model import Pin

MODERN_STAGES: Final = frozenset((Stage.CANARY, Stage.MODERN, Stage.RETIRED))
"""The stages in which a request may be taken away from the wrapped app."""


@dataclass(frozen=True, slots=True, eq=False)
class Staging:
    """What one route says of its stages, compiled.

    `dial` is the declared stage and weight; `salt` that of the sticky hash (the route's group); `sources`
    name the key and `mark` what chose the side, `anonymous` and `anonymous_mark` where nothing names the
    user; `policies` are the fallback of each stage that has one, over at `until` (unix seconds); `sample`
    the share of requests that stage `shadow` copies, in basis points.
    """

    dial: Dial
    salt: str
    bucket: Callable[[str], int]
    share: Callable[[str], int]
    sources: tuple[KeySource, ...]
    mark: Mark
    anonymous: tuple[KeySource, ...]
    anonymous_mark: Mark
    policies: Mapping[Stage, FallbackPolicy]
    until: float
    sample: int


@dataclass(frozen=True, slots=True)
class Crowd:
    """What tells the users of a table apart.

    `user` names the user of a request by an id, `identify` says more of it, `aidentify` does where it may
    wait; `minter` makes the tokens that tell upstreams, `origins` are those whose pages may ask for that.
    `pin` lets testers choose a side, `new_id` makes 32 hexadecimal
    digits, `draw` a number of 0..9999, `now` the unix time; `is_https` tells whether the client speaks TLS.
    """

    user: Callable[[RequestHead], str | None] | None = None
    identify: Callable[[RequestHead], Identity | None] | None = None
    aidentify: Callable[[RequestHead], Awaitable[Identity | None]] | None = None
    minter: Minter | None = None
    origins: frozenset[str] = frozenset()
    pin: Pin | None = None
    new_id: Callable[[], bytes] = lambda: b"0" * 32
    draw: Callable[[], int] = lambda: 0
    now: Callable[[], float] = lambda: 0.0
    is_https: Callable[[RequestHead], bool] = field(default=lambda head: head.scheme == "https")


_CANARY = Stage.CANARY  # an enum is slow to ask
_LEGACY_SIDE, _MODERN_SIDE = (False, None), (True, None)


def choose_side(staging: Staging, dial: Dial, head: RequestHead, crowd: Crowd) -> tuple[bool, Mark | None]:
    """Choose the side of one request: whether it is the modern one, and what marks a canaried answer.

    The client's address plays no part.
    """
    if dial.stage is not _CANARY:
        return _MODERN_SIDE if dial.stage in MODERN_STAGES else _LEGACY_SIDE
    known = crowd.user is not None
    text, wants_cookie = find_key(staging.sources if known else staging.anonymous, head, crowd.user)
    points, pin = dial.points, crowd.pin
    modern = points >= BASIS_POINTS or (text is not None and points > 0 and staging.bucket(text) < points)
    mark = staging.mark if known else staging.anonymous_mark
    if pin is not None:
        mark = Mark((*mark.vary, pin.header))
        if value := head.header(pin.header):
            pinned = read_pin(value, pin.secret.encode(), crowd.now())
            modern = modern if pinned is None else pinned == "modern"
    if wants_cookie:
        mark = Mark(mark.vary, crowd.new_id(), secure=crowd.is_https(head))
    return modern, mark


def share_point(staging: Staging, head: RequestHead, crowd: Crowd) -> int:
    """Place a request among several upstreams: 0..9999, the same for one sticky key, by chance without.

    Its salt is not the canary's: else the first keys of a canary would all go to the first upstream.
    """
    key = find_key(staging.sources, head, crowd.user).text
    return crowd.draw() if key is None else staging.share(key)


# --- compiling


def compile_staging(route: Route, salt: str, note: Callable[[str, str, str], None]) -> Staging:
    """Compile what a route says of its stages; `note(field, what, id)` is told of problems."""
    _check_weight(route, note)
    _check_fallback(route, note)
    until = _until(route, note)
    listed = [e for e in route.fallback_on if is_listable(e)]
    sources = compile_sources(route.sticky)
    anonymous = compile_sources([s for s in route.sticky if s != "user"])
    salt = route.group or salt
    return Staging(
        declared_dial(route),
        salt,
        bucket_of(salt),
        bucket_of(f"split {salt}"),
        sources,
        Mark(vary_names(sources)),
        anonymous,
        Mark(vary_names(anonymous)),
        {} if len(listed) < len(route.fallback_on) else policies(route),
        until,
        round((route.shadow or Shadow()).sample * 100),
    )


def _check_weight(route: Route, note: Callable[[str, str, str], None]) -> None:
    if route.weight is not None and not 0 <= route.weight <= 100:  # noqa: PLR2004 - percent
        note("weight", "must be 0..100 percent", "weight-range")
    if route.weight is None and route.stage is Stage.CANARY:
        what = "is missing: stage 'canary' needs the percent of the users, as in weight = 5"
        note("weight", what, "weight-missing")
    if route.shadow is not None and not 0 <= route.shadow.sample <= 100:  # noqa: PLR2004 - percent
        note("shadow.sample", "must be 0..100 percent", "sample-range")


def _check_fallback(route: Route, note: Callable[[str, str, str], None]) -> None:
    if route.stage is Stage.RETIRED and route.fallback in ("auto", "connect"):
        what = "stage 'retired' never runs the old code; remove it, or stay in stage 'modern'"
        note("fallback", what, "fallback-retired")
    for at, entry in enumerate(route.fallback_on):
        if not is_listable(entry):
            note(f"fallback_on[{at}]", f"{entry!r} must be '5xx', '404' or a status 500..599", "fallback-on")
    unsaid = route.fallback == "" and route.stage not in (Stage.MODERN, Stage.RETIRED)
    auto = route.fallback == "auto" or unsaid
    for name in ("fallback_on", "shared_store"):
        if getattr(route, name) and not auto:
            note(name, "acts with fallback = 'auto' only; say so, or remove it", "field-unused")
    if route.fallback_until and route.fallback in ("never", "off"):
        note("fallback_until", "there is no fallback to end; remove one of the two", "field-unused")


def _until(route: Route, note: Callable[[str, str, str], None]) -> float:
    """Read the moment after which fallback is over: the end of a day in UTC, or a time."""
    text = route.fallback_until
    if not text:
        return inf
    try:
        if len(text) == len("2026-01-31"):
            end = datetime.combine(date.fromisoformat(text) + timedelta(days=1), time(tzinfo=UTC))
        else:
            end = datetime.fromisoformat(text)
            end = end if end.tzinfo is not None else end.replace(tzinfo=UTC)
        return end.timestamp()
    except (ValueError, OverflowError):
        note("fallback_until", f"{text!r} must be a date like 2027-03-31, or a date and time", "date")
        return inf


_IDLE = ("fallback", "fallback_until", "fallback_on", "shared_store", "shadow")


def unused_fields(route: Route) -> Sequence[str]:
    """Return what is set and acts on forwarded requests only, of a route that forwards none."""
    fields = ["identity", "strip_prefix", "rewrite", "timeout", "request_headers", "response_headers", *_IDLE]
    if route.to == LEGACY_TARGET:
        fields += ["weight", "group"]
    return [f for f in fields if getattr(route, f) not in ("", None, False, (), [], HeaderRules())]
