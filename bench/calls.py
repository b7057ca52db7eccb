"""The default route without a server: what one call of the wrapped app costs above one of the bare app.

Two numbers of about 50 us whose difference is about 1 us are hard to tell apart under a server; these calls
say what the library itself takes. Caches are warmer here than in a server: the rows under a server count.
"""

from __future__ import annotations

import gc
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from bench import asgi_apps, library, wsgi_apps
from bench.heads import environ, scope
from bench.options import HEADERS
from bench.paths import misses, patterns
from bench.rounds import Sample, Series
from bench.served import MINE, STORED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.options import Options
    from bench.report import Progress
    from bench.served import Group, Site

    Call = Callable[[dict[str, Any]], object]

REPEATS = 20
"""Times over all paths in one timing."""


def measure(group: Group, site: Site, options: Options, progress: Progress) -> dict[str, Series]:
    """Return the series of the bare and the wrapped apps, called in turn."""
    asgi = group.interface == "asgi"
    questions = [(scope if asgi else environ)(path, HEADERS[options.headers]) for path in misses(site.routes)]
    series = {f"{group.name}/{name}": Series(f"{group.name}/{name}") for name in group.wanted(options)}
    with ExitStack() as stack:
        apps = {name: app for name, one in series.items() if (app := _app(one, site, stack, asgi=asgi))}
        called = {name: _asgi_call(app) if asgi else partial(_wsgi_call, app) for name, app in apps.items()}
        for turn in range(options.rounds + 1):
            progress.say(f"round {turn} of {options.rounds}: {group.name}")
            for name, call in called.items():
                sample = timed(call, questions)
                if turn:  # the first one warms up
                    series[name].samples.append(sample)
    return series


def _app(series: Series, site: Site, stack: ExitStack, *, asgi: bool) -> Any:
    direct: Any = asgi_apps.direct if asgi else wsgi_apps.direct
    peer = series.name.rpartition("/")[2]
    if peer not in MINE:
        return direct
    series.error = library.problem()
    if series.error:
        return None
    store = site.store if peer == STORED else ""
    return stack.enter_context(library.wrapped(direct, patterns(site.routes), site.upstream, store))


def _asgi_call(app: Any) -> Call:
    def call(question: dict[str, Any]) -> None:
        try:
            app(question, _receive, _send).send(None)
        except StopIteration:
            return
        raise RuntimeError("the default route waited for something")

    return call


def _wsgi_call(app: Any, question: dict[str, Any]) -> None:
    app(question, _start_response)


async def _receive() -> dict[str, Any]:
    return {"type": "http.request"}


async def _send(message: dict[str, Any]) -> None:
    pass


def _start_response(status: str, headers: list[tuple[str, str]]) -> None:
    pass


def in_rounds(
    series: dict[str, Series],
    prepare: Callable[[str], tuple[Callable[[Any], object], Sequence[Any]]],
    options: Options,
    progress: Progress,
    what: str,
    repeats: int,
) -> None:
    """Time rows in turn; `prepare` makes the call of a row, by its whole name, and what it is asked."""
    timings = {}
    for name, one in series.items():
        progress.say(f"preparing {name}")
        try:
            if problem := library.problem():
                raise RuntimeError(problem)
            timings[name] = prepare(name)
        except Exception as exc:
            one.error = f"{type(exc).__name__}: {exc}"
    for turn in range(options.rounds + 1):
        progress.say(f"round {turn} of {options.rounds}: {what}")
        for name, timing in timings.items():
            sample = timed(*timing, repeats)
            if turn:  # the first one warms up
                series[name].samples.append(sample)


def timed(call: Callable[[Any], object], questions: Sequence[Any], repeats: int = REPEATS) -> Sample:
    """Ask everything so often; return the CPU microseconds of one call, those of the loop included."""
    gc.collect()
    gc.disable()
    start = time.process_time()
    for _ in range(repeats):
        for question in questions:
            call(question)
    seconds = time.process_time() - start
    gc.enable()
    return Sample(seconds / len(questions) / repeats * 1e6)
