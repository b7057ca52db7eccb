"""The only place that knows the names of strangle-mw; everything else here measures callables."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from pathlib import Path

    from strangle_mw import RequestHead
    from strangle_mw.core.decision import Snapshot

MOST = 2_048
"""Exchanges at a time: nobody shall meet the bulkhead."""
PATIENCE = 600.0
"""Seconds."""
ROUTE = "modern"
"""The route of `write_table`, and the upstream of what forwards all that is below `/modern`."""
FUNCTION = "bench"
"""The Lambda function."""


def problem() -> str:
    """Say why the library cannot be measured, or return an empty string."""
    try:
        from strangle_mw import Route, strangle  # noqa: F401
    except ImportError as exc:
        return f"strangle-mw cannot be imported: {exc}"
    return ""


def wrap(app: Any, patterns: list[str], port: int, store: str = "") -> Any:
    """Wrap a WSGI or ASGI app with one forwarding route for each pattern, all to one local upstream.

    With a store it follows live changes.
    """
    from strangle_mw import strangle

    return strangle(app, _routes(patterns, port), store=store or None)


@contextmanager
def wrapped(app: Any, patterns: list[str], port: int, store: str) -> Iterator[Any]:
    """Wrap an app in this process, as `wrap` does, and end its threads afterwards."""
    ours = wrap(app, patterns, port, store)
    try:
        yield ours
    finally:
        ours.engine.close()


def forwarder(app: Any, port: int) -> Any:
    """Wrap a WSGI or ASGI app so that everything below `/modern` goes to one local upstream.

    As many requests at a time and as long a silence as any measurement asks for.
    """
    return _with_modern(app, url=f"http://127.0.0.1:{port}")


def served_as_asgi(app: Any, port: int, threads: int) -> Any:
    """Make an ASGI app of a WSGI app, which runs in so many threads, and forward as `forwarder` does."""
    return _with_modern(app, {"serve": "asgi", "threads": threads}, url=f"http://127.0.0.1:{port}")


def to_function(app: Any, url: str) -> Any:
    """Wrap an app so that everything below `/modern` goes to a Lambda function behind this Invoke API."""
    return _with_modern(app, lambda_=FUNCTION, endpoint_url=url)


def to_app(app: Any, called: Any, interface: str) -> Any:
    """Wrap an app so that everything below `/modern` goes to another app in this process."""
    return _with_modern(app, **{interface: called})


def _with_modern(app: Any, settings: dict[str, Any] | None = None, **target: Any) -> Any:
    from strangle_mw import Route, Upstream, strangle

    modern = Upstream(max_in_flight=MOST, idle_timeout=PATIENCE, **target)
    table = {"upstreams": {ROUTE: modern}, "routes": [Route("/modern/*", to=ROUTE)]}
    return strangle(app, table, **(settings or {}))


def in_threads(app: Any, threads: int) -> Any:
    """Make an ASGI app of a WSGI app, as `serve="asgi"` does, and nothing around it."""
    from strangle_mw.bridges.threads import ThreadedWSGI

    return ThreadedWSGI(app, threads)


async def ended(app: Any) -> None:
    """End what an app has begun on the running loop and in this process, if it is ours."""
    import asyncio

    if hasattr(app, "engine"):
        await app.engine.aclose(asyncio.get_running_loop())
    close(app)


def close(app: Any) -> None:
    """End what an app has begun in this process, if it is ours."""
    if hasattr(app, "engine"):
        app.engine.close()


def write_table(file: Path, port: int, stage: str, patterns: list[str]) -> None:
    """Write a table, all at once, in which everything below `/modern` is in a stage, among other routes."""
    routes = [f'[[routes]]\npath = "{pattern}"\nto = "modern"\n' for pattern in patterns]
    text = f"""
[upstreams.modern]
url = "http://127.0.0.1:{port}"
[[routes]]
name = "{ROUTE}"
path = "/modern/*"
to = "modern"
stage = "{stage}"
{"".join(routes)}"""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def live(app: Any, file: str, store: str) -> Any:
    """Wrap an app with the table of a file, which may be changed, and a store, if there is one."""
    from strangle_mw import strangle

    return strangle(app, file, store=store or None)


def compile_seconds(file: Path) -> float:
    """Return how long reading and compiling a table takes in this process."""
    from strangle_mw.config import load

    start = time.perf_counter()
    load(file)
    return time.perf_counter() - start


@contextmanager
def dialer(store: str) -> Iterator[Callable[[str], None]]:
    """Give a call that moves the route of `write_table` to a stage by an edit of the store."""
    from strangle_mw.core.model import Stage
    from strangle_mw.core.overrides import Override, encode_overrides, parse_overrides, with_override
    from strangle_mw.stores import open_store

    opened = open_store(store)

    def move(stage: str) -> None:
        override = Override(Stage(stage), None, "bench", time.time(), "measured")

        def change(document: bytes) -> bytes:
            overrides = parse_overrides(document)
            return encode_overrides(with_override(overrides, ROUTE, override, time.time()))

        opened.edit(change)

    try:
        yield move
    finally:
        opened.close()


@contextmanager
def blocking_exchange(port: int, path: str) -> Iterator[Callable[[], bytes]]:
    """Give a call that asks a local port once through one pool of blocking sockets; the body comes back."""
    from strangle_mw.transports.thread_pool import BlockingPool

    endpoint, upstream, head = _exchange(port, path)
    with _blocking(BlockingPool(endpoint, upstream), head) as call:
        yield call


@asynccontextmanager
async def async_exchange(port: int, path: str) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """Give a coroutine function that asks a local port once through one asyncio pool."""
    from strangle_mw.transports.asyncio_pool import AsyncPool

    endpoint, upstream, head = _exchange(port, path)
    async with _async(AsyncPool(endpoint, upstream), head) as call:
        yield call


def _exchange(port: int, path: str) -> tuple[Any, Any, bytes]:
    from strangle_mw import Upstream
    from strangle_mw.core.targets import parse_endpoint
    from strangle_mw.transports.h1 import serialize_head

    url = f"http://127.0.0.1:{port}"
    endpoint = parse_endpoint(url)
    head = serialize_head(b"GET", endpoint.base, path.encode(), endpoint.authority, b"\r\n")
    return endpoint, Upstream(url=url, max_in_flight=MOST), head


@contextmanager
def _blocking(pool: Any, head: Any, body: bytes = b"", method: str = "GET") -> Iterator[Callable[[], bytes]]:
    def call() -> bytes:
        answer = pool.send(head, body, method=method, chunked=False, timeout=PATIENCE)
        try:
            got: bytes = answer.take()
            while not answer.complete:
                got += answer.read()
        finally:
            answer.close()
        return got

    try:
        yield call
    finally:
        pool.close()


@asynccontextmanager
async def _async(
    pool: Any, head: Any, body: bytes = b"", method: str = "GET"
) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    async def call() -> bytes:
        answer = await pool.send(head, body, method=method, chunked=False, timeout=PATIENCE)
        try:
            got: bytes = answer.take()
            while not answer.complete:
                got += await answer.read()
        finally:
            answer.close()
        return got

    try:
        yield call
    finally:
        await pool.aclose()


class Invocation:
    """One request, an ASGI scope and its body, for the function behind an Invoke API, and ways to send it."""

    def __init__(self, url: str, scope: dict[str, Any], body: bytes) -> None:
        from strangle_mw.asgi_head import HTTP
        from strangle_mw.config import load
        from strangle_mw.core.decision import prepare

        modern = {"lambda": FUNCTION, "endpoint_url": url, "max_in_flight": MOST}
        snapshot = load({"upstreams": {ROUTE: modern}, "routes": [{"path": "/modern/*", "to": ROUTE}]})
        self._upstream = snapshot.upstreams[ROUTE]
        self._forward: Any = prepare(snapshot, scope["method"], scope["raw_path"], scope["path"], scope, HTTP)
        self._body, self._method = body, scope["method"]

    @property
    def event(self) -> bytes:
        """The event as it is sent."""
        return self._signed()[0]

    def blocking(self) -> AbstractContextManager[Callable[[], bytes]]:
        """Give a call that invokes once through one pool of functions for threads; the body comes back."""
        from strangle_mw.transports.aws_lambda import BlockingLambdaPool
        from strangle_mw.transports.bulkhead import BlockingBulkhead

        pool = BlockingLambdaPool(self._upstream, BlockingBulkhead(self._upstream.declared), _forget)
        return _blocking(pool, self._forward, self._body, self._method)

    def asynchronous(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[bytes]]]:
        """Give a coroutine function that does so through one asyncio pool of functions."""
        from strangle_mw.transports.aws_lambda import AsyncLambdaPool
        from strangle_mw.transports.bulkhead import AsyncBulkhead

        pool = AsyncLambdaPool(self._upstream, AsyncBulkhead(self._upstream.declared), _forget)
        return _async(pool, self._forward, self._body, self._method)

    def blocking_signed(self) -> AbstractContextManager[Callable[[], bytes]]:
        """Give a call that sends an invocation signed once through the blocking HTTP pool; the payload comes."""
        from strangle_mw.transports.thread_pool import BlockingPool

        event, head, endpoint = self._signed()
        return _blocking(BlockingPool(endpoint, self._upstream.declared), head, event, "POST")

    def async_signed(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[bytes]]]:
        """Give a coroutine function that does so through the asyncio HTTP pool."""
        from strangle_mw.transports.asyncio_pool import AsyncPool

        event, head, endpoint = self._signed()
        return _async(AsyncPool(endpoint, self._upstream.declared), head, event, "POST")

    def _signed(self) -> tuple[bytes, bytes, Any]:
        from strangle_mw.transports.aws_invocation import Invocations

        invocations = Invocations(self._upstream, _forget)
        event = invocations.event(self._forward, self._body)
        keys = invocations.signer.prepare().result(PATIENCE)
        return event, invocations.signer.sign(event, keys), invocations.signer.endpoint


def _forget(_version: str) -> None:
    """Take which version of a function has answered."""


def lambda_dev(handler: str, port: int, workers: int) -> list[str]:
    """Return the arguments of Python that run a handler behind the Invoke API of `strangle lambda-dev`."""
    command = ["-m", "strangle_mw.cli", "lambda-dev", f"{FUNCTION}={handler}", "--no-reload"]
    return [*command, "--port", str(port), "--workers", str(workers)]


def matcher(patterns: list[str]) -> Callable[[bytes], bool]:
    """Return the match of a raw path as `decision.prepare` makes it, and nothing else of it."""
    from strangle_mw.core.paths import is_plain

    find = _snapshot(tuple(patterns)).table.match_plain

    def decide(path: bytes) -> bool:
        if not is_plain(path):
            raise ValueError("the paths of this measurement are plain")
        return find(path.decode("ascii"), "GET") is not None

    return decide


def preparer(patterns: list[str]) -> Callable[[dict[str, Any]], bool]:
    """Return all that happens to an ASGI scope before it is handed over or sent: `decision.prepare`."""
    from strangle_mw.asgi_head import HTTP
    from strangle_mw.core.decision import LEGACY, prepare

    snapshot = _snapshot(tuple(patterns))

    def decide(scope: dict[str, Any]) -> bool:
        found = prepare(snapshot, scope["method"], scope["raw_path"], scope["path"], scope, HTTP)
        return found is not LEGACY

    return decide


def decider(
    patterns: list[str], stage: str, weight: float | None = None
) -> Callable[[dict[str, Any]], object]:
    """Return `decision.prepare` over a table whose routes are all in one stage; the decision comes back."""
    from strangle_mw.asgi_head import HTTP
    from strangle_mw.core.decision import prepare

    snapshot = _snapshot(tuple(patterns), stage=stage, weight=weight)

    def decide(scope: dict[str, Any]) -> object:
        return prepare(snapshot, scope["method"], scope["raw_path"], scope["path"], scope, HTTP)

    return decide


def side(decision: object) -> str:
    """Return what a decision amounts to: `no-route`, `legacy` or `modern`."""
    from strangle_mw.core.decision import LEGACY, Forward, Legacy

    if isinstance(decision, Forward):
        return "modern"
    if not isinstance(decision, Legacy):
        raise TypeError(f"neither side: {decision!r}")
    return "no-route" if decision is LEGACY else "legacy"


def chooser(weight: float, *sticky: str) -> Callable[[RequestHead], bool]:
    """Return `staging.choose_side` for a canaried route with these sources of its key, or the default ones."""
    from strangle_mw.core.staging import choose_side

    given = {"sticky": sticky} if sticky else {}
    snapshot = _snapshot(("/v1/res0",), stage="canary", weight=weight, **given)
    [route] = snapshot.table.routes
    staging, dial, crowd = route.staging, snapshot.dial(route), snapshot.crowd

    def choose(head: RequestHead) -> bool:
        return choose_side(staging, dial, head, crowd)[0]

    return choose


def request_head(scope: dict[str, Any]) -> RequestHead:
    """Return a request as the ASGI driver reads it."""
    from strangle_mw.asgi_head import HTTP

    return HTTP.head(scope, scope["raw_path"], b"")


def hasher() -> Callable[[str], int]:
    """Return `sticky.bucket` in one group: the place of a key, 0..9999."""
    from strangle_mw.core.sticky import bucket

    return partial(bucket, "modern")


@lru_cache(maxsize=1)  # two routers ask for the same table, and a large one takes its time
def _snapshot(patterns: tuple[str, ...], **fields: Any) -> Snapshot:
    from strangle_mw.config import load

    return load(_routes(patterns, 9, **fields))


def _routes(patterns: list[str] | tuple[str, ...], port: int, **fields: Any) -> Any:
    from strangle_mw import Route

    return [Route(f"GET {pattern}", to=f"http://127.0.0.1:{port}", **fields) for pattern in patterns]
