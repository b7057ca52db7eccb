"""Functions of the user's (`identify`, `when`): asked so that whatever they do ends no request.

What they are asked for is decided in `core`; this is only how.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar

from strangle_mw.core.identity import Identity, NeedsIdentity, read_identity

if TYPE_CHECKING:
    from strangle_mw.core.identity import Minter
    from strangle_mw.core.messages import RequestHead

T = TypeVar("T")
Identify = Callable[["RequestHead"], Identity | None]
AIdentify = Callable[["RequestHead"], Awaitable[Identity | None]]

_log = logging.getLogger("strangle_mw")

_NOBODY = "identify raised; taken for nobody"


def asked(
    function: Callable[[RequestHead], Any], read: Callable[[Any, RequestHead], T], what: str
) -> Callable[[RequestHead], T | None]:
    """Guard a function of the user's, and what is made of its answer: a lazy one may raise only there.

    An error must not end a request, and is told once.
    """
    told = _Told(what)

    def guarded(head: RequestHead) -> T | None:
        try:
            answer = function(head)
            return None if answer is None or hasattr(answer, "__await__") else read(answer, head)
        except Exception:  # noqa: BLE001 - logged with its traceback
            told()
            return None

    return guarded


def asked_async(function: Callable[[RequestHead], Awaitable[Any]]) -> AIdentify:
    """Guard an `identify` that is awaited, as `asked` does."""
    told = _Told(_NOBODY)

    async def guarded(head: RequestHead) -> Identity | None:
        try:
            return read_identity(await function(head), head)
        except Exception:  # noqa: BLE001 - logged with its traceback
            told()
            return None

    return guarded


class _Told:
    """Logs the exception in hand, the first time."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._once = False

    def __call__(self) -> None:
        if not self._once:
            self._once = True
            _log.exception("%s (told once)", self._what)


class Telling:
    """A `Minter` whose failures are told once; they come of further claims that a user's code has made."""

    def __init__(self, minter: Minter) -> None:
        self._minter = minter
        self._told = _Told("no token could be made, the request is answered with 502")

    def mint(self, upstream: str, identity: Identity, method: str, path: bytes, query: bytes) -> bytes:
        """Return a token, as `Minter.mint`."""
        try:
            return self._minter.mint(upstream, identity, method, path, query)
        except ValueError:
            self._told()
            raise


def identifying(identify: Any) -> dict[str, Any]:
    """Return what a `Crowd` takes of an `identify`: a function, a coroutine function, or an object with both.

    Such an object is called, and has `aidentify` for where it may wait. A function that must be awaited asks
    for that by `NeedsIdentity`.
    """
    if identify is None:
        return {}
    awaited = identify if is_awaited(identify) else getattr(identify, "aidentify", None)
    plain = None if awaited is identify else asked(identify, read_identity, _NOBODY)

    def find(head: RequestHead) -> Identity | None:
        if awaited is not None and head.waits:
            raise NeedsIdentity(head)
        return None if plain is None else plain(head)

    def user(head: RequestHead) -> str | None:
        if head.identify is None:
            head.identify = find  # asked outside of a decision
        return head.user

    return {
        "user": user,
        "identify": find,
        "aidentify": None if awaited is None else asked_async(awaited),
    }


def is_awaited(identify: Any) -> bool:
    """Tell whether an `identify` can only be awaited."""
    return iscoroutinefunction(identify) or iscoroutinefunction(getattr(identify, "__call__", None))  # noqa: B004
