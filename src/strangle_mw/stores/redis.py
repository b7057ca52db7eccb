"""The store of many hosts: a few keys in Redis, by redis-py (the extra `redis`).

The document's key is the truth, the published message a hint (design section 6). One client per process.
Redis Cluster is not spoken to: a document and its revision are changed in one transaction.
"""

from __future__ import annotations

import random
import re
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    WatchError,
)
from redis.exceptions import TimeoutError as TooLate
from redis.retry import Retry

from strangle_mw.core.events import safe_text
from strangle_mw.core.overrides import MAX_DOCUMENT
from strangle_mw.stores.base import (
    MAX_EVENTS,
    MAX_TABLE,
    MAX_TABLES,
    PerProcess,
    StoreError,
    Waker,
    check_size,
    check_table,
    read_fact,
    read_facts,
    revision_of,
    to_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from strangle_mw.stores.urls import RedisAddress

_ATTEMPTS = 200
_DIGITS = 19  # of 2**63 - 1, up to which Redis counts
_LISTEN = 0.25  # seconds after which a closed store is noticed
_PIPELINE = re.compile(r"(?s)Command # \d+ \(.*\) of pipeline caused error: ")


@dataclass(slots=True)
class _Link:
    """One process's connections: the client, and the subscription of whoever waits."""

    client: Any
    waiting: threading.Lock
    subscription: Any = None

    def unsubscribe(self) -> None:
        subscription, self.subscription = self.subscription, None
        if subscription is not None:
            subscription.close()


def _connect(address: RedisAddress) -> _Link:
    # Nothing is sent twice: a command whose answer was lost may have been carried out. RESP2 is what every
    # version of server and client speaks. Options in the URL go before these.
    more: dict[str, Any] = {"ssl_min_version": ssl.TLSVersion.TLSv1_2} if address.secure else {}
    client = redis.Redis.from_url(
        address.url,
        socket_timeout=1.0,
        socket_connect_timeout=1.0,
        health_check_interval=10,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        **more,
    )
    return _Link(client, threading.Lock())  # by its full name, for gevent that patches late


class RedisStore:
    """`redis://host:6379/0`, `rediss://`, `unix://`. See `base.Store` for the methods."""

    def __init__(self, address: RedisAddress) -> None:
        self.url = address.shown
        self._secrets = address.secrets
        self._links = PerProcess(lambda: _connect(address))
        self._waker = Waker()
        key = address.prefix + ":"
        self._overrides, self._revision, self._changed = key + "overrides", key + "revision", key + "changed"
        self._counts, self._events = key + "counts", key + "events"
        self._workers, self._worker = key + "workers", key + "worker:"
        self._tables, self._table = key + "tables", key + "table:"

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """Lend this process's client; whatever it raises becomes a `StoreError`."""
        try:
            yield self._links.get().client
        except (RedisError, OSError) as exc:
            if isinstance(exc, ReadOnlyError):
                # Another server has become the master; these connections would stay with the one that was.
                self._links.get().client.connection_pool.disconnect()
            # `from None`: the original's arguments may hold what must not be shown.
            raise StoreError(self._sentence(exc)) from None

    def _sentence(self, exc: Exception) -> str:
        """Say what is wrong; servers quote commands, passwords among them (`unknown command 'AUTH', ...`)."""
        text = _PIPELINE.sub("", str(exc))
        for secret in self._secrets:
            text = text.replace(secret, "***")
        if isinstance(exc, TooLate):
            what = "does not answer in time"
        else:
            refused = isinstance(exc, ResponseError | AuthenticationError | AuthorizationError)
            what = "has refused" if refused else "cannot be reached"
        return f"the store {self.url} {what}: {safe_text(text, 200)}"

    def _atomically(self, attempt: Callable[[Any], Any], *keys: str) -> Any:
        """Run `attempt(pipeline)` until nobody has changed the keys between its reads and its writes."""
        for number in range(_ATTEMPTS):
            with self._client() as client, client.pipeline() as pipeline:
                try:
                    pipeline.watch(*keys)
                    return attempt(pipeline)
                except WatchError:
                    pass
            sleep(random.random() * 0.001 * min(number, 20))  # noqa: S311 - only to get out of step
        raise StoreError(
            f"the store {self.url} was changed by others {_ATTEMPTS} times in between; try again"
        )

    def read(self, since: int) -> bytes | None:
        """Return the document, as `Store.read`."""
        with self._client() as client:
            # No transaction: a server that is full takes none, and the kill switch must still be read.
            pipeline = client.pipeline(transaction=False)
            revision, size = _all(pipeline.getrange(self._revision, 0, 31).strlen(self._overrides).execute)
            if size and revision == b"%d" % since:
                return None
            return self._document(client.pipeline(transaction=False)) if size else b""

    def _document(self, pipeline: Any) -> bytes:
        """Read the document and no more of it than may be; on a pipeline that watches, at once."""
        answers = [
            pipeline.strlen(self._overrides),
            pipeline.getrange(self._overrides, 0, MAX_DOCUMENT),
        ]
        size, document = answers if pipeline.watching else _all(pipeline.execute)
        check_size(size, self.url, f"delete the key {self._overrides}")
        return bytes(document)

    def edit(self, change: Callable[[bytes], bytes]) -> bytes:
        """Change the document, as `Store.edit`."""

        def attempt(pipeline: Any) -> bytes:
            document = change(self._document(pipeline))
            self._keep(pipeline, document, revision_of(document))
            return document

        return bytes(self._atomically(attempt, self._overrides, self._revision))

    def restore(self, document: bytes, revision: int) -> bool:
        """Put a document back, as `Store.restore`."""
        revision_of(document)

        def attempt(pipeline: Any) -> bool:
            stored = bytes(pipeline.getrange(self._revision, 0, 31))
            older = not pipeline.strlen(self._overrides) or (stored.isdigit() and int(stored) < revision)
            if older:
                self._keep(pipeline, document, revision)
            return older

        return bool(self._atomically(attempt, self._overrides, self._revision))

    def _keep(self, pipeline: Any, document: bytes, revision: int) -> None:
        pipeline.multi()
        pipeline.set(self._overrides, document).set(self._revision, revision)
        _all(pipeline.publish(self._changed, revision).execute)

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Add to counters, as `Store.add_counts`; what somebody has made no number of is left out."""
        with self._client() as client:
            pipeline = client.pipeline()
            for name, number in counts.items():
                pipeline.hincrby(self._counts, name, number)
            answers = pipeline.execute(raise_on_error=False)
            if answers and all(isinstance(a, RedisError) for a in answers):
                raise answers[0]

    def counts(self) -> dict[str, int]:
        """Return the counters, as `Store.counts`."""
        with self._client() as client:
            found = client.hgetall(self._counts)
        return {_text(n): int(v) for n, v in found.items() if v.isdigit() and len(v) <= _DIGITS}

    def reset_counts(self, prefix: str) -> None:
        """Forget counters, as `Store.reset_counts`."""
        with self._client() as client:
            found = [n for n in client.hkeys(self._counts) if n.startswith(prefix.encode())]
            if found:
                client.hdel(self._counts, *found)

    def add_events(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Append events, as `Store.add_events`."""
        texts = list(map(to_json, events))
        with self._client() as client:
            if texts:
                _all(
                    client.pipeline().rpush(self._events, *texts).ltrim(self._events, -MAX_EVENTS, -1).execute
                )

    def events(self, limit: int) -> list[dict[str, Any]]:
        """Return the newest events, as `Store.events`."""
        with self._client() as client:
            found = client.lrange(self._events, -min(limit, MAX_EVENTS), -1) if limit > 0 else ()
        return read_facts(found)

    def beat(self, worker_id: str, info: Mapping[str, Any], ttl: float) -> None:
        """Keep a worker's words, as `Store.beat`."""
        text = to_json(info)
        with self._client() as client:
            pipeline = client.pipeline().sadd(self._workers, worker_id)
            _all(pipeline.set(self._worker + worker_id, text, px=max(int(ttl * 1000), 1)).execute)

    def workers(self) -> dict[str, dict[str, Any]]:
        """Return the workers, as `Store.workers`."""
        with self._client() as client:
            names = sorted(_text(n) for n in client.smembers(self._workers))
            texts = client.mget([self._worker + n for n in names]) if names else []
            gone = [name for name, text in zip(names, texts, strict=True) if text is None]
            if gone:
                client.srem(self._workers, *gone)
        found = zip(names, map(read_fact, texts), strict=True)
        return {name: info for name, info in found if info is not None}

    def publish_table(self, revision: str, text: bytes) -> None:
        """Keep a table's description, as `Store.publish_table`."""
        check_table(text, self.url)

        def attempt(pipeline: Any) -> None:
            kept = list(map(_text, pipeline.lrange(self._tables, 0, -1)))
            if kept[:1] == [revision] and pipeline.exists(self._table + revision):
                return  # every worker says the same at its start
            kept = list(dict.fromkeys([revision, *kept]))
            pipeline.multi()
            pipeline.set(self._table + revision, text).delete(self._tables)
            pipeline.rpush(self._tables, *kept[:MAX_TABLES])
            for old in kept[MAX_TABLES:]:
                pipeline.delete(self._table + old)
            _all(pipeline.execute)

        self._atomically(attempt, self._tables)

    def table(self, revision: str) -> bytes | None:
        """Return a table's description, as `Store.table`."""
        key = self._table + revision
        with self._client() as client:
            size = client.strlen(key)
            return bytes(client.getrange(key, 0, -1)) or None if 0 < size <= MAX_TABLE else None

    def tables(self) -> list[str]:
        """Return the tables' revisions, as `Store.tables`."""
        with self._client() as client:
            return list(map(_text, client.lrange(self._tables, 0, MAX_TABLES - 1)))

    def wait(self, timeout: float) -> bool:
        """Wait for a message, as `Store.wait`.

        A new subscription counts as a hint, since what changed before was not heard. Without Redis the time
        is waited out.
        """
        end, link = monotonic() + timeout, self._links.get()
        if not link.waiting.acquire(blocking=False):
            return self._waker.wait(timeout)
        try:
            return self._listen(link, end)
        except (RedisError, OSError, ValueError):
            link.unsubscribe()
        finally:
            link.waiting.release()
        return self._waker.wait(max(end - monotonic(), 0.0))

    def _listen(self, link: _Link, end: float) -> bool:
        if link.subscription is None and not self._waker.closed:
            link.subscription = link.client.pubsub()
            link.subscription.subscribe(self._changed)
        hint = False
        while not self._waker.closed:
            rest = 0.0 if hint else min(max(end - monotonic(), 0.0), _LISTEN)
            message = link.subscription.get_message(timeout=rest)
            if message is None and (hint or monotonic() >= end):
                return hint
            hint = hint or (message is not None and message["type"] in ("message", "subscribe"))
        return False

    def close(self) -> None:
        """Close this process's connections, as `Store.close`."""
        self._waker.close()
        link = self._links.get()
        with link.waiting:
            link.unsubscribe()
        link.client.close()


def _all(execute: Callable[..., list[Any]]) -> list[Any]:
    """Carry out a pipeline and raise the first thing that went wrong, in the server's own words."""
    answers = execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, ResponseError):
            raise answer
    return answers


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
