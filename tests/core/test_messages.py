"""Header hygiene of design section 5, towards the upstream; framing; conditions' view of a head."""

import json

import pytest

from strangle_mw import HeaderRules
from strangle_mw.core.hygiene import (
    CHUNKED,
    HOP_BY_HOP,
    UNDECLARED,
    HeaderPlan,
    Hygiene,
    TrustedPeers,
    forward_headers,
    read_fields,
)
from strangle_mw.core.messages import Refused, RequestHead, check_target, normalize_host, problem

MARKER = b"strangle-0123"
OURS = [
    (b"x-forwarded-for", b"192.0.2.1"),
    (b"x-forwarded-host", b"h.example"),
    (b"x-forwarded-proto", b"https"),
    (b"forwarded", b'for=192.0.2.1;host="h.example";proto=https'),
    (b"via", b"1.1 " + MARKER),
    (b"x-request-id", b"0" * 32),
]
HOST = (b"host", b"h.example")


def sent(*headers, rules=None, allowed=(), trusted=frozenset(), peer="192.0.2.1", prefix=b"", version="1.1"):
    head = RequestHead("POST", b"/", b"", [HOST, *headers], "https", peer, http_version=version)
    hygiene = Hygiene(MARKER, frozenset(allowed), trusted)
    fields, length, _ = forward_headers(head, hygiene, HeaderPlan.compile(rules or HeaderRules()), prefix)
    kept = read_fields(fields)
    assert fields == b"".join(b"%b: %b\r\n" % h for h in kept) + b"\r\n"
    return kept, length


def passed(*headers, **more):
    """What of the client's own headers arrives."""
    kept, _ = sent(*headers, **more)
    return [h for h in kept if h not in OURS]


def test_ours_come_last_and_host_is_left_to_the_sender():
    kept, length = sent((b"accept", b"*/*"))
    assert kept == [(b"accept", b"*/*"), *OURS]
    assert length == 0


def test_order_duplicates_and_empty_values_are_kept():
    headers = [
        (b"x-a", b"1"),
        (b"accept", b""),
        (b"x-b", b"2"),
        (b"x-a", b"3"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
    ]
    assert passed(*headers) == headers


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP - {b"transfer-encoding"}))
def test_hop_by_hop_is_removed(name):
    assert passed((name, b"x"), (b"accept", b"1")) == [(b"accept", b"1")]


@pytest.mark.parametrize(
    "connection", [b"X-Secret", b"close, x-secret", b"keep-alive,X-SECRET ,", b"x-other, \tx-secret"]
)
def test_nominated_headers_are_removed(connection):
    assert passed((b"x-secret", b"1"), (b"connection", connection)) == []


def test_nomination_reads_every_connection_header():
    assert passed((b"connection", b"close"), (b"x-secret", b"1"), (b"connection", b"x-secret")) == []


def test_announced_trailers_are_removed():
    # uvicorn with httptools appends trailers to the headers when both arrive in one segment.
    assert passed((b"trailer", b"X-T"), (b"x-t", b"1"), (b"x-u", b"2")) == [(b"x-u", b"2")]


def test_nomination_removes_neither_framing_nor_ours():
    kept, length = sent((b"connection", b"content-length, x-forwarded-for, via"), (b"content-length", b"5"))
    assert kept == [(b"content-length", b"5"), *OURS]
    assert length == 5


SPELLINGS = [
    "X-Forwarded-For",
    "x_forwarded_for",
    "X.Forwarded.For",
    "X-Forwarded-Port",
    "X_Forwarded-Anything",
    "Forwarded",
]
SPELLINGS += [
    "X-Real-IP",
    "X_Real_IP",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X.Rewrite-URL",
    "Proxy",
    "Remote-User",
    "REMOTE_USER",
]
SPELLINGS += [
    "Strangle-Identity",
    "strangle_identity",
    "STRANGLE.Shadow",
    "Transfer_Encoding",
    "Content.Length",
    "Connection_"[:-1],
]


@pytest.mark.parametrize("name", SPELLINGS)
def test_protected_names_are_removed_in_every_spelling(name):
    assert passed((name.encode(), b"6.6.6.6"), allowed=[name.lower().encode()]) == []


@pytest.mark.parametrize("name", [b"x_id", b"x.id", b"x_a.b"])
def test_names_with_underscore_or_dot_pass_only_if_allowed(name):
    assert passed((name, b"1")) == []
    assert passed((name, b"1"), allowed=[name]) == [(name, b"1")]


def test_forwarding_headers_are_appended_for_a_trusted_peer_only():
    from ipaddress import ip_network

    inbound = [
        (b"x-forwarded-for", b"203.0.113.9"),
        (b"x-forwarded-proto", b"http"),
        (b"x-forwarded-port", b"80"),
    ]
    trusted = TrustedPeers((ip_network("192.0.2.0/24"),))
    kept = dict(sent(*inbound, trusted=trusted)[0])
    assert kept[b"x-forwarded-for"] == b"203.0.113.9, 192.0.2.1"
    assert kept[b"x-forwarded-proto"] == b"http"
    assert kept[b"x-forwarded-port"] == b"80"
    assert kept[b"x-forwarded-host"] == b"h.example"
    assert sent(*inbound, trusted=TrustedPeers((ip_network("198.51.100.0/24"),)))[0] == OURS


def test_an_ipv6_peer_is_quoted_as_rfc_7239_wants():
    assert (
        dict(sent(peer="2001:db8::1")[0])[b"forwarded"] == b'for="[2001:db8::1]";host="h.example";proto=https'
    )


def test_a_peer_without_address_is_unknown():
    kept = dict(sent(peer="")[0])
    assert b"x-forwarded-for" not in kept
    assert kept[b"forwarded"].startswith(b"for=unknown;")


def test_a_stripped_prefix_is_told():
    assert dict(sent(prefix=b"/api")[0])[b"x-forwarded-prefix"] == b"/api"


def test_rules_run_after_hygiene_and_before_ours():
    rules = HeaderRules(set={"X-Set": "new"}, add={"X-Add": "2"}, remove=["X-Gone"])
    headers = [(b"x-set", b"old"), (b"x-add", b"1"), (b"x-gone", b"1"), (b"connection", b"x-set")]
    kept, _ = sent(*headers, rules=rules)
    assert kept == [(b"x-add", b"1"), (b"x-set", b"new"), (b"x-add", b"2"), *OURS]


@pytest.mark.parametrize(
    "header", [(b"x%b", b"1"), (b"x%", b"%b%s"), (b"x", b": "), (b"x", b"a: b"), (b"x:"[:1], b"")]
)
def test_odd_but_legal_headers_arrive_as_they_came(header):
    assert passed((b"accept", b"1"), header) == [(b"accept", b"1"), header]


FRAMINGS = [
    ([], 0),
    ([(b"content-length", b"0")], 0),
    ([(b"content-length", b"17")], 17),
    ([(b"transfer-encoding", b"chunked")], CHUNKED),
    ([(b"transfer-encoding", b" Chunked ")], CHUNKED),
]


@pytest.mark.parametrize(("headers", "length"), FRAMINGS)
def test_one_framing(headers, length):
    kept, found = sent(*headers)
    assert found == length
    assert (b"transfer-encoding" in dict(kept)) is False


def test_http_2_says_nothing_about_a_body():
    assert sent(version="2")[1] == UNDECLARED


REFUSED = {
    "two lengths": (400, [(b"content-length", b"1"), (b"content-length", b"1")]),
    "a list of lengths": (400, [(b"content-length", b"1, 1")]),
    "both framings": (400, [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")]),
    "unknown coding": (400, [(b"transfer-encoding", b"gzip")]),
    "coding list": (400, [(b"transfer-encoding", b"gzip, chunked")]),
    "coding twice": (400, [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")]),
    "signed length": (400, [(b"content-length", b"+1")]),
    "negative length": (400, [(b"content-length", b"-1")]),
    "hex length": (400, [(b"content-length", b"0x1")]),
    "empty length": (400, [(b"content-length", b"")]),
    "other digits": (400, [(b"content-length", "\u0661".encode())]),
    "endless length": (400, [(b"content-length", b"9" * 40)]),
    "two hosts": (400, [(b"host", b"h.example")]),
    "line feed in a value": (400, [(b"x", b"1\n2")]),
    "carriage return in a value": (400, [(b"x", b"1\r2")]),
    "NUL in a value": (400, [(b"x", b"1\x002")]),
    "control byte in a dropped header": (400, [(b"keep-alive", b"\x01")]),
    "blank in a name": (400, [(b"x y", b"1")]),
    "empty name": (400, [(b"", b"1")]),
    "colon in a name": (400, [(b"x:", b"1")]),
    "coding under HTTP/1.0": (400, [(b"transfer-encoding", b"chunked")]),
    "our own marker": (508, [(b"via", b"1.0 fred, 1.1 " + MARKER)]),
}


@pytest.mark.parametrize(("status", "headers"), REFUSED.values(), ids=REFUSED)
def test_refused(status, headers):
    with pytest.raises(Refused) as caught:
        sent(*headers, version="1.0" if headers == [(b"transfer-encoding", b"chunked")] else "1.1")
    assert caught.value.status == status


@pytest.mark.parametrize(
    "host", [b"a b", b"a/b", b"a?x", b"a#x", b"u@h", b"a\\b", b"h:80:80", b"[::1", b"h:x"]
)
def test_an_unusable_host_is_refused(host):
    with pytest.raises(Refused):
        forward_headers(RequestHead("GET", b"/", b"", [(b"host", host)]), Hygiene(MARKER))
    with pytest.raises(Refused):
        forward_headers(RequestHead("GET", b"/", b"", [], authority=host), Hygiene(MARKER))


def test_a_foreign_via_has_no_effect_and_stays():
    assert passed((b"via", b"1.1 strangle-ffff")) == [(b"via", b"1.1 strangle-ffff")]


@pytest.mark.parametrize(
    "target", [b"/a b", b"/a\r\nX: 1", b"/a#b", b"/a\x00", b"/a\x7f", b"/?q=a b", b"/?a#b"]
)
def test_a_target_that_ends_the_request_line_early_is_refused(target):
    with pytest.raises(Refused):
        check_target(target)


@pytest.mark.parametrize("target", [b"/a?b=%zz&&c", b"/caf\xc3\xa9", b'/a"<>|{}'])
def test_an_odd_target_passes_byte_for_byte(target):
    check_target(target)


@pytest.mark.parametrize(
    ("host", "name"),
    [("H.Example", "h.example"), ("h.example:80", "h.example"), ("h.example.", "h.example"), ("H.example.:8", "h.example"),
     ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", ""), ("h:", "h")],
)  # fmt: skip
def test_hosts_compare_without_port_case_and_final_dot(host, name):
    assert normalize_host(host) == name


def test_conditions_see_exact_names_and_joined_values():
    head = RequestHead("GET", b"/", b"a=1&a=2&b&c=%41+d", [(b"x-a", b" 1 "), (b"x_a", b"9"), (b"x-a", b"2")])
    assert head.header("X-A") == "1, 2"
    assert head.header("X-B") is None
    assert dict(head.query_params) == {"a": "1", "b": "", "c": "A d"}


def test_cookies():
    head = RequestHead("GET", b"/", b"", [(b"cookie", b'a=1; b="2"; a=3; bad'), (b"cookie", b"c=x=y")])
    assert dict(head.cookies) == {"a": "1", "b": "2", "c": "x=y"}


def test_the_target_authority_goes_before_host():
    head = RequestHead("GET", b"/", b"", [(b"host", b"other")], authority=b"H.example:80")
    assert head.host == "h.example"


@pytest.mark.parametrize("status", [400, 405, 411, 413, 502, 503, 504, 508])
def test_problem_is_rfc_9457_and_not_stored(status):
    headers, body = problem(status, "some-reason", "0123456789abcdef")
    fields = dict(headers)
    assert fields[b"content-type"] == b"application/problem+json"
    assert fields[b"cache-control"] == b"no-store"
    assert int(fields[b"content-length"]) == len(body)
    assert (b"retry-after" in fields) == (status == 503)
    assert (b"allow" in fields) == (status == 405)
    told = json.loads(body)
    assert told["status"] == status
    assert told["title"]
    assert told["request_id"] == "0123456789abcdef"
    assert told["type"] == "urn:strangle-mw:some-reason"


@pytest.mark.parametrize(
    "peer", ["6.6.6.6;proto=https", 'x";by=evil', "unknown", "host.example", "1.2.3.4, 5.6.7.8"]
)
def test_a_peer_that_is_no_address_is_told_to_nobody(peer):
    kept = dict(sent(peer=peer)[0])
    assert b"x-forwarded-for" not in kept
    assert kept[b"forwarded"].startswith(b"for=unknown;")


def test_an_ipv4_peer_on_a_dual_stack_socket_is_known():
    from ipaddress import ip_network

    assert "::ffff:10.0.0.1" in TrustedPeers((ip_network("10.0.0.0/8"),))


@pytest.mark.parametrize(
    "asked", [b"a", b"9f86d081-884c", b"Root=1-67891233-abcdef012345678912345678", b"x" * 128]
)
def test_a_request_id_that_the_client_brings_is_kept(asked):
    kept, _ = sent((b"x-request-id", asked))
    assert [v for n, v in kept if n == b"x-request-id"] == [asked]


@pytest.mark.parametrize("asked", [b"", b"a b", b'"', b"<script>", b"x" * 129, b"\xff", b"a,b", b"a\tb"])
def test_a_request_id_that_could_do_harm_is_replaced(asked):
    kept, _ = sent((b"x-request-id", asked))
    assert [v for n, v in kept if n == b"x-request-id"] == [b"0" * 32]


def test_of_two_request_ids_the_first_counts_and_one_is_sent():
    kept, _ = sent((b"x-request-id", b"one"), (b"x-request-id", b"two"), (b"x_request_id", b"three"))
    assert [v for n, v in kept if n.startswith(b"x")][-1] == b"one"
    assert sum(n == b"x-request-id" for n, _ in kept) == 1


@pytest.mark.parametrize(("version", "cookies"), [("2", [b"a=1; b=2; c=3"]), ("1.1", [b"a=1", b"b=2; c=3"])])
def test_cookies_that_http_2_has_split_are_joined(version, cookies):
    split = [(b"cookie", b"a=1"), (b"x-b", b"2"), (b"cookie", b"b=2; c=3")]
    kept, _ = sent(*split, version=version)
    assert [v for n, v in kept if n == b"cookie"] == cookies
    assert [n for n, _ in kept if n in (b"cookie", b"x-b")][:2] == [b"cookie", b"x-b"]
