"""P18: logs hold no query, no credentials and no control bytes, whatever the request holds."""

import asyncio
import logging

import pytest

from strangle_mw import Route, strangle
from test_asgi import Client, http, legacy
from test_wsgi import call, environ
from test_wsgi import legacy as wsgi_legacy

SECRETS = ("s3cret", "t0ken", "pa55")
ROUTES = [Route("/m/*", to="http://127.0.0.1:1", fallback="off")]


def told(caplog):
    return "\n".join(r.getMessage() for r in caplog.records)


@pytest.mark.parametrize("path", ["/m/x", "/m/../x", "/m/%0a%1b[31m"])
def test_wsgi(caplog, path):
    caplog.set_level(logging.DEBUG)
    asked = environ(
        path,
        RAW_URI=path,
        QUERY_STRING="token=t0ken",
        HTTP_AUTHORIZATION="Basic s3cret",
        HTTP_COOKIE="a=pa55",
    )
    call(strangle(wsgi_legacy, ROUTES), asked)
    assert "127.0.0.1" in told(caplog) or "400" in told(caplog)
    assert not any(s in told(caplog) for s in SECRETS)
    assert "\x1b" not in told(caplog)


def test_asgi(caplog):
    caplog.set_level(logging.DEBUG)
    headers = [(b"authorization", b"Basic s3cret"), (b"cookie", b"a=pa55")]
    scope = {**http("/m/x"), "query_string": b"token=t0ken", "headers": headers}

    async def run():
        client = Client()
        await strangle(legacy([]), ROUTES)(scope, client.receive, client.send)
        assert client.status == 502

    asyncio.run(run())
    assert "upstream-connect" in told(caplog)
    assert not any(s in told(caplog) for s in SECRETS)


def test_user_info_cannot_reach_a_log_because_it_is_refused():
    with pytest.raises(Exception, match="must not hold a user name or password"):
        strangle(wsgi_legacy, [Route("/m", to="http://u:p@h")])
