"""Connecting to one endpoint under asyncio, whatever is spoken afterwards.

Which connection is used when belongs to `asyncio_pool`; names are looked up in `addresses`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from strangle_mw.transports.addresses import AsyncAddresses, share
from strangle_mw.transports.base import connect_failed, tls_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from strangle_mw.core.model import Endpoint, Upstream

P = TypeVar("P", bound=asyncio.BaseProtocol)

_TLS_CLOSE = 2.0
"""Seconds that a closed TLS connection waits for the other side's closure alert."""


class AsyncDialer:
    """Connects to one endpoint, from one event loop; making it does no I/O."""

    def __init__(self, endpoint: Endpoint, upstream: Upstream) -> None:
        self._endpoint = endpoint
        self._upstream = upstream
        self._addresses = AsyncAddresses(endpoint.host, endpoint.port)
        self._context: ssl.SSLContext | None = None

    async def dial(self, make: Callable[[], P]) -> P:
        """Connect a protocol that `make` makes, within `connect_timeout` seconds; raises `ForwardError`."""
        try:
            return await self._dial(make, self._upstream.connect_timeout)
        except (OSError, ValueError) as exc:  # ValueError: a name that IDNA cannot encode
            raise connect_failed(exc) from exc

    async def _dial(self, make: Callable[[], P], seconds: float) -> P:
        """Try one address after the other; asyncio's own race of them loses sockets when it is cancelled."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        if self._endpoint.scheme == "unix":
            async with asyncio.timeout_at(deadline):
                return (await loop.create_unix_connection(make, self._endpoint.socket))[1]
        async with asyncio.timeout_at(deadline):
            addresses = await self._addresses.find()
        problem: OSError = OSError("the name has no address")
        for at, (_, address) in enumerate(addresses):
            try:
                async with asyncio.timeout(share(deadline - loop.time(), len(addresses) - at)):
                    return await self._connect(make, str(address[0]))
            except OSError as exc:
                problem = exc
        raise problem

    async def _connect(self, make: Callable[[], P], address: str) -> P:
        loop, port = asyncio.get_running_loop(), self._endpoint.port
        if self._endpoint.scheme == "http":
            return (await loop.create_connection(make, address, port))[1]
        context = self._context = self._context or tls_context(self._upstream)
        name = self._endpoint.host
        found = await loop.create_connection(
            make, address, port, ssl=context, server_hostname=name, ssl_shutdown_timeout=_TLS_CLOSE
        )
        return found[1]
