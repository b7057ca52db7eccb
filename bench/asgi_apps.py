"""The ASGI apps that uvicorn serves, one process each: `BENCH_PEER` names the one called `app` here.

`BENCH_UPSTREAM` is the port of the modern side, `BENCH_ROUTES` the size of the table whose default route is
measured (0: one route that forwards).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bench import library, minimal_asgi
from bench.paths import patterns
from bench.payload import CONTENT_TYPE, LEGACY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]

HEADERS = [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(LEGACY)).encode())]


async def direct(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer at once: the wrapped app, and the baseline of every row."""
    if scope["type"] != "http":
        raise RuntimeError("only HTTP")
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": LEGACY})


def strangled(port: int) -> App:
    """Wrap `direct` with the library."""
    count = int(os.environ["BENCH_ROUTES"])
    app: App = library.wrap(direct, patterns(count) if count else ["/modern/*"], port)
    return app


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


PEERS: dict[str, Callable[[int], App]] = {
    "direct": lambda _port: direct,
    "strangle-mw": strangled,
    "minimal": minimal_asgi.forwarder,
    "aiohttp": with_aiohttp,
    "httpx2": with_httpx2,
}
app = (
    PEERS[os.environ["BENCH_PEER"]](int(os.environ["BENCH_UPSTREAM"]))
    if "BENCH_PEER" in os.environ
    else direct
)
