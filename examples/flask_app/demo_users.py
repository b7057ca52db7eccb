"""What the users of the demo do: ask, once or again and again, and note who answered.

Nothing is shown here and nothing judged; see `demo.py`.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOST = "127.0.0.1"
PATIENCE = 30.0
"""Seconds a server may take to start, to follow or to answer."""
CLIENTS = 4
"""How many ask at the same time."""
USERS = tuple(f"u{number}" for number in range(1, 201))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and how long it took until all of it was there."""

    status: int
    headers: http.client.HTTPMessage
    pieces: tuple[bytes, ...]
    first_piece_at: float
    milliseconds: float

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def json(self) -> dict[str, Any]:
        """Return the object in the body, or nothing where there is none (a page, an error)."""
        with suppress(ValueError):
            found = json.loads(self.body)
            return found if isinstance(found, dict) else {}
        return {}


def ask(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    *,
    timeout: float = PATIENCE,
) -> Answer:
    """Make one request on a connection of its own: any worker may answer it."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    started = time.perf_counter()
    try:
        connection.request(method, path, body, {"Connection": "close", **(headers or {})})
        response = connection.getresponse()
        pieces, first = read_pieces(response)
    finally:
        connection.close()
    elapsed = (time.perf_counter() - started) * 1000
    return Answer(response.status, response.headers, pieces, first, elapsed)


def read_pieces(response: http.client.HTTPResponse) -> tuple[tuple[bytes, ...], float]:
    """Read the body as it arrives, and note when its first piece did."""
    first = response.read1()
    arrived = time.time()
    return (first, *iter(response.read1, b"")), arrived


@dataclass(frozen=True, slots=True)
class Visit:
    """One answer that one user got: from whom, and why from the monolith if it answered as a fallback.

    `began` is Unix time; `problem` says why it was not the answer it should be.
    """

    user: str
    began: float
    server: str
    fallback: str
    problem: str


def visit(port: int, path: str, user: str) -> Visit:
    """Ask for the leads as one of the users, and check that they came whole."""
    began = time.time()
    try:
        answer = ask(port, "GET", path, headers={"X-User": user})
    except (OSError, http.client.HTTPException) as error:
        return Visit(user, began, "nobody", "", repr(error))
    body = answer.json()
    good = answer.status == 200 and body.get("numberLeads") == len(body.get("salesLeads", ())) > 0
    problem = "" if good else f"status {answer.status}: {answer.body[:80]!r}"
    return Visit(user, began, str(body.get("server", "nobody")), str(body.get("fallback", "")), problem)


def ask_for_all(port: int, path: str) -> list[Visit]:
    """Ask once for each user."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(partial(visit, port, path), USERS))


class Traffic:
    """Users who go on asking, `CLIENTS` of them at a time, until the `with` block ends."""

    def __init__(self, port: int, path: str) -> None:
        self.visits: list[Visit] = []
        self._port = port
        self._path = path
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(USERS[first::CLIENTS],), daemon=True)
            for first in range(CLIENTS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, problem: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            if problem is None:  # else nobody wants to wait for the last answers
                thread.join()

    def _ask(self, users: Sequence[str]) -> None:
        for user in cycle(users):
            if self._over.wait(0.01):
                break
            self.visits.append(visit(self._port, self._path, user))
