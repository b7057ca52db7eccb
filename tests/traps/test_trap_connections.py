"""Traps of connections: what is sent again, what is not, early answers, forks and event loops."""

import json
import subprocess
import sys

from faulty_fronts import AsgiFront, upload
from tests.transports.upstream import body, close, half_close, head, send, until_gone
from trapped import OK, SERVE, scripted

from servers import request
from strangle_mw import Route, strangle

GET = request("GET", "/m/x")


def test_trap_01_a_stale_connection_is_replaced_once(front):
    with scripted(front, [head(), send(OK), head(), close()], SERVE) as upstream:
        assert [front.ask(GET).body, front.ask(GET).body] == [b"ok", b"ok"]
        assert upstream.connections == 2
    # A new connection that dies is no stale one.
    with scripted(front, [head(), close()], SERVE) as upstream:
        assert front.ask(GET).status == 502
        assert upstream.connections == 1


def test_trap_02_only_a_body_that_was_kept_is_sent_again(front):
    small = request("QUERY", "/m/x", [("Content-Length", "5")], b"small")
    with scripted(
        front, [head(), send(OK), head(), body(5), close()], [head(), body(5), send(OK)]
    ) as upstream:
        front.ask(GET)
        assert front.ask(small).body == b"ok"
        assert upstream.bodies == [b"small", b"small"]
    large = request("QUERY", "/m/x", [("Content-Length", "100000")])
    with scripted(front, [head(), send(OK), head(), body(65_536), close()], SERVE) as upstream:
        front.ask(GET)
        assert upload(front, large, [b"x" * 100_000]).status == 502
        assert upstream.connections == 1


def test_trap_03_an_unsafe_request_is_not_sent_again(front):
    for method in ("POST", "PATCH", "PUT", "DELETE"):
        with scripted(front, [head(), send(OK), head(), close()], SERVE) as upstream:
            front.ask(GET)
            assert front.ask(request(method, "/m/x", [("Content-Length", "0")])).status == 502
            assert sum(h.startswith(method.encode()) for h in upstream.heads) == 1


def test_trap_07_an_early_answer_during_an_upload_is_delivered(front):
    answer = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno\n"
    asked = request("POST", "/m/x", [("Content-Length", str(1 << 26))])
    for end in ([half_close(), until_gone()], [close()]):  # a close with bytes unread is a reset
        with scripted(front, [head(), send(answer), *end]):
            reply = upload(front, asked, (b"x" * 65_536 for _ in range(1024)))
            assert (reply.status, reply.body, reply.complete) == (413, b"no\n", True)


def test_trap_30_each_event_loop_has_its_own_connections(asgi, echo):
    other = AsgiFront()
    app = strangle(asgi.legacy, [Route("/m/*", to=echo.address)])
    try:
        with asgi.mounted(app, app), other.mounted(app, app):
            before = echo.connections
            assert [f.ask(GET).status for f in (asgi, other, asgi, other)] == [200] * 4
            assert echo.connections == before + 2
    finally:
        other.close()


FORKING = """
import json, os, sys
from wsgiref.util import setup_testing_defaults
from strangle_mw import Route, strangle

app = strangle(lambda environ, start_response: [], [Route("/m/*", to=sys.argv[1])])

def ask():
    environ = {"PATH_INFO": "/m/x", "QUERY_STRING": "", "REMOTE_ADDR": "192.0.2.1"}
    setup_testing_defaults(environ)
    status = []
    b"".join(app(environ, lambda s, h: status.append(s)))
    return status[0]

told = [ask()]
child = os.fork()
if not child:
    os._exit(0 if ask() == "200 OK" else 1)
told.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
told.append(ask())
print(json.dumps(told))
"""


def test_trap_30_a_child_process_leaves_its_parents_connections_alone(echo):
    before = echo.connections
    done = subprocess.run(
        [sys.executable, "-c", FORKING, echo.address], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == ["200 OK", 0, "200 OK"]
    assert (
        echo.connections == before + 2
    )  # one of the parent's, used before and after the fork; one of the child's
