"""Marginal CPU of a forwarded GET: the server's CPU per request above that of an app that answers itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import servers, wrk
from bench.paths import forwarded
from bench.payload import LEGACY, MODERN
from bench.report import Table
from bench.rounds import run
from bench.served import COLUMNS, DIRECT, OURS, Group, Site, describe, fill

if TYPE_CHECKING:
    from pathlib import Path

    from bench.options import Options
    from bench.report import Progress
    from bench.rounds import Series

NAME = "forward"
GROUPS = (
    Group(
        f"{NAME}/asgi",
        "uvicorn",
        (DIRECT, OURS, "minimal", "aiohttp", "httpx2"),
        {"minimal": 1.5, "aiohttp": 1 / 2.5, "httpx2": 1 / 10},
    ),
    Group(
        f"{NAME}/wsgi",
        "gunicorn gthread",
        (DIRECT, OURS, "minimal", "urllib3", "httpx2"),
        {"minimal": 1.5, "urllib3": 1 / 4},
    ),
)


def measure(options: Options, progress: Progress, folder: Path) -> Table | None:
    """Measure every wanted peer behind both servers; None if none is wanted."""
    wanted = [group for group in GROUPS if group.wanted(options)]
    if not wanted:
        return None
    table = Table("forward: CPU microseconds per forwarded GET", COLUMNS, notes=[describe(options)])
    table.notes.append("'added' is the CPU above 'direct', an app that answers itself, paired by round.")
    script = wrk.write_script(folder, NAME, forwarded())
    with servers.upstream(folder) as modern:
        site = Site(folder, script, forwarded()[0], modern.port, 0, options.threads)
        for group in wanted:
            _group(table, group, site, options, progress)
    return table


def _group(table: Table, group: Group, site: Site, options: Options, progress: Progress) -> None:
    names = group.wanted(options)
    peers = [site.peer(group, name, LEGACY if name == DIRECT else MODERN) for name in names]
    series = run(peers, options, progress)

    def added(name: str) -> list[float]:
        return _one(series, group, name).above(_one(series, group, DIRECT))

    fill(table, group, series, added)


def _one(series: dict[str, Series], group: Group, name: str) -> Series:
    return series[f"{group.name}/{name}"]
