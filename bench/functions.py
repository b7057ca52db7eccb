"""What it costs to answer by a Lambda function: one invocation alone, and a whole request through the servers.

The function is never the one that is measured: it runs in other processes, on the load's CPU, or is a
document that nginx sends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import library, proxies, wrk
from bench.callers import on_the_servers_cpu, with_tasks, with_threads
from bench.heads import scope
from bench.options import HEADERS
from bench.paths import DISTINCT, forwarded
from bench.payload import MODERN, UP
from bench.processes import LOAD_CPUS, Running, await_port, child, environment, free_port
from bench.report import Table, number, ratio, spread
from bench.rounds import Series, loaded, run
from bench.served import COLUMNS, DIRECT, OURS, SERVERS, Group, Site, describe, failures, fill, marginal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from pathlib import Path

    from bench.callers import Ask, AskAsync, Calls
    from bench.options import Options
    from bench.report import Progress

NAME = "lambda"
MINIMAL, BOTOCORE = "minimal", "botocore"
HTTP = "strangle-mw, HTTP"
"""Ours again, forwarding the same by HTTP."""
BODY = json.dumps([{"id": n, "name": f"lead {n}"} for n in range(3_000)]).encode()[:100_000]
"""What a POST brings: text of 100 KB, so the event is no smaller than that."""
CASES = (
    ("recorder", "get", 1),
    ("recorder", "post", 1),
    ("recorder", "get", 32),
    ("dev", "get", 1),
    ("dev", "post", 1),
)
"""What invocations go to, their requests, and callers at a time."""
WAYS = ("tasks", "threads")
CALLS = tuple(
    Group(
        f"{NAME}/{way}/{end}-{what}-{callers}",
        f"{callers} {way if callers > 1 else way[:-1]}",
        (OURS, BOTOCORE, MINIMAL),
    )
    for end, what, callers in CASES
    for way in WAYS
)
REQUESTS = tuple(
    Group(f"{NAME}/{interface}/{what}", label, (DIRECT, OURS, HTTP))
    for what in ("get", "post")
    for interface, label in SERVERS.items()
)
GROUPS = (*CALLS, *REQUESTS)
CALL_COLUMNS = [
    "callers",
    "client",
    "CPU us",
    "above minimal us",
    "ours / this",
    "p50 us",
    "p99 us",
    "calls",
    "target",
]
PROOF = "/modern/leads/0"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Static ones, whatever this machine has."""


def measure(options: Options, progress: Progress, folder: Path) -> Iterator[Table]:
    """Measure invocations in this process, one table for each case, and then whole requests behind servers."""
    wanted = [group for group in GROUPS if group.wanted(options)]
    if not wanted:
        return
    with proxies.upstream(folder) as modern, environment(CREDENTIALS):
        for case in CASES:
            groups = [
                group for group in CALLS if group in wanted and group.name.endswith("/{}-{}-{}".format(*case))
            ]
            if groups:
                yield _calls(case, groups, modern, options, progress, folder)
        for what in ("get", "post"):
            groups = [group for group in REQUESTS if group in wanted and group.name.endswith(f"/{what}")]
            if groups:
                yield _requests(what, groups, modern, options, progress, folder)


# --- one invocation, without a server around


@dataclass(frozen=True, slots=True)
class _Asked:
    """Where the Invoke API is, and the request that becomes an event."""

    url: str
    scope: dict[str, Any]
    body: bytes

    @property
    def invocation(self) -> library.Invocation:
        return library.Invocation(self.url, self.scope, self.body)


def _calls(
    case: tuple[str, str, int],
    groups: list[Group],
    modern: Running,
    options: Options,
    progress: Progress,
    folder: Path,
) -> Table:
    end, what, callers = case
    where = {"recorder": "a fixed document", "dev": "strangle lambda-dev"}[end]
    title = f"lambda: microseconds per invocation for a {_worded(what)}, against {where}, in this process"
    table = Table(title, CALL_COLUMNS)
    table.notes.append(
        f"{options.seconds} s a round, {options.rounds} rounds; median (least..greatest). CPU: this process, all"
        f" threads. 'ours / this' is that of the CPU. {OURS} makes the event and reads the function's answer;"
        f" {BOTOCORE} is given the event, and under tasks a thread for each call; {MINIMAL} sends an invocation"
        " that was signed once."
    )
    with ExitStack() as stack:
        port = stack.enter_context(_lambda_dev(folder)) if end == "dev" else modern.port
        asked = _Asked(f"http://127.0.0.1:{port}", *_request(what, options))
        stack.enter_context(on_the_servers_cpu())
        for group in groups:
            _fill(table, group, _rounds(group, asked, callers, options, progress))
    return table


def _worded(what: str) -> str:
    return "GET" if what == "get" else f"POST of {len(BODY) // 1000} KB"


def _request(what: str, options: Options) -> tuple[dict[str, Any], bytes]:
    headers = HEADERS[options.headers]
    if what == "get":
        path, _, query = forwarded()[0].partition("?")
        return {**scope(path, headers), "query_string": query.encode()}, b""
    fields = {**headers, "Content-Type": "application/json", "Content-Length": str(len(BODY))}
    return {**scope(UP, fields), "method": "POST"}, BODY


@contextmanager
def _lambda_dev(folder: Path) -> Iterator[int]:
    port = free_port()
    log = folder / f"lambda-dev-{port}.log"
    command = [sys.executable, *library.lambda_dev("bench.lambda_function:handler", port, workers=1)]
    with child(command, cpus=LOAD_CPUS, log=log) as process:
        await_port(process, port, log)
        yield port


def _rounds(
    group: Group, asked: _Asked, callers: int, options: Options, progress: Progress
) -> dict[str, Series]:
    names = [f"{group.name}/{peer}" for peer in group.wanted(options)]
    series = {name: Series(name) for name in names}
    for turn in range(1, options.rounds + 1):
        for name, one in series.items():
            progress.say(f"round {turn} of {options.rounds}: {name}")
            if not one.error:
                _add(one, asked, callers, options)
    return series


def _add(series: Series, asked: _Asked, callers: int, options: Options) -> None:
    """Measure one round; a client is a library, and any error it has is that of its row."""
    _, way, _, peer = series.name.split("/")
    try:
        if problem := library.problem():
            raise RuntimeError(problem)
        if way == "threads":
            with BLOCKING[peer](asked) as ask:
                _prove(ask())
                sample = with_threads(ask, callers, options.seconds)
        else:
            sample = asyncio.run(_with_tasks(ASYNC[peer], asked, callers, options.seconds))
    except Exception as exc:
        series.error = f"{type(exc).__name__}: {exc}"
        series.samples.clear()
    else:
        series.samples.append(sample)


async def _with_tasks(
    made: Callable[[_Asked], AbstractAsyncContextManager[AskAsync]],
    asked: _Asked,
    callers: int,
    seconds: float,
) -> Calls:
    async with made(asked) as ask:
        _prove(await ask())
        return await with_tasks(ask, callers, seconds)


def _prove(answer: bytes) -> None:
    """See that it is the function's answer, read or as it came."""
    if answer != MODERN and json.loads(answer).get("body") != MODERN.decode():
        raise ValueError(f"another answer: {answer[:80]!r}")


@contextmanager
def _botocore(asked: _Asked) -> Iterator[Ask]:
    """Give a call of botocore's own client; connections are kept, nothing is tried again."""
    from botocore.config import Config
    from botocore.session import Session

    config = Config(retries={"total_max_attempts": 1}, max_pool_connections=64)
    client = Session().create_client("lambda", endpoint_url=asked.url, config=config)
    event = asked.invocation.event

    def ask() -> bytes:
        payload: bytes = client.invoke(FunctionName=library.FUNCTION, Payload=event)["Payload"].read()
        return payload

    try:
        yield ask
    finally:
        client.close()


@asynccontextmanager
async def _botocore_in_threads(asked: _Asked) -> AsyncIterator[AskAsync]:
    with _botocore(asked) as ask:
        yield partial(asyncio.to_thread, ask)


BLOCKING: dict[str, Callable[[_Asked], AbstractContextManager[Ask]]] = {
    OURS: lambda asked: asked.invocation.blocking(),
    BOTOCORE: _botocore,
    MINIMAL: lambda asked: asked.invocation.blocking_signed(),
}
ASYNC: dict[str, Callable[[_Asked], AbstractAsyncContextManager[AskAsync]]] = {
    OURS: lambda asked: asked.invocation.asynchronous(),
    BOTOCORE: _botocore_in_threads,
    MINIMAL: lambda asked: asked.invocation.async_signed(),
}


def _fill(table: Table, group: Group, series: dict[str, Series]) -> None:
    ours, floor = (series.get(f"{group.name}/{peer}") for peer in (OURS, MINIMAL))
    mine = ours.median("cpu") if ours and ours.samples else None
    for one in series.values():
        above = one.above(floor) if floor and floor.samples and one is not floor else []
        table.rows.append(_row(group, one, above, mine))
        table.data.append({**asdict(one), "above": above})
        table.failed |= bool(one.error)
    table.notes.extend(failures(series))


def _row(group: Group, one: Series, above: list[float], ours: float | None) -> list[str]:
    peer = one.name.rpartition("/")[2]
    if one.error:
        return [group.label, peer, *"------", "FAILED"]
    return [
        group.label,
        peer,
        spread(one.column("cpu")),
        spread(above) if above else "-",
        ratio(ours / one.median("cpu")) if ours and peer != OURS else "-",
        *(number(one.median(what)) for what in ("p50", "p99")),
        f"{median(one.column('count')):,.0f}",
        "",
    ]


# --- whole requests


def _requests(
    what: str, groups: list[Group], modern: Running, options: Options, progress: Progress, folder: Path
) -> Table:
    title = f"lambda: CPU microseconds per {_worded(what)} that a function answers, a fixed document"
    table = Table(title, COLUMNS, notes=[describe(options)])
    table.notes.append(
        f"'added' is the CPU above '{DIRECT}', an app that reads and answers itself, paired by round; {HTTP!r}"
        " forwards the same to nginx."
    )
    site = Site(
        folder=folder,
        path=PROOF,
        upstream=modern.port,
        threads=options.threads,
        direct="direct-bodies",
        apps={OURS: "function", HTTP: OURS},
    )
    for group in groups:
        sample = partial(loaded, _script(folder, what), options)
        series = run(site.peers(group, group.wanted(options), sample), options, progress)
        fill(table, group, series, marginal(group, series))
    return table


def _script(folder: Path, what: str) -> wrk.Script:
    if what == "get":
        return wrk.write_script(folder, f"{NAME}-get", forwarded())
    paths = [f"{UP}?number={number}" for number in range(DISTINCT)]
    return wrk.write_script(folder, f"{NAME}-post", paths, body=len(BODY))
