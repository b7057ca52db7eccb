"""The other end of a request that the ASGI driver forwards: its body, and whether it is still there.

What is received is kept for the wrapped app as long as that may have to answer after all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from strangle_mw.core.hygiene import CHUNKED, UNDECLARED
from strangle_mw.engine import CLIENT_GONE
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from strangle_mw.transports.make import AsyncAnswer

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Client:
    """The other end of one forwarded request: its body, and whether it is still there."""

    # Most requests need none of these; what is not set costs nothing.
    busy = False
    _reading = False
    _limit: int | None = None
    _watcher: asyncio.Task[None] | None = None
    _receiving: asyncio.Future[MutableMapping[str, Any]] | None = None
    _stream: AsyncGenerator[bytes, None] | None = None
    _piece: asyncio.Future[bytes] | None = None
    _fail: Callable[[ForwardError], None] | None = None
    _streaming = False

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._seen: list[MutableMapping[str, Any]] = []

    async def body(
        self, length: int, max_body: int | None, replay_limit: int
    ) -> tuple[bytes | AsyncIterator[bytes], int]:
        """Return the body, whole if it is small, and its length as it will be framed."""
        self._limit = max_body
        if 0 < length <= replay_limit:
            return b"".join([chunk async for chunk in self._chunks(length)]), length
        if length == UNDECLARED:
            return await self._undeclared()
        return self._streamed(self._chunks(length)), length

    async def replay(self) -> MutableMapping[str, Any]:
        """Give the wrapped app what was received before it was asked, and then what comes."""
        if not self._seen and self._watcher is not None:
            await asyncio.wait((self._watcher,))  # granian forgets one of two that wait for a call of its own
        if self._seen:
            return self._seen.pop(0)
        return await (self._receive() if self._receiving is None else self.next())

    async def next(self) -> MutableMapping[str, Any]:
        """Receive by a call that goes on if whoever waits for it is cancelled; the next one takes it over.

        No server says that a second `receive` works after a cancelled one: gunicorn takes the client for gone
        from then on.
        """
        receiving = self._receiving
        if receiving is None:
            receiving = self._receiving = asyncio.ensure_future(self._receive())
            self.busy = True
        await asyncio.wait((receiving,))
        if self._receiving is receiving:
            self._receiving = None
        return receiving.result()

    async def chunk(self, patience: float) -> bytes:
        """Receive the next of a streamed body, `patience` seconds at most; b"" is its end.

        Like `next`, it goes on if whoever waits is cancelled: a lost piece would be a hole in the body (P6).
        Raises `TimeoutError`, and `ForwardError` if the body breaks off.
        """
        assert self._stream is not None  # noqa: S101 - only a body that is streamed is read in this way
        piece = self._piece
        if piece is None:
            piece = self._piece = asyncio.ensure_future(anext(self._stream, b""))
        await asyncio.wait((piece,), timeout=patience)
        if not piece.done():
            raise TimeoutError
        if self._piece is not piece:  # another one has waited for it, too
            return await self.chunk(patience)
        self._piece = None
        return piece.result()

    def _note(self, message: MutableMapping[str, Any]) -> None:
        """Keep what was received for `replay`, as long as that may be asked for."""
        if not (self._streaming or (self._seen and not self._seen[-1].get("more_body", False))):
            self._seen.append(message)

    def _streamed(self, chunks: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
        self._reading = self.busy = self._streaming = True
        self._stream = chunks
        return chunks

    async def _undeclared(self) -> tuple[bytes | AsyncIterator[bytes], int]:
        """Look at the first event: HTTP/2 says only there whether a body follows."""
        chunks = self._chunks(CHUNKED)
        first = await anext(chunks, b"")
        if not first:
            return b"", 0
        return self._streamed(_chain(first, chunks)), CHUNKED

    async def _chunks(self, length: int) -> AsyncGenerator[bytes, None]:
        """Yield the body; raise `ForwardError` if it ends early, runs over, or its client leaves (P6)."""
        count, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise gone()
            self._note(message)
            chunk, more = message.get("body", b""), message.get("more_body", False)
            count += len(chunk)
            if self._limit is not None and count > self._limit:
                raise ForwardError("send", "the body passes max_body", status=413)
            if length >= 0 and (count > length or (count < length and not more)):
                raise ForwardError("send", "the body has not its declared length", status=400)
            if chunk:
                yield chunk
        self._reading = False
        if self._fail is not None:
            self.watch(self._fail)

    def watch(self, fail: Callable[[ForwardError], None]) -> None:
        """Start looking out for the client's leaving; called when an exchange takes its time.

        `fail` ends the exchange: whoever waits for the upstream then gets the error. A second exchange (on a
        fresh connection) brings another one; there is one watcher all the same, as for one `receive`.
        """
        self._fail = fail
        if self._watcher is None and not self._reading:
            self.busy = True
            self._watcher = asyncio.get_running_loop().create_task(self._wait_for_disconnect())

    async def _wait_for_disconnect(self) -> None:
        await self.leaves()
        if self._fail is not None:
            self._fail(gone())

    async def leaves(self) -> MutableMapping[str, Any]:
        """Wait until the client leaves, keeping what comes for `replay`; return the event that says so."""
        message = await self.next()
        while message["type"] != "http.disconnect":
            self._note(message)
            await asyncio.sleep(0)  # a server that never waits here must not stop the loop
            message = await self.next()
        self._seen.append(message)
        return message

    async def aclose(self, answer: AsyncAnswer | None, *, stays: bool = False) -> None:
        """End what was started: the watcher, and the body once nobody reads it any more.

        With `stays`, the wrapped app will ask for what comes.
        """
        if self._watcher is not None:
            self._watcher.cancel()
        if not stays:
            self.leave()
        if answer is not None:
            await answer.settle()
        if self._piece is not None:
            self._piece.cancel()
            await asyncio.wait((self._piece,))
            if not self._piece.cancelled():
                self._piece.exception()  # nobody is left to be told
        if self._stream is not None:
            await self._stream.aclose()

    def leave(self) -> None:
        """Stop waiting for what nobody will take."""
        if self._receiving is not None:
            self._receiving.cancel()


async def _chain(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        async for chunk in rest:
            yield chunk


def gone() -> ForwardError:
    """Say that the client has left."""
    return ForwardError("send", "the client left", status=CLIENT_GONE)
