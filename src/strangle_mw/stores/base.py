"""What every store does, and what they share: limits, wake-ups, state that no fork carries over.

No store's own code here. A store keeps text and never acts on it: what a document means is
`core.overrides`.
"""

from __future__ import annotations

import json
import os
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from strangle_mw.core.overrides import MAX_DOCUMENT, OverridesError, parse_overrides
from strangle_mw.errors import StrangleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MAX_EVENTS: Final = 1_000
"""Events that a store keeps; the oldest go first."""

MAX_TABLES: Final = 8
"""Descriptions of route tables that a store keeps; the oldest go first."""

MAX_TABLE: Final = 8 << 20
"""Bytes of a table's description beyond which it is neither kept nor read."""

MAX_FACT: Final = 1 << 16
"""Bytes of an event or of what a worker says of itself beyond which it is not read."""

T = TypeVar("T")


class StoreError(StrangleError):
    """A store cannot do what was asked; `reason` is one sentence, without any password (promise P18)."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Store(Protocol):
    """Where overrides, counters and events live.

    Every call blocks, at most for the store's own time limits, may come from any thread and from a forked
    process, and raises nothing but `StoreError` (and what `edit`'s function raises). After `StoreError` the
    next call tries again; what a store on a network was told before may have been carried out.
    """

    @property
    def url(self) -> str:
        """The store's address, fit to be shown: no user, no password, no options."""

    def read(self, since: int) -> bytes | None:
        """Return the document of overrides unless its revision is `since`; `b""` if there is none."""

    def edit(self, change: Callable[[bytes], bytes]) -> bytes:
        """Replace the document by what `change` makes of it, `b""` if there is none; return the new one.

        Edits at the same time never lose one another: `change` may be asked again, so it must have no effect
        of its own, and it runs inside the store, so it may not use it. What it raises goes to the caller, and
        nothing is changed. What it returns must be a document.
        """

    def restore(self, document: bytes, revision: int) -> bool:
        """Put back a document if the store has none or an older one; tell whether it was put back."""

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Add to counters, all or none."""

    def counts(self) -> dict[str, int]:
        """Return every counter."""

    def reset_counts(self, prefix: str) -> None:
        """Forget the counters whose names start with `prefix`."""

    def add_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Append events, each small and of JSON values; the oldest beyond `MAX_EVENTS` go."""

    def events(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest events, at most `limit` of them, the newest last."""

    def beat(self, worker_id: str, info: Mapping[str, Any], ttl: float) -> None:
        """Keep what a worker says of itself for `ttl` seconds."""

    def workers(self) -> dict[str, dict[str, Any]]:
        """Return what workers have said of themselves, by their ids, as far as it is not too old."""

    def publish_table(self, revision: str, text: bytes) -> None:
        """Keep the description of a route table; the oldest beyond `MAX_TABLES` go."""

    def table(self, revision: str) -> bytes | None:
        """Return the description of a table, or None."""

    def tables(self) -> list[str]:
        """Return the revisions of the tables that are kept, the newest first."""

    def wait(self, timeout: float) -> bool:
        """Wait for a hint that the document was changed, at most `timeout` seconds; tell whether one came.

        After `close`, and when one comes while it waits, it returns False at once.
        """

    def close(self) -> None:
        """Let go of connections and end `wait`."""


class PerProcess(Generic[T]):
    """A value that each process makes for itself, on first use.

    What a fork has inherited (a connection, a lock that another thread held) is kept and left alone: SQLite
    and TLS connections must not even be closed in a child.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def get(self) -> T:
        """Return this process's value."""
        pid = os.getpid()
        found = self._made.get(pid)
        return self._made.setdefault(pid, self._make()) if found is None else found


class Waker:
    """The wait of stores that cannot be told of changes by another process."""

    def __init__(self) -> None:
        self._event = PerProcess(Event)
        self.closed = False

    def wake(self) -> None:
        """End one wait: this process has changed the document itself."""
        self._event.get().set()

    def wait(self, timeout: float) -> bool:
        """Wait as `Store.wait` does."""
        event = self._event.get()
        woken = event.wait(timeout) and not self.closed
        if woken:
            event.clear()
        return woken

    def close(self) -> None:
        """End every wait, now and later."""
        self.closed = True
        self.wake()


def new_lock() -> PerProcess[Lock]:
    """Make a lock that a fork does not carry over while it is held."""
    return PerProcess(Lock)


def revision_of(document: bytes) -> int:
    """Return the revision of a document that shall be stored; raises `StoreError` if it is none."""
    try:
        revision = parse_overrides(document).revision
    except OverridesError as exc:
        raise StoreError(f"only a document of overrides is stored: {exc.reason}") from None
    if not revision:
        raise StoreError("only a document of overrides is stored: the document is empty")
    return revision


def check_size(size: int, url: str, remedy: str) -> None:
    """Raise `StoreError` for a stored document that is too large to be read."""
    if size > MAX_DOCUMENT:
        raise StoreError(
            f"the store {url} holds a document of {size} bytes, and at most {MAX_DOCUMENT} are read; {remedy}"
        )


def check_table(text: bytes, url: str) -> None:
    """Raise `StoreError` for a table's description that is too large to be kept."""
    if len(text) > MAX_TABLE:
        raise StoreError(f"the store {url} keeps no description of a table with {len(text)} bytes")


def to_json(value: Mapping[str, Any]) -> str:
    """Write an event or a worker's words, in ASCII."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def read_facts(texts: Iterable[object]) -> list[dict[str, Any]]:
    """Read what `to_json` has written, and leave out everything else that somebody has put there."""
    return [fact for fact in map(read_fact, texts) if fact is not None]


def read_fact(text: object) -> dict[str, Any] | None:
    """Read one event or one worker's words; None for what is no JSON object, or too large for one."""
    if not isinstance(text, str | bytes) or len(text) > MAX_FACT:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
