"""P4: on the default route the wrapped app receives what it received without us, and so does the client.

The same bytes go to each server twice: with the bare app and with the strangled one. The answers must be
the same, dates aside; the app says in its answer everything that it was given.
"""

import re

import pytest

from servers import SERVERS, connect, serve

REQUESTS = {
    "get": b"GET /x?a=b&c HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "headers": b"GET /x HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nX-A: 2\r\nX_B: 3\r\nX-Empty:\r\nX-Forwarded-For: 6.6.6.6\r\nVia: 1.1 x\r\nCookie: a=1\r\nConnection: close\r\n\r\n",
    "post": b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nhello",
    "chunked": b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "head": b"HEAD /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "odd path": b"GET /a%2Fb//c/../d;e%00%ff?%zz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "absolute form": b"GET http://h/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "odd method": b"PURGE /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "http 1.0": b"GET /x HTTP/1.0\r\n\r\n",
    "both framings": b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab",
    "no host": b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n",
    "method of a route with another method": b"POST /only-get HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "host of no route": b"GET /hosted HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n",
}  # fmt: skip


@pytest.fixture(scope="module", params=SERVERS)
def pair(request, started):
    """The same server twice: bare and strangled."""
    with serve(request.param, "drivers.strangled") as bare:
        yield bare, started(request.param)


def everything(port, asked):
    """Send raw bytes and read to the end of the connection; dates, ports and what came before are blotted out."""
    with connect(port) as sock:
        sock.sendall(asked)
        data = b""
        try:
            while more := sock.recv(65536):
                data += more
        except ConnectionResetError:
            pass
    data = re.sub(rb"(?i)date: [^\r]*", b"date:", data)
    data = re.sub(rb'"left": \d+', b'"left":', data)
    return data.replace(str(port).encode(), b"PORT")


@pytest.mark.parametrize("asked", REQUESTS.values(), ids=REQUESTS)
def test_the_same_with_and_without_the_middleware(pair, asked):
    bare, strangled = pair
    assert everything(strangled, asked) == everything(bare, asked)
