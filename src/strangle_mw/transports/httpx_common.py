"""What both adapters to httpx transports share: requests, answers' heads, failures, transports for HTTP/2.

An adapter has the face of a pool, so that drivers do not know the difference. httpx2 and httpx (whichever the
transport comes from) are imported when the first such pool is made. No sockets and no event loop here.

A transport is asked without a `Client`: that would keep cookies for the next user (GHSA-7vwr-g6pm-9hc8),
collapse the path, add headers, and follow redirects and the proxies of the environment.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any

from strangle_mw.core.hygiene import LEGAL_IN_VALUE
from strangle_mw.core.model import HttpxUpstream
from strangle_mw.core.upstreams import httpx_package
from strangle_mw.errors import ForwardError
from strangle_mw.transports.base import exchange_failed, lost, tls_context
from strangle_mw.transports.h1 import MAX_FIELDS, MAX_HEAD

if TYPE_CHECKING:
    import ssl

    from strangle_mw.core.model import Endpoint, Upstream
    from strangle_mw.transports.h1 import Header

_FINAL = range(200, 600)
_BODYLESS = (204, 304)
_LENGTH_DIGITS = 18


class Line:
    """One transport as an exchange uses it; `own` if it is a single connection of ours (HTTP/2).

    With one exchange at a time on a connection, what goes wrong with it never hits another one, and to close
    the connection tells the upstream: httpcore2 resets no stream.
    """

    __slots__ = ("own", "package", "rested", "stream", "transport")

    def __init__(self, transport: Any, *, own: bool) -> None:
        self.transport = transport
        self.own = own
        self.package = import_module(httpx_package(transport))
        self.rested = 0.0
        """When the last exchange ended, by the monotonic clock in seconds."""
        self.stream: Any = None

    def rest(self, extensions: Any) -> None:
        """Note the end of an exchange; `extensions` are those of its answer.

        After HTTP/1.1, which TLS may have negotiated, a connection is not used again: httpcore would take
        bytes left over for the next answer (promise P7).
        """
        if self.own:
            self.rested = monotonic()
            multiplexed = extensions.get("http_version") == b"HTTP/2"
            self.stream = extensions.get("network_stream") if multiplexed else None

    def good(self, keepalive: float) -> bool:
        """Whether an idle connection is young enough, and nothing has come meanwhile: bytes, or an end."""
        young = monotonic() - self.rested <= keepalive
        return young and self.stream is not None and not self.stream.get_extra_info("is_readable")


class Lines:
    """Gives lines to the exchanges of one endpoint: the user's transport, or the own one used last."""

    def __init__(self, endpoint: Endpoint, upstream: Upstream, kind: str) -> None:
        self.idle: list[Line] = []
        self._endpoint = endpoint
        self._keepalive = upstream.keepalive
        self._upstream = upstream
        self._kind = kind
        self._context: ssl.SSLContext | None = None
        self._given = Line(upstream.transport, own=False) if isinstance(upstream, HttpxUpstream) else None

    def take(self, *, fresh: bool, spent: list[Line]) -> Line | None:
        """Return a line that can be used again; those that cannot any more are added to `spent`."""
        if self._given is not None:
            return self._given
        while self.idle and not fresh:
            line = self.idle.pop()
            if line.good(self._keepalive):
                return line
            spent.append(line)
        return None

    def keep(self, line: Line, spent: list[Line]) -> None:
        """Take back a line that is fit for another exchange; those grown old are added to `spent`."""
        if not line.own:
            return
        self.idle.append(line)
        while self.idle[0].rested < line.rested - self._keepalive:
            spent.append(self.idle.pop(0))

    def make(self) -> Line:
        """Make a transport of one connection; raises `OSError` if a file for TLS cannot be read."""
        import httpx2

        secure = self._endpoint.scheme == "https"
        if self._context is None:
            self._context = tls_context(self._upstream) if secure else _unused_context()
        transport = getattr(httpx2, self._kind)(
            verify=self._context,
            trust_env=False,
            # Without TLS there is nothing to negotiate by: prior knowledge (RFC 9113 section 3.3).
            http1=secure,
            http2=True,
            limits=httpx2.Limits(max_connections=1, keepalive_expiry=self._keepalive),
            uds=self._endpoint.socket or None,
            retries=0,
        )
        return Line(transport, own=True)


def _unused_context() -> ssl.SSLContext:
    """Make what a transport for cleartext wants all the same, without reading the system's authorities."""
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Progress:
    """How far an exchange has come, as far as the transport tells by httpcore's `trace` extension.

    `taken` says that the transport has begun to read a streamed body, perhaps before it connects.
    """

    __slots__ = ("answered", "begun", "sent", "taken", "traced")

    def __init__(self) -> None:
        self.traced = self.begun = self.answered = self.taken = False
        self.sent = True

    def note(self, event: str) -> None:
        """Take an event such as `http11.send_request_body.complete`."""
        self.traced = True
        what = event.partition(".")[2]
        if what == "send_request_headers.started":
            self.begun, self.sent = True, False
        elif what == "send_request_body.complete":
            self.sent = True

    def failed(self, exc: Exception, package: Any) -> ForwardError:
        """Turn what a transport raised into one class, as the own pools do."""
        if isinstance(exc, package.PoolTimeout):
            return ForwardError("pool", "the transport has no free connection", status=503)
        if isinstance(exc, package.ConnectTimeout):
            return self._unconnected("timed out", status=504)
        if isinstance(exc, package.ConnectError | package.ProxyError | package.UnsupportedProtocol):
            return self._unconnected(_reason(exc, package))
        if isinstance(exc, package.WriteTimeout | package.WriteError):
            self.sent = False
        if isinstance(exc, package.TimeoutException | TimeoutError):
            return self.late()
        return self.failure(_reason(exc, package))

    def late(self) -> ForwardError:
        """Say that the time is over."""
        return self.failure("body idle for too long" if self.answered else "timed out", status=504)

    def failure(self, reason: str, status: int = 502) -> ForwardError:
        """Say how far the exchange had come; never `stale`: httpx does not tell whether bytes had come."""
        if self.traced and not self.begun:
            return self._unconnected(reason, status=status)
        return exchange_failed(reason, answered=self.answered, sent=self.sent, status=status)

    def _unconnected(self, reason: str, status: int = 502) -> ForwardError:
        """Say that there was no connection: another endpoint may be tried, unless the body is gone."""
        if self.taken:
            return exchange_failed(reason, answered=False, sent=False, status=status)
        return ForwardError("connect", reason, status=status)


def _reason(exc: Exception, package: Any) -> str:
    """Word a failure for the log; the text may hold addresses and bytes of the answer (promise P18)."""
    cause: BaseException | None = exc
    malformed = False
    while cause is not None:
        malformed |= type(cause).__module__.startswith(("h11.", "h2."))
        if isinstance(cause, OSError) and cause.strerror:
            return lost(cause)
        cause = cause.__cause__ or cause.__context__
    if not isinstance(exc, package.RemoteProtocolError):
        return type(exc).__name__
    text = str(exc).partition(":")[0]
    kind = "malformed answer" if malformed else type(exc).__name__
    return f"{kind}: {text if text.isprintable() else 'bad bytes'}"[:200]


class Head:
    """The head of an answer, checked as far as the transport may not have.

    `length` is that of the body if it is told; `empty` says that there is none (RFC 9112 section 6.3).
    Raises `ForwardError`, worded like the own pools'.
    """

    __slots__ = ("empty", "headers", "length", "reason", "status")

    def __init__(self, response: Any, method: str) -> None:
        self.status: int = response.status_code
        self.headers: list[Header] = response.headers.raw
        self.reason = _phrase(response.extensions.get("reason_phrase"))
        self.empty = method == "HEAD" or self.status in _BODYLESS
        self.length = -1
        if self.status not in _FINAL:
            raise _malformed(f"status {self.status}")
        lengths = [v for n, v in self.headers if n.lower() == b"content-length"]
        codings = [v.lower() for n, v in self.headers if n.lower() == b"transfer-encoding"]
        if len(self.headers) > MAX_FIELDS or sum(len(n) + len(v) for n, v in self.headers) > MAX_HEAD:
            raise _malformed("head too long")
        if len(lengths) > 1 or (lengths and codings):
            raise _malformed("more than one framing")
        if codings not in ([], [b"chunked"]):
            raise _malformed("unknown transfer coding")
        if lengths:
            if not lengths[0].isdigit() or len(lengths[0]) > _LENGTH_DIGITS:
                raise _malformed("bad length")
            self.length = int(lengths[0])


def _malformed(reason: str) -> ForwardError:
    return exchange_failed(f"malformed answer: {reason}", answered=False, sent=True)


def _phrase(phrase: object) -> bytes:
    """Return the reason phrase, which a transport need not have (HTTP/2 has none) nor have checked."""
    return phrase if isinstance(phrase, bytes) and not phrase.translate(None, LEGAL_IN_VALUE) else b""


class Count:
    """The bytes of a body against the length that was told, whatever the transport makes of it."""

    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length if length >= 0 else None

    def add(self, data: bytes) -> None:
        """Count; raises `ForwardError` for more than told."""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise ForwardError("body", "more bytes than told", request_sent=True)

    def end(self) -> None:
        """Raise `ForwardError` for less than told."""
        if self._left:
            raise ForwardError("body", "fewer bytes than told", request_sent=True)


def timeouts(upstream: Upstream, seconds: float | None) -> dict[str, float | None]:
    """Return httpx's `timeout` extension; `read` may be changed later, it is looked up for each read."""
    return {
        "connect": upstream.connect_timeout,
        "pool": upstream.pool_timeout,
        "read": seconds,
        "write": seconds,
    }


def make_request(line: Line, endpoint: Endpoint, head: bytes, stream: Any, extensions: Any) -> Any:
    """Make a request of the very bytes that `serialize_head` wrote; nothing is added.

    The `target` extension has the target byte for byte. The URL is for transports that do not know it: as
    httpx normalizes it, or without a path where it cannot be one.
    """
    start, *fields = head[:-4].split(b"\r\n")
    method, target, _ = start.split(b" ")
    headers = [(name, value.strip(b" \t")) for name, _, value in (f.partition(b":") for f in fields)]
    package, host = line.package, endpoint.host or "localhost"
    origin: dict[str, Any] = {
        "scheme": "http" if endpoint.scheme == "unix" else endpoint.scheme,
        "host": host,
        "port": endpoint.port or None,
    }
    try:
        url = package.URL(**origin, raw_path=target)
    except (package.InvalidURL, ValueError):
        url = package.URL(**origin, raw_path=b"/")
    request = package.Request(
        "", url, headers=headers, stream=stream, extensions={**extensions, "target": target}
    )
    request.method = method.decode("latin-1")  # its constructor changes the case (RFC 9110 section 9.1)
    return request


@lru_cache
def streamed(package: Any, body: type, base: str) -> Any:
    """Make `body`, a class of ours, one of the package's streams; transports insist on that."""
    return type(body.__name__, (body, getattr(package, base)), {})


def closed_again() -> ForwardError:
    """Say that a transport reads a streamed body a second time, of which there is only one."""
    return exchange_failed("the transport wants the body again", answered=False, sent=False)
