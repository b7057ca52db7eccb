"""What a case of the conformance table is: a request, what both sides must see, and where a server differs.

No case stands here, and nothing talks: see `requests`, `answers`, `connections` and `acts`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tests.echo import Echo
    from tests.servers import Reply

DEADLINE = 20.0
YES = "yes"
"""The cell of a server that does what the row says."""


@dataclass(frozen=True, slots=True)
class Front:
    """A running server: its port and name, and whether it is declared to differ in the case at hand."""

    port: int
    name: str
    differs: bool = False

    @property
    def patience(self) -> float:
        """Seconds to wait for what must come, or for what is declared not to come."""
        return 0.5 if self.differs else DEADLINE


@dataclass(frozen=True, slots=True)
class Exchange:
    """What both sides saw of one case.

    `reply` is None if the server hung up without an answer; `upstream` what the last whole request was that
    the upstream received, None if it received none; `facts` what else an act has noticed.
    """

    reply: Reply | None
    upstream: Mapping | None = None
    facts: Mapping[str, object] = field(default_factory=dict)

    def sent(self, name):
        """Return the values of one header at the upstream, in their order."""
        return [] if self.upstream is None else [v for n, v in self.upstream["headers"] if n.lower() == name]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold of an exchange."""

    what: str
    holds: Callable[[Exchange], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What some servers do instead: a short word for the matrix, and the reason, in users' words."""

    servers: frozenset[str]
    word: str
    why: str
    upstream: Sequence[Check]
    client: Sequence[Check]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request and what comes of it; `what` is the row of the matrix, which cases may share."""

    id: str
    what: str
    send: bytes | Callable[[Front, Echo], Exchange]
    upstream: Sequence[Check] = ()
    client: Sequence[Check] = ()
    differs: Sequence[Difference] = ()

    def difference(self, server: str) -> Difference | None:
        """Return how a server is declared to differ."""
        return next((d for d in self.differs if server in d.servers), None)


def broken(expected: Case | Difference, found: Exchange) -> list[str]:
    """Return what does not hold."""
    sides = (("upstream", expected.upstream), ("client", expected.client))
    return [f"{side}: {c.what}" for side, checks in sides for c in checks if not _holds(c, found)]


def _holds(check: Check, found: Exchange) -> bool:
    try:
        return check.holds(found)
    except (AttributeError, TypeError, KeyError, ValueError):
        return False  # there is no answer, or no request, of which it could hold


def surprises(case: Case, server: str, found: Exchange) -> list[str]:
    """Return what is not as the table declares it for a server, be it worse or better."""
    difference = case.difference(server)
    if difference is None:
        return broken(case, found)
    better = [] if broken(case, found) else [f"not {difference.word!r} any more: it does what the row says"]
    return broken(difference, found) + better


def differ(
    servers: Iterable[str],
    word: str,
    why: str,
    *,
    upstream: Iterable[Check] = (),
    client: Iterable[Check] = (),
) -> Difference:
    """Declare a difference; what is not given about a side is not looked at."""
    return Difference(
        servers=frozenset([servers] if isinstance(servers, str) else servers),
        word=word,
        why=why,
        upstream=tuple(upstream),
        client=tuple(client),
    )
