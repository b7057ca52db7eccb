"""Public keys that are fetched: the JWKS of the monolith, kept for a while, asked for again when it is due.

Not PyJWT's `PyJWKClient`: it asks again for each token while the keys cannot be had, forgets good ones at
that moment, and takes a set of any size that holds private keys.
"""

from __future__ import annotations

import json
import logging
import threading
from http.client import HTTPException
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener

from strangle_mw.identity.keys import read_jwks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from strangle_mw.identity.keys import Key

FRESH: Final = 300
"""Seconds after which the keys are asked for again: what the monolith's `Cache-Control` says, too."""

USABLE: Final = 3600
"""Seconds for which keys are used while no new ones can be had."""

PAUSE: Final = 10
"""Seconds between two requests for keys, however they end, and however many tokens name unknown ones."""

_TIMEOUT: Final = 5.0
_LARGEST: Final = 65_536

logger = logging.getLogger("strangle_mw")


class RemoteKeys:
    """The keys behind a URL; safe for threads, and made without asking."""

    def __init__(self, url: str, clock: Callable[[], float] = monotonic) -> None:
        if not url.startswith(("https://", "http://")):
            raise ValueError("jwks_url must start with https:// or http://")
        # No redirects and no proxy of the environment: the keys come from where the URL says, or not at all.
        self._opener = build_opener(_NoRedirect, ProxyHandler({}))
        self._url, self._clock = url, clock
        self._keys: Mapping[str, Key] = {}
        self._got = self._asked = float("-inf")
        self._lock = threading.Lock()

    def find(self, kid: str) -> Key | None:
        """Return the key of this id, or None if there is none; raise `LookupError` if nobody can tell now."""
        if self.due(kid) and self._lock.acquire(blocking=kid not in self._usable()):
            try:
                if self.due(kid):  # another thread may have asked meanwhile
                    self._ask()
            finally:
                self._lock.release()
        found = self._usable().get(kid)
        if found is None and self._got < self._asked:
            raise LookupError("the keys cannot be had")
        return found

    def due(self, kid: str) -> bool:
        """Whether to find this key would ask for keys first, and so may take seconds."""
        now = self._clock()
        return now >= self._asked + PAUSE and (kid not in self._keys or now >= self._got + FRESH)

    def _usable(self) -> Mapping[str, Key]:
        return self._keys if self._clock() < self._got + USABLE else {}

    def _ask(self) -> None:
        keys = None
        try:
            with self._opener.open(self._url, timeout=_TIMEOUT) as answer:
                keys = read_jwks(json.loads(answer.read(_LARGEST)))
        except (OSError, HTTPException, ValueError, RecursionError) as exc:  # HTTPError, TLS, no JSON
            logger.warning("identity: the keys cannot be had: %s", type(exc).__name__)
        now = self._clock()
        if keys is not None:
            self._keys, self._got = keys, now
        self._asked = now  # only now: until then, others find it due and wait


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None
