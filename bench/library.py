"""The only place that knows the names of strangle-mw; everything else here measures callables."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from strangle_mw.core.decision import Snapshot


def problem() -> str:
    """Say why the library cannot be measured, or return an empty string."""
    try:
        from strangle_mw import Route, strangle  # noqa: F401
    except ImportError as exc:
        return f"strangle-mw cannot be imported: {exc}"
    return ""


def wrap(app: Any, patterns: list[str], port: int) -> Any:
    """Wrap a WSGI or ASGI app with one forwarding route for each pattern, all to one local upstream."""
    from strangle_mw import strangle

    return strangle(app, _routes(patterns, port))


def matcher(patterns: list[str]) -> Callable[[bytes], bool]:
    """Return the match of a raw path as `decision.prepare` makes it, and nothing else of it."""
    from strangle_mw.core.paths import is_plain

    find = _snapshot(tuple(patterns)).table.match_plain

    def decide(path: bytes) -> bool:
        if not is_plain(path):
            raise ValueError("the paths of this measurement are plain")
        return find(path.decode("ascii"), "GET") is not None

    return decide


def preparer(patterns: list[str]) -> Callable[[dict[str, Any]], bool]:
    """Return all that happens to an ASGI scope before it is handed over or sent: `decision.prepare`."""
    from strangle_mw.core.decision import LEGACY, prepare

    snapshot, reader = _snapshot(tuple(patterns)), _Reader()

    def decide(scope: dict[str, Any]) -> bool:
        found = prepare(snapshot, scope["method"], scope["raw_path"], scope["path"], scope, reader)
        return found is not LEGACY

    return decide


class _Reader:
    """Reads a scope as the ASGI driver does."""

    encoding = "utf-8"

    @staticmethod
    def head(source: Any, path: bytes, authority: bytes) -> Any:
        from strangle_mw import RequestHead

        return RequestHead(
            source["method"],
            path,
            source["query_string"],
            source["headers"],
            source["scheme"],
            source["client"][0],
            authority,
            source["http_version"],
        )


@lru_cache(maxsize=1)  # two routers ask for the same table, and a large one takes its time
def _snapshot(patterns: tuple[str, ...]) -> Snapshot:
    from strangle_mw.config import load

    return load(_routes(patterns, 9))


def _routes(patterns: list[str] | tuple[str, ...], port: int) -> Any:
    from strangle_mw import Route

    return [Route(f"GET {pattern}", to=f"http://127.0.0.1:{port}") for pattern in patterns]
