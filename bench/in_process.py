"""What it costs to answer by another app in this process, of the same interface or of the other one.

Called alone, in this process, and under the servers. Nothing is sent anywhere: the called app does what the
baseline does, so what is added is the decision, the scope or environ made anew, and the bridge if there is one.
"""

from __future__ import annotations

import asyncio
import gc
import time
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

from bench import asgi_direct, bridges, library, wrk, wsgi_direct
from bench.callers import on_the_servers_cpu
from bench.heads import environ, scope
from bench.options import HEADERS
from bench.paths import forwarded
from bench.payload import LEGACY, MODERN
from bench.processes import environment
from bench.report import Table
from bench.rounds import Sample, Series, loaded, run
from bench.served import COLUMNS, DIRECT, OURS, Group, Site, describe, fill, marginal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.options import Options
    from bench.report import Progress

NAME = "inprocess"
BRIDGE = "strangle-mw, bridge"
"""Ours without a route: nothing is decided, every request goes through the bridge."""
APPS = {
    "asgi": {OURS: "asgi-asgi", "starlette": "asgi-starlette"},
    "wsgi": {OURS: "wsgi-wsgi", "werkzeug": "wsgi-werkzeug"},
    "threads-asgi": {
        OURS: "threads-asgi",
        BRIDGE: "threads-asgi-bridge",
        "a2wsgi": "threads-asgi-a2wsgi",
        "starlette": "threads-asgi-starlette",
        "asgiref": "threads-asgi-asgiref",
    },
    "loop-wsgi": {OURS: "loop-wsgi", "a2wsgi": "loop-wsgi-a2wsgi"},
}
"""The app of each row, below how the called app is reached and the interface of the caller."""
WORDED = {
    "asgi": "ASGI to ASGI",
    "wsgi": "WSGI to WSGI",
    "threads-asgi": "ASGI to WSGI, in threads",
    "loop-wsgi": "WSGI to ASGI, on a loop",
}
MOST = 10.0
"""Microseconds that a direct call may add, the decision included."""
REPEATS = {"asgi": 20, "wsgi": 20, "threads-asgi": 2, "loop-wsgi": 2}
"""Times over all paths in one timing: a call through a bridge takes long enough."""
FRESH = {"UVICORN_RESET_CONTEXTVARS": "1"}
"""Without it every second request fails in asgiref: one on a kept connection gets the context of that before."""
LOOP_EVERY = 20
"""Calls between two turns of the loop, which forgets ended timers then; under 32 connections it turns as often."""
CALLS = tuple(
    Group(f"{NAME}/call-{kind}", "call", (DIRECT, *rows), most=MOST if kind == "asgi" else None)
    for kind, rows in APPS.items()
)
SERVED = tuple(
    Group(f"{NAME}/{kind}", label, (DIRECT, *APPS[kind]))
    for kind, label in (
        ("asgi", "uvicorn"),
        ("wsgi", "gunicorn gthread"),
        ("threads-asgi", "uvicorn"),
        ("loop-wsgi", "gunicorn gthread"),
    )
)
GROUPS = (*CALLS, *SERVED)


def measure(options: Options, progress: Progress, folder: Path) -> Iterator[Table]:
    """Measure each way to call an app, alone and under a server; one table for each."""
    script = wrk.write_script(folder, NAME, forwarded())
    for kind, words in WORDED.items():
        groups = [group for group in GROUPS if _kind(group) == kind and group.wanted(options)]
        if not groups:
            continue
        table = Table(f"{NAME}: CPU microseconds per GET, {words}", COLUMNS, notes=[describe(options)])
        table.notes.append(
            f"'added' is the CPU above '{DIRECT}', an app that answers itself, paired by round. 'call': the app"
            " called in this process, one call after the other, without a server."
        )
        for group in groups:
            series = (_alone if group in CALLS else partial(_served, script, folder))(
                group, options, progress
            )
            fill(table, group, series, marginal(group, series))
        yield table


def _kind(group: Group) -> str:
    return group.name.partition("/")[2].removeprefix("call-")


def _served(
    script: wrk.Script, folder: Path, group: Group, options: Options, progress: Progress
) -> dict[str, Series]:
    site = Site(
        folder=folder, path=forwarded()[0], upstream=9, threads=options.threads, apps=APPS[_kind(group)]
    )
    peers = site.peers(group, group.wanted(options), partial(loaded, script, options))
    with environment(FRESH if _kind(group) == "threads-asgi" else {}):
        return run(peers, options, progress)


# --- without a server


def _alone(group: Group, options: Options, progress: Progress) -> dict[str, Series]:
    series = {f"{group.name}/{name}": Series(f"{group.name}/{name}") for name in group.wanted(options)}
    with on_the_servers_cpu():
        for turn in range(1, options.rounds + 1):
            for one in series.values():
                progress.say(f"round {turn} of {options.rounds}: {one.name}")
                if not one.error:
                    _add(one, group, options)
    return series


def _add(series: Series, group: Group, options: Options) -> None:
    """Measure one round; a bridge is a library, and any error it has is that of its row."""
    peer, kind = series.name.rpartition("/")[2], _kind(group)
    try:
        app = _app(group, peer)
        expect = LEGACY if peer == DIRECT else MODERN
        if group.interface == "asgi":
            sample = asyncio.run(_asgi(app, expect, options, REPEATS[kind]))
        else:
            sample = _wsgi(app, expect, options, REPEATS[kind])
    except Exception as exc:
        series.error = f"{type(exc).__name__}: {exc}"
        series.samples.clear()
    else:
        series.samples.append(sample)


def _app(group: Group, peer: str) -> Any:
    asgi = group.interface == "asgi"
    if peer == DIRECT:
        return asgi_direct.at_once if asgi else wsgi_direct.at_once
    if peer in (OURS, BRIDGE) and (problem := library.problem()):
        raise RuntimeError(problem)
    return (bridges.ASGI if asgi else bridges.WSGI)[APPS[_kind(group)][peer]]()


async def _asgi(app: Any, expect: bytes, options: Options, repeats: int) -> Sample:
    questions = [_asked(target, options) for target in forwarded()]
    got: list[bytes] = []

    async def keep(message: dict[str, Any]) -> None:
        got.append(message.get("body", b""))

    async def send(message: dict[str, Any]) -> None:
        pass

    for question in questions:  # the first time over all of them warms up
        got.clear()
        await app(dict(question), _receiver(), keep)
        _prove(b"".join(got), expect)
    clock = _Clock()
    for _ in range(repeats):
        for number, question in enumerate(questions):
            await app(dict(question), _receiver(), send)  # some apps write into it
            if number % LOOP_EVERY == 0:
                await asyncio.sleep(0)
    sample = clock.sample(repeats * len(questions))
    await library.ended(app)
    return sample


def _asked(target: str, options: Options) -> dict[str, Any]:
    path, _, query = target.partition("?")
    return {**scope(path, HEADERS[options.headers]), "query_string": query.encode()}


def _receiver() -> Any:
    """Return the `receive` of a GET whose client stays."""
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await asyncio.get_running_loop().create_future()
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


def _wsgi(app: Any, expect: bytes, options: Options, repeats: int) -> Sample:
    questions = []
    for target in forwarded():
        path, _, query = target.partition("?")
        made = environ(path, HEADERS[options.headers])
        questions.append({**made, "QUERY_STRING": query, "RAW_URI": target, "wsgi.input": BytesIO()})
    for question in questions:
        _prove(_called(app, question), expect)
    clock = _Clock()
    for _ in range(repeats):
        for question in questions:
            _called(app, question)
    sample = clock.sample(repeats * len(questions))
    library.close(app)
    return sample


def _called(app: Any, question: dict[str, Any]) -> bytes:
    result = app(dict(question), _start_response)  # some apps write into it
    try:
        return b"".join(result)
    finally:
        if hasattr(result, "close"):
            result.close()


def _start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
    pass


def _prove(body: bytes, expect: bytes) -> None:
    if body != expect:
        raise ValueError(f"another answer: {body[:80]!r}")


class _Clock:
    """Times calls, the garbage collector off from its making to `sample`."""

    def __init__(self) -> None:
        gc.collect()
        gc.disable()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def sample(self, count: int) -> Sample:
        """Return the CPU microseconds of one of so many calls, those of the loop included."""
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        gc.enable()
        return Sample(cpu / count * 1e6, count / wall)
