"""The running middleware, whatever its interface: the current snapshot and the pools to upstreams.

Drivers ask the engine, the engine owns everything that lives longer than a request. No decision is taken
here (`core.decision`), no byte is sent (`transports`, which only this module imports). Pools are made on
first use, per process and event loop: they survive neither a fork nor their loop.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import weakref
from binascii import hexlify
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING, Any

from strangle_mw.config import load
from strangle_mw.core.balance import choose
from strangle_mw.core.exchange import exchange
from strangle_mw.core.hygiene import CHUNKED
from strangle_mw.core.messages import problem
from strangle_mw.core.model import HttpxUpstream
from strangle_mw.errors import ForwardError
from strangle_mw.transports.h1 import serialize_head
from strangle_mw.transports.make import make_async_pools, make_blocking_pools

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Collection, Generator, Sequence

    from strangle_mw.config import Source
    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.core.decision import Forward, Snapshot
    from strangle_mw.core.exchange import Send
    from strangle_mw.core.messages import Header
    from strangle_mw.core.model import Settings
    from strangle_mw.transports.make import AsyncPool, BlockingPool
    from strangle_mw.transports.websocket import UpstreamWebSocket

    Pool = AsyncPool | BlockingPool

log = logging.getLogger("strangle_mw")

CLIENT_GONE = 499
"""Nginx's status for a client that left; logged, never sent."""

REPLAY_LIMIT = 65_536
"""Bytes of a body that are read before sending, so that it can be sent again (design section 4.3)."""

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """Holds what one wrapped app needs to forward requests.

    `snapshot` is replaced whole by `swap`; a request reads it once. Raises `ConfigError` if the first table
    cannot be used.
    """

    def __init__(self, source: Source, **settings: Any) -> None:
        self.hop_marker = _hop_marker()
        self.snapshot: Snapshot = load(
            source, hop_marker=self.hop_marker, new_id=_new_id, draw=_draw, **settings
        )
        self.told_raw = False
        self._lock = Lock()
        self._async_pools: dict[
            int, tuple[AbstractEventLoop, dict[CompiledUpstream, Sequence[AsyncPool]]]
        ] = {}
        self._pools: dict[CompiledUpstream, Sequence[BlockingPool]] = {}
        _engines.add(self)
        self._tell()

    @property
    def settings(self) -> Settings:
        """The settings in force, those given in code before those of the file."""
        return self.snapshot.settings

    def swap(self, snapshot: Snapshot) -> None:
        """Put another snapshot in force for requests that start from now on."""
        self.snapshot = snapshot

    def begin(
        self, forward: Forward, pools: Sequence[Pool], *, replayable: bool
    ) -> Generator[Send, Any, Any]:
        """Start the conversation that forwards one request; the effects name a pool by its place."""
        method = forward.head.method
        if len(pools) == 1:
            return exchange(method, replayable=replayable)

        def chosen(tried: Collection[int]) -> int:
            return choose([p.in_flight for p in pools], tried, random.randrange)

        return exchange(method, replayable=replayable, endpoints=len(pools), choose=chosen)

    def serialize(self, forward: Forward, length: int, endpoint: int = 0) -> bytes:
        """Write the head that is sent upstream; `length` is the body's, as far as it is known by now."""
        place = forward.upstream.endpoints[endpoint]
        fields = forward.fields
        if length == CHUNKED:
            fields = b"transfer-encoding: chunked\r\n" + fields
        method = forward.head.method.encode("latin-1")
        return serialize_head(method, place.base, forward.target, forward.host(endpoint), fields)

    def async_pools(self, upstream: CompiledUpstream, loop: AbstractEventLoop) -> Sequence[AsyncPool]:
        """Return the pools to an upstream's endpoints for one event loop."""
        entry = self._async_pools.get(id(loop))
        if entry is None:
            with self._lock:
                self._forget_closed_loops()
                entry = self._async_pools.setdefault(id(loop), (loop, {}))
        pools = entry[1].get(upstream)
        if pools is None:
            pools = entry[1].setdefault(upstream, make_async_pools(upstream))
        return pools

    def blocking_pools(self, upstream: CompiledUpstream) -> Sequence[BlockingPool]:
        """Return the pools to an upstream's endpoints for this process's threads."""
        pools = self._pools.get(upstream)
        if pools is None:
            with self._lock:
                pools = self._pools.get(upstream) or make_blocking_pools(upstream)
                self._pools[upstream] = pools
        return pools

    async def websocket(
        self,
        forward: Forward,
        endpoint: int,
        pool: AsyncPool,
        headers: Sequence[Header],
        subprotocols: Sequence[str],
    ) -> UpstreamWebSocket:
        """Shake hands with one endpoint for a WebSocket; `ImportError` if the extra is not installed."""
        from strangle_mw.transports.websocket import WebSocketRequest, connect

        upstream = forward.upstream
        if isinstance(upstream.declared, HttpxUpstream):
            raise ForwardError("connect", "no WebSocket crosses a transport of httpx")
        request = WebSocketRequest(forward.target, forward.host(endpoint), headers, subprotocols)
        timeout = forward.action.timeout or upstream.declared.timeout
        place = upstream.endpoints[endpoint]
        return await connect(pool.dialer, place, upstream.declared, request, timeout)

    async def aclose(self, loop: AbstractEventLoop) -> None:
        """Close the pools of one event loop, for the end of its lifespan."""
        entry = self._async_pools.pop(id(loop), None)
        for pools in entry[1].values() if entry is not None else ():
            for pool in pools:
                await pool.aclose()

    def close(self) -> None:
        """Close the idle connections of this process's threads."""
        taken, self._pools = self._pools, {}
        for pools in taken.values():
            for pool in pools:
                pool.close()

    def failure(
        self, method: str, status: int, reason: str, asked: bytes, route: str = "", detail: str = ""
    ) -> tuple[list[Header], bytes]:
        """Log a request that the library answers with an error, and build it (promises P18, P23).

        `asked` is the request's id if it has one by now; else one is made.
        """
        request_id = (asked or _new_id()).decode("ascii")
        where = f" on route {route!r}: {detail}" if route else ""
        log.warning("%d %s%s (request %s)", status, reason, where, request_id)
        headers, body = problem(status, reason, request_id)
        return headers, b"" if method == "HEAD" else body

    def failed(self, forward: Forward, error: ForwardError) -> tuple[list[Header], bytes]:
        """Log a request that could not be forwarded, and build its answer; `error.status` is its status."""
        if error.status >= 500:  # noqa: PLR2004 - RFC 9110 section 15.6
            reason = f"upstream-{error.stage}"
        else:
            reason = "body-too-large" if error.status == 413 else "bad-body"  # noqa: PLR2004
        detail = f"upstream {forward.upstream.name!r}: {error}"
        return self.failure(
            forward.head.method, error.status, reason, forward.request_id, forward.route.name, detail
        )

    def tell_raw(self, server: str) -> None:
        """Warn, once a process, of a server that does not hand on the raw request target."""
        self.told_raw = True
        what = "paths are quoted anew, an encoded slash has become a slash"
        log.warning("%s gives no raw request target: %s", server, what)

    def forget_connections(self) -> None:
        """Drop every pool without closing its sockets: after a fork they belong to the parent."""
        self._lock = Lock()
        self._pools = {}
        self._async_pools = {}

    def _forget_closed_loops(self) -> None:
        for key, (loop, _) in tuple(self._async_pools.items()):
            if loop.is_closed():
                del self._async_pools[key]

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


def _new_id() -> bytes:
    # Unique, not secret; `random` seeds itself anew after a fork.
    return hexlify(random.getrandbits(128).to_bytes(16, "big"))


def _draw() -> int:
    return random.randrange(10_000)  # noqa: S311 - shares out requests, decides nothing secret


def _after_fork() -> None:
    for engine in tuple(_engines):
        engine.forget_connections()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
