"""P8 under real servers: no spelling of a header makes a token, whatever a server makes of it; cookies stay here.

Servers fold names (`X_Id` is `X-Id` in an environ), join or drop doubled ones, take trailers for headers, and unfold
lines. What a server refuses is refused; what comes through has our token, or none.
"""

import contextlib
import json
import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from drivers.strangled import SECRET, strangled
from servers import DEADLINE, request, talk
from strangle_mw import Identity, IdentityTokens
from strangle_mw.identity import Verifier
from strangle_mw.identity.minting import make_minter

ORDERS = Verifier("orders", secrets=SECRET)
TOKENS = IdentityTokens(secrets={"orders": SECRET})
GOOD = make_minter(TOKENS, ["orders"]).minter.mint("orders", Identity("root"), "GET", b"/who/x", b"").decode()
"""A token that is good for the very request that carries it, but for the client that does."""
NAME = "Strangle-Identity"
CHUNKED = [("Transfer-Encoding", "chunked"), ("Trailer", NAME)]
TRAILER = f"2\r\nhi\r\n0\r\n{NAME}: {GOOD}\r\n\r\n".encode()
SPOOFS = {
    "plain": [(NAME, GOOD)],
    "lower case": [("strangle-identity", GOOD)],
    "upper case": [("STRANGLE-IDENTITY", GOOD)],
    "underscore": [("strangle_identity", GOOD)],
    "dot": [("STRANGLE.IDENTITY", GOOD)],
    "in every spelling": [(NAME, GOOD), ("Strangle_Identity", GOOD), ("strangle.identity", GOOD)],
    "twice": [(NAME, GOOD), (NAME, GOOD)],
    "first empty": [(NAME, ""), (NAME, GOOD)],
    "nominated": [("Connection", NAME), (NAME, GOOD)],
    "nominated in another spelling": [("Connection", "strangle_identity"), ("strangle_identity", GOOD)],
    "a blank before the colon": [(f"{NAME} ", GOOD)],
    "a tab before the colon": [(f"{NAME}\t", GOOD)],
    "a folded value": [(NAME, f"\r\n {GOOD}")],
    "in a folded line": [("X-A", f"1\r\n {NAME}: {GOOD}")],
    "behind a bare line feed": [("X-A", f"1\n{NAME}: {GOOD}")],
    "behind a bare return": [("X-A", f"1\r{NAME}: {GOOD}")],
    "a letter that is none": [("Strangle\xadIdentity", GOOD)],
    "the name of CGI": [("HTTP_STRANGLE_IDENTITY", GOOD)],
    "a trailer": CHUNKED,
    "a trailer that is nominated": [*CHUNKED, ("Connection", NAME)],
}
ASKED = {"7": ("/who/x", [("X-User", "7")]), None: ("/who/x", []), "not told": ("/m/x", [("X-User", "7")])}


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def wsgiref(echo):
    """The server of the standard library, which joins nothing and folds everything."""
    from drivers.strangled import wsgi

    app = strangled(wsgi, echo.address)
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(DEADLINE)
    app.engine.close()


@pytest.fixture(scope="module")
def reference(echo):
    with wsgiref(echo) as port:
        yield port


def canonical(name):
    return name.lower().replace("_", "-").replace(".", "-")


def ask(port, echo, target, headers, method="GET", body=b""):
    """Return what the upstream was told, None if the server or we refused; nothing in between may happen."""
    before = echo.requests
    reply = talk(port, request(method, target, headers, body))
    if reply.status == 200:
        assert echo.requests == before + 1
        return reply.json()["headers"]
    assert 400 <= reply.status < 500 or reply.status == 501, reply
    assert echo.requests == before
    return None


def assert_nobody_is_named_but_by_us(port, echo, spoof):
    method, body = ("POST", TRAILER) if CHUNKED[0] in spoof else ("GET", b"")
    for user, (target, headers) in ASKED.items():
        for fields in ([*headers, *spoof], [*spoof, *headers]):
            told = ask(port, echo, target, fields, method, body)
            if told is None:
                continue
            tokens = [v for n, v in told if canonical(n).startswith("strangle-")]
            # wsgiref ends the headers at a line that is none: what stands behind it says nothing.
            assert len(tokens) == (user == "7") or (tokens == [] and fields[0] in spoof)
            assert not [v for n, v in told if canonical(n) == canonical(NAME) and GOOD in v]
            for token in tokens:
                assert ORDERS.verify(token, method=method, path="/who/x").subject == "7"
    told = ask(port, echo, *ASKED["7"])
    assert [canonical(n) for n, _ in told].count("strangle-identity") == 1


@pytest.mark.parametrize("spoof", SPOOFS.values(), ids=SPOOFS)
def test_a_client_names_nobody(server, echo, spoof):
    assert_nobody_is_named_but_by_us(server, echo, spoof)


@pytest.mark.parametrize("spoof", SPOOFS.values(), ids=SPOOFS)
def test_a_client_names_nobody_under_wsgiref(reference, echo, spoof):
    assert_nobody_is_named_but_by_us(reference, echo, spoof)


OWN = "sessionid=secret"
COOKIES = {
    "alone": [("Cookie", OWN)],
    "among others": [("Cookie", f"a=1; {OWN}; b=2; csrftoken=secret")],
    "no blanks": [("cookie", f"a=1;{OWN};b=2")],
    "odd blanks": [("COOKIE", "a=1; \t sessionid \t= secret ; b=2")],
    "quoted": [("Cookie", 'a=1; sessionid="secret"; b="2"')],
    "in quotes": [("Cookie", f'a="1; {OWN}; b"')],
    "two headers": [("Cookie", "a=1"), ("Cookie", OWN)],
    "two headers, ours first": [("Cookie", OWN), ("Cookie", "a=1")],
    "three headers": [("Cookie", "a=1"), ("Cookie", f"b=2; {OWN}"), ("Cookie", "csrftoken=secret; c=3")],
    "folded": [("Cookie", f"a=1;\r\n {OWN}")],
}


def assert_session_cookies_stay_here(port, echo, cookies):
    told = ask(port, echo, "/who/x", [("X-User", "7"), *cookies])
    if told is not None:
        found = [f for f in told if canonical(f[0]) != canonical(NAME)]
        assert "secret" not in json.dumps(found)
        if cookies == COOKIES["among others"]:
            assert ["cookie", "a=1; b=2"] in found


@pytest.mark.parametrize("cookies", COOKIES.values(), ids=COOKIES)
def test_session_cookies_stay_here(server, echo, cookies):
    assert_session_cookies_stay_here(server, echo, cookies)


@pytest.mark.parametrize("cookies", COOKIES.values(), ids=COOKIES)
def test_session_cookies_stay_here_under_wsgiref(reference, echo, cookies):
    assert_session_cookies_stay_here(reference, echo, cookies)
