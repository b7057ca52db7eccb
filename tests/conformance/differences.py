"""Where servers differ: who, in which short word, and why, in users' words.

What both sides see instead stands with the case; nothing here runs.
"""

from __future__ import annotations

from functools import partial

from tests.conformance.model import differ
from tests.servers import ASGI, SERVERS, WSGI

GRANIAN = ("granian-asgi", "granian-wsgi")
GUNICORN = tuple(s for s in SERVERS if s.startswith("gunicorn"))
GUNICORN_WSGI = tuple(s for s in GUNICORN if s in WSGI)
BUFFERS = ("daphne", "waitress")
"""They read a whole request before they call the app."""
NO_WATCH = tuple(s for s in SERVERS if s not in ASGI)

NO_RAW_PATH = partial(
    differ,
    "granian-wsgi",
    "no raw path",
    "it does not tell the target as the client sent it. The decoded path is quoted once: `%2F` has become `/`.",
)
HOST_INSTEAD = partial(
    differ,
    ("uvicorn-httptools", *GRANIAN),
    "`Host` instead",
    "the authority of an absolute-form target is not told; `Host` counts.",
)
NO_ABSOLUTE = partial(
    differ, "cheroot", "refused", "it takes absolute-form targets for a proxy's business: 400."
)
ONE_SLASH = partial(
    differ, "waitress", "as one slash", "slashes at the start of a path are one to the app, and so to us."
)
METHODS_REFUSED = partial(
    differ,
    ("uvicorn-httptools", *GUNICORN, "waitress", "cheroot"),
    "refused",
    "a method in lower case is answered with 400 by the server.",
)
METHODS_UPPER = partial(differ, "hypercorn", "upper case", "every method is turned into upper case.")
JOINED = partial(
    differ,
    (*GUNICORN_WSGI, "waitress", "granian-wsgi"),
    "joined",
    "WSGI has one value for a name: lines are joined with commas, which means the same (RFC 9110 section 5.3).",
)
LAST_ONLY = partial(
    differ,
    "cheroot",
    "last only",
    "of a repeated header it keeps the last (lists that it knows, such as `Accept`, are joined). That holds for `Host` "
    "and `Content-Length`, too: whatever stands in front of it must refuse two of them.",
)
COMMAS = partial(
    differ,
    (*GUNICORN_WSGI, "waitress"),
    "commas",
    "two `Cookie` lines are joined with a comma, which no cookie parser splits. Browsers send one line.",
)
MERGED = partial(
    differ,
    ("cheroot", "granian-wsgi"),
    "merged",
    "`X_Name` cannot be told from `X-Name`. Forwarding and `Strangle-*` headers are dropped in any spelling all the same.",
)
AS_CHUNKED = partial(
    differ,
    ("waitress", *GRANIAN),
    "as chunked",
    "with both `Content-Length` and `Transfer-Encoding` it reads chunks and hides the length from the app, "
    "so that we cannot refuse it; one framing is sent on.",
)
WITH_LENGTH = partial(
    differ, "waitress", "with a length", "a chunked body is read to its end first, and has a length then."
)
AS_HEADERS = partial(
    differ,
    "uvicorn-httptools",
    "as headers",
    "trailers that arrive together with the head become headers. Those named in `Trailer` are dropped; "
    "an unannounced one cannot be told from a header.",
)
BUFFERED = partial(
    differ,
    BUFFERS,
    "buffers",
    "the whole body is read before the app, and so the upstream, hears of the request.",
)
UPLOAD_COMPLETE = partial(
    differ,
    "granian-wsgi",
    "looks complete",
    "a chunked upload that is cut ends like a whole one. With a length it is noticed and refused.",
)
ANSWER_COMPLETE = partial(
    differ,
    "granian-wsgi",
    "looks complete",
    "it ends a chunked answer cleanly even if the app raises. With a length the client notices.",
)
STAYS_OPEN = partial(
    differ,
    "daphne",
    "stays open",
    "after an error in the middle of an answer it neither ends the answer nor closes: the client waits until its own time limit.",
)
LAST_CHUNK = partial(
    differ,
    "waitress",
    "last chunk",
    "it ends a HEAD answer that has no length with `0`, with or without this library.",
)
LATE = partial(
    differ,
    NO_WATCH,
    "late",
    "a WSGI app cannot watch its client (PEP 3333): a silent stream ends after `idle_timeout`. "
    "A sync worker is held all the while.",
)
CHUNKED_ANYWAY = partial(
    differ, "uvicorn-httptools", "chunked", "an HTTP/1.0 client is sent chunks, which it does not know."
)
ONE_REQUEST = partial(differ, "gunicorn-sync", "closes", "a sync worker closes after each answer.")
