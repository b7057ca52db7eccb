"""P1: a request is forwarded only if every standard reading of its path selects the same route.

The law over random paths and tables is in tests/laws/test_paths.py; here every class of attack goes through
real servers, and the upstream is asked whether anything arrived.
"""

import pytest

from servers import request, talk

ATTACKS = {
    "dot segments": "/m/../x",
    "encoded dot segments": "/m/%2e%2e/x",
    "half-encoded dot segments": "/m/.%2e/x",
    "encoded slash": "/m%2fx",
    "encoded slash and dots": "/m/..%2fx",
    "backslash": "/m\\..\\x",
    "encoded backslash": "/m/..%5cx",
    "empty segment": "//m/x",
    "parameters": "/m;a=b/x",
    "parameters on dots": "/m/..;/x",
    "encoded NUL": "/m%00/x",
    "overlong dots": "/m/%c0%ae%c0%ae/x",
    "overlong slash": "/m%c0%afx",
    "from outside": "/x/../m/y",
    "two of three steps": "/m/x%2f..%2f..%2fx%2fu%5c..%5c..%5cm%5cy",
}


@pytest.mark.parametrize("path", ATTACKS.values(), ids=ATTACKS)
def test_nothing_ambiguous_is_forwarded(server, echo, path):
    before = echo.requests
    reply = talk(server, request("GET", path))
    if (server.name, path) in (("waitress", "//m/x"), ("granian-wsgi", "/m%2fx")):
        # They show the wrapped app /m/x, and granian (WSGI) nothing else: that counts and is what is sent.
        assert reply.json()["line"] == "GET /m/x HTTP/1.1"
        return
    # Servers that hand on only one view of a path (and agree with the wrapped app on it) may make it legacy's.
    assert reply.status in (400, 200)
    if reply.status == 200:
        assert reply.json()["from"] == "legacy"
    elif (server.name, path) != ("cheroot", "//m/x"):  # cheroot takes it for an absolute URI
        assert reply.json()["type"].startswith("urn:strangle-mw:")
    assert echo.requests == before


@pytest.mark.parametrize("path", ["/a%2fb", "/a/../b", "/a//b", "/a;v=1", "/%c0%ae", "/a%00"])
def test_odd_paths_of_the_wrapped_app_stay_its_own(server, path):
    assert talk(server, request("GET", path)).json()["from"] == "legacy"
