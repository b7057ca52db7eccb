"""Marginal CPU and latency of a forwarded GET: the CPU per request above that of an app that answers itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from bench import proxies, wrk
from bench.paths import forwarded
from bench.report import Table
from bench.rounds import loaded, run
from bench.served import COLUMNS, FORWARDERS, SERVERS, Group, Site, describe, fill, marginal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.options import Options
    from bench.report import Progress

NAME = "forward"
LEVELS = (1, 32, 256)
"""Connections of the load."""
TARGETS = {
    "asgi": {"minimal": 1.5, "aiohttp": 1 / 2.5, "httpx2": 1 / 10},
    "wsgi": {"minimal": 1.5, "urllib3": 1 / 4},
}
TARGET_LEVEL = 32
TOO_SLOW = {256: ("asgi-proxy-lib",)}
"""It makes an SSL context for each request, all requests at a time: 256 of them have no answer for many seconds."""
GROUPS = tuple(
    Group(
        f"{NAME}/{interface}/{level}",
        label,
        tuple(peer for peer in FORWARDERS[interface] if peer not in TOO_SLOW.get(level, ())),
        TARGETS[interface] if level == TARGET_LEVEL else {},
    )
    for level in LEVELS
    for interface, label in SERVERS.items()
)
NOTE = (
    "'added' is the CPU above 'direct', an app that answers itself, paired by round; of nginx and envoy, which"
    " forward without an app, it is all their CPU."
)


def measure(options: Options, progress: Progress, folder: Path) -> Iterator[Table]:
    """Measure every wanted peer behind both servers; one table for each number of connections."""
    wanted = [group for group in GROUPS if group.wanted(options)]
    if not wanted:
        return
    script = wrk.write_script(folder, NAME, forwarded())
    with proxies.upstream(folder) as modern:
        site = Site(folder=folder, path=forwarded()[0], upstream=modern.port, threads=options.threads)
        for level in LEVELS:
            load = replace(options, connections=level)
            groups = [group for group in wanted if group.name.endswith(f"/{level}")]
            table = Table(_title(level), COLUMNS, notes=[describe(load), NOTE])
            for group in groups:
                peers = site.peers(group, group.wanted(options), partial(loaded, script, load))
                series = run(peers, load, progress)
                fill(table, group, series, marginal(group, series))
            if groups:
                yield table


def _title(level: int) -> str:
    return f"forward: CPU microseconds per forwarded GET, {level} connection{'s' if level > 1 else ''}"
