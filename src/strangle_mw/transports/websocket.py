"""One WebSocket to an upstream (RFC 6455), over the connection of the `websockets` library.

The handshake is written here, byte for byte as it was decided; frames, pings and the closing handshake are
the library's. This module alone imports `websockets`, which is an extra, and is itself imported when the
first WebSocket is forwarded. What a client is told is the driver's business.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.protocol import OPEN
from websockets.uri import WebSocketURI

from strangle_mw.errors import ForwardError
from strangle_mw.transports.base import lost
from strangle_mw.transports.h1 import serialize_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from websockets.http11 import Request, Response
    from websockets.typing import Subprotocol

    from strangle_mw.core.messages import Header
    from strangle_mw.core.model import Endpoint, Upstream
    from strangle_mw.transports.asyncio_dial import AsyncDialer

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of one message, both ways (design section 5)."""

PING_INTERVAL = PING_TIMEOUT = 20.0

CLOSE_TIMEOUT = 2.0
"""Seconds that an upstream has to end a connection whose closing has begun (RFC 6455 section 7.1.1)."""

_FINAL = 200
_NO_STATUS, _TOO_BIG, _GOING_AWAY, _BAD_GATEWAY = 1005, 1009, 1001, 1014

_log = logging.getLogger("strangle_mw.websocket")
# The library wants an address; what is sent is written by `_Protocol`.
_NOWHERE = WebSocketURI(False, "upstream", 80, "/", "")


class WebSocketRequest(NamedTuple):
    """What a handshake asks for: the target below the base path, `Host`, and the headers that cross.

    `subprotocols` are tokens, in the client's order.
    """

    target: bytes
    host: bytes
    headers: Sequence[Header]
    subprotocols: Sequence[str]


class Ending(NamedTuple):
    """How a WebSocket ended: the code and reason for the client, and whose fault it was ("": nobody's)."""

    code: int
    reason: str = ""
    fault: str = ""


async def connect(
    dialer: AsyncDialer,
    endpoint: Endpoint,
    upstream: Upstream,
    request: WebSocketRequest,
    timeout: float,  # noqa: ASYNC109 - of the handshake's answer alone; connecting has its own
) -> UpstreamWebSocket:
    """Connect to an endpoint and shake hands; `timeout` is in seconds until the answer.

    The answer is returned whatever its status is. Raises `ForwardError`, with stage "connect" while nothing
    has been sent.
    """
    # The dialer's context asks for HTTP/1.1 in ALPN: over HTTP/2 a WebSocket starts otherwise (RFC 8441).
    connection = await dialer.dial(lambda: _connection(endpoint.base, request))
    return await _shake_hands(connection, upstream.idle_timeout, timeout)


def _connection(base: bytes, request: WebSocketRequest) -> _Connection:
    return _Connection(
        _Protocol(base, request),
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
        close_timeout=CLOSE_TIMEOUT,
        # Frames that wait for the client; a frame may be a whole message of `MAX_MESSAGE`.
        max_queue=1,
    )


class _Protocol(ClientProtocol):
    """The library's side of a handshake whose request is written here."""

    def __init__(self, base: bytes, request: WebSocketRequest) -> None:
        offered = [_subprotocol(name) for name in request.subprotocols]
        super().__init__(_NOWHERE, subprotocols=offered or None, max_size=MAX_MESSAGE, logger=_log)
        self.debug = False  # it would log headers and messages (promise P18)
        self._base = base
        self._asked = request

    def send_request(self, request: Request) -> None:  # noqa: ARG002 - the library's own
        asked = self._asked
        fields = [
            *asked.headers,
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-key", self.key.encode()),
        ]
        if asked.subprotocols:
            fields.append((b"sec-websocket-protocol", ", ".join(asked.subprotocols).encode()))
        written = b"".join([b"%b: %b\r\n" % field for field in fields]) + b"\r\n"
        self.writes.append(serialize_head(b"GET", self._base, asked.target, asked.host, written))


class _Connection(ClientConnection):
    """The library's connection, with another idea of when an upstream is gone.

    It ends when its closing has begun, whatever the upstream does. A pong that waits behind messages for a
    slow client is no missing pong: then nothing is read, and the upstream lives.
    """

    _overdue: asyncio.TimerHandle | None = None
    _heard = False

    async def keepalive(self) -> None:
        """Ping, and cut an upstream that says nothing for `PING_TIMEOUT` while it is listened to."""
        with suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(PING_INTERVAL)
                pong = asyncio.ensure_future(await self.ping())
                while not pong.done():
                    self._heard = False
                    await asyncio.wait((pong,), timeout=PING_TIMEOUT)
                    if not (pong.done() or self._heard) and self.transport.is_reading():
                        self.transport.abort()
                        return

    def data_received(self, data: bytes) -> None:
        self._heard = True
        super().data_received(data)
        if self._overdue is None and self.protocol.close_expected():
            self._overdue = self.loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
        super().connection_lost(exc)


def _subprotocol(name: str) -> Subprotocol:
    return name  # type: ignore[return-value]  # the library's `NewType` of str


async def _shake_hands(connection: _Connection, idle: float, seconds: float) -> UpstreamWebSocket:
    """Send the request and read the answer; nothing but an open WebSocket leaves a connection behind."""
    opened = False
    try:
        async with asyncio.timeout(seconds):
            await connection.handshake(user_agent_header=None)
        if connection.response is None:  # the type of an attribute that the handshake has set
            raise ForwardError("head", lost(None), request_sent=True)
        opened = True
        connection.start_keepalive()
        return UpstreamWebSocket(connection.response, connection, idle)
    except TimeoutError as exc:
        raise ForwardError("head", "timed out", status=504, request_sent=True) from exc
    except InvalidStatus as exc:
        if exc.response.status_code < _FINAL:
            raise ForwardError("head", "an interim answer to a handshake", request_sent=True) from exc
        return UpstreamWebSocket(exc.response, connection, idle)
    except (WebSocketException, OSError) as exc:
        raise ForwardError("head", lost(exc), request_sent=True) from exc
    finally:
        if not opened:
            connection.transport.abort()


def _bytes(text: str) -> bytes:
    """Return a header's text as it came: the library has decoded it as latin-1, before 17 with surrogates."""
    return bytes(ord(c) & 0xFF for c in text)


class UpstreamWebSocket:
    """An upstream's answer to a handshake, and if its status is 101, the open WebSocket.

    `body` is that of a refusal. `receive` in one task, `send` and `close` in one other at most.
    """

    __slots__ = ("_connection", "_ending", "_idle", "body", "headers", "status", "subprotocol")

    def __init__(self, response: Response, connection: _Connection, idle: float) -> None:
        self.status = response.status_code
        self.headers: list[Header] = [
            (_bytes(name), _bytes(value)) for name, value in response.headers.raw_items()
        ]
        self.body = bytes(response.body)
        self.subprotocol: str | None = connection.subprotocol
        self._connection = connection
        self._idle = idle
        self._ending: Ending | None = None

    async def receive(self) -> str | bytes | None:
        """Wait for the next message: text or binary, whole. None once it is over; then see `ending`."""
        try:
            return await self._connection.recv()
        except ConnectionClosed:
            return None

    async def send(self, message: str | bytes) -> bool:
        """Send a message, text or binary; returns when it may be followed by the next, False once over.

        A message over `MAX_MESSAGE` ends the WebSocket with 1009, and so does, with 1014, an upstream that
        takes nothing for its `idle_timeout`.
        """
        text = isinstance(message, str)
        data = message.encode() if isinstance(message, str) else message
        if len(data) > MAX_MESSAGE:
            self._ending = Ending(_TOO_BIG, fault="a message of the client is too big")
            await self.close(_TOO_BIG)
            return False
        try:
            async with asyncio.timeout(self._idle):
                await self._connection.send(data, text=text)
        except ConnectionClosed:
            return False
        except TimeoutError:
            self._ending = Ending(_BAD_GATEWAY, fault="the upstream takes no messages")
            self.abort()
            return False
        return True

    async def close(self, code: int | None, reason: str = "") -> None:
        """Close with a code, or without one, and wait for the end; `CLOSE_TIMEOUT` seconds at most."""
        # The library's protocol takes None for a close frame without a status (RFC 6455 section 7.1.5).
        await self._connection.close(code, reason)  # type: ignore[arg-type]

    def leave(self) -> None:
        """Go away at once, with a close frame if the upstream takes one without waiting."""
        connection = self._connection
        if connection.protocol.state is OPEN and not connection.transport.is_closing():
            connection.protocol.send_close(_GOING_AWAY)
            connection.send_data()
            if not connection.transport.get_write_buffer_size():
                connection.transport.close()
                return
        self.abort()

    def abort(self) -> None:
        """Cut the connection."""
        self._connection.transport.abort()

    @property
    def ending(self) -> Ending:
        """How it ended, once `receive` has said so; the close frame's words if the upstream sent one."""
        if self._ending is not None:
            return self._ending
        protocol = self._connection.protocol
        received, sent = protocol.close_rcvd, protocol.close_sent
        if received is not None and (sent is None or sent.code == received.code):
            code = received.code if received.code != _NO_STATUS else 1000
            return Ending(code, received.reason)
        code = _TOO_BIG if sent is not None and sent.code == _TOO_BIG else _BAD_GATEWAY
        return Ending(code, fault=sent.reason if sent is not None else "the upstream was lost")
