"""Asks one endpoint whether it is well: a GET on a connection of its own, beside the bulkhead.

For the thread of `probing`; what the answer means is `core.resilience`.
"""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from strangle_mw.errors import ForwardError
from strangle_mw.transports.h1 import serialize_head
from strangle_mw.transports.thread_pool import BlockingPool

if TYPE_CHECKING:
    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.transports.thread_pool import BlockingAnswer

_FIELDS = b"user-agent: strangle-mw health\r\n\r\n"


class Probe:
    """Health checks of one upstream; each endpoint keeps its connection between them."""

    def __init__(self, upstream: CompiledUpstream, path: str, longest: float) -> None:
        declared = upstream.declared
        self._path = path.encode()
        self._timeout = min(declared.timeout, longest)
        calm = replace(declared, max_in_flight=1, keepalive=2 * longest, idle_timeout=self._timeout)
        self._places = upstream.endpoints
        self._pools = [BlockingPool(place, calm) for place in upstream.endpoints]

    def ask(self, endpoint: int) -> bool:
        """Tell whether an endpoint answers with 2xx in time."""
        place = self._places[endpoint]
        head = serialize_head(b"GET", place.base, self._path, place.authority, _FIELDS)
        pool = self._pools[endpoint]
        for fresh in (False, True):
            try:
                answer = pool.send(head, b"", method="GET", chunked=False, timeout=self._timeout, fresh=fresh)
            except ForwardError as exc:
                if exc.stale and not fresh:
                    continue
                return False
            good = 200 <= answer.status <= 299  # noqa: PLR2004 - RFC 9110 section 15.3
            return _read_on(answer, monotonic() + self._timeout) and good
        return False

    def close(self) -> None:
        """Close the connections."""
        for pool in self._pools:
            pool.close()


def _read_on(answer: BlockingAnswer, until: float) -> bool:
    """Read an answer to its end, and tell whether that was there in time: one without an end is none."""
    try:
        while not answer.complete and monotonic() < until and answer.read():
            pass
    except ForwardError:
        return False
    finally:
        answer.close()
    return answer.complete
