"""Forwarding under every supported server, over real sockets: the same table of requests for all of them."""

import hashlib

import pytest

from servers import ASGI, connect, read_reply, request, talk


def told(server, method, target, headers=(), body=b"", **more):
    """What the upstream received, with its headers in lower case."""
    reply = talk(server, request(method, target, headers, body, **more))
    assert reply.status == 200, reply
    found = reply.json()
    found["headers"] = [(n.lower(), v) for n, v in found["headers"]]
    return found


def names(found):
    return [n for n, _ in found["headers"]]


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/m/a%2Fb//c?q=a+b&e&z=%zz", None),
        ("/m/caf%C3%A9/~x;v=1?", "/m/caf%C3%A9/~x;v=1"),
        ("/m", None),
        ("/m/?", "/m/"),
        ("/api/x?a=b", "/x?a=b"),
        ("/api", "/"),
        ("/re/%41b", "/new/%41b/x"),
        ("/only-get?x", None),
    ],
)
def test_the_target_arrives_byte_for_byte(server, target, sent):
    assert told(server, "GET", target)["line"] == f"GET {sent or target} HTTP/1.1"


def test_a_request_without_body_has_no_framing(server):
    found = told(server, "GET", "/m/x")
    assert not {"content-length", "transfer-encoding"} & set(names(found))
    assert found["length"] == 0


def test_nothing_is_added_but_ours(server):
    found = told(server, "GET", "/m/x", [("X-Mine", "1")])
    ours = {"host", "x-mine", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "via"}
    assert set(names(found)) == ours
    fields = dict(found["headers"])
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert fields["x-forwarded-host"] == "h.example"
    assert fields["x-forwarded-proto"] == "http"


def test_hop_by_hop_and_nominated_headers_stay_behind(server):
    sent = [
        ("X-Hop", "1"),
        ("Connection", "X-Hop"),
        ("Keep-Alive", "x"),
        ("TE", "trailers"),
        ("Proxy-Authorization", "Basic x"),
        ("Upgrade", "foo"),
    ]
    found = told(server, "GET", "/m/x", [*sent, ("X-Keep", "")])
    assert not {"x-hop", "connection", "keep-alive", "te", "proxy-authorization", "upgrade"} & set(
        names(found)
    )
    assert ("x-keep", "") in found["headers"]


def test_forwarding_headers_of_the_client_are_replaced(server):
    sent = [
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Forwarded-Host", "evil"),
        ("Forwarded", "for=6.6.6.6"),
        ("X-Real-IP", "6.6.6.6"),
        ("Via", "1.1 theirs"),
    ]
    found = told(server, "GET", "/m/x", sent)
    assert "6.6.6.6" not in str(found["headers"])
    assert "evil" not in str(found["headers"])
    assert ("via", "1.1 theirs") in found["headers"]


def test_the_host_is_the_upstreams_unless_preserved(server, echo):
    assert ("host", f"127.0.0.1:{echo.port}") in told(server, "GET", "/m/x")["headers"]
    assert ("host", "h.example") in told(server, "GET", "/preserve")["headers"]


def test_header_rules(server):
    found = told(server, "GET", "/rules", [("Cookie", "a=1"), ("X-Team", "old")])
    assert ("x-team", "t") in found["headers"]
    assert "cookie" not in names(found)
    reply = talk(server, request("GET", "/rules/cookies"))
    assert reply.header("x-made") == "1"
    assert reply.header("x-empty") is None


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1_000_000])
def test_a_body_with_length_arrives_whole(server, size):
    body = b"b" * size
    found = told(server, "POST", "/m/up", [("Content-Length", str(size))], body)
    assert (found["length"], found["sha256"]) == (size, hashlib.sha256(body).hexdigest())
    assert dict(found["headers"])["content-length"] == str(size)
    assert "transfer-encoding" not in names(found)


@pytest.mark.parametrize("sizes", [[0], [5], [5, 100_000, 1], [70_000] * 10], ids=str)
def test_a_chunked_body_arrives_whole(server, sizes):
    chunks = b"".join(b"%x\r\n%b\r\n" % (n, b"c" * n) for n in sizes if n) + b"0\r\n\r\n"
    found = told(server, "POST", "/m/up", [("Transfer-Encoding", "chunked")], chunks)
    assert found["length"] == sum(sizes)
    assert found["sha256"] == hashlib.sha256(b"c" * sum(sizes)).hexdigest()


def test_every_header_of_an_answer_arrives(server):
    reply = talk(server, request("GET", "/m/cookies"))
    assert reply.status == 201
    assert reply.all("set-cookie") == ["a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2"]
    assert reply.header("x-empty") == ""
    assert reply.header("x-hop") is None
    assert reply.header("keep-alive") is None
    assert reply.header("content-length") == "2"
    assert reply.body == b"ok"


def test_date_and_server_are_the_servers_own_and_never_doubled(server):
    reply = talk(server, request("GET", "/m/cookies"))
    assert len(reply.all("date")) <= 1
    assert len(reply.all("server")) <= 1
    assert "then" not in reply.all("date")
    assert "echo" not in reply.all("server")


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [("none", 204, b""), ("unchanged", 304, b""), ("chunked", 200, b"hello world"), ("early", 200, b"ok"), ("noreason", 299, b""), ("untilclose", 200, b"until the end")],
)  # fmt: skip
def test_kinds_of_answers(server, name, status, body):
    reply = talk(server, request("GET", f"/m/{name}"))
    assert (reply.status, reply.body, reply.complete) == (status, body, True)


@pytest.mark.parametrize("name", ["x", "cookies", "chunked", "none", "unchanged"])
def test_head_has_no_body(server, name):
    reply = talk(server, request("HEAD", f"/m/{name}"))
    assert reply.status in (200, 201, 204, 304)
    # waitress ends any HEAD answer without a length with a last chunk, whatever the app returns.
    assert reply.body == b"" or (server.name, name, reply.body) == ("waitress", "chunked", b"0\r\n\r\n")


def test_a_big_answer_streams_through(server):
    reply = talk(server, request("GET", "/m/big"))
    assert reply.complete
    assert len(reply.body) == 3_000_000


def test_events_arrive_at_once_and_the_client_leaving_ends_the_upstream(server, echo):
    # A thread cannot watch its client (PEP 3333 gives no means): there the idle timeout of /quick ends it.
    watched = server.name in ASGI
    echo.client_left.clear()
    with connect(server) as sock:
        sock.sendall(request("GET", "/m/events" if watched else "/quick/events"))
        data = b""
        while b"data: 1" not in data:
            data += sock.recv(1000)
        if watched:
            assert not echo.client_left.is_set()
    assert echo.client_left.wait(10)


@pytest.mark.parametrize("name", ["cutlength", "cutchunks"])
def test_a_cut_answer_stays_cut(server, name):
    reply = talk(server, request("GET", f"/m/{name}"))
    assert reply.status == 200
    assert not reply.complete


FAILURES = {
    "refused": ("/dead/x", 502, "upstream-connect"),
    "closed before the head": ("/m/nothing", 502, "upstream-head"),
    "closed in the head": ("/m/cuthead", 502, "upstream-head"),
    "garbage": ("/m/garbage", 502, "upstream-head"),
    "two lengths": ("/m/twolengths", 502, "upstream-head"),
    "switching protocols": ("/m/switch", 502, "upstream-head"),
    "no head in time": ("/quick/stall", 504, "upstream-head"),
}


@pytest.mark.parametrize(("target", "status", "reason"), FAILURES.values(), ids=FAILURES)
def test_failures_are_told_as_problems(server, target, status, reason):
    reply = talk(server, request("GET", target))
    assert reply.status == status
    assert reply.header("content-type") == "application/problem+json"
    assert reply.header("cache-control") == "no-store"
    assert reply.json()["type"] == f"urn:strangle-mw:{reason}"
    assert "127.0.0.1" not in reply.body.decode()


def test_an_idle_answer_is_cut(server):
    reply = talk(server, request("GET", "/quick/events"))
    assert reply.status == 200
    assert not reply.complete


def test_redirect_and_respond(server):
    assert talk(server, request("GET", "/old/a?b=c")).header("location") == "/new/a?b=c"
    gone = talk(server, request("GET", "/gone"))
    assert (gone.status, gone.body) == (410, b"gone")
    assert talk(server, request("HEAD", "/gone")).body == b""


@pytest.mark.parametrize(
    ("method", "target", "headers", "host"),
    [
        ("POST", "/only-get", [("Content-Length", "0")], "h"),
        ("GET", "/hosted", [], "other.example"),
        ("GET", "/beta", [("X-Beta", "2")], "h"),
        ("GET", "/ma", [], "h"),
        ("GET", "/", [], "h"),
    ],
)
def test_what_no_route_names_is_legacys(server, method, target, headers, host):
    assert talk(server, request(method, target, headers, host=host)).json()["from"] == "legacy"


def test_hosts_and_headers_decide(server):
    assert told(server, "GET", "/hosted", host="M.Example:80")["line"] == "GET /hosted HTTP/1.1"
    assert told(server, "GET", "/beta", [("X-Beta", "1")])["line"] == "GET /beta HTTP/1.1"


def test_upstream_connections_are_used_again(server, echo):
    told(server, "GET", "/m/x")
    before = echo.connections
    for _ in range(5):
        told(server, "GET", "/m/x")
    assert echo.connections - before <= 1


def test_many_requests_on_one_client_connection(server):
    with connect(server) as sock:
        for number in range(3):
            try:
                sock.sendall(request("GET", f"/m/{number}", close=False))
                reply = read_reply(sock)
            except ConnectionError:
                assert number, "the first request must be answered"
                return  # a sync worker closes after each answer
            assert f"/m/{number}" in reply.json()["line"]


def refused(server, head, body):
    """Send a body that is too large, as far as the server takes it; return the status, None if it was cut."""
    with connect(server) as sock:
        try:
            sock.sendall(head)
            sock.sendall(body)
        except ConnectionError:
            pass  # it stopped reading; its answer may be there
        try:
            return read_reply(sock).status
        except ConnectionError:
            return None


def test_a_chunked_body_over_the_limit_is_refused(server):
    chunks = (b"10000\r\n" + b"x" * 65_536 + b"\r\n") * 170 + b"0\r\n\r\n"
    assert refused(server, request("POST", "/m/up", [("Transfer-Encoding", "chunked")]), chunks) in (
        413,
        None,
    )


def test_a_declared_length_over_the_limit_is_refused_before_anything_is_sent(server, echo):
    before = echo.requests
    assert refused(server, request("POST", "/m/up", [("Content-Length", "10000001")]), b"x" * 10_000_001) in (
        413,
        None,
    )
    assert echo.requests == before
