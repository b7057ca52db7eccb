"""Forwarders under ASGI that others made: HTTP clients with as little around them as forwards, and libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


def with_aiohttp(port: int) -> App:
    """Forward through an aiohttp session that adds, follows and decodes nothing."""
    from yarl import URL

    base = f"http://127.0.0.1:{port}"
    sessions: list[Any] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        _only_http(scope)
        session = sessions[0] if sessions else _aiohttp_session(sessions)
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        url = URL(base + _target(scope).decode("ascii"), encoded=True)
        body = _body(scope, receive)
        async with session.request(
            scope["method"], url, headers=fields, data=body, allow_redirects=False
        ) as got:
            headers = [(name.lower(), value) for name, value in got.raw_headers]
            await _answer(send, got.status, headers, got.content.iter_any())

    return app


def _aiohttp_session(sessions: list[Any]) -> Any:
    import aiohttp

    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    )
    sessions.append(session)
    return session


def with_httpx2(port: int) -> App:
    """Forward through the transport of httpx2, not its client; the raw target goes as an extension."""
    import httpx2

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    transport = httpx2.AsyncHTTPTransport(limits=limits, trust_env=False)
    url = httpx2.URL(f"http://127.0.0.1:{port}/")

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        _only_http(scope)
        request = httpx2.Request(
            scope["method"],
            url,
            headers=scope["headers"],
            content=_body(scope, receive),
            extensions={"target": _target(scope)},
        )
        got = await transport.handle_async_request(request)
        headers = [(name.lower(), value) for name, value in got.headers.raw]
        await _answer(send, got.status_code, headers, got.aiter_raw())
        await got.aclose()

    return app


def _only_http(scope: dict[str, Any]) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")


def _target(scope: dict[str, Any]) -> bytes:
    query = scope["query_string"]
    return bytes(scope["raw_path"] + b"?" + query if query else scope["raw_path"])


def _body(scope: dict[str, Any], receive: Any) -> AsyncIterator[bytes] | None:
    framed = any(name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"])
    return _chunks(receive) if framed else None


async def _chunks(receive: Any) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def _answer(
    send: Any, status: int, headers: list[tuple[bytes, bytes]], chunks: AsyncIterator[bytes]
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    async for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def with_asgi_proxy_lib(port: int) -> App:
    """Let asgi-proxy-lib forward; it makes an httpx client for each request."""
    from asgi_proxy import asgi_proxy  # type: ignore[import-untyped]

    app: App = asgi_proxy(f"http://127.0.0.1:{port}", timeout=None)
    return app


def with_fastapi_proxy_lib(port: int) -> App:
    """Let fastapi-proxy-lib forward HTTP and WebSockets from Starlette routes, without limits or timeouts."""
    import httpx
    from fastapi_proxy_lib.core.http import ReverseHttpProxy
    from fastapi_proxy_lib.core.websocket import ReverseWebSocketProxy
    from starlette.applications import Starlette
    from starlette.routing import Route, WebSocketRoute

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.AsyncClient(limits=limits, timeout=None, trust_env=False)
    http = ReverseHttpProxy(client, base_url=f"http://127.0.0.1:{port}/")
    websocket = ReverseWebSocketProxy(client, base_url=f"ws://127.0.0.1:{port}/")

    async def forward(request: Any) -> Any:
        return await http.proxy(request=request)

    async def bridge(connection: Any) -> None:
        await websocket.proxy(websocket=connection)

    methods = ["GET", "POST"]
    return Starlette(
        routes=[Route("/{path:path}", forward, methods=methods), WebSocketRoute("/{path:path}", bridge)]
    )


def with_websockets(port: int) -> App:
    """Bridge WebSockets with the `websockets` client, and answer HTTP like the baseline: the floor of a bridge."""
    import asyncio

    from websockets.asyncio.client import connect

    from bench.asgi_direct import bodies

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await bodies(scope, receive, send)
            return
        await receive()
        url = f"ws://127.0.0.1:{port}{scope['path']}"
        async with connect(url, compression=None, ping_interval=None, proxy=None) as upstream:
            await send({"type": "websocket.accept"})
            down = asyncio.create_task(_down(upstream, send))
            while (message := await receive())["type"] == "websocket.receive":
                text = message.get("text")
                await upstream.send(message["bytes"] if text is None else text)
            down.cancel()

    return app


async def _down(upstream: Any, send: Any) -> None:
    async for message in upstream:
        kind = "text" if isinstance(message, str) else "bytes"
        await send({"type": "websocket.send", kind: message})
