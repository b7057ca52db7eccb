"""Answers questions about a table without serving: its routes as rows, and where a request would go.

Shared by the command line and the frameworks' commands; it prints nothing and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit

from strangle_mw.core.compiled import ForwardTo, RedirectTo
from strangle_mw.core.decision import Answer, Forward, Reject, prepare
from strangle_mw.core.explain import candidates, nearest_paths, why_this_side
from strangle_mw.core.messages import RequestHead, is_token
from strangle_mw.core.model import Stage
from strangle_mw.core.paths import readings, requote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from strangle_mw.core.compiled import CompiledRoute
    from strangle_mw.core.decision import Decision, Snapshot
    from strangle_mw.core.explain import Candidate


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where one request would go, and why.

    `outcome` is one sentence; `candidates` the routes whose path fits, best first; `nearest` paths of the
    table that are spelt alike, when no route takes the request; `readings` of an ambiguous path, each with
    the route that it selects; `reason` why the stage of the route chose its side.
    """

    method: str
    target: str
    decision: Decision
    candidates: Sequence[Candidate]
    nearest: Sequence[str]
    readings: Sequence[tuple[str, str]] = ()
    reason: str = ""

    @property
    def outcome(self) -> str:
        """Say in one sentence what would happen."""
        decision = self.decision
        if isinstance(decision, Forward):
            endpoint = decision.upstream.endpoints[0]
            sent = decision.target.decode("latin-1")
            where = f"{decision.upstream.name!r}: {endpoint}{sent}"
            why = f" ({self.reason})" if decision.mark is not None else ""
            return f"forwarded by {decision.route.name!r} to {where}{why}"
        if isinstance(decision, Answer):
            where = dict(decision.headers).get(b"location", b"").decode("latin-1")
            return f"answered by {decision.route.name!r}: {decision.status}{' ' + where if where else ''}"
        if isinstance(decision, Reject):
            return f"refused: {decision.status} ({decision.reason})"
        if decision.route is not None:
            return f"the wrapped app answers (legacy), by {decision.route.name!r}: {self.reason}"
        return "the wrapped app answers (legacy)"

    def lines(self) -> list[str]:
        """Return the candidates as text, one a line."""
        taken = False
        found = []
        for number, candidate in enumerate(self.candidates, start=1):
            verdict = candidate.refused or ("a better route took it" if taken else "taken")
            taken = taken or candidate.refused is None
            found.append(f"{number}. {candidate.route.name}  [{_stage(candidate.route)}]: {verdict}")
        if not found:
            found.append("no route's path fits")
        found += [f"reading {reading!r} selects {name!r}" for reading, name in self.readings]
        return [*found, *(f"did you mean {path}?" for path in self.nearest)]

    def text(self) -> str:
        """Return the whole explanation as text."""
        return "\n".join(
            [f"{self.method} {self.target}", f"  -> {self.outcome}", *("  " + t for t in self.lines())]
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the explanation as plain data."""
        side = type(self.decision).__name__.lower()
        return {
            "method": self.method,
            "target": self.target,
            "decision": side,
            "outcome": self.outcome,
            "candidates": [{"route": c.route.name, "refused": c.refused} for c in self.candidates],
            "nearest": list(self.nearest),
            "reason": self.reason,
            "readings": [{"path": reading, "selects": name} for reading, name in self.readings],
        }


class _Reader:
    """Reads a request that is only described."""

    encoding = "utf-8"

    @staticmethod
    def head(source: RequestHead, path: bytes, authority: bytes) -> RequestHead:
        return RequestHead(
            source.method, path, source.query, source.headers, source.scheme, "127.0.0.1", authority
        )


def explain(snapshot: Snapshot, method: str, url: str, headers: Sequence[str] = ()) -> Explanation:
    """Say where a request would go.

    `url` is a path (`/a?b=c`) or a whole URL, whose host counts as the request's `Host`; `headers` are lines
    like `X-Beta: 1`. Raises `ValueError` with the remedy for anything else.
    """
    host, scheme, target = b"", "http", url
    if not url.startswith("/"):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a path or URL; write '/{url.lstrip()}'")
        host, scheme = parts.netloc.rpartition("@")[2].encode("idna"), parts.scheme
        target = "/" + url.partition("://")[2].partition("#")[0].partition("/")[2]
    # What stands in the path counts to the byte: no tidying of doubled slashes, blanks or a `#`.
    raw, _, query = target.encode("utf-8", "surrogateescape").partition(b"?")
    fields = [_header(h) for h in headers]
    if host and not any(n == b"host" for n, _ in fields):
        fields.insert(0, (b"host", host))
    method = method.upper() if method.isascii() and method.isalpha() else method
    head = RequestHead(method, raw, query, fields, scheme)
    head.identify = snapshot.crowd.identify
    decoded = unquote_to_bytes(raw).decode("utf-8", "surrogateescape")
    decision = prepare(snapshot, method, raw, decoded, head, _Reader())
    fitting = candidates(snapshot, head)
    taken = any(c.refused is None for c in fitting)
    return Explanation(
        method,
        url,
        decision,
        fitting,
        () if taken else nearest_paths(snapshot, raw),
        _disagreements(snapshot, head) if decision == Reject(400, "ambiguous-path") else (),
        why_this_side(snapshot, route, head) if (route := getattr(decision, "route", None)) else "",
    )


def _disagreements(snapshot: Snapshot, head: RequestHead) -> list[tuple[str, str]]:
    """Return the readings of an ambiguous path that select something else than the path as it came."""
    found: dict[str, str] = {}
    for reading in readings(head.path):
        route = snapshot.table.match(requote(reading) if reading != head.path else reading, head.method, head)
        active = snapshot.active(route)
        name = "legacy" if active is None else active.name
        found.setdefault(name, reading.decode("utf-8", "backslashreplace"))
    return [(reading, name) for name, reading in found.items()]


def _header(line: str) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(":")
    if not colon or not is_token(name.strip().encode("latin-1", "replace")):
        raise ValueError(f"{line!r} is not a header; write 'Name: value'")
    return name.strip().lower().encode("latin-1"), value.strip().encode("utf-8")


@dataclass(frozen=True, slots=True)
class Row:
    """One route as a line of a table."""

    name: str
    methods: str
    path: str
    conditions: str
    stage: str
    to: str


def rows(snapshot: Snapshot) -> list[Row]:
    """Return the table's routes in the order of their declaration."""
    return [_row(r) for r in snapshot.table.routes]


def _row(route: CompiledRoute) -> Row:
    path = route.pattern.text if route.pattern is not None else f"regex {route.declared.regex}"
    conditions = [*route.hosts, *map(str, route.tests), *(["when"] if route.when is not None else [])]
    return Row(
        route.name,
        ",".join(sorted(route.methods)) or "any",
        path,
        ", ".join(conditions),
        _stage(route),
        _target(route),
    )


def _stage(route: CompiledRoute) -> str:
    dial = route.staging.dial
    return f"canary {dial.points / 100:g}%" if dial.stage is Stage.CANARY else dial.stage.value


def _target(route: CompiledRoute) -> str:
    action = route.action
    if action is None:
        return "legacy"
    if isinstance(action, ForwardTo):
        return ", ".join(u.name for u in action.upstreams)
    return f"redirect {action.status}" if isinstance(action, RedirectTo) else f"respond {action.status}"


def as_table(found: Sequence[Row]) -> list[str]:
    """Lay rows out in columns, with a heading."""
    heading = Row("ROUTE", "METHODS", "PATH", "CONDITIONS", "STAGE", "TO")
    cells = [(r.name, r.methods, r.path, r.conditions, r.stage, r.to) for r in (heading, *found)]
    keep = [i for i, column in enumerate(zip(*cells, strict=True)) if any(column[1:]) or len(cells) == 1]
    widths = {i: max(len(c[i]) for c in cells) for i in keep}
    return ["  ".join(c[i].ljust(widths[i]) for i in keep).rstrip() for c in cells]
