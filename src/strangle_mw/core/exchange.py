"""The conversation with an upstream, written once: what is sent, when it is sent again, what is answered.

A generator yields effects and is told what happened: the answer by `send`, a failure by `throw`. Drivers
only perform the effects, blocking or not, and close the generator; they take no decision (design section
10). Today nothing hangs on the answer itself, so they close it without telling. The default route never
comes here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "QUERY"))
"""RFC 9110 section 9.2.1, and QUERY."""

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: send the request to one of the upstream's endpoints; `fresh` asks for a new connection."""

    endpoint: int = 0
    fresh: bool = False


_SEND, _SEND_FRESH = Send(), Send(fresh=True)


def exchange(
    method: str,
    *,
    replayable: bool,
    endpoints: int = 1,
    choose: Callable[[Collection[int]], int] | None = None,
) -> Generator[Send, A, A]:
    """Send one request at most once, but for one case; return the answer or raise the `ForwardError`.

    A *reused* connection that died before the first byte of the answer is replaced once, if the body can be
    sent again and the upstream cannot have acted: nothing was written, or the method is safe (design section
    4.2 rule 5, promise P14). Every HTTP client does this (RFC 9112 section 9.3.1); it repairs what
    keep-alive broke and is not a retry.

    Of several `endpoints`, `choose` names the next one, given those tried; one that cannot be connected to is
    left for another before anything is sent or read of the body.
    """
    if choose is None:
        try:
            return (yield _SEND)
        except ForwardError as exc:
            if not _stale(exc, method, replayable=replayable):
                raise
        return (yield _SEND_FRESH)
    tried: list[int] = []
    effect = Send(choose(tried))
    while True:
        try:
            return (yield effect)
        except ForwardError as exc:
            if not effect.fresh and _stale(exc, method, replayable=replayable):
                effect = Send(effect.endpoint, fresh=True)
                continue
            tried.append(effect.endpoint)
            if exc.stage != "connect" or len(tried) == endpoints:
                raise
            # `fresh` stays: what was written once to a stale connection is not written a third time.
            effect = Send(choose(tried), fresh=effect.fresh)


def _stale(exc: ForwardError, method: str, *, replayable: bool) -> bool:
    return exc.stale and replayable and (method in SAFE_METHODS or not exc.request_sent)
