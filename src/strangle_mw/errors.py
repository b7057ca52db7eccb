"""The library's exceptions: one root, few classes, facts as attributes.

    StrangleError
    +-- ConfigError(problems)      what the user wrote cannot be used; every problem at once
    +-- ForwardError(stage, ...)   one exchange with an upstream failed

Nothing else may live here: this module is imported by every other one and imports none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Stage = Literal["pool", "connect", "send", "head", "body"]
"""Where an exchange failed: no connection to be had, connecting, sending, before or after the head."""


class StrangleError(Exception):
    """Root of every exception that this library raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a route table: `where` it is, `what` to do, and a stable `id`."""

    where: str
    what: str
    id: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} ({self.id})"


class ConfigError(StrangleError):
    """A route table cannot be used; `problems` holds every reason, never only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        title = "1 problem" if count == 1 else f"{count} problems"
        super().__init__(f"{title} in the route table:\n" + "\n".join(f"  {p}" for p in self.problems))


class ForwardError(StrangleError):
    """One exchange with an upstream failed.

    `status` is what a client is told when nothing else answers (design section 5: 502, 503, 504, and 400,
    408 or 413 when the client's own body is at fault); `request_sent` says whether the upstream may have
    seen any part of the request; `stale` marks a reused connection that died before the first byte of an
    answer (RFC 9112 section 9.3.1), the only failure that may be repaired by sending again; `retry_after`
    is what a 503 tells the client, in seconds, if the upstream has said so.
    """

    def __init__(
        self,
        stage: Stage,
        reason: str,
        *,
        status: int = 502,
        request_sent: bool = False,
        stale: bool = False,
        retry_after: int = 0,
    ) -> None:
        self.stage = stage
        self.reason = reason
        self.status = status
        self.request_sent = request_sent
        self.stale = stale
        self.retry_after = retry_after
        super().__init__(f"{stage}: {reason}")
