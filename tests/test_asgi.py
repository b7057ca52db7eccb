"""The ASGI driver without a server: the default route's objects, root paths, lifespan, cancellation."""

import asyncio

import pytest

from echo import Echo
from strangle_mw import ForwardError, Route, Upstream, strangle

MODERN = Route("/m/*", to="http://127.0.0.1:1", fallback="off")


def http(path="/x", **more):
    return {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": [(b"host", b"h")],
        "scheme": "http", "client": ("192.0.2.1", 5), "http_version": "1.1", **more,
    }  # fmt: skip


class Client:
    """An ASGI server's side of one request: messages to give, messages taken."""

    def __init__(self, *messages):
        self.messages = [*messages] or [{"type": "http.request", "body": b"", "more_body": False}]
        self.sent = []
        self.left = asyncio.Event()

    async def receive(self):
        if self.messages:
            return self.messages.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def body(self):
        return b"".join(m.get("body", b"") for m in self.sent[1:])


def call(app, scope, *messages):
    async def run():
        client = Client(*messages)
        await app(scope, client.receive, client.send)
        await app.engine.aclose(asyncio.get_running_loop())
        return client

    return asyncio.run(run())


def legacy(seen):
    async def app(scope, receive, send):
        seen.append((scope, receive, send))
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b"legacy"})

    return app


@pytest.fixture
def echo():
    upstream = Echo()
    yield upstream
    upstream.close()


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_the_default_route_hands_on_the_very_objects(kind):
    seen = []
    app = strangle(legacy(seen), [MODERN])
    scope = {**http("/x"), "type": kind}
    before = dict(scope)

    async def run():
        client = Client()
        receive, send = client.receive, client.send
        await app(scope, receive, send)
        return receive, send

    receive, send = asyncio.run(run())
    assert seen[0][0] is scope
    assert seen[0][1] is receive
    assert seen[0][2] is send
    assert scope == before


def test_an_error_of_the_wrapped_app_passes():
    async def broken(scope, receive, send):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(strangle(broken, [MODERN]), http())


def test_the_default_route_reads_nothing_and_adds_nothing():
    async def app(scope, receive, send):
        await receive()

    async def run():
        client = Client({"type": "http.request", "body": b"x", "more_body": False})
        await strangle(app, [MODERN])(http(), client.receive, client.send)
        return client

    client = asyncio.run(run())
    assert client.messages == []
    assert client.sent == []


@pytest.mark.parametrize(
    ("scope", "forwarded"),
    [
        (http("/m/x"), True),
        (http("/app/m/x", root_path="/app"), False),
        # servers differ in whether `path` holds the root path; the root path is part of the path
        ({**http("/m/x"), "root_path": "/app"}, False),
        ({**http("/m/x"), "root_path": ""}, True),
        # without raw_path the decoded path is quoted
        ({**http("/m/x"), "raw_path": None}, True),
        ({**http("/m/x y"), "raw_path": b""}, True),
        ({k: v for k, v in http("/m/x").items() if k != "raw_path"}, True),
    ],
)
def test_which_path_counts(scope, forwarded):
    seen = []
    client = call(strangle(legacy(seen), [MODERN]), scope)
    assert client.status == (502 if forwarded else 299)


def test_a_route_can_name_the_root_path():
    client = call(
        strangle(legacy([]), [Route("/app/m/*", to="http://127.0.0.1:1", fallback="off")]),
        {**http("/m/x"), "root_path": "/app"},
    )
    assert client.status == 502


def test_the_whole_small_answer_is_one_message(echo):
    client = call(strangle(legacy([]), [Route("/m/*", to=echo.address)]), http("/m/x"))
    assert [m["type"] for m in client.sent] == ["http.response.start", "http.response.body"]
    assert client.sent[1]["more_body"] is False


def test_names_of_answer_headers_are_lower_case(echo):
    client = call(strangle(legacy([]), [Route("/m/*", to=echo.address)]), http("/m/x"))
    assert dict(client.sent[0]["headers"])[b"content-type"] == b"application/json"


@pytest.mark.parametrize(
    ("headers", "messages", "status"),
    [
        ([(b"content-length", b"5")], [{"type": "http.request", "body": b"abc", "more_body": False}], 400),
        ([(b"content-length", b"2")], [{"type": "http.request", "body": b"abc", "more_body": False}], 400),
        (
            [(b"content-length", b"99999")],
            [{"type": "http.request", "body": b"abc", "more_body": False}],
            400,
        ),
    ],
)
def test_a_body_that_is_not_as_long_as_declared(echo, headers, messages, status):
    scope = {**http("/m/x"), "method": "POST", "headers": headers}
    client = call(strangle(legacy([]), [Route("/m/*", to=echo.address)]), scope, *messages)
    assert client.status == status
    assert echo.requests == 0


def test_a_client_that_leaves_in_its_body_is_not_answered(echo):
    scope = {**http("/m/x"), "method": "POST", "headers": [(b"content-length", b"99999")]}
    parts = [{"type": "http.request", "body": b"abc", "more_body": True}, {"type": "http.disconnect"}]
    client = call(strangle(legacy([]), [Route("/m/*", to=echo.address)]), scope, *parts)
    assert client.sent == []
    assert echo.requests == 0


@pytest.mark.parametrize(("body", "framing"), [(b"", None), (b"abc", "chunked")])
def test_http_2_bodies_are_framed_by_what_comes(echo, body, framing):
    scope = {**http("/m/x"), "method": "POST", "http_version": "2"}
    client = call(
        strangle(legacy([]), [Route("/m/*", to=echo.address)]),
        scope,
        {"type": "http.request", "body": body, "more_body": False},
    )
    import json

    found = json.loads(client.body)
    assert found["length"] == len(body)
    assert dict(map(tuple, found["headers"])).get("transfer-encoding") == framing


def test_a_client_that_leaves_while_waiting_ends_the_upstream(echo):
    async def run():
        app = strangle(legacy([]), [Route("/m/*", to=echo.address)])
        client = Client()
        request = asyncio.create_task(app(http("/m/stall"), client.receive, client.send))
        assert await asyncio.to_thread(echo.arrived.acquire, timeout=20)
        client.left.set()
        await request
        assert client.sent == []
        assert (
            app.engine.async_pools(
                app.engine.snapshot.table.routes[0].action.upstreams[0], asyncio.get_running_loop()
            )[0].in_flight
            == 0
        )
        await app.engine.aclose(asyncio.get_running_loop())

    asyncio.run(asyncio.wait_for(run(), 20))
    assert echo.client_left.wait(10)


def test_cancelling_from_outside_is_not_swallowed(echo):
    async def run():
        app = strangle(legacy([]), [Route("/m/*", to=echo.address)])
        client = Client()
        request = asyncio.create_task(app(http("/m/stall"), client.receive, client.send))
        assert await asyncio.to_thread(echo.arrived.acquire, timeout=20)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await app.engine.aclose(asyncio.get_running_loop())

    asyncio.run(run())
    assert echo.client_left.wait(10)


def test_each_event_loop_has_its_own_pool(echo):
    app = strangle(legacy([]), [Route("/m/*", to=echo.address)])
    for _ in range(3):

        async def run():
            client = Client()
            await app(http("/m/x"), client.receive, client.send)
            assert client.status == 200
            await app.engine.aclose(asyncio.get_running_loop())

        asyncio.run(run())
    assert echo.connections == 3


def test_the_end_of_the_lifespan_closes_the_pools(echo):
    async def run():
        app = strangle(legacy([]), [Route("/m/*", to=echo.address)])
        client = Client()
        await app(http("/m/x"), client.receive, client.send)
        pool = app.engine.async_pools(
            app.engine.snapshot.table.routes[0].action.upstreams[0], asyncio.get_running_loop()
        )[0]
        assert pool.idle == 1
        server = Client({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
        await app({"type": "lifespan"}, server.receive, server.send)
        assert pool.idle == 0
        assert server.sent[-1]["type"] == "lifespan.shutdown.complete"

    asyncio.run(run())


def test_the_bulkhead_answers_503_at_once(echo):
    async def run():
        app = strangle(
            legacy([]), [Route("/m/*", to=Upstream(url=echo.address, max_in_flight=1), fallback="off")]
        )
        first, second = Client(), Client()
        waiting = asyncio.create_task(app(http("/m/stall"), first.receive, first.send))
        assert await asyncio.to_thread(echo.arrived.acquire, timeout=20)
        await app(http("/m/x"), second.receive, second.send)
        assert second.status == 503
        assert dict(second.sent[0]["headers"])[b"retry-after"]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await app.engine.aclose(asyncio.get_running_loop())

    asyncio.run(run())


def test_a_scope_without_scheme_is_http(echo):
    scope = http("/m/x")
    del scope["scheme"]
    assert call(strangle(legacy([]), [Route("/m/*", to=echo.address)]), scope).status == 200


def test_a_root_path_ends_at_a_segment():
    client = call(
        strangle(legacy([]), [Route("/api/apifoo", to="http://127.0.0.1:1", fallback="off")]),
        {**http("/apifoo"), "root_path": "/api"},
    )
    assert client.status == 502


@pytest.mark.parametrize("headers", [[(b"content-length", b"1000000")], [(b"transfer-encoding", b"chunked")]])
def test_an_early_answer_ends_an_upload_quietly(headers):
    from tests.transports.upstream import ScriptedUpstream, head, send, until_gone

    answer = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"

    async def run():
        with ScriptedUpstream([head(), send(answer), until_gone()]) as upstream:
            app = strangle(legacy([]), [Route("/m/*", to=f"http://127.0.0.1:{upstream.endpoint.port}")])
            client = Client({"type": "http.request", "body": b"x" * 1000, "more_body": True})
            await app({**http("/m/x"), "method": "POST", "headers": headers}, client.receive, client.send)
            await app.engine.aclose(asyncio.get_running_loop())
        return client

    client = asyncio.run(asyncio.wait_for(run(), 20))
    assert (client.status, client.body) == (413, b"big")


def test_a_send_that_fails_during_an_upload_is_what_is_raised():
    from tests.transports.upstream import ScriptedUpstream, head, send, until_gone

    async def broken(message):
        raise OSError("gone")

    async def run():
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\npart"
        with ScriptedUpstream([head(), send(answer), until_gone()]) as upstream:
            app = strangle(legacy([]), [Route("/m/*", to=f"http://127.0.0.1:{upstream.endpoint.port}")])
            client = Client({"type": "http.request", "body": b"x" * 1000, "more_body": True})
            scope = {**http("/m/x"), "method": "POST", "headers": [(b"content-length", b"1000000")]}
            with pytest.raises(OSError, match="gone"):
                await app(scope, client.receive, broken)
            await app.engine.aclose(asyncio.get_running_loop())

    asyncio.run(asyncio.wait_for(run(), 20))


def test_one_watcher_for_one_client_whatever_is_sent_again():
    from strangle_mw.asgi_client import Client as Watched

    async def run():
        asked, left, failed = [], asyncio.Event(), []

        async def receive():
            asked.append(1)
            await left.wait()
            return {"type": "http.disconnect"}

        client = Watched(receive)
        client.watch(lambda error: failed.append(("first", error)))
        await asyncio.sleep(0)
        client.watch(lambda error: failed.append(("second", error)))
        left.set()
        await client._watcher
        await client.aclose(None)
        assert len(asked) == 1
        assert [which for which, _ in failed] == ["second"]
        assert isinstance(failed[0][1], ForwardError)

    asyncio.run(run())


class Strict(Client):
    """Stands no second `receive` beside the first, and takes a cancelled one for the client's end, as gunicorn does."""

    waiting = cancelled = False

    async def receive(self):
        assert not self.waiting
        assert not self.cancelled
        self.waiting = True
        try:
            return await super().receive()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.waiting = False


@pytest.mark.parametrize("waits", [True, False])
def test_legacy_takes_over_the_receive_that_is_under_way(echo, waits):
    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b"open", "more_body": waits})
        if waits:
            client.left.set()
            for _ in range(2):  # a client that has left has left for ever
                assert (await receive())["type"] == "http.disconnect"
            client.messages.append("legacy has seen it")

    client = Strict()
    slow = Upstream(url=echo.address, timeout=0.4)

    async def run():
        strangled = strangle(app, [Route("/m/*", to=slow, fallback="auto")])
        async with asyncio.timeout(20):
            await strangled(http("/m/stall"), client.receive, client.send)
        await strangled.engine.aclose(asyncio.get_running_loop())
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    assert (client.status, client.body) == (299, b"open")
    assert client.messages == (["legacy has seen it"] if waits else [])
    assert client.cancelled is not waits  # what nobody takes over ends with the request


def test_a_client_that_leaves_too_late_to_be_noticed_has_left_for_legacy():
    from strangle_mw.asgi_client import Client as Watched

    async def run():
        given = Strict()
        given.left.set()
        client = Watched(given.receive)
        client.watch(lambda _: None)  # the exchange has failed before: nobody listens any more
        await client._watcher
        return [(await client.replay())["type"] for _ in range(3)]

    assert asyncio.run(run()) == ["http.request", "http.disconnect", "http.disconnect"]


@pytest.mark.parametrize("length", [200_000, -1], ids=["length", "chunked"])
def test_what_is_streamed_is_not_kept(length):
    """Nobody can be given it again: kept, it would only fill the memory (promise P15)."""
    from strangle_mw.asgi_client import Client as Watched

    async def run():
        parts = [{"type": "http.request", "body": b"x" * 50_000, "more_body": n < 3} for n in range(4)]
        client = Watched(Client(*parts).receive)
        body, _ = await client.body(length, None, 65_536)
        return [len(chunk) async for chunk in body], client._seen

    assert asyncio.run(run()) == ([50_000] * 4, [])


def test_a_receive_that_never_waits_does_not_stop_the_loop(echo):
    async def run():
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        app = strangle(legacy([]), [Route("/m/*", to=Upstream(url=echo.address, timeout=0.6))])
        client = Client()
        await app(http("/m/stall"), receive, client.send)
        await app.engine.aclose(asyncio.get_running_loop())
        return client

    assert asyncio.run(asyncio.wait_for(run(), 20)).status == 504


@pytest.mark.parametrize("name", ["cutlength", "cutchunks"])
def test_a_cut_answer_is_raised_and_never_ends_cleanly(echo, name):
    async def run():
        app = strangle(legacy([]), [Route("/m/*", to=echo.address)])
        client = Client()
        with pytest.raises(ForwardError):
            await app(http(f"/m/{name}"), client.receive, client.send)
        await app.engine.aclose(asyncio.get_running_loop())
        return client

    client = asyncio.run(run())
    assert client.status == 200
    assert all(m["more_body"] for m in client.sent[1:])
