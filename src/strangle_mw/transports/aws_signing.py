"""Signs invocations of one function: credentials that never make anybody wait who does not have to.

Credentials that end (an assumed role, SSO, a container's or an instance's) are renewed in a thread of their
own, one at a time for each upstream; others cost no thread. What is signed with which keys is `aws_lookup`,
the signature itself botocore's. No event loop here.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from strangle_mw.errors import ForwardError
from strangle_mw.transports.aws_lookup import Found, LookupFailedError, look_up, unusable
from strangle_mw.transports.aws_outcomes import one_line
from strangle_mw.transports.h1 import serialize_head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from strangle_mw.core.compiled import CompiledUpstream
    from strangle_mw.core.model import Endpoint
    from strangle_mw.transports.aws_lookup import Trouble

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that a start waits for credentials; the instance metadata service may not answer at all."""

MANDATORY = 600.0
"""Seconds before their end from which on credentials must be renewed, as for botocore."""

PAUSE = 5.0
"""Seconds between two attempts to renew credentials that are still good."""


class Signer:
    """Signs the invocations of one upstream, in one process; for any number of threads and event loops.

    Ask `keys`, which never waits; if there are none, wait for `prepare`. `sign` takes what either gave.
    """

    def __init__(self, upstream: CompiledUpstream) -> None:
        assert upstream.function is not None  # noqa: S101 - `upstreams` gives one to every Lambda upstream
        self._declared = upstream.declared
        self._function = upstream.function
        self._found: Found | None = None
        self._finding = threading.Lock()  # by its full name, for gevent that patches late
        self._keys: Any = None
        self._work: Future[Any] | None = None
        self._working = threading.Lock()
        self._next_try = 0.0

    @property
    def endpoint(self) -> Endpoint:
        """The address of the Invoke API; known once there have been keys."""
        return self._at.endpoint

    @property
    def _at(self) -> Found:
        assert self._found is not None  # noqa: S101 - by contract
        return self._found

    def find(self) -> Found:
        """Find region, address and credentials, or wait for who does; raise `LookupFailedError`."""
        with self._finding:
            if self._found is None:
                self._found = look_up(self._declared, self._function)
            return self._found

    def keys(self) -> Any:
        """Return the keys to sign with, or None if there are none that may be used now; never waits.

        As in botocore, credentials within 15 minutes of their end are renewed while they are still used, and
        in their last 10 minutes no more used before they are.
        """
        keys = self._keys
        if keys is None:
            return None
        renewable: Any = self._at.credentials
        if not hasattr(renewable, "refresh_needed") or not renewable.refresh_needed():
            return keys
        if renewable.refresh_needed(MANDATORY):
            # Not only for this caller: botocore tells of a new end a moment before the new keys are here.
            self._keys = None
            return None
        if monotonic() >= self._next_try:
            self._next_try = monotonic() + PAUSE
            self.prepare()
        return keys

    def prepare(self) -> Future[Any]:
        """Have keys found or renewed in a thread; who asks meanwhile gets the same future of them.

        It ends with `ForwardError` if there are none, and cannot be cancelled.
        """
        with self._working:
            if self._work is None or self._work.done():
                self._work = in_thread(self._renew)
            return self._work

    def sign(self, body: bytes, keys: Any) -> bytes:
        """Return the head of an invocation with this body, signed (SigV4)."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        at = self._at
        request = AWSRequest(method="POST", url=at.url, data=body)
        SigV4Auth(keys, at.service, at.region).add_auth(request)
        fields = "".join(f"{name.lower()}: {value}\r\n" for name, value in request.headers.items())
        fields += f"user-agent: strangle-mw\r\ncontent-length: {len(body)}\r\n\r\n"
        return serialize_head(b"POST", at.endpoint.base, at.target, at.endpoint.authority, fields.encode())

    def _renew(self) -> Any:
        try:
            keys = self.find().credentials.get_frozen_credentials()
        except LookupFailedError as exc:
            raise ForwardError("connect", str(exc)) from exc
        except Exception as exc:  # whatever a provider of botocore's, or a process that it starts, may raise
            reason = f"AWS credentials: {type(exc).__name__}: {one_line(str(exc))}"
            raise ForwardError("connect", reason) from exc
        if bad := unusable(keys):
            raise ForwardError("connect", f"AWS credentials: {bad}")
        self._keys = keys
        return keys


def in_thread(call: Callable[[], T]) -> Future[T]:
    """Call in a daemon thread of its own: one that hangs keeps no executor, nor the process from ending."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = call()
        except BaseException as exc:  # noqa: BLE001 - whoever waits raises it
            future.set_exception(exc)
        else:
            future.set_result(result)

    try:
        threading.Thread(target=run, daemon=True, name="strangle-aws-credentials").start()
    except RuntimeError as exc:  # no thread is to be had
        future.set_exception(ForwardError("connect", f"AWS credentials: {exc}"))
    return future


def late() -> ForwardError:
    """Say that credentials were not there in time."""
    return ForwardError("connect", "AWS credentials: timed out", status=504)


_signers: WeakKeyDictionary[CompiledUpstream, Signer] = WeakKeyDictionary()
_lock = threading.Lock()


def signer_of(upstream: CompiledUpstream) -> Signer:
    """Return the signer of an upstream, the same for all its pools in this process."""
    with _lock:
        signer = _signers.get(upstream)
        if signer is None:
            signer = _signers[upstream] = Signer(upstream)
        return signer


def check_lambdas(
    upstreams: Iterable[CompiledUpstream], patience: float = PATIENCE
) -> Iterator[tuple[CompiledUpstream, Trouble]]:
    """Yield why upstreams' functions cannot be invoked: the field, what is wrong, a stable id.

    Asked once at start, for all at the same time: a metadata service that does not answer is waited for once.
    Roles are not assumed here, and nothing is sent to Lambda. What is not known after `patience` seconds is
    no reason: the first request will tell.
    """
    looking = [(u, in_thread(signer_of(u).find)) for u in upstreams]
    end = monotonic() + patience
    for upstream, found in looking:
        for trouble in _troubles(found, max(0.0, end - monotonic())):
            yield upstream, trouble


def _troubles(found: Future[Found], seconds: float) -> list[Trouble]:
    try:
        found.result(seconds)
    except TimeoutError:
        return []
    except LookupFailedError as exc:
        return exc.troubles
    except Exception as exc:  # noqa: BLE001 - a start must end with a sentence (promise P24)
        return [("lambda", f"{type(exc).__name__}: {one_line(str(exc))}", "lambda-lookup")]
    return []


def _forget() -> None:
    """Begin anew in a child process: a thread of the parent may have held any of the locks."""
    global _lock  # noqa: PLW0603 - the one place that may
    _lock = threading.Lock()
    _signers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
