"""The conversation with an upstream, written once: what is sent, when it is sent again, what is answered.

A generator yields effects and is told what happened: the answer by `send`, a failure by `throw`. Drivers
only perform the effects, blocking or not, and close the generator; they take no decision (design section
10). The default route never comes here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Generator

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE", "QUERY"))
"""RFC 9110 section 9.2.1, and QUERY."""

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: send the request; `fresh` asks for a new connection."""

    fresh: bool = False


_SEND, _SEND_FRESH = Send(), Send(fresh=True)


def exchange(method: str, *, replayable: bool) -> Generator[Send, A, A]:
    """Send one request at most once, but for one case; return the answer or raise the `ForwardError`.

    A *reused* connection that died before the first byte of the answer is replaced once, if the body can be
    sent again and the upstream cannot have acted: nothing was written, or the method is safe (design section
    4.2 rule 5, promise P14). Every HTTP client does this (RFC 9112 section 9.3.1); it repairs what
    keep-alive broke and is not a retry.
    """
    try:
        return (yield _SEND)
    except ForwardError as exc:
        if not (exc.stale and replayable and (method in SAFE_METHODS or not exc.request_sent)):
            raise
    return (yield _SEND_FRESH)
