"""P5: every message sent upstream has one Host, one framing, token names, no control bytes, origin form.

Whatever a client sends through whichever server: the upstream gets a well-formed request or none.
"""

import re
import socket

import pytest

from servers import connect, read_reply, request, talk

HOSTILE = {
    "both framings": b"POST /m/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both framings, other order": b"POST /m/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /m/x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "the same length twice": b"POST /m/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "unknown coding": b"POST /m/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "signed length": b"POST /m/x HTTP/1.1\r\nHost: h\r\nContent-Length: +2\r\n\r\nab",
    "two hosts": b"GET /m/x HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
    "host with a path": b"GET /m/x HTTP/1.1\r\nHost: h/a?b\r\n\r\n",
    "control byte in a value": b"GET /m/x HTTP/1.1\r\nHost: h\r\nX: a\x01b\r\n\r\n",
    "NUL in a value": b"GET /m/x HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
    "bare CR in a value": b"GET /m/x HTTP/1.1\r\nHost: h\r\nX: a\rY: b\r\n\r\n",
    "bare LF": b"GET /m/x HTTP/1.1\nHost: h\nX: a\n\n",
    "folded": b"GET /m/x HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
    "blank before the colon": b"POST /m/x HTTP/1.1\r\nHost: h\r\nContent-Length : 2\r\n\r\nab",
    "fragment": b"GET /m/x#y HTTP/1.1\r\nHost: h\r\n\r\n",
    "control byte in the target": b"GET /m/x\x01 HTTP/1.1\r\nHost: h\r\n\r\n",
    "odd method": b"GE(T /m/x HTTP/1.1\r\nHost: h\r\n\r\n",
    "trailers": b"POST /m/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n1\r\na\r\n0\r\nX-T: 1\r\n\r\n",
    "chunk extension": b"POST /m/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\n\r\n",
    "upgrade": b"GET /m/x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: foo\r\nHTTP2-Settings: x\r\n\r\n",
    "expect": b"POST /m/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nab",
}


# They wait for the end of a head that has no line end they know; nobody is to wait with them.
PATIENT = ("daphne", "waitress")


def attempt(server, asked):
    with connect(server, timeout=2) as sock:
        sock.sendall(asked)
        if server.name in PATIENT and asked == HOSTILE["bare LF"]:
            sock.shutdown(socket.SHUT_WR)
        try:
            return read_reply(sock)
        except (OSError, ValueError, IndexError):
            return None


def well_formed(told, upstream):
    """Judge what the upstream received: request line and headers, as bytes on the wire."""
    assert re.fullmatch(r"[A-Z(]+ /[!-~]* HTTP/1\.1", told["line"])
    names = [n.lower() for n, _ in told["headers"]]
    assert [v for n, v in told["headers"] if n.lower() == "host"] == [f"127.0.0.1:{upstream.port}"]
    assert names.count("content-length") + names.count("transfer-encoding") <= 1
    assert all(re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9a-z]+", n) for n in names)
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f]", "".join(v for _, v in told["headers"]))
    assert not {"connection", "upgrade", "http2-settings", "expect", "trailer", "te", "x-t"} & set(names)


@pytest.mark.parametrize("asked", HOSTILE.values(), ids=HOSTILE)
def test_the_upstream_gets_a_well_formed_request_or_none(server, echo, asked):
    reply = attempt(server, asked)
    if reply is not None and reply.status == 200:
        well_formed(reply.json(), echo)
    else:
        assert reply is None or 400 <= reply.status < 506
    # the server is there, and the connection to the upstream carries nobody else's bytes
    assert talk(server, request("GET", "/m/after")).json()["line"] == "GET /m/after HTTP/1.1"
