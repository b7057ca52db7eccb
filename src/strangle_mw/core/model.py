"""What a user writes: routes, upstreams and their parts, as frozen values.

Only declarations live here. Their compiled form is in `compiled`; what changes while the
program runs is in the engine. Each field's `doc` feeds the JSON Schema and is checked against the
reference pages; `key` is the field's name in a file where Python reserves the word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence  # noqa: TC003 - read at run time for the schema
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import Any, Literal

LEGACY_TARGET = "legacy"
"""The value of `to` that carves an exception out of a wider route."""

DEFAULT_THREADS = 40
"""Threads of a WSGI app that an ASGI server serves, as in Starlette and FastAPI."""

MAX_REGEX_PATH = 2048
"""Bytes of a path beyond which no regular expression is tried: Python's `re` may backtrack for ever."""


MAX_SECONDS = 86_400
"""The longest time that a timeout may be: a day."""


class Stage(StrEnum):
    """How far a route has moved: forward step by step, back to `legacy` from anywhere."""

    LEGACY = "legacy"
    SHADOW = "shadow"
    CANARY = "canary"
    MODERN = "modern"
    RETIRED = "retired"


def described(text: str, **more: object) -> dict[str, object]:
    """Return a field's metadata: what it is for, and what else is to be known of it."""
    return {"doc": text, **more}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One test of a header, query parameter or cookie; exactly one field is given."""

    equals: str | None = field(default=None, metadata=described("the whole value, to the letter"))
    prefix: str | None = field(default=None, metadata=described("how the value starts"))
    regex: str | None = field(default=None, metadata=described("a regular expression over the whole value"))
    present: bool = field(default=False, metadata=described("there, with any value"))
    absent: bool = field(default=False, metadata=described("not there at all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderRules:
    """Changes to the headers of a forwarded message: `remove`, then `set`, then `add`."""

    set: Mapping[str, str] = field(default_factory=dict, metadata=described("replace by this value"))
    add: Mapping[str, str] = field(default_factory=dict, metadata=described("append one more field"))
    remove: Sequence[str] = field(default=(), metadata=described("drop every field of this name"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Answer with a redirect instead of forwarding."""

    to: str = field(
        metadata=described("a path template like `/new/{id}`, or an absolute http(s) URL with one")
    )
    status: Literal[301, 302, 303, 307, 308] = field(default=308, metadata=described("the status code"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Respond:
    """Answer with a fixed response instead of forwarding."""

    status: int = field(default=410, metadata=described("the status code, 200..599"))
    body: str = field(default="", metadata=described("the body, sent as UTF-8"))
    content_type: str = field(default="", metadata=described("its media type; plain text if empty"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One share of a route whose modern side has several upstreams."""

    upstream: str = field(metadata=described("an upstream's name or a target"))
    weight: int = field(default=1, metadata=described("its share, relative to the sum of all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """What is copied to the other side, and compared."""

    sample: float = field(default=100.0, metadata=described("percent of the requests that are copied"))
    unsafe: bool = field(default=False, metadata=described("copy unsafe methods, too"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """How testers choose a side of a canary: by a header with a token that `strangle pin` makes."""

    header: str = field(
        default="Strangle-Pin",
        metadata=described("the header's name; one that starts with `Strangle-` is never sent upstream"),
    )
    secret: str = field(repr=False, metadata=described("what tokens are signed with; 16 characters or more"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """When an endpoint is left alone for a while."""

    failures: int = field(
        default=5,
        metadata=described("consecutive failures to connect that open it; 0: no number of them does"),
    )
    ratio: float = field(
        default=0.5, metadata=described("share of bad answers that opens it, 0..1; 0: bad answers never do")
    )
    minimum: int = field(
        default=20,
        metadata=described("answers in the window before the ratio counts; also, bad ones in a row"),
    )
    window: float = field(default=10.0, metadata=described("seconds that are looked back"))
    open: float = field(
        default=5.0,
        metadata=described("seconds it stays open at first, or up to half of them less by chance"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """An active probe of each endpoint."""

    path: str = field(metadata=described("path, and perhaps query, of what is asked for by GET"))
    interval: float = field(default=5.0, metadata=described("seconds between two probes"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files for TLS to an upstream; verification cannot be turned off here."""

    ca: str = field(default="", metadata=described("PEM file of trusted authorities; the system's if empty"))
    cert: str = field(default="", metadata=described("PEM file of the client's certificate"))
    key: str = field(default="", metadata=described("PEM file of its key; it may stand in `cert`"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A named modern target; times are seconds.

    Give `url` for one address, `urls` for several; or `lambda_` for a Lambda function, `asgi` or `wsgi` for
    an app in this process. `verify=False` (do not verify TLS certificates) exists in Python only and is
    warned about at start.
    """

    url: str = field(default="", metadata=described("`http://`, `https://` or `unix:/path.sock`"))
    urls: Sequence[str] = field(default=(), metadata=described("several addresses of one service"))
    connect_timeout: float = field(default=1.0, metadata=described("seconds to connect, TLS included"))
    timeout: float = field(default=10.0, metadata=described("seconds until the head of the answer"))
    idle_timeout: float = field(default=60.0, metadata=described("seconds between two chunks of a body"))
    max_in_flight: int = field(default=64, metadata=described("requests at a time, per process (bulkhead)"))
    pool_timeout: float = field(
        default=0.25, metadata=described("seconds to wait for one of these; 0: answer 503 at once")
    )
    keepalive: float = field(default=4.0, metadata=described("idle seconds a pooled connection may live"))
    host: Literal["upstream", "preserve"] = field(
        default="upstream", metadata=described("the Host that is sent: the upstream's own, or the client's")
    )
    breaker: Breaker = field(
        default_factory=Breaker,
        metadata=described("when an endpoint that fails is left alone (circuit breaker)"),
    )
    health: Health | None = field(default=None, metadata=described("active probes of each endpoint"))
    tls: Tls = field(default_factory=Tls, metadata=described("certificates"))
    http: Literal["1.1", "2"] = field(default="1.1", metadata=described("protocol version spoken upstream"))
    lambda_: str = field(
        default="", metadata=described("a Lambda function: name, name:alias or ARN", key="lambda")
    )
    region: str = field(default="", metadata=described("AWS region of the function"))
    profile: str = field(default="", metadata=described("AWS profile for credentials"))
    endpoint_url: str = field(default="", metadata=described("another address of the Invoke API"))
    format: Literal["2.0", "1.0", "rest", "alb"] = field(
        default="2.0", metadata=described("the event's format")
    )
    asgi: Any = field(
        default="",
        metadata=described("`module:attr` of an ASGI app in this process; in Python also the app", type=str),
    )
    wsgi: Any = field(
        default="",
        metadata=described("`module:attr` of a WSGI app in this process; in Python also the app", type=str),
    )
    verify: bool = field(default=True, metadata=described("verify TLS certificates", python_only=True))


@dataclass(frozen=True, slots=True)
class HttpxUpstream(Upstream):
    """A modern target behind a transport of `httpx2` or `httpx`; times are seconds.

    `HttpxUpstream(httpx2.AsyncHTTPTransport(proxy="http://proxy:3128"), url="http://leads.internal")`. Under
    ASGI the transport is asked by `handle_async_request`, under WSGI by `handle_request`. It stays the
    caller's to close. Where it connects, TLS, HTTP version and pooling are its business; `url` gives what it
    is asked for, and the `Host`.
    """

    transport: Any = field(
        kw_only=False, repr=False, metadata=described("a transport of httpx2 or httpx", python_only=True)
    )
    url: str = field(default="", kw_only=True, metadata=described("`http://` or `https://`"))

    def __post_init__(self) -> None:
        if not (self.url or self.urls):
            object.__setattr__(self, "url", "http://localhost")


@dataclass(frozen=True, slots=True)
class Route:
    """Which requests go where, and in which stage (design section 3.1).

    `Route("GET /v1/leads", to="http://leads.internal:8080")`. Every field may be given by name. A route is
    checked when it is loaded into a table, together with all others, so that all problems show at once.
    """

    pattern: str | None = field(
        default=None, metadata=described("`[METHOD[,METHOD...] ]path`, short for `methods` and `path`")
    )
    _: KW_ONLY
    name: str = field(default="", metadata=described("unique id; derived from methods and path if empty"))
    path: str | None = field(
        default=None, metadata=described("path template; everything (`/*`) if not given")
    )
    regex: str | None = field(
        default=None, metadata=described("regular expression over the whole raw path, instead of `path`")
    )
    methods: Sequence[str] = field(default=(), metadata=described("methods; empty = all; HEAD follows GET"))
    hosts: Sequence[str] = field(default=(), metadata=described("names or `*.example.com`; empty = any"))
    headers: Mapping[str, str | Condition] = field(
        default_factory=dict, metadata=described("header name -> value or condition")
    )
    query: Mapping[str, str | Condition] = field(
        default_factory=dict, metadata=described("query parameter -> value or condition")
    )
    cookies: Mapping[str, str | Condition] = field(
        default_factory=dict, metadata=described("cookie name -> value or condition")
    )
    when: Callable[..., bool] | None = field(
        default=None, metadata=described("callable(RequestHead) -> bool", python_only=True)
    )
    to: Any = field(
        default=None,
        metadata=described(
            "upstream name, target, `legacy`, or a list of {upstream, weight}; in Python also an app",
            type=str | list[Split],
        ),
    )
    stage: Stage | Literal["legacy", "shadow", "canary", "modern", "retired"] = field(
        default=Stage.MODERN, metadata=described("how far the route has moved", type=Stage)
    )
    weight: float | None = field(
        default=None,
        metadata=described("percent of sticky keys on the modern side in stage `canary`, 0..100"),
    )
    group: str = field(
        default="", metadata=described("salt of the sticky hash; the upstream's name if empty")
    )
    sticky: Sequence[str] = field(
        default=("user", "cookie"), metadata=described("sources of the sticky key, tried in order")
    )
    strip_prefix: str = field(
        default="", metadata=described("leading literal path dropped before forwarding")
    )
    rewrite: str = field(
        default="", metadata=described("path template sent instead; `{*}` = what `/*` matched")
    )
    timeout: float | None = field(default=None, metadata=described("seconds until the answer's head"))
    fallback: Literal["", "auto", "connect", "never", "off"] = field(
        default="", metadata=described("when the legacy app answers for a failed upstream")
    )
    fallback_until: str = field(default="", metadata=described("date after which fallback is over"))
    fallback_on: Sequence[str] = field(default=(), metadata=described("further answers that fall back"))
    shared_store: bool = field(default=False, metadata=described("both sides write to one store"))
    request_headers: HeaderRules = field(
        default_factory=HeaderRules, metadata=described("changes to the forwarded request")
    )
    response_headers: HeaderRules = field(
        default_factory=HeaderRules, metadata=described("changes to the upstream's answer")
    )
    redirect: Redirect | None = field(default=None, metadata=described("answer with a redirect"))
    respond: Respond | None = field(default=None, metadata=described("answer with a fixed response"))
    shadow: Shadow | None = field(default=None, metadata=described("copies to the other side"))
    identity: bool = field(default=False, metadata=described("send the signed identity header"))
    encoded_slash: bool = field(
        default=False, metadata=described("`%2F` and `%5C` inside a parameter are data, not separators")
    )


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of an upstream, taken apart once.

    `authority` is what stands in `Host` (RFC 9110 section 7.2: without a default port), empty if the endpoint
    has no name of its own; `base` is the base path without a final slash; `socket` the path of a Unix socket.
    A function or an app in this process has its name as `host`.
    """

    scheme: Literal["http", "https", "unix", "lambda", "asgi", "wsgi"]
    host: str
    port: int
    authority: bytes
    base: bytes = b""
    socket: str = ""

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.socket}"
        if not self.authority:
            return f"{self.scheme}:{self.host}"
        return f"{self.scheme}://{self.authority.decode()}{self.base.decode()}"
