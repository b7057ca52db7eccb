"""The one conversation: which failures are repaired by a fresh connection, and none twice (P14)."""

from itertools import product

import pytest

from strangle_mw.core.exchange import Relay, Send, exchange
from strangle_mw.core.fallback import NEVER, FallbackPolicy
from strangle_mw.errors import ForwardError


class Scripted:
    """Endpoints that are chosen in their order; those in `closed` have an open breaker."""

    def __init__(self, number=1, closed=(), *, budget=True):
        self.budget = budget
        self.number = number
        self.closed = closed
        self.settled = []

    def __len__(self):
        return self.number

    def choose(self, tried):
        return next((e for e in range(self.number) if e not in tried and e not in self.closed), None)

    def settle(self, endpoint, outcome):
        self.settled.append((endpoint, outcome))

    def spend(self):
        return self.budget


def converse(method, events, *, endpoints=None, replayable=True, policy=NEVER, budget=True):
    """Perform effects with scripted events; return what was sent, as (endpoint, fresh), and the end."""
    sends = []
    endpoints = endpoints or Scripted(budget=budget)
    conversation = exchange(method, endpoints, replayable=replayable, policy=policy)
    script = list(events)
    try:
        effect = next(conversation)
        while isinstance(effect, Send):
            sends.append((effect.endpoint, effect.fresh))
            event = script.pop(0)
            effect = conversation.throw(event) if isinstance(event, Exception) else conversation.send(event)
    except ForwardError as error:
        return sends, error
    assert not script
    conversation.close()
    return sends, "relay" if isinstance(effect, Relay) else effect.reason


def run(method, replayable, *events):
    sends, final = converse(method, events, replayable=replayable)
    return [fresh for _, fresh in sends], final


def stale(*, sent=True):
    return ForwardError("head", "closed", request_sent=sent, stale=True)


def test_an_answer_is_relayed():
    assert run("POST", True, 200) == ([False], "relay")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"])
def test_a_stale_connection_is_replaced_once_for_safe_methods(method):
    assert run(method, True, stale(), 200) == ([False, True], "relay")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "X"])
def test_unsafe_methods_are_sent_again_only_if_nothing_was_sent(method):
    assert run(method, True, stale())[0] == [False]
    assert run(method, True, stale(sent=False), 200) == ([False, True], "relay")


def test_a_body_that_is_gone_is_not_sent_again():
    assert run("GET", False, stale())[0] == [False]


def test_never_twice():
    second = stale()
    assert run("GET", True, stale(), second) == ([False, True], second)


def balanced(method, endpoints, *events, replayable=True):
    return converse(method, events, endpoints=Scripted(endpoints), replayable=replayable)


REFUSED = ForwardError("connect", "refused")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_endpoint_that_cannot_be_reached_is_left_for_another(method):
    assert balanced(method, 2, REFUSED, 200) == ([(0, False), (1, False)], "relay")
    assert balanced(method, 2, REFUSED, 200, replayable=False)[1] == "relay"


def test_each_endpoint_is_tried_once():
    assert balanced("GET", 3, REFUSED, REFUSED, REFUSED) == ([(0, False), (1, False), (2, False)], REFUSED)


@pytest.mark.parametrize("stage", ["pool", "send", "head"])
def test_what_was_sent_goes_to_no_other_endpoint(stage):
    error = ForwardError(stage, "x", request_sent=stage != "pool")
    assert balanced("GET", 2, error) == ([(0, False)], error)


def test_a_stale_connection_is_replaced_at_the_same_endpoint():
    assert balanced("GET", 2, stale(), 200) == ([(0, False), (0, True)], "relay")
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


# --- who answers: the table of design section 4.3, cell by cell

AUTO, CONNECT = FallbackPolicy("auto"), FallbackPolicy("connect")
SHARED = FallbackPolicy("auto", shared_store=True)
WIDE = FallbackPolicy("auto", frozenset((404, 500, 501, 502, 503, 504)))
POLICIES = {"auto": AUTO, "connect": CONNECT, "never": NEVER, "shared": SHARED, "wide": WIDE}

NOT_SENT = {
    "bulkhead": ForwardError("pool", "full", status=503),
    "connect": ForwardError("connect", "refused"),
    "connect-timeout": ForwardError("connect", "timed out", status=504),
}
SENT = {
    "reset": ForwardError("head", "closed", request_sent=True),
    "timeout": ForwardError("head", "timed out", status=504, request_sent=True),
}
METHODS = {
    "safe": ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"],
    "idempotent": ["PUT", "DELETE"],
    "other": ["POST", "PATCH", "LOCK"],
}
BOTH = (True, False)
KINDS = [(kind, method) for kind, methods in METHODS.items() for method in methods]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("reason", NOT_SENT)
def test_nothing_was_sent(policy, reason):
    error = NOT_SENT[reason]
    for (_, method), replayable in product(KINDS, BOTH):
        _, final = converse(method, [error], policy=POLICIES[policy], replayable=replayable, budget=False)
        assert final == (error if policy == "never" else reason), (method, replayable)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("reason", SENT)
def test_sent_and_no_answer(policy, reason):
    error = SENT[reason]
    for (kind, method), replayable, budget in product(KINDS, BOTH, BOTH):
        falls = {
            "safe": policy in ("auto", "shared", "wide"),
            "idempotent": policy == "shared",
            "other": False,
        }[kind] and (replayable and budget)
        _, final = converse(method, [error], policy=POLICIES[policy], replayable=replayable, budget=budget)
        assert final == (reason if falls else error), (method, replayable, budget)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("status", [200, 204, 301, 304, 400, 401, 404, 429, 500, 501, 502, 503, 504, 505])
def test_a_head_came(policy, status):
    gateway = status in (502, 503, 504) and policy in ("auto", "shared", "wide")
    listed = gateway or (status in (404, 500, 501) and policy == "wide")
    for (kind, method), replayable, budget in product(KINDS, BOTH, BOTH):
        falls = kind == "safe" and replayable and budget and listed
        _, final = converse(method, [status], policy=POLICIES[policy], replayable=replayable, budget=budget)
        assert final == (f"status-{status}" if falls else "relay"), (method, replayable, budget)


@pytest.mark.parametrize("status", [400, 408, 411, 413, 499])
def test_what_is_the_clients_fault_is_never_repaired(status):
    error = ForwardError("send", "the client left", status=status)
    assert converse("GET", [error], policy=AUTO)[1] is error


@pytest.mark.parametrize("policy", ["auto", "connect"])
def test_an_open_breaker_sends_nothing(policy):
    assert converse("POST", [], endpoints=Scripted(2, {0, 1}), policy=POLICIES[policy]) == ([], "breaker")


def test_without_fallback_an_open_breaker_is_503():
    sends, error = converse("GET", [], endpoints=Scripted(1, {0}))
    assert sends == []
    assert (error.stage, error.status) == ("pool", 503)


def test_if_the_only_other_endpoint_is_open_the_failure_to_connect_counts():
    assert converse("GET", [REFUSED], endpoints=Scripted(2, {1}))[1] is REFUSED
    assert converse("GET", [REFUSED], endpoints=Scripted(2, {1}), policy=CONNECT)[1] == "connect"


@pytest.mark.parametrize(
    ("event", "outcome"),
    [
        (200, "good"), (404, "good"), (500, "good"), (502, "bad"), (503, "bad"), (504, "bad"),
        (NOT_SENT["bulkhead"], None), (NOT_SENT["connect"], "connect"), (NOT_SENT["connect-timeout"], "connect"),
        (SENT["reset"], "bad"), (SENT["timeout"], "bad"),
        (ForwardError("send", "the client left", status=499), None),
    ],
)  # fmt: skip
def test_what_a_breaker_is_told(event, outcome):
    endpoints = Scripted()
    converse("GET", [event], endpoints=endpoints)
    assert endpoints.settled == [(0, outcome)]


def test_a_stale_connection_is_not_the_endpoints_fault():
    endpoints = Scripted()
    converse("GET", [stale(), 200], endpoints=endpoints)
    assert endpoints.settled == [(0, "good")]


def test_a_conversation_that_is_broken_off_gives_the_endpoint_back():
    endpoints = Scripted()
    conversation = exchange("GET", endpoints, replayable=True)
    next(conversation)
    conversation.close()
    assert endpoints.settled == [(0, None)]


# --- cut after its head, while the client has seen nothing of it (WSGI holds a head until the first bytes)

CUT = ForwardError("body", "closed by the upstream", request_sent=True)


@pytest.mark.parametrize("policy", POLICIES)
def test_cut_before_the_client_has_seen_anything(policy):
    for (kind, method), replayable, budget in product(KINDS, BOTH, BOTH):
        endpoints = Scripted(budget=budget)
        conversation = exchange(method, endpoints, replayable=replayable, policy=POLICIES[policy])
        next(conversation)
        assert isinstance(conversation.send(200), Relay)
        falls = policy in ("auto", "shared", "wide") and kind == "safe"
        falls = falls or (policy == "shared" and kind == "idempotent")
        if falls and replayable and budget:
            assert conversation.throw(CUT).reason == "reset"
        else:
            with pytest.raises(ForwardError) as caught:
                conversation.throw(CUT)
            assert caught.value is CUT


def test_the_failure_is_told_for_which_legacy_answers_and_no_other():
    told = []

    def fails(error, *, mode="auto", closed=()):
        told.clear()
        conversation = exchange(
            "GET", Scripted(closed=closed), replayable=True, policy=FallbackPolicy(mode), tell=told.append
        )
        effect = next(conversation)
        if isinstance(effect, Send):
            try:
                conversation.throw(error)
            except ForwardError:
                return None
        conversation.close()
        return told

    refused = ForwardError("connect", "refused")
    assert fails(refused) == [refused]
    assert fails(ForwardError("head", "no", status=413)) is None
    assert fails(refused, mode="never") is None
    assert told == []
    assert fails(refused, closed=(0,)) == []  # the breaker's own line is enough
