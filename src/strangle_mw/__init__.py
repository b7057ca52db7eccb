"""Replace a Python monolith endpoint by endpoint, inside the process that already serves it.

`strangle(app, routes)` wraps a WSGI or ASGI app: requests that a route names go to the modern upstream, all
others to the app, untouched. Nothing heavy is imported here: no asyncio, no HTTP client; each driver comes
with the first app of its kind (`tests/test_imports.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from strangle_mw.core.identity import Identity
from strangle_mw.core.messages import RequestHead
from strangle_mw.core.model import (
    Breaker,
    Condition,
    HeaderRules,
    Health,
    HttpxUpstream,
    Pin,
    Redirect,
    Respond,
    Route,
    Shadow,
    Split,
    Stage,
    Tls,
    Upstream,
)
from strangle_mw.core.settings import IdentityTokens, SigningKey
from strangle_mw.errors import ConfigError, ForwardError, Problem, StrangleError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from strangle_mw.asgi import ASGIStrangler
    from strangle_mw.config import Source
    from strangle_mw.wsgi import WSGIStrangler

__version__ = "0.1.0"

__all__ = [
    "Breaker",
    "Condition",
    "ConfigError",
    "ForwardError",
    "HeaderRules",
    "Health",
    "HttpxUpstream",
    "Identity",
    "IdentityTokens",
    "Pin",
    "Problem",
    "Redirect",
    "RequestHead",
    "Respond",
    "Route",
    "Shadow",
    "SigningKey",
    "Split",
    "Stage",
    "StrangleError",
    "Tls",
    "Upstream",
    "strangle",
]


def strangle(
    app: Any,
    source: Source,
    *,
    interface: Literal["asgi", "wsgi"] | None = None,
    trusted_proxies: Sequence[str] = (),
    allow_headers: Sequence[str] = (),
    max_body: int | None = None,
    replay_limit: int | None = None,
    identify: Callable[[RequestHead], object] | None = None,
    identity: IdentityTokens | None = None,
    session_cookies: Sequence[str] | None = None,
    learn: bool = False,
    store: str | None = None,
    pin: Pin | None = None,
    serve: Literal["asgi"] | None = None,
    threads: int | None = None,
) -> ASGIStrangler | WSGIStrangler:
    """Wrap an app, so that requests with a route go to their upstream and all others to the app.

    `source` is a list of `Route` (or dicts), a dict, or the path of a `.toml`, `.json` or `.yaml` file.
    `interface` says "asgi" or "wsgi" where it cannot be told from the app. `trusted_proxies` are addresses
    and networks whose `X-Forwarded-*` headers are kept, `allow_headers` names with `_` or `.` that may be
    forwarded, `max_body` the bytes that a forwarded body may have, `replay_limit` those up to which one is
    kept so that the wrapped app can answer after all. `identify` names the user of a request by an id or an
    `Identity`, for sticky splits, for `when` and for the tokens that `identity` tells how to make;
    `session_cookies` are those that no upstream gets. `learn` counts what the app answers. `store` is where
    live changes are kept (`sqlite:///path.db`, `redis://host`); `pin` lets testers choose a side.
    `serve="asgi"` serves a WSGI app from an ASGI server: the app on a pool of `threads` (40), forwarded
    requests on the event loop. The same names stand in the file's table `[strangle]`, and those given here go
    first. Raises `ConfigError` with every problem of the table and `TypeError` if `app` is not an app.
    """
    from strangle_mw.core.interface import detect_interface
    from strangle_mw.core.model import DEFAULT_THREADS
    from strangle_mw.engine import Engine

    if serve not in (None, "asgi"):
        raise TypeError(f"serve= must be 'asgi' or left out, not {serve!r}")
    if interface not in (None, "asgi", "wsgi"):
        raise TypeError(f"interface= must be 'asgi' or 'wsgi', not {interface!r}")
    engine = Engine(
        source,
        interface=interface,
        trusted_proxies=trusted_proxies,
        allow_headers=allow_headers,
        max_body=max_body,
        replay_limit=replay_limit,
        identify=identify,
        identity=identity,
        session_cookies=session_cookies,
        learn=learn or None,
        store=store,
        pin=pin,
        serve=serve,
        threads=threads,
    )
    found = engine.settings.interface or detect_interface(app)
    if engine.settings.learn:
        from strangle_mw.learning import learning

        app = learning(app, engine.states, found)
    if found == "wsgi" and engine.settings.serve == "asgi":
        from strangle_mw.bridges.threads import ThreadedWSGI

        app, found = ThreadedWSGI(app, engine.settings.threads or DEFAULT_THREADS), "asgi"
    if found == "asgi":
        from strangle_mw.asgi import ASGIStrangler

        return ASGIStrangler(app, engine)
    from strangle_mw.wsgi import WSGIStrangler

    return WSGIStrangler(app, engine)
