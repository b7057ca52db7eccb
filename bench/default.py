"""Added CPU of the default route: requests that no route names, handed to the wrapped app untouched.

Beside it nginx as the facade in front of the same app; what nginx adds is the CPU of its own worker.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from bench import calls, proxies, wrk
from bench.paths import misses
from bench.report import Table
from bench.rounds import Peer, loaded, run
from bench.served import COLUMNS, DIRECT, MINE, OURS, STORED, Group, Site, describe, fill, marginal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.options import Options
    from bench.processes import Running
    from bench.report import Progress
    from bench.wrk import Script

NAME = "default"
ROUTES = 10_000
HOP = "nginx-hop"
GROUPS = (
    Group(f"{NAME}/asgi", "uvicorn", (DIRECT, *MINE, HOP), {HOP: 1 / 8}, most=2.0),
    Group(f"{NAME}/wsgi", "gunicorn gthread", (DIRECT, *MINE, HOP), most=5.0),
)
CALLS = (
    Group(f"{NAME}/call-asgi", "ASGI call", (DIRECT, *MINE)),
    Group(f"{NAME}/call-wsgi", "WSGI call", (DIRECT, *MINE)),
)


def measure(options: Options, progress: Progress, folder: Path) -> Table | None:
    """Measure the bare app, the wrapped one and the hop behind both servers; None if nothing is wanted."""
    wanted = [group for group in (*GROUPS, *CALLS) if group.wanted(options)]
    if not wanted:
        return None
    title = f"default: CPU microseconds per request that a table of {ROUTES:,} routes does not name"
    table = Table(title, COLUMNS, notes=[describe(options)])
    table.notes.append(
        f"'added' of {OURS} is its CPU above 'direct', the bare app, paired by round;"
        f" CPU and 'added' of the {HOP} are those of nginx's worker alone."
        f" {STORED!r} follows live changes in SQLite, by a thread whose CPU counts."
        " 'call': the app called in this process, without a server."
    )
    script = wrk.write_script(folder, NAME, misses(ROUTES))
    site = Site(folder=folder, path=misses(ROUTES)[0], upstream=9, threads=options.threads, routes=ROUTES)
    for group in wanted:
        _group(table, group, site, script, options, progress)
    return table


def _group(
    table: Table, group: Group, site: Site, script: Script, options: Options, progress: Progress
) -> None:
    if group in CALLS:
        series = calls.measure(group, site, options, progress)
    else:
        sample = partial(loaded, script, options)
        names = group.wanted(options)
        peers = site.peers(group, [name for name in names if name != HOP], sample)
        if HOP in names:
            peers.append(Peer(f"{group.name}/{HOP}", partial(_facade, site, group), sample))
        series = run(peers, options, progress)
    fill(table, group, series, marginal(group, series, {HOP}))


@contextmanager
def _facade(site: Site, group: Group) -> Iterator[Running]:
    with site.start(group, DIRECT) as app, proxies.facade(site.folder, app) as running:
        yield running
