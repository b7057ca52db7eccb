"""Plain sockets: connecting within a time, and asking the kernel about one.

`socket` and `select` are used by their plain names, so that gevent's monkey patching works; asyncio may not
be imported here.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
from time import monotonic
from typing import TYPE_CHECKING

from strangle_mw.transports.addresses import share

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from strangle_mw.core.model import Endpoint
    from strangle_mw.transports.addresses import Address, BlockingAddresses


def peek(descriptor: int) -> Callable[[float], object]:
    """Make the question, asked with 0, whether there is anything to read: bytes, an end or an error.

    It costs one system call, a quarter of a `recv` that finds nothing.
    """
    if not hasattr(select, "poll"):  # Windows
        return lambda seconds: select.select([descriptor], [], [], seconds)[0]
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return poll.poll


def keeps_time(sock: socket.socket) -> bool:
    """Tell whether the kernel can limit the waits on this socket.

    Python's own time limits cost a `poll` before every call. gevent's sockets and TLS need them; the layout
    of the kernel's is that of POSIX systems with 64 bits.
    """
    return type(sock) is socket.socket and socket.socket.__module__ == "socket" and _HAS_KERNEL_TIMEOUTS


_HAS_KERNEL_TIMEOUTS = sys.platform in ("linux", "darwin") and sys.maxsize > 2**32


def set_kernel_timeout(sock: socket.socket, seconds: float) -> None:
    """Limit each `send` and `recv` (socket(7)); afterwards they fail with EAGAIN."""
    micros = max(1, round(seconds * 1e6))
    limit = struct.pack("@qq", *divmod(micros, 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def dial(
    endpoint: Endpoint, addresses: BlockingAddresses, seconds: float, context: ssl.SSLContext | None
) -> socket.socket:
    """Connect within a time, looking up the name and TLS included. Raises `OSError` and `ValueError`."""
    deadline = monotonic() + seconds
    if endpoint.scheme == "unix":
        return _connect(socket.AF_UNIX, endpoint.socket, seconds)
    sock = _connect_any(addresses.find(seconds), deadline)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            return sock
        sock.settimeout(_left(deadline))
        # An end without a closure alert is a cut, not an end (RFC 9112 section 9.8).
        return context.wrap_socket(sock, server_hostname=endpoint.host, suppress_ragged_eofs=False)
    except BaseException:
        sock.close()
        raise


def _connect_any(addresses: list[Address], deadline: float) -> socket.socket:
    problem: OSError = OSError("the name has no address")
    for at, (family, address) in enumerate(addresses):
        try:
            return _connect(family, address, share(_left(deadline), len(addresses) - at))
        except OSError as exc:
            problem = exc
    raise problem


def _connect(family: int, address: str | tuple[object, ...], seconds: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0.0:
        raise TimeoutError
    return left
