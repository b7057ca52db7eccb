"""What the trap tests share: a route to a scripted or an echoing upstream, and what arrived there."""

from contextlib import contextmanager

from tests.transports.upstream import ScriptedUpstream, forever, head, send

from servers import request
from strangle_mw import Route, Upstream

START = b"HTTP/1.1 200 OK\r\n"
OK = START + b"Content-Length: 2\r\n\r\nok"
SERVE = [forever(head(), send(OK))]
TIMES = {"connect_timeout": 20.0, "timeout": 20.0, "idle_timeout": 20.0, "keepalive": 20.0}


@contextmanager
def scripted(front, *scripts, route=None, **settings):
    """Forward `/m/*` to an upstream that follows scripts; yields it."""
    with ScriptedUpstream(*scripts) as upstream:
        modern = Upstream(url=f"http://127.0.0.1:{upstream.endpoint.port}", **TIMES)
        with front.strangled([Route("/m/*", to=modern, **(route or {}))], **settings):
            yield upstream


def told(front, method, target, headers=(), body=b"", **more):
    """Send a request through to the echo; return what it received, names in lower case."""
    reply = front.ask(request(method, target, headers, body, **more))
    assert reply.status == 200, reply
    found = reply.json()
    found["headers"] = [(n.lower(), v) for n, v in found["headers"]]
    return found


def names(found):
    return [n for n, _ in found["headers"]]
