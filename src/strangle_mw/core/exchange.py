"""The conversation with an upstream, written once: what is sent, when it is sent again, who answers.

A generator yields effects and is told what happened: an answer's status by `send`, a failure by `throw`.
Drivers only perform the effects, blocking or not, and close the generator; they take no decision (design
section 10). The default route never comes here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from strangle_mw.core.fallback import BAD_GATEWAY, NEVER, SAFE_METHODS, reason_of
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator

    from strangle_mw.core.fallback import FallbackPolicy
    from strangle_mw.core.resilience import Outcome


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: send the request to one of the upstream's endpoints; `fresh` asks for a new connection."""

    endpoint: int = 0
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Relay:
    """Effect: give the answer to the client."""


@dataclass(frozen=True, slots=True)
class FallBack:
    """Effect: let the legacy app answer; the modern answer, if there is one, is dropped."""

    reason: str


Effect = Send | Relay | FallBack

_RELAY = Relay()
_FIRST = Send()


class Endpoints(Protocol):
    """The endpoints of one upstream, for one conversation: who is asked next, and how it went."""

    def __len__(self) -> int: ...

    def choose(self, tried: Collection[int]) -> int | None:
        """Name the next endpoint, held until `settle`; None if no breaker lets a request pass."""

    def settle(self, endpoint: int, outcome: Outcome | None) -> None:
        """Say how an endpoint did; None: nothing that speaks for or against it."""

    def spend(self) -> bool:
        """Take one fallback from the route's budget, if there is one left (design section 4.2 rule 4)."""


def exchange(
    method: str,
    endpoints: Endpoints,
    *,
    replayable: bool,
    policy: FallbackPolicy = NEVER,
    tell: Callable[[ForwardError], None] = lambda _: None,
) -> Generator[Effect, int, None]:
    """Send one request at most once, but for one case, and say who answers; raise `ForwardError` if nobody.

    A *reused* connection that died before the first byte of the answer is replaced once, if the body can be
    sent again and the upstream cannot have acted: nothing was written, or the method is safe (design section
    4.2 rule 5, promise P14). Every HTTP client does this (RFC 9112 section 9.3.1); it repairs what
    keep-alive broke and is not a retry. An endpoint that cannot be connected to is left for another before
    anything is sent or read of the body.

    `policy` says when legacy answers. Once anything was sent that takes a `replayable` body, too, and a
    place in the route's budget. A failure that is thrown in after `Relay` is one of which the client has
    seen nothing yet. `tell` hears of the failure for which legacy answers, but for an open breaker.
    """
    tried: tuple[int, ...] = ()
    fresh, error, status = False, None, 0
    while error is None or (error.stage == "connect" and len(tried) < len(endpoints)):
        endpoint = endpoints.choose(tried)
        if endpoint is None:
            break
        outcome: Outcome | None = None
        try:
            try:
                status = yield Send(endpoint, fresh) if fresh or endpoint else _FIRST
            except ForwardError as exc:
                if fresh or not _stale(exc, method, replayable=replayable):
                    raise
                # `fresh` stays: what was written once to a stale connection is not written a third time.
                fresh = True
                status = yield Send(endpoint, fresh)
            outcome = "bad" if status in BAD_GATEWAY else "good"
        except ForwardError as exc:
            error, outcome = exc, _blame(exc)
            tried += (endpoint,)
        finally:
            endpoints.settle(endpoint, outcome)
        if status:
            if policy.refuses(method, status) and replayable and endpoints.spend():
                yield FallBack(f"status-{status}")
                return
            try:
                yield _RELAY
            except ForwardError as exc:
                yield _without_answer(exc, method, policy, endpoints, tell, replayable=replayable)
            return
    yield _without_answer(error, method, policy, endpoints, tell, replayable=replayable)


def _without_answer(
    error: ForwardError | None,
    method: str,
    policy: FallbackPolicy,
    endpoints: Endpoints,
    tell: Callable[[ForwardError], None],
    *,
    replayable: bool,
) -> FallBack:
    if error is None:
        reason, error = "breaker", ForwardError("pool", "the circuit breaker is open", status=503)
    elif error.status < 500:  # noqa: PLR2004 - the client has left, or its body is at fault (promise P6)
        raise error
    else:
        reason = reason_of(error)
    sent = error.stage not in ("pool", "connect")
    if policy.replaces(method, sent=sent) and (not sent or (replayable and endpoints.spend())):
        if reason != "breaker":  # its own change of state is logged
            tell(error)
        return FallBack(reason)
    raise error


def _stale(exc: ForwardError, method: str, *, replayable: bool) -> bool:
    return exc.stale and replayable and (method in SAFE_METHODS or not exc.request_sent)


def _blame(exc: ForwardError) -> Outcome | None:
    """Say what a failure tells of the endpoint: nothing, if the client or our own limits ended it."""
    if exc.stage == "pool" or exc.status < 500:  # noqa: PLR2004 - RFC 9110 section 15.5
        return None
    return "connect" if exc.stage == "connect" else "bad"
