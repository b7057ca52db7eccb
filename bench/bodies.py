"""What bodies cost: answers and uploads from nothing to a mebibyte, through everyone who forwards."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bench import proxies, wrk
from bench.forward import NOTE
from bench.paths import DISTINCT
from bench.payload import DOWN, UP
from bench.proxies import SIZES
from bench.report import Table
from bench.rounds import loaded, run
from bench.served import COLUMNS, FORWARDERS, SERVERS, Group, Site, describe, fill, marginal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.options import Options
    from bench.report import Progress
    from bench.wrk import Script

NAME = "bodies"
LABELS = dict(zip(SIZES, ("0B", "1KiB", "64KiB", "1MiB"), strict=True))
KINDS = {f"{way}-{LABELS[size]}": (way, size) for way in ("down", "up") for size in SIZES}
"""What a group is called after its interface: the way of the body, and its bytes."""
GROUPS = tuple(
    Group(f"{NAME}/{interface}/{kind}", label, FORWARDERS[interface])
    for kind in KINDS
    for interface, label in SERVERS.items()
)
PROOF = "/modern/leads/0"


def measure(options: Options, progress: Progress, folder: Path) -> Iterator[Table]:
    """Measure every wanted peer behind both servers; one table for each size and way."""
    wanted = [group for group in GROUPS if group.wanted(options)]
    if not wanted:
        return
    with proxies.upstream(folder) as modern:
        site = Site(
            folder=folder,
            path=PROOF,
            upstream=modern.port,
            threads=options.threads,
            direct="direct-bodies",
        )
        for kind, (way, size) in KINDS.items():
            groups = [group for group in wanted if group.name.endswith(f"/{kind}")]
            table = Table(_title(way, size), COLUMNS, notes=[describe(options), NOTE])
            for group in groups:
                sample = partial(loaded, _script(folder, way, size), options)
                series = run(site.peers(group, group.wanted(options), sample), options, progress)
                fill(table, group, series, marginal(group, series))
            if groups:
                yield table


def _title(way: str, size: int) -> str:
    what = f"GET answered with {LABELS[size]}" if way == "down" else f"POST of {LABELS[size]}"
    return f"bodies: CPU microseconds per forwarded {what}"


def _script(folder: Path, way: str, size: int) -> Script:
    place, body, answer = (f"{DOWN}{size}", None, size) if way == "down" else (UP, size, 0)
    paths = [f"{place}?number={number}" for number in range(DISTINCT)]
    return wrk.write_script(folder, f"{NAME}-{way}-{size}", paths, body=body, answer=answer)
