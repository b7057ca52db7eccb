"""Django's own ways to test a project: both clients and the live server."""

import asyncio
import http.client
import pickle
from typing import ClassVar

import pytest
from django.test import AsyncClient, Client, LiveServerTestCase, override_settings

from django_settings import BEFORE, OURS
from echo import Echo
from strangle_mw import Route
from strangle_mw.django import engine

MIDDLEWARE = [*BEFORE, OURS]


def table(address):
    return {
        "ROUTES": [
            Route("/m/*", to=address),
            Route("/down/*", to="http://127.0.0.1:1"),
            Route("/canary/*", to=address, stage="canary", weight=50),
        ]
    }


def ask(client, method, *arguments, **more):
    """Ask with either client; a response that is streamed is read."""

    async def wait():
        response = await getattr(client, method)(*arguments, **more)
        if response.streaming and response.is_async:  # the client takes the body of a HEAD away itself
            response.read = b"".join([part async for part in response])
        await engine().aclose(asyncio.get_running_loop())  # which ends here
        return response

    if isinstance(client, AsyncClient):
        return asyncio.run(wait())
    response = getattr(client, method)(*arguments, **more)
    if response.streaming:
        response.read = response.getvalue()
    return response


@pytest.fixture(params=[Client, AsyncClient], ids=["sync", "async"])
def client(request, echo):
    with override_settings(MIDDLEWARE=MIDDLEWARE, STRANGLE=table(echo.address)):
        yield request.param()


def test_answers_are_responses(client, echo):
    response = ask(client, "get", "/m/x?a=b")
    assert response.json()["line"] == "GET /m/x?a=b HTTP/1.1"
    assert ask(client, "get", "/m/big").read == b"x" * 3_000_000
    assert ask(client, "get", "/who/").content == b"None"
    assert ask(client, "head", "/m/big").headers["Content-Length"] == "3000000"


def test_forms_arrive(client, echo):
    assert ask(client, "post", "/m/x", {"a": "1"}).json()["length"] > 3
    told = ask(client, "post", "/down/x", {"a": "1"}, content_type="application/json").json()
    assert (told["fallback"], told["length"]) == ("connect", len('{"a": "1"}'))


def test_cookies_are_kept(client):
    response = ask(client, "get", "/m/cookies")
    assert (response.status_code, response.cookies["a"].value) == (201, "1")
    assert "a=1; b=2" in str(dict(ask(client, "get", "/m/x").json()["headers"]))


def test_a_canary_keeps_its_side(client):
    """The cookie comes with the first answer, which the legacy app gives, and decides from then on."""
    assert b'"line"' not in ask(client, "get", "/canary/x").content
    assert len(client.cookies["strangle_id"].value) == 32
    assert len({b'"line"' in ask(client, "get", "/canary/x").content for _ in range(8)}) == 1


@override_settings(MIDDLEWARE=MIDDLEWARE)
class TestLiveServer(LiveServerTestCase):
    databases: ClassVar = set()

    @classmethod
    def setUpClass(cls):
        cls.echo = Echo()
        cls.changed = override_settings(STRANGLE=table(cls.echo.address))
        cls.changed.enable()
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.changed.disable()
        cls.echo.close()

    def test_the_live_server_goes_through_the_routes(self):
        connection = http.client.HTTPConnection(self.server_thread.host, self.server_thread.port, timeout=20)
        for target, text in (
            ("/m/x", b'"line"'),
            ("/down/x", b'"fallback": "connect"'),
            ("/shop/hello/", b"hello world"),
        ):
            connection.request("GET", target)
            assert text in connection.getresponse().read()
        connection.close()


def test_a_cache_may_keep_an_answer(echo):
    """Django's cache for a whole site pickles what it keeps."""
    from strangle_mw.django.responses import respond

    fields = [("set-cookie", "a=1; Path=/x"), ("set-cookie", "a=2"), ("link", "<x>"), ("link", "<y>")]
    found = pickle.loads(pickle.dumps(respond("GET", 203, "Fine", fields, b"text")))
    assert (found.status_code, found.reason_phrase, found.content) == (203, "Fine", b"text")
    assert sorted(found.items()) == sorted(fields)
    assert [*found.cookies.values()] == []
