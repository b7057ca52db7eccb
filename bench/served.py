"""What the measurements over servers share: groups of peers, their rows, their targets, their table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from bench import library, servers, stores
from bench.payload import LEGACY, MODERN
from bench.processes import BenchError
from bench.proxies import HOPS
from bench.report import Table, at_most, ratio, spread
from bench.rounds import Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Any

    from bench.options import Options
    from bench.processes import Running
    from bench.rounds import Series

OURS = "strangle-mw"
STORED = "strangle-mw, store"
"""Ours again, following a store of live changes: SQLite."""
MINE = (OURS, STORED)
DIRECT = "direct"
COLUMNS = ["server", "peer", "CPU us", "added us", "ours / this", "requests/s", "p50 us", "p99 us", "target"]
SERVERS = {"asgi": "uvicorn", "wsgi": "gunicorn gthread"}
FORWARDERS = {
    "asgi": (DIRECT, OURS, "minimal", "aiohttp", "httpx2", "asgi-proxy-lib", "fastapi-proxy-lib", *HOPS),
    "wsgi": (DIRECT, OURS, "minimal", "urllib3", "httpx2", "werkzeug", "django-revproxy", *HOPS),
}
"""Everyone who forwards, by the interface of the server around; the hops have none and stand beside both."""
BRIDGES = ("websockets",)
"""Peers that forward WebSockets only."""
NOISE = 0.05
"""Share of the server's CPU that others may take before a row says so."""


@dataclass(frozen=True, slots=True)
class Group:
    """Peers behind one server: `name` is `measurement/interface`, `limits` are those of ours / peer."""

    name: str
    label: str
    peers: tuple[str, ...]
    limits: dict[str, float] = field(default_factory=dict)
    most: float | None = None
    """Microseconds that ours may add, with a store or without."""

    @property
    def interface(self) -> str:
        """Return `asgi` or `wsgi`."""
        return self.name.split("/")[1].rpartition("-")[2]

    def wanted(self, options: Options) -> list[str]:
        """Return the peers that `--only` leaves; the baseline comes with any other."""
        left = [peer for peer in self.peers if options.wants(f"{self.name}/{peer}")]
        return [peer for peer in self.peers if left and (peer == DIRECT or peer in left)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where servers of one measurement run, the question to prove them with, and what is behind them."""

    folder: Path
    path: str
    upstream: int
    threads: int
    routes: int = 0
    direct: str = DIRECT
    """The app that is the baseline."""
    apps: Mapping[str, str] = field(default_factory=dict)
    """The app that serves a row, where that has another name."""

    @property
    def store(self) -> str:
        """Return the store that `STORED` follows."""
        return stores.sqlite(self.folder, "default")

    def peers(self, group: Group, names: list[str], sample: Callable[[Running], Any]) -> list[Peer]:
        """Return rows whose servers run our apps, or forward without one."""
        return [Peer(f"{group.name}/{name}", partial(self.start, group, name), sample) for name in names]

    def start(self, group: Group, name: str) -> AbstractContextManager[Running]:
        """Start what has this name: a hop, or uvicorn or gunicorn with an app; prove its answer."""
        if name in HOPS:
            return HOPS[name](self.folder, self.upstream, self.path, MODERN)
        if name in MINE and (problem := library.problem()):
            raise BenchError(problem)
        expect = LEGACY if self.routes or name in {DIRECT, *BRIDGES} else MODERN
        env = {"BENCH_UPSTREAM": str(self.upstream), "BENCH_ROUTES": str(self.routes)}
        env["BENCH_THREADS"] = str(self.threads)
        if name == STORED:
            env["BENCH_STORE"] = self.store
        app = {DIRECT: self.direct, STORED: OURS, **self.apps}.get(name, name)
        if group.interface == "asgi":
            return servers.uvicorn(self.folder, app, self.path, expect, env)
        return servers.gunicorn(self.folder, app, self.path, expect, env, threads=self.threads)


def marginal(
    group: Group, series: dict[str, Series], whole: Container[str] = HOPS
) -> Callable[[str], list[float]]:
    """Return what says, round by round, the CPU of a peer above the baseline; all of it of those in `whole`."""

    def added(name: str) -> list[float]:
        one = series[f"{group.name}/{name}"]
        return one.column("cpu") if name in whole else one.above(series[f"{group.name}/{DIRECT}"])

    return added


def fill(table: Table, group: Group, series: dict[str, Series], added: Callable[[str], list[float]]) -> None:
    """Add the rows of a group; `added` says what a peer adds, round by round."""
    ours = f"{group.name}/{OURS}"
    mine = median(added(OURS) or [0.0]) or None if ours in series else None
    for name, one in series.items():
        peer = name.rpartition("/")[2]
        extra = [] if peer == DIRECT or one.error else added(peer)
        table.rows.append(_row(group, one, peer, extra, mine))
        table.data.append({**asdict(one), "added": extra})
        table.failed |= bool(one.error)
    table.notes.extend(_remarks(series))


def _row(group: Group, series: Series, peer: str, added: list[float], ours: float | None) -> list[str]:
    if series.error:
        return [group.label, peer, *"------", "FAILED"]
    share = ours / median(added) if ours and peer not in MINE and median(added or [0.0]) > 0 else None
    return [
        group.label,
        peer,
        spread(series.column("cpu")),
        spread(added) if added else "-",
        "-" if share is None else ratio(share),
        *(_whole(series.median(what)) for what in ("per_second", "p50", "p99")),
        _target(group, peer, added, share),
    ]


def _whole(value: float) -> str:
    return f"{value:,.0f}" if value else "-"


def _target(group: Group, peer: str, added: list[float], share: float | None) -> str:
    if peer in MINE and group.most is not None and added:
        return at_most(median(added), group.most, f"adds <= {group.most:g} us")
    if peer in group.limits:
        text = f"ours / this <= {ratio(group.limits[peer])}"
        return text if share is None else at_most(share, group.limits[peer], text)
    return ""


def _remarks(series: dict[str, Series]) -> Iterator[str]:
    yield from failures(series)
    worst = {name: max(one.column("others"), default=0.0) for name, one in series.items()}
    loud = ", ".join(f"{name} {share:.0%}" for name, share in worst.items() if share > NOISE)
    if loud:
        yield f"NOT QUIET: others used the server's CPU, at worst: {loud}."


def failures(series: dict[str, Series]) -> Iterator[str]:
    """Say of each row that could not be measured why."""
    for name, one in series.items():
        if one.error:
            yield f"{name}{'' if is_left_out(one) else ' FAILED'}: {one.error}"


def is_left_out(series: Series) -> bool:
    """Tell whether a row is not measured because something optional is not there: that is no failure."""
    return series.error.startswith(stores.NOT_MEASURED)


def describe(options: Options) -> str:
    """Return how the load was made."""
    many = "" if options.connections == 1 else "s"
    return (
        f"wrk, {options.connections} connection{many}, {options.seconds} s a round, {options.rounds} rounds,"
        f" '{options.headers}' headers; median (least..greatest). CPU: the server process, all threads."
    )
