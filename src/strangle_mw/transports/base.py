"""What both pools share besides the codec: limits, the TLS context, the wording of failures.

No sockets and no event loop here; `ssl` is imported when the first https connection is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    import ssl

    from strangle_mw.core.model import Upstream
    from strangle_mw.errors import Stage

HIGH_WATER = 65_536
"""Bytes of an answer held for a slow reader, and the most that one blocking read asks for."""

SLOW = 0.25
"""Seconds after which an exchange is slow enough to watch for a client that leaves."""


def tls_context(upstream: Upstream) -> ssl.SSLContext:
    """Make the context for one upstream: TLS 1.2 or later, names checked, unless `verify` is off.

    Raises `OSError` if a file cannot be read or is not what it should be.
    """
    import ssl

    context = ssl.create_default_context(cafile=upstream.tls.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if upstream.tls.cert:
        context.load_cert_chain(upstream.tls.cert, upstream.tls.key or None)
    if not upstream.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def pool_closed() -> ForwardError:
    """Say that the pool takes no more work."""
    return ForwardError("pool", "closed", status=503)


def connect_failed(exc: Exception) -> ForwardError:
    """Turn what connecting raised (DNS, refused, TLS, a missing socket, a bad name) into one class."""
    if isinstance(exc, TimeoutError):
        return ForwardError("connect", "timed out", status=504)
    return ForwardError("connect", _why(exc))


def exchange_failed(
    reason: str, *, answered: bool, sent: bool, status: int = 502, stale: bool = False
) -> ForwardError:
    """Say how far the exchange had come: still sending, before the head was handed over, or after."""
    stage: Stage = "body" if answered else "head" if sent else "send"
    return ForwardError(stage, reason, status=status, request_sent=True, stale=stale)


def lost(exc: Exception | None) -> str:
    """Word the end of a connection: closed by the other side, or broken."""
    return "closed by the upstream" if exc is None else _why(exc)


def _why(exc: Exception) -> str:
    # For the log alone, where an address (asyncio puts it there) helps; answers never show it (promise P23).
    text = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
    return f"{type(exc).__name__}: {text}"[:200]
