"""What the two sides of the measurements answer: the app's own answer and the upstream's, alike but for a word."""

from __future__ import annotations

LEGACY = b'{"server": "legacy", "items": ["lead-1", "lead-2", "lead-3"]}'
MODERN = b'{"server": "modern", "items": ["lead-1", "lead-2", "lead-3"]}'
CONTENT_TYPE = "application/json"

DOWN = "/modern/down/"
"""Below it an answer has as many bytes as the last segment says."""
UP = "/modern/up"
"""Answers with `MODERN` or `LEGACY` once the whole body has come."""
EVENTS = "/modern/events"
"""One event that names the side, then nothing: a stream, or a WebSocket."""
WORKER = "x-worker"
"""The header in which an app names its process."""

SLOW = "/modern/slow"
"""Is answered with `MODERN` after a second or so."""
INVOCATIONS = "/2015-03-31/functions/"
"""Below it is Lambda's Invoke API."""
FUNCTION_ANSWER = {
    "statusCode": 200,
    "headers": {"content-type": CONTENT_TYPE},
    "body": MODERN.decode(),
    "isBase64Encoded": False,
}
"""What the Lambda function returns."""

BLOCK = bytes(262_144)
"""One piece of a long answer that an app makes itself."""


def event(side: str) -> bytes:
    """Return the only event of a stream."""
    return b"data: %s\n\n" % side.encode()


def size_of(path: str) -> int:
    """Return how many bytes are asked for by a path below `DOWN`."""
    return int(path.removeprefix(DOWN))
