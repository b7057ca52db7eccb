"""P2: the target at the upstream is the client's bytes after the documented rewrite, nothing else."""

from urllib.parse import quote, unquote

import pytest

from servers import request, talk

PATHS = [
    "/m/%41%7e",
    "/m/%e2%82%ac",
    "/m/%E2%82%AC",
    "/m/a+b",
    "/m/a%20b",
    "/m/a;v=1",
    "/m/'()*!$&,=:@",
    "/m/%25",
    "/m/%2525",
]
QUERIES = [
    "",
    "?",
    "?a=b&a=c&d",
    "?q=%zz&%",
    "?a=%2F&b=/../",
    "?a=b?c",
    "?%41",
    "?a+b=c+d",
    "?x=%00",
    "?=&&=",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_byte_of_a_path_changes(server, path):
    # granian (WSGI) tells the decoded path only: it is quoted once.
    sent = quote(unquote(path), safe="/!$&'()*+,;=:@~") if server.name == "granian-wsgi" else path
    assert talk(server, request("GET", path)).json()["line"] == f"GET {sent} HTTP/1.1"


@pytest.mark.parametrize("query", QUERIES)
def test_no_byte_of_a_query_changes(server, query):
    sent = "" if query == "?" else query  # no server tells an empty query from none
    assert talk(server, request("GET", "/m/x" + query)).json()["line"] == f"GET /m/x{sent} HTTP/1.1"
