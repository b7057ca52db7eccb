"""What follows from each fault of an upstream: on the wire, through both drivers, under real servers."""

import re
import threading
from pathlib import Path

import pytest
from faulty_fronts import FRONTS, upload
from faulty_table import FAULTS, SERVE, TARGET, UPLOAD, as_markdown
from tests.transports.upstream import ScriptedUpstream

from servers import free_port, request
from strangle_mw import Route, Upstream

PAGE = Path(__file__).parents[2] / "docs" / "forwarding.md"
TIMES = {"connect_timeout": 20.0, "timeout": 20.0, "idle_timeout": 20.0, "keepalive": 20.0}


@pytest.fixture(scope="module", params=["asgi", "wsgi"])
def front(request):
    front = FRONTS[request.param]()
    yield front
    front.close()


def body():
    while True:
        yield b"x" * 65_536


def told(reply):
    """Word what a client has received as the table does."""
    ours = reply.header("content-type") == "application/problem+json"
    kind = " " + reply.json()["type"].removeprefix("urn:strangle-mw:") if ours else ""
    return f"{reply.status}{kind}" + ("" if reply.complete else ", cut")


def ask(front, data):
    try:
        return upload(front, data, body()) if data is UPLOAD else front.ask(data)
    except ConnectionError:
        return None


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.what.replace("`", ""))
def test_fault(front, fault):
    done = threading.Event()
    script = fault.script(done) if fault.script else []
    with ScriptedUpstream(script, [SERVE]) as upstream:
        dead = free_port()
        port = upstream.endpoint.port if fault.script else dead
        urls = [url.format(port=port, dead=dead) for url in fault.urls]
        modern = Upstream(urls=urls, **{**TIMES, **fault.settings})
        with front.strangled([Route("/m/*", to=modern, fallback="off")]):
            for _ in range(fault.before):
                assert front.ask(request("GET", "/m/before")).status == 200
            reply = ask(front, fault.ask)
            done.set()
            assert reply is not None, "the connection was closed without an answer"
            assert told(reply) == fault.expected(front.kind)
            assert sum(f" {TARGET} ".encode() in h for h in upstream.heads) == fault.seen
            if fault.script and urls[0].startswith("http:"):
                before = upstream.connections
                assert front.ask(request("GET", "/m/after")).body == b"ok"
                assert (upstream.connections == before) is fault.again
            assert front.legacy_calls == 0


def test_the_page_shows_the_table():
    found = re.search(r"<!-- faults -->\n(.*?)\n<!-- end of faults -->", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    # `python tests/drivers/faulty_table.py` writes it anew.
    assert found[1] == as_markdown()
