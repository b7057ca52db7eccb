"""ASGI apps as upstreams of a WSGI monolith, in its own processes, under real servers."""

import hashlib
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from servers import DEADLINE, connect, read_reply, request, serve, talk

KINDS = ["gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent", "waitress", "cheroot"]
MANY = [k for k in KINDS if k != "gunicorn-sync"]  # one worker, one request at a time


@pytest.fixture(scope="module", params=KINDS)
def server(request, tmp_path_factory):
    notes = tmp_path_factory.mktemp("notes")
    with serve(request.param, "drivers.asgi_under_wsgi", STRANGLE_TEST_NOTES=str(notes)) as port:
        yield request.param, port, notes


def test_an_app_with_a_lifespan_answers(server):
    _, port, notes = server
    for _ in range(3):
        reply = talk(port, request("GET", "/m/state?a=b"))
        assert reply.status == 200
        told = reply.json()
        assert told["state"] == told["pid"]
        assert told["path"] == "/m/state"
    assert [p.name for p in notes.iterdir()] == [f"start-{told['pid']}"]


def test_legacy_is_beside_it(server):
    assert talk(server[1], request("GET", "/other")).body == b"legacy"


def test_an_upload_in_chunks(server):
    port, data = server[1], os.urandom(1 << 20)
    chunks = b"".join(b"%x\r\n%b\r\n" % (8192, data[at : at + 8192]) for at in range(0, len(data), 8192))
    head = request("POST", "/m/upload", [("Transfer-Encoding", "chunked")])
    reply = talk(port, head + chunks + b"0\r\n\r\n")
    assert (reply.status, reply.json()["sha256"]) == (200, hashlib.sha256(data).hexdigest())
    assert reply.json()["pieces"] > 1
    head = request("POST", "/m/upload", [("Content-Length", str(len(data)))])
    assert talk(port, head + data).json()["sha256"] == hashlib.sha256(data).hexdigest()


def test_an_app_that_fails_to_start_leaves_the_answer_to_legacy(server):
    for method, body in (("GET", b""), ("POST", b"x")):
        reply = talk(server[1], request(method, "/broken/x", [("Content-Length", str(len(body)))], body))
        assert (reply.status, reply.body) == (200, b"legacy")


def test_starlettes_own_threads_work_and_are_not_on_the_loop(server):
    reply = talk(server[1], request("GET", "/m/plain"))
    assert (reply.status, reply.body) == (200, b"no loop")


def test_an_app_that_raises(server):
    reply = talk(server[1], request("GET", "/m/raises"))
    assert (reply.status, reply.body) == (500, b"Internal Server Error")  # Starlette's own


@pytest.mark.parametrize("server", MANY, indirect=True)
def test_events_come_one_by_one_and_other_requests_go_on(server):
    port = server[1]
    with connect(port) as sock:
        sock.sendall(request("GET", "/m/events?name=a"))
        data = b""
        while b"data: 0" not in data:
            more = sock.recv(65536)
            assert more
            data += more
        assert b"data: 1" not in data
        assert talk(port, request("GET", "/other")).body == b"legacy"
        assert talk(port, request("GET", "/m/next?name=a")).body == b"True"
        reply = read_reply(sock, data=data)
    assert reply.complete
    assert reply.body == b"data: 0\n\ndata: 1\n\n"


def test_many_at_once(server):
    port = server[1]

    def ask(number):
        body = b"%d" % number * 1000
        reply = talk(port, request("POST", "/m/upload", [("Content-Length", str(len(body)))], body))
        return reply.json()["sha256"] == hashlib.sha256(body).hexdigest()

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(ask, range(100)))


def quiet(log):
    assert not re.search("Traceback|destroyed|never", log), log


@pytest.mark.parametrize(
    ("kind", "more"),
    [(k, ("--preload",)) for k in ("gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent")]
    + [("gunicorn-gevent", ())],
    ids=["sync", "gthread", "gevent", "gevent-not-preloaded"],
)
def test_each_worker_starts_the_app_and_ends_it(kind, more, tmp_path):
    """Under gunicorn the end of a worker is an ordinary exit: told to replace them, it ends all of them well."""
    arguments = (*more, "--workers", "2", "--max-requests", "5")
    with serve(
        kind, "drivers.asgi_under_wsgi", more=arguments, judge=quiet, STRANGLE_TEST_NOTES=str(tmp_path)
    ) as port:
        pids, end = set(), time.monotonic() + DEADLINE
        while not (ended := {p.name for p in tmp_path.glob("end-*")}) or len(pids) < 2:
            told = talk(port, request("GET", "/m/state")).json()
            assert told["state"] == told["pid"]
            pids.add(told["pid"])
            assert time.monotonic() < end
        started = {p.name.removeprefix("start-") for p in tmp_path.glob("start-*")}
        assert {n.removeprefix("end-") for n in ended} <= started
        assert {str(p) for p in pids} <= started
