"""Names: looked up within a time, one look-up at a time, and a dead address leaves time for the next."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.transports.clients import CLIENTS, fetch, upstream
from tests.transports.upstream import PATIENCE, ScriptedUpstream, forever, head, send

from strangle_mw.core.model import Endpoint
from strangle_mw.errors import ForwardError
from strangle_mw.transports.addresses import AsyncAddresses, BlockingAddresses, known, share

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVE = [forever(head(), send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))]


class HangingNames:
    """A name server that answers when `answer` is set; counts who asks."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = threading.Event()

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked += 1
        assert self.answer.wait(PATIENCE)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingNames]:
    hanging = HangingNames()
    monkeypatch.setattr("strangle_mw.transports.addresses.socket.getaddrinfo", hanging)
    yield hanging
    hanging.answer.set()


@pytest.mark.parametrize(
    ("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6), ("h.example", None)]
)
def test_an_address_is_not_looked_up(host: str, family: int | None) -> None:
    assert [f for f, _ in known(host, 1)] == ([] if family is None else [family])


def test_each_address_gets_its_share_of_the_time() -> None:
    assert share(3.0, 3) == 1.0
    assert share(2.0, 1) == 2.0


def test_threads_that_ask_meanwhile_wait_for_the_same_look_up(names: HangingNames) -> None:
    found: list[object] = []
    place = BlockingAddresses("h.example", 80)
    with pytest.raises(TimeoutError):
        place.find(0.001)
    threads = [threading.Thread(target=lambda: found.append(place.find(PATIENCE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert names.asked == 1
    names.answer.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == [[(socket.AF_INET, ("127.0.0.1", 80))]] * 8


def test_tasks_that_ask_meanwhile_wait_for_the_same_look_up(names: HangingNames) -> None:
    async def run() -> None:
        place = AsyncAddresses("h.example", 80)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await place.find()
        tasks = [asyncio.create_task(place.find()) for _ in range(8)]
        await asyncio.sleep(0)
        names.answer.set()
        assert await asyncio.gather(*tasks) == [[(socket.AF_INET, ("127.0.0.1", 80))]] * 8
        assert names.asked == 1

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["asyncio", "threads"])
def test_a_name_server_that_hangs_is_a_timeout(kind: str, names: HangingNames) -> None:
    endpoint = Endpoint("http", "h.example", 80, b"h.example")
    client = CLIENTS[kind](endpoint, upstream(connect_timeout=0.01))
    with pytest.raises(ForwardError) as caught:
        client.send()
    assert (caught.value.stage, caught.value.status, caught.value.request_sent) == ("connect", 504, False)
    names.answer.set()
    client.close()


@pytest.mark.parametrize("kind", ["asyncio", "threads"])
def test_the_next_address_of_a_name_is_tried(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedUpstream(SERVE) as server, socket.create_server(("127.0.0.2", 0)) as other:
        port = server.endpoint.port
        other.close()
        dead = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", port))
        live = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        monkeypatch.setattr(
            "strangle_mw.transports.addresses.socket.getaddrinfo", lambda *_, **__: [dead, live]
        )
        client = CLIENTS[kind](Endpoint("http", "h.example", port, b"h.example"), upstream())
        assert fetch(client) == (200, b"ok")
        client.close()


@pytest.mark.parametrize("kind", ["asyncio", "threads"])
def test_a_name_that_does_not_exist_is_a_failure_to_connect(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr("strangle_mw.transports.addresses.socket.getaddrinfo", unknown)
    client = CLIENTS[kind](Endpoint("http", "h.example", 80, b"h.example"), upstream())
    for _ in range(2):
        with pytest.raises(ForwardError) as caught:
            client.send()
        assert (caught.value.stage, caught.value.status) == ("connect", 502)
    client.close()
