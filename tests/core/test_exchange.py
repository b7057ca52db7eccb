"""The one conversation: which failures are repaired by a fresh connection, and none twice (P14)."""

import pytest

from strangle_mw.core.exchange import exchange
from strangle_mw.errors import ForwardError


def run(method, replayable, *events):
    """Perform effects with scripted events; return how fresh each send was, and the final."""
    conversation = exchange(method, replayable=replayable)
    sends = [next(conversation).fresh]
    try:
        for event in events:
            effect = conversation.throw(event) if isinstance(event, Exception) else conversation.send(event)
            sends.append(effect.fresh)
    except StopIteration as stop:
        return sends, stop.value
    except ForwardError as error:
        return sends, error
    raise AssertionError("the conversation did not end")


def stale(*, sent=True):
    return ForwardError("head", "closed", request_sent=sent, stale=True)


def test_an_answer_is_relayed():
    assert run("POST", True, "answer") == ([False], "answer")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"])
def test_a_stale_connection_is_replaced_once_for_safe_methods(method):
    assert run(method, True, stale(), "answer") == ([False, True], "answer")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "X"])
def test_unsafe_methods_are_sent_again_only_if_nothing_was_sent(method):
    assert run(method, True, stale())[0] == [False]
    assert run(method, True, stale(sent=False), "answer") == ([False, True], "answer")


def test_a_body_that_is_gone_is_not_sent_again():
    assert run("GET", False, stale())[0] == [False]


def test_never_twice():
    second = stale()
    assert run("GET", True, stale(), second) == ([False, True], second)


@pytest.mark.parametrize("stage", ["pool", "connect", "send", "head"])
def test_other_failures_are_final(stage):
    error = ForwardError(stage, "x")
    assert run("GET", True, error) == ([False], error)
