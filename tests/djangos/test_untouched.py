"""What has no route: the project answers as it does without us (promise P4)."""

import re

import pytest

from djangos.ways import WAYS, project
from strangle_mw import Route

ROUTES = [Route("/m/*", to="http://127.0.0.1:1"), Route("/staged/*", to="http://127.0.0.1:1", stage="legacy")]
REQUESTS = [
    {"target": "/shop/hello/"},
    {"target": "/shop/hello/caf%C3%A9/"},
    {"target": "/shop/hello/caf%E9/"},
    {"target": "/awaited/"},
    {"target": "/stream/"},
    {"target": "/file/"},
    {"target": "/file/", "method": "HEAD"},
    {"target": "/away/"},
    {"target": "/missing/"},
    {"target": "/shop"},
    {"target": "/broken/"},
    {"target": "/who/"},
    {"target": "/visits/"},
    {"target": "/shop/hello/", "method": "POST", "body": [b"a=1"]},  # no CSRF token
    {"target": "/told/x", "body": [b"a=1&b=2"], "headers": ((b"content-type", b"application/x-www-form-urlencoded"),)},
    {"target": "/upload/", "body": [b"x" * 100_000]},
    {"target": "/staged/x"},
    {"target": "/shop/hello/", "headers": ((b"host", b"evil.example"),)},
]  # fmt: skip


def answers(app):
    found = []
    for asked in REQUESTS:
        seen = app.ask(**asked)
        text = [(n, re.sub(rb"sessionid=\w+|expires=[^;]+|GMT", b"", v)) for n, v in seen.headers]
        found.append((asked["target"], seen.status, text, seen.body, seen.ended, repr(seen.error)))
    return found


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")  # Django, of itself
@pytest.mark.parametrize("way", WAYS)
def test_answers_are_the_same_with_and_without(way):
    with project(way, ROUTES, without=True) as bare:
        expected = answers(bare)
    with project(way, ROUTES) as app:
        assert answers(app) == expected
    assert {status for _, status, *_ in expected} >= {200, 299, 302, 400, 403, 404, 500}
