"""P9: who asked for what is told to the upstream by this process, not by the client.

Every spelling of every protected name is in tests/core/test_messages.py; here it is what the upstream gets.
"""

import pytest
from tests.transports.upstream import ScriptedUpstream, forever, head, send

from promises.drive import address
from strangle_mw import HeaderRules, Route

SERVE = [forever(head(), send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))]
CLAIMED = (
    (b"x-forwarded-for", b"6.6.6.6"),
    (b"x-forwarded-for", b"127.0.0.1"),
    (b"x-forwarded-host", b"evil.example"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-prefix", b"/evil"),
    (b"x-forwarded-port", b"666"),
    (b"x-forwarded-user", b"root"),
    (b"forwarded", b"for=6.6.6.6;host=evil.example"),
    (b"x-real-ip", b"6.6.6.6"),
    (b"x-original-url", b"/evil"),
    (b"x-rewrite-url", b"/evil"),
    (b"proxy", b"http://evil.example"),
    (b"remote-user", b"root"),
)
OURS = {
    b"x-forwarded-for": b"192.0.2.1",
    b"x-forwarded-host": b"h.example",
    b"x-forwarded-proto": b"http",
    b"forwarded": b'for=192.0.2.1;host="h.example";proto=http',
}


def fields(wire):
    """Take a head apart as it stood on the wire, names in lower case."""
    lines = wire.split(b"\r\n")[1:-2]
    return [(n.lower(), v) for n, _, v in (line.partition(b": ") for line in lines)]


def sent(strangled, headers, *, route=None, peer="192.0.2.1", **settings):
    """What the upstream receives of a request with these headers."""
    with ScriptedUpstream(SERVE) as server:
        side = strangled([Route("/m/*", to=address(server), **(route or {}))], **settings)
        assert side.ask(headers=headers, peer=peer).status == 200
        side.close()
    return fields(server.heads[0])


def told(
    found, prefixes=(b"x-forwarded-", b"forwarded", b"x-real", b"x-orig", b"x-rew", b"proxy", b"remote")
):
    return [f for f in found if f[0].startswith(prefixes)]


def test_what_a_stranger_says_is_replaced(strangled):
    assert sorted(told(sent(strangled, CLAIMED))) == sorted(OURS.items())


@pytest.mark.parametrize("claim", CLAIMED, ids=lambda claim: claim[0].decode())
def test_each_claim_alone(strangled, claim):
    found = sent(strangled, (claim,))
    assert sorted(told(found)) == sorted(OURS.items())
    assert claim[1] not in [v for _, v in found]


@pytest.mark.parametrize("name", [b"X-Forwarded-For", b"x-FORWARDED-for", b"X-Real-IP", b"FORWARDED"])
@pytest.mark.parametrize("strangled", ["asgi"], indirect=True)  # an environ has no case
def test_in_any_case(strangled, name):
    assert sorted(told(sent(strangled, ((name, b"6.6.6.6"),)))) == sorted(OURS.items())


def test_the_claims_of_a_nominating_client_do_not_remove_ours(strangled):
    found = sent(strangled, ((b"connection", b"x-forwarded-for, forwarded, via, x-forwarded-host"),))
    assert sorted(told(found)) == sorted(OURS.items())
    assert [n for n, _ in found].count(b"via") == 1


def test_the_hygiene_runs_before_the_rules_of_a_route(strangled):
    """A rule may add what a client may not; ours come last all the same."""
    rules = HeaderRules(set={"X-Real-IP": "10.0.0.1"})
    found = sent(strangled, CLAIMED, route={"request_headers": rules})
    assert [v for n, v in found if n == b"x-real-ip"] == [b"10.0.0.1"]
    assert {f for f in found if f[0] in OURS} == set(OURS.items())


def test_nobody_is_trusted_by_default(strangled):
    for peer in ("127.0.0.1", "10.0.0.1", "::1"):
        (address_told,) = [v for n, v in sent(strangled, CLAIMED, peer=peer) if n == b"x-forwarded-for"]
        assert address_told == peer.encode()


@pytest.mark.parametrize(
    ("trusted", "kept"), [("192.0.2.0/24", True), ("192.0.2.1", True), ("192.0.2.2", False)]
)
def test_only_a_trusted_peer_is_believed_and_appended_to(strangled, trusted, kept):
    found = dict(sent(strangled, CLAIMED[:1] + CLAIMED[2:4], trusted_proxies=[trusted]))
    assert found[b"x-forwarded-for"] == (b"6.6.6.6, 192.0.2.1" if kept else b"192.0.2.1")
    assert found[b"x-forwarded-host"] == (b"evil.example" if kept else b"h.example")
    assert found[b"x-forwarded-proto"] == (b"https" if kept else b"http")


def test_even_a_trusted_peer_cannot_say_what_is_no_forwarding_header(strangled):
    found = sent(strangled, CLAIMED, trusted_proxies=["192.0.2.1"])
    assert not {n for n, _ in found} & {
        b"x-real-ip",
        b"x-original-url",
        b"x-rewrite-url",
        b"proxy",
        b"remote-user",
    }
