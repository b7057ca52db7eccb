"""A real HTTP/2 upstream: hypercorn in a thread, with an ASGI app that says what it received."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from typing import TYPE_CHECKING, Any, Self

from hypercorn.asyncio import serve
from hypercorn.config import Config
from tests.transports.upstream import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from pathlib import Path

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

MIB = 1024 * 1024


class H2Upstream:
    """Speaks HTTP/2 by prior knowledge, or by ALPN with a certificate; `version` is what requests came by."""

    def __init__(self, *, cert: Path | None = None, key: Path | None = None) -> None:
        self._config = Config()
        self._config.bind = ["127.0.0.1:0"]
        if cert is not None:
            self._config.certfile, self._config.keyfile = str(cert), str(key)
        self._config.graceful_timeout = 0.0
        self._sockets = self._config.create_sockets()
        made = self._sockets.secure_sockets or self._sockets.insecure_sockets
        made[0].listen()
        self.port: int = made[0].getsockname()[1]
        self._config.create_sockets = lambda: self._sockets  # type: ignore[method-assign]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.arrived, self.left = threading.Event(), threading.Event()
        self.heads: list[dict[str, Any]] = []
        self.clients: set[Any] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(serve(self._app, self._config, shutdown_trigger=self._stop.wait))  # type: ignore[arg-type]

    async def _app(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.clients.add(scope["client"])
        told = {
            "client": scope["client"],
            "method": scope["method"],
            "version": scope["http_version"],
            "target": scope["raw_path"].decode("latin-1") + "?" + scope["query_string"].decode("latin-1"),
            "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in scope["headers"]],
        }
        self.heads.append(told)
        self.arrived.set()
        special = getattr(self, "_" + scope["path"].rpartition("/")[2], None)
        if special is not None:
            await special(receive, send)
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.set()
                return
            body += message["body"]
            if not message["more_body"]:
                break
        text = json.dumps({**told, "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}).encode()
        await _answer(send, [(b"content-length", b"%d" % len(text))], text)

    async def _cookies(self, _: Receive, send: Send) -> None:
        await _answer(send, [(b"set-cookie", b"a=1"), (b"x-empty", b""), (b"set-cookie", b"b=2")], b"ok")

    async def _big(self, _: Receive, send: Send) -> None:
        await _answer(send, [], b"x" * MIB)

    async def _none(self, _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def _trailers(self, _: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"hello"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    async def _events(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await self._stall(receive, send)

    async def _stall(self, receive: Receive, _: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()


async def _answer(send: Send, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
