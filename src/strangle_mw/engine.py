"""The running middleware, whatever its interface: the snapshot in force, pools and states of this process.

Drivers ask the engine, the engine owns everything that lives longer than a request. No decision is taken
here (`core.decision`), no byte is sent (`transports`, which only this module imports). What changes the table
while it runs is `live`, `follower` and `probing`.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import secrets
import weakref
from binascii import hexlify
from functools import partial
from hashlib import blake2b
from math import inf
from threading import Lock
from time import monotonic, time
from typing import TYPE_CHECKING, Any, cast

from strangle_mw.core.calls import Call
from strangle_mw.core.exchange import exchange
from strangle_mw.core.fallback import NEVER, SAFE_METHODS
from strangle_mw.core.hygiene import CHUNKED
from strangle_mw.core.messages import problem
from strangle_mw.core.model import HttpxUpstream, Stage
from strangle_mw.errors import ForwardError, Problem
from strangle_mw.follower import Follower
from strangle_mw.live import INTERVAL, Live
from strangle_mw.probing import Probers
from strangle_mw.states import Endpoints, States
from strangle_mw.stores import open_store
from strangle_mw.transports.h1 import serialize_head
from strangle_mw.transports.make import start_problems
from strangle_mw.transports.registry import PoolRegistry

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Collection, Generator, Iterator, Sequence

    from strangle_mw.config import Source
    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.core.decision import Answer, Forward, Legacy, Snapshot
    from strangle_mw.core.exchange import Effect
    from strangle_mw.core.fallback import FallbackPolicy
    from strangle_mw.core.identity import Mint
    from strangle_mw.core.messages import Header
    from strangle_mw.core.settings import IdentityTokens, Settings
    from strangle_mw.probing import Asks
    from strangle_mw.transports.in_process import AsyncAppPool
    from strangle_mw.transports.make import AsyncHttpPool, AsyncPool, BlockingPool
    from strangle_mw.transports.websocket import UpstreamWebSocket

    Pool = AsyncPool | AsyncAppPool | BlockingPool

log = logging.getLogger("strangle_mw")

CLIENT_GONE = 499
"""Nginx's status for a client that left; logged, never sent."""

FALLBACK_KEY = "strangle.fallback"
"""Where the wrapped app finds in its scope or environ why it answers for the modern side."""

MEMORY = "memory:"

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """Holds what one wrapped app needs to forward requests.

    `snapshot` is replaced whole, by one reference; a request reads it once. A driver calls `look` when `due`
    (monotonic seconds) has come. Raises `ConfigError` if the first table cannot be used.
    """

    snapshot: Snapshot

    def __init__(self, source: Source, **settings: Any) -> None:
        self.states = States()
        self.pools = PoolRegistry(self.states.executed)
        self.told_raw = False
        self._looking = Lock()
        hooks = {"hop_marker": _hop_marker(), "new_id": _new_id, "draw": _draw, "now": time, "mint": _mint}
        self.live = Live(source, {**hooks, **settings}, self.states, self._install, missing)
        self.store = open_store(self.settings.store or MEMORY)
        self.follower = Follower(self.store, self.live, self.states)
        self.probers = Probers(
            _make_probe, self.states.upstream, lambda: bool(self.live.waiting), self.live.refresh
        )
        self.live.hurry = self.probers.hurry
        self._shared = (self.settings.store or MEMORY) != MEMORY
        if self._shared:
            self.follower.read()  # before the first request: the kill switch may be on
        self.due = self._first_look()
        _engines.add(self)
        self._tell()

    @property
    def settings(self) -> Settings:
        """The settings in force, those given in code before those of the file."""
        return self.snapshot.settings

    # --- the table while it runs

    def look(self) -> None:
        """See whether something has changed; called by drivers on the way of a request.

        The first look of a process starts its threads, as far as the table needs any (an import may be
        followed by a fork), and reads the store once: what was known at the import may be old. No other look
        waits for anything.
        """
        if not self._looking.acquire(blocking=False):
            return
        pause = INTERVAL
        try:
            self.due = inf  # nobody else looks meanwhile
            if self._shared:
                self.follower.start()
            self.probers.watch(self.snapshot.upstreams.values())
            pause = self.live.look()
            self.pools.sweep()
        except Exception:  # no thread was to be had, say: not a matter of the request that has come by
            log.exception("looking for changes has failed, and is tried again")
        finally:
            self.due = monotonic() + pause  # also after a timeout of gevent's in the middle of it
            self._looking.release()

    def sync(self) -> None:
        """Read the store and write to it now, for stores that no thread follows."""
        self.follower.read()
        self.follower.flush()

    def _install(self, snapshot: Snapshot) -> None:
        before = self.__dict__.get("snapshot")
        self.snapshot = snapshot
        if before is not None and before.upstreams is not snapshot.upstreams:
            kept = set(snapshot.upstreams.values())
            self.pools.retire(u for u in before.upstreams.values() if u not in kept)
            self.states.keep(kept, snapshot.table.by_name)

    def _first_look(self) -> float:
        """Return when to look first: at once, or never if nothing can change."""
        probed = any(u.declared.health is not None for u in self.snapshot.upstreams.values())
        return 0.0 if self._shared or probed or self.live.watch is not None else inf

    # --- one request

    def begin(
        self, forward: Forward, pools: Sequence[Pool], policy: FallbackPolicy, *, replayable: bool
    ) -> Generator[Effect, int, None]:
        """Start the conversation that forwards one request; the effects name a pool by its place."""
        route = forward.route.name
        if policy.mode == "auto":
            self.states.asked(route)
        endpoints = Endpoints(self.states, forward.upstream, pools, route)
        tell = partial(self.states.replaced, route, forward.upstream.name)
        return exchange(forward.head.method, endpoints, replayable=replayable, policy=policy, tell=tell)

    def policy(self, forward: Forward) -> FallbackPolicy:
        """Return what happens when the modern side fails; asked before anything of the body is read."""
        staging = forward.route.staging
        policy = staging.policies.get(forward.dial.stage, NEVER)
        return policy if policy is NEVER or time() < staging.until else NEVER

    def count(self, of: Forward | Answer | Legacy, side: str, outcome: str) -> None:
        """Count one request of a route."""
        route, dial = of.route, of.dial
        if route is not None and dial is not None:
            self.states.count(route.name, dial, side, outcome)
            if side == "legacy" and route.name in self.live.retired:
                self.states.old_code_ran(route.name)

    def passed(self, decision: Legacy, method: str) -> None:
        """Count a request that a route's stage leaves to the wrapped app, and the copy that would be made."""
        self.count(decision, "legacy", "passed")
        route, dial = decision.route, decision.dial
        if dial is not None and dial.stage is Stage.SHADOW and route is not None:
            shadow = route.declared.shadow
            copied = method in SAFE_METHODS or (shadow is not None and shadow.unsafe)
            if copied and _draw() < route.staging.sample:
                self.count(decision, "shadow", "not-compared")

    def serialize(self, forward: Forward, length: int, endpoint: int = 0, source: Any = None) -> Any:
        """Write the head that is sent upstream; `length` is the body's, as far as it is known by now.

        A pool of functions takes the request itself, one of apps with the environ (`source`) it came in.
        """
        if forward.upstream.kind != "http":
            return forward if forward.upstream.kind == "lambda" else Call(forward, source, length)
        place = forward.upstream.endpoints[endpoint]
        fields = forward.fields
        if length == CHUNKED:
            fields = b"transfer-encoding: chunked\r\n" + fields
        method = forward.head.method.encode("latin-1")
        return serialize_head(method, place.base, forward.target, forward.host(endpoint), fields)

    def async_pools(self, upstream: CompiledUpstream, loop: AbstractEventLoop) -> Sequence[AsyncPool]:
        """Return the pools to an upstream's endpoints for one event loop."""
        return cast("Sequence[AsyncPool]", self.pools.of_loop(upstream, loop))

    def blocking_pools(self, upstream: CompiledUpstream) -> Sequence[BlockingPool]:
        """Return the pools to an upstream's endpoints for this process's threads."""
        return self.pools.of_threads(upstream)

    async def websocket(
        self,
        forward: Forward,
        endpoint: int,
        pool: AsyncHttpPool,
        headers: Sequence[Header],
        subprotocols: Sequence[str],
    ) -> UpstreamWebSocket:
        """Shake hands with one endpoint for a WebSocket; `ImportError` if the extra is not installed."""
        from strangle_mw.transports.websocket import WebSocketRequest, connect

        upstream = forward.upstream
        if isinstance(upstream.declared, HttpxUpstream) or upstream.kind != "http":
            what = "a transport of httpx" if upstream.kind == "http" else f"to {upstream.endpoints[endpoint]}"
            raise ForwardError("pool", f"no WebSocket crosses {what}")
        request = WebSocketRequest(forward.target, forward.host(endpoint), headers, subprotocols)
        timeout = forward.action.timeout or upstream.declared.timeout
        place = upstream.endpoints[endpoint]
        return await connect(pool.dialer, place, upstream.declared, request, timeout)

    def begin_apps(self, loop: AbstractEventLoop) -> None:
        """Start the apps in this process that the table names, for the start of the server."""
        for upstream in self._apps():
            for pool in self.app_pools(upstream, loop):
                pool.begin()

    async def apps_begun(self, loop: AbstractEventLoop) -> None:
        """Wait until they have started, or failed to (which is logged), or until their `timeout` is over."""
        from asyncio import gather

        await gather(*(p.begun() for u in self._apps() for p in self.app_pools(u, loop)))

    def app_pools(self, upstream: CompiledUpstream, loop: AbstractEventLoop) -> Sequence[AsyncAppPool]:
        """Return what `async_pools` does, for an app in this process."""
        return cast("Sequence[AsyncAppPool]", self.pools.of_loop(upstream, loop))

    def _apps(self) -> Iterator[CompiledUpstream]:
        return (u for u in self.snapshot.upstreams.values() if u.in_process)

    async def aclose(self, loop: AbstractEventLoop) -> None:
        """Close the pools of one event loop, for the end of its lifespan."""
        await self.pools.aclose(loop)

    def close(self) -> None:
        """Stop this process's threads and close its idle connections; what was counted is stored before."""
        self.probers.stop()
        self.follower.stop()
        self.store.close()
        self.pools.close()

    def failure(
        self,
        method: str,
        status: int,
        reason: str,
        asked: bytes,
        route: str = "",
        detail: str = "",
        retry_after: int = 0,
    ) -> tuple[list[Header], bytes]:
        """Log a request that the library answers with an error, and build it (promises P18, P23).

        `asked` is the request's id if it has one by now; else one is made.
        """
        request_id = (asked or _new_id()).decode("ascii")
        where = f" on route {route!r}: {detail}" if route else ""
        log.warning("%d %s%s (request %s)", status, reason, where, request_id)
        headers, body = problem(status, reason, request_id, retry_after)
        return headers, b"" if method == "HEAD" else body

    def failed(self, forward: Forward, error: ForwardError) -> tuple[list[Header], bytes]:
        """Log a request that could not be forwarded, and build its answer; `error.status` is its status."""
        if error.status >= 500:  # noqa: PLR2004 - RFC 9110 section 15.6
            reason = f"upstream-{error.stage}"
        else:
            reason = "body-too-large" if error.status == 413 else "bad-body"  # noqa: PLR2004
        detail = f"upstream {forward.upstream.name!r}: {error}"
        method, route = forward.head.method, forward.route.name
        return self.failure(
            method, error.status, reason, forward.request_id, route, detail, error.retry_after
        )

    def tell_raw(self, server: str) -> None:
        """Warn, once a process, of a server that does not hand on the raw request target."""
        self.told_raw = True
        what = "paths are quoted anew, an encoded slash has become a slash"
        log.warning("%s gives no raw request target: %s", server, what)

    def reset_after_fork(self) -> None:
        """Begin anew in a child process: sockets, threads and locks belong to the parent."""
        self._looking = Lock()
        self.pools = PoolRegistry(self.states.executed)
        self.states.reset_after_fork()
        self.live.reset_after_fork()
        self.follower.reset_after_fork()
        self.probers.reset_after_fork()
        self.due = self._first_look()

    def _tell(self) -> None:
        snapshot = self.snapshot
        log.info(
            "route table %s: %d routes, %d upstreams",
            snapshot.revision,
            len(snapshot.table.routes),
            len(snapshot.upstreams),
        )
        for warning in snapshot.warnings:
            log.warning("%s", warning)


def _hop_marker() -> bytes:
    """Make the keyed name under which this app stands in `Via`.

    A key of each process's own ends a loop as soon as it comes back to that process; `STRANGLE_HOP_KEY`
    makes a whole fleet know itself.
    """
    key = os.environ.get("STRANGLE_HOP_KEY", "").encode()[:64] or secrets.token_bytes(32)
    return b"strangle-" + blake2b(b"strangle-mw hop", key=key, digest_size=12).hexdigest().encode()


# Unique, not secret; our own, since an app that seeds `random` would make the same ids again and again.
_random = random.Random()  # noqa: S311


def _mint(tokens: IdentityTokens, upstreams: Collection[str]) -> Mint:
    from strangle_mw.identity.minting import make_minter

    return make_minter(tokens, upstreams)


def _new_id() -> bytes:
    return hexlify(_random.getrandbits(128).to_bytes(16, "big"))


def _draw() -> int:
    return _random.randrange(10_000)


def missing(upstreams: Sequence[CompiledUpstream]) -> Iterator[Problem]:
    """Say what upstreams lack in this process: an app, a region, credentials; may block."""
    for upstream, (field, what, id_) in start_problems(upstreams):
        yield Problem(f"upstreams.{upstream.name}.{field}", what, id_)


def _make_probe(upstream: CompiledUpstream) -> Asks:
    from strangle_mw.transports.probe import Probe

    health = upstream.declared.health
    assert health is not None  # noqa: S101 - `Probers` asks for none else
    return Probe(upstream, health.path, health.interval)


def _after_fork() -> None:
    for engine in tuple(_engines):
        engine.reset_after_fork()


def _at_exit() -> None:
    for engine in tuple(_engines):
        engine.follower.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
    os.register_at_fork(after_in_child=_random.seed)
atexit.register(_at_exit)
