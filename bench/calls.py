"""The default route without a server: what one call of the wrapped app costs above one of the bare app.

Two numbers of about 50 us whose difference is about 1 us are hard to tell apart under a server; these calls
say what the library itself takes. Caches are warmer here than in a server: the rows under a server count.
"""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any

from bench import asgi_apps, library, wsgi_apps
from bench.heads import environ, scope
from bench.options import HEADERS
from bench.paths import misses, patterns
from bench.rounds import Sample, Series
from bench.served import OURS

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.options import Options
    from bench.report import Progress
    from bench.served import Group

    Call = Callable[[dict[str, Any]], object]

REPEATS = 20
"""Times over all paths in one timing."""


def measure(group: Group, routes: int, options: Options, progress: Progress) -> dict[str, Series]:
    """Return the series of the bare and the wrapped app, called in turn."""
    asgi = group.interface == "asgi"
    questions = [(scope if asgi else environ)(path, HEADERS[options.headers]) for path in misses(routes)]
    series = {f"{group.name}/{name}": Series(f"{group.name}/{name}") for name in group.wanted(options)}
    calls = {name: call for name, one in series.items() if (call := _call(one, routes, asgi=asgi))}
    for turn in range(options.rounds + 1):
        progress.say(f"round {turn} of {options.rounds}: {group.name}")
        for name, call in calls.items():
            sample = _sample(call, questions)
            if turn:  # the first one warms up
                series[name].samples.append(sample)
    return series


def _call(series: Series, routes: int, *, asgi: bool) -> Call | None:
    app: Any = asgi_apps.direct if asgi else wsgi_apps.direct
    if series.name.endswith(OURS):
        series.error = library.problem()
        app = None if series.error else library.wrap(app, patterns(routes), 9)
    if app is None:
        return None
    return _asgi_call(app) if asgi else lambda question: app(question, _start_response)


def _asgi_call(app: Any) -> Call:
    def call(question: dict[str, Any]) -> None:
        try:
            app(question, _receive, _send).send(None)
        except StopIteration:
            return
        raise RuntimeError("the default route waited for something")

    return call


async def _receive() -> dict[str, Any]:
    return {"type": "http.request"}


async def _send(message: dict[str, Any]) -> None:
    pass


def _start_response(status: str, headers: list[tuple[str, str]]) -> None:
    pass


def _sample(call: Call, questions: list[dict[str, Any]]) -> Sample:
    gc.collect()
    gc.disable()
    start = time.process_time()
    for _ in range(REPEATS):
        for question in questions:
            call(question)
    seconds = time.process_time() - start
    gc.enable()
    return Sample(seconds / len(questions) / REPEATS * 1e6)
