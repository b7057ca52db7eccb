"""P23: our own answers redirect nobody, reflect nothing, are not stored, and show no address or exception.

One thing of the request is told again, so that a client can find its request in the log: a request id, if it
is of an alphabet that means nothing in HTML, JSON or a log.
"""

import pytest

from servers import request, talk

MARK = "r3flected"
ASKED = {
    "bad gateway": f"/dead/{MARK}?{MARK}",
    "ambiguous": f"/m/../{MARK}",
    "timeout": f"/quick/{MARK}/stall",
}


@pytest.mark.parametrize("target", ASKED.values(), ids=ASKED)
def test_errors(server, target):
    reply = talk(server, request("GET", target, [("X-A", MARK)], host=f"{MARK}.example"))
    assert reply.status in (400, 502, 504)
    assert reply.header("content-type") == "application/problem+json"
    assert reply.header("cache-control") == "no-store"
    assert reply.header("location") is None
    text = reply.raw.decode("latin-1") + reply.body.decode()
    for secret in (MARK, "127.0.0.1", "Traceback", "Error:", "Errno"):
        assert secret not in text
    assert set(reply.json()) == {"type", "title", "status", "request_id"}


@pytest.mark.parametrize("target", [ASKED["bad gateway"], ASKED["ambiguous"]])
@pytest.mark.parametrize("asked", ["7f3a-B.c_d~e+f/g=:h", "<script>", '"', "a b", "x" * 129])
def test_only_a_harmless_request_id_is_told_again(server, target, asked):
    told = talk(server, request("GET", target, [("X-Request-ID", asked)])).json()["request_id"]
    if asked[0] == "7":
        assert told == asked
    else:
        assert len(told) == 32
        assert int(told, 16) >= 0


@pytest.mark.parametrize("path", ["/m", "/m/", "/api", "/M/x", "/only-get/"])
def test_no_slash_or_case_redirects(server, path):
    assert talk(server, request("GET", path)).status == 200


@pytest.mark.parametrize("path", ["/old//evil.example", "/old/%2fevil.example", "/old/\\evil.example"])
def test_a_configured_redirect_stays_on_this_site(server, path):
    reply = talk(server, request("GET", path))
    location = reply.header("location")
    assert location is None or location.startswith("/new/")
