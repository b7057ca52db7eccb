"""The WSGI apps that answer themselves: the wrapped app, and the baseline of every row."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bench.payload import BLOCK, CONTENT_TYPE, DOWN, LEGACY, MODERN, WORKER, size_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HEADERS = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(LEGACY)))]
CHUNK = 65_536


def at_once(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer at once, the same always."""
    start_response("200 OK", HEADERS)
    return [LEGACY]


def modern(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Do as `at_once` does, as the other side: an app that others call."""
    start_response("200 OK", HEADERS)
    return [MODERN]


def named(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer as `at_once` does, and name this process."""
    start_response("200 OK", [*HEADERS, (WORKER, str(os.getpid()))])
    return [LEGACY]


def bodies(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer `DOWN` with so many bytes, and a POST once it is read."""
    path = environ["PATH_INFO"]
    if path.startswith(DOWN):
        size = size_of(path)
        start_response("200 OK", [("Content-Type", CONTENT_TYPE), ("Content-Length", str(size))])
        return _down(size)
    while environ["wsgi.input"].read(CHUNK):
        pass
    return at_once(environ, start_response)


def _down(size: int) -> Iterator[bytes]:
    while size > len(BLOCK):
        yield BLOCK
        size -= len(BLOCK)
    yield BLOCK[:size]
