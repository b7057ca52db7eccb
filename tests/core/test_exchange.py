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


def balanced(method, endpoints, *events, replayable=True):
    """Perform effects with scripted events over several endpoints; return (endpoint, fresh) and the final."""
    conversation = exchange(
        method,
        replayable=replayable,
        endpoints=endpoints,
        choose=lambda tried: next(e for e in range(endpoints) if e not in tried),
    )
    effect = next(conversation)
    sends = [(effect.endpoint, effect.fresh)]
    try:
        for event in events:
            effect = conversation.throw(event) if isinstance(event, Exception) else conversation.send(event)
            sends.append((effect.endpoint, effect.fresh))
    except StopIteration as stop:
        return sends, stop.value
    except ForwardError as error:
        return sends, error
    raise AssertionError("the conversation did not end")


REFUSED = ForwardError("connect", "refused")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_endpoint_that_cannot_be_reached_is_left_for_another(method):
    assert balanced(method, 2, REFUSED, "answer") == ([(0, False), (1, False)], "answer")
    assert balanced(method, 2, REFUSED, "answer", replayable=False)[1] == "answer"


def test_each_endpoint_is_tried_once():
    assert balanced("GET", 3, REFUSED, REFUSED, REFUSED) == ([(0, False), (1, False), (2, False)], REFUSED)


@pytest.mark.parametrize("stage", ["pool", "send", "head"])
def test_what_was_sent_goes_to_no_other_endpoint(stage):
    error = ForwardError(stage, "x", request_sent=stage != "pool")
    assert balanced("GET", 2, error) == ([(0, False)], error)


def test_a_stale_connection_is_replaced_at_the_same_endpoint():
    assert balanced("GET", 2, stale(), "answer") == ([(0, False), (0, True)], "answer")
    assert balanced("POST", 2, stale())[0] == [(0, False)]


def test_what_was_written_to_a_stale_connection_is_not_written_a_third_time():
    second = stale()
    sends, final = balanced("GET", 2, stale(), REFUSED, second)
    assert sends == [(0, False), (0, True), (1, True)]
    assert final is second


@pytest.mark.parametrize("stage", ["pool", "connect", "send", "head"])
def test_other_failures_are_final(stage):
    error = ForwardError(stage, "x")
    assert run("GET", True, error) == ([False], error)
