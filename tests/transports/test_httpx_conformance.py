"""The tests of both own pools over transports of httpx2 and httpx, but for a table of differences.

Each difference is one of those transports, told to users in docs/httpx.md; `test_httpx` says what happens
instead. A test that fails at once is run, so that the table tells when a difference is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.transports import test_both_pools
from tests.transports.clients import CLIENTS, Clients
from tests.transports.upstream import close

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ADAPTERS = tuple(kind for kind in CLIENTS if kind.startswith("httpx"))


def _always(_: dict[str, Any]) -> bool:
    return True


def _sync(given: dict[str, Any]) -> bool:
    return str(given["clients"]).endswith("-sync")


class Difference(NamedTuple):
    """Why a test cannot hold; `run` if it fails at once, `where` for which parameters."""

    reason: str
    run: bool = True
    where: Callable[[dict[str, Any]], bool] = _always


BUFFERS = "the adapter buffers nothing, so an answer is complete after its last read"
NO_STALE = "httpx does not tell whether bytes of an answer had come"
LEFT_OVER = "httpcore keeps a connection with bytes left over"
SENDS_FIRST = "httpcore looks for an answer when the request is sent"
DIFFERENCES = {
    "a_small_answer_is_complete_at_once": Difference(BUFFERS, run=False),
    "close_may_be_repeated_and_ends_reading": Difference(BUFFERS),
    "a_chunked_answer_in_pieces": Difference(BUFFERS, run=False),
    "the_connection_used_last_is_used_next": Difference("httpcore uses the oldest connection", run=False),
    "a_spoiled_connection_is_not_used_again": Difference(
        LEFT_OVER, run=False, where=lambda given: given["answer"].startswith(test_both_pools.OK)
    ),
    "a_body_where_none_may_be_is_dropped": Difference(LEFT_OVER, run=False),
    "a_reused_connection_that_dies_is_stale": Difference(NO_STALE),
    "fresh_opens_a_connection_though_one_is_idle": Difference("httpcore chooses the connection"),
    "malformed_answers_are_502": Difference(
        "h11 waits for the end of a head", run=False, where=lambda given: given["name"] == "not http"
    ),
    "a_head_without_end_is_refused": Difference("refused with another reason, at 100 KiB"),
    "too_many_interim_answers": Difference("only time limits interim answers", run=False),
    "head_and_body_leave_in_one_write": Difference("httpcore writes head and body one by one", run=False),
    "an_early_answer_is_delivered": Difference(SENDS_FIRST, run=False),
    "an_answer_before_the_body_has_left_costs_the_connection": Difference(SENDS_FIRST, run=False),
    "an_end_of_stream_stops_the_body": Difference(SENDS_FIRST, run=False),
    "a_broken_pipe_is_no_error_if_there_is_an_answer": Difference(
        "asyncio forgets what had come when a write fails", where=lambda given: not _sync(given)
    ),
    "an_interim_answer_does_not_stop_the_body": Difference("h11 wants the length it is to send", run=False),
    "a_head_in_drops_does_not_stretch_the_time": Difference("each read has its own limit", where=_sync),
    "a_closed_pool_takes_no_work": Difference("idle connections are the user's to close"),
    "no_connection_is_502_and_nothing_was_sent": Difference(
        "httpcore leaves a Unix socket that cannot connect to the garbage collector",
        run=False,
        where=lambda given: given["endpoint"].scheme == "unix",
    ),
    "a_missing_file_is_a_failure_to_connect": Difference("whoever makes the transport reads the files"),
    "only_a_closure_alert_ends_a_body_without_length": Difference(
        "httpcore takes an end without a closure alert for a clean one",
        run=False,
        where=lambda given: given["end"] is close,
    ),
}

_tests = {n: v for n, v in vars(test_both_pools).items() if n.startswith("test_") and callable(v)}
globals().update(_tests)
authority = test_both_pools.authority


@pytest.fixture(params=ADAPTERS)
def clients(request: pytest.FixtureRequest) -> Iterator[Clients]:
    """One kind of client after the other, marked where it differs."""
    with Clients(request.param) as made:
        yield made


@pytest.fixture(autouse=True)
def _marked(request: pytest.FixtureRequest) -> None:
    name = request.node.originalname.removeprefix("test_")
    difference = DIFFERENCES.get(name)
    given = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if difference is not None and difference.where(given):
        request.applymarker(pytest.mark.xfail(reason=difference.reason, run=difference.run, strict=True))


def test_the_table_names_tests() -> None:
    assert {f"test_{name}" for name in DIFFERENCES} <= set(_tests)
