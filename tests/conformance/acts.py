"""How a case is talked: most send some bytes and read one answer, some need more than that.

An act knows no server by name; it waits for conditions, as long as `Front.patience` for what may never come.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress

from tests.conformance.model import DEADLINE, Exchange
from tests.servers import connect, read_reply, request


def perform(case, front, echo):
    """Do what a case says; returns what both sides saw."""
    if callable(case.send):
        return case.send(front, echo)
    return simply(case.send)(front, echo)


def simply(asked):
    """Send bytes on a new connection, read one answer and all that follows it."""

    def act(front, echo):
        reply, hangs = None, False
        upstream = Watched(echo)
        with connect(front.port, front.patience) as sock:
            try:
                # A server may hang up before it has read all; its answer may be there.
                with suppress(ConnectionError):
                    sock.sendall(asked)
                reply = answer(sock, asked)
                if reply is not None and not _framed(asked, reply):
                    reply.body += _rest(sock)
            except TimeoutError:
                hangs = True
        return upstream.exchange(reply, hangs=hangs)

    return act


class Watched:
    """What one upstream receives while something is done."""

    def __init__(self, echo):
        self.echo = echo
        self.requests, self.heads, self.cuts = echo.requests, echo.heads, echo.cuts
        self.left, self.connections = echo.left, echo.connections

    def heard(self, seconds):
        """Wait until the head of a request has come."""
        return self.echo.wait(lambda: self.echo.heads > self.heads, seconds)

    def ended(self, seconds):
        """Wait until a request is whole or cut off; returns whether it was cut."""
        self.echo.wait(lambda: self.echo.requests > self.requests or self.echo.cuts > self.cuts, seconds)
        return self.echo.cuts > self.cuts

    def gone(self, seconds):
        """Wait until the other side of an endless answer has left."""
        return self.echo.wait(lambda: self.echo.left > self.left, seconds)

    def exchange(self, reply, **facts):
        """Return what was seen."""
        seen = self.echo.last if self.echo.requests > self.requests else None
        return Exchange(reply, seen, {"authority": f"127.0.0.1:{self.echo.port}", **facts})


def answer(sock, asked=b"GET "):
    """Read one answer; None if there is none."""
    try:
        return read_reply(sock, head_only=asked.startswith(b"HEAD "))
    except ConnectionError:
        return None


def _framed(asked, reply):
    return not (asked.startswith(b"HEAD ") or reply.status in (204, 304))


def _rest(sock):
    data = b""
    with suppress(ConnectionError):
        while more := sock.recv(65536):
            data += more
    return data


def upload(head, first, rest):
    """Send a body in two halves; notes whether the upstream heard of it before the second."""

    def act(front, echo):
        upstream = Watched(echo)
        with connect(front.port) as sock:
            sock.sendall(head + first)
            heard = upstream.heard(front.patience)
            sock.sendall(rest)
            reply = answer(sock)
        return upstream.exchange(reply, streamed=heard)

    return act


def cut_upload(head, first, *, unheard):
    """Send half a body and no more; notes whether the upstream's connection was cut, too.

    Servers in `unheard` read the whole body first: there the upstream must never hear of it.
    """

    def act(front, echo):
        streams = front.name not in unheard
        upstream = Watched(echo)
        with connect(front.port) as sock:
            sock.sendall(head + first)
            if streams:
                upstream.heard(DEADLINE)
            sock.shutdown(socket.SHUT_WR)
            reply = answer(sock)
            cut = upstream.ended(DEADLINE) if streams else echo.heads == upstream.heads
        return upstream.exchange(reply, cut=cut)

    return act


def refused_upload(head, size):
    """Upload to an upstream that answers the head alone; notes whether its answer came before the body's end.

    The third part of the body makes sure that whoever waits for more of it gets to see the answer.
    """

    def act(front, echo):
        upstream = Watched(echo)
        with connect(front.port) as sock:
            sock.sendall(head + b"x" * 100_000)
            upstream.heard(front.patience)
            with suppress(ConnectionError):  # some have answered and closed by now
                sock.sendall(b"x" * 200_000)
            early = bool(select.select([sock], [], [], front.patience)[0])
            if not early:
                sock.sendall(b"x" * (size - 300_000))
            reply = answer(sock)
        return upstream.exchange(reply, early=early)

    return act


def expecting(head, data):
    """Ask for leave to send a body (RFC 9110 section 10.1.1); notes whether it was given."""

    def act(front, echo):
        upstream = Watched(echo)
        with connect(front.port, front.patience) as sock:
            sock.sendall(head)
            interim = b""
            with suppress(TimeoutError):
                while not interim.endswith(b"\r\n\r\n"):
                    interim += sock.recv(1000)
            sock.settimeout(DEADLINE)
            sock.sendall(data)
            reply = answer(sock)
        return upstream.exchange(reply, leave=interim.startswith(b"HTTP/1.1 100"))

    return act


def first_event(target):
    """Ask for a stream whose second event waits until the client has seen the first."""

    def act(front, echo):
        echo.gate.clear()
        upstream = Watched(echo)
        with connect(front.port, front.patience) as sock:
            sock.sendall(request("GET", target))
            data = b""
            with suppress(TimeoutError):
                while b"data: 1" not in data:
                    data += sock.recv(1000)
            echo.gate.set()
            sock.settimeout(DEADLINE)
            rest = _rest(sock)
        return upstream.exchange(None, first=b"data: 1" in data, second=b"data: 2" in data + rest)

    return act


def leave(target, *, late=None):
    """Read the first event of an endless stream and leave; notes whether the upstream's connection was closed.

    A server that is declared to notice late is asked for `late`, where the upstream is given up after a while.
    """

    def act(front, echo):
        upstream = Watched(echo)
        with connect(front.port) as sock:
            sock.sendall(request("GET", late if front.differs and late else target, close=False))
            data = b""
            while b"data: 1" not in data:
                data += sock.recv(1000)
        gone = upstream.gone(DEADLINE)
        return upstream.exchange(None, gone=gone and ("late" if front.differs else "at once"))

    return act


def one_by_one(*asked):
    """Send requests on one connection, each after the answer to the last; notes how many were answered."""

    def act(front, echo):
        lines = []
        upstream = Watched(echo)
        with connect(front.port) as sock:
            for text in asked:
                with suppress(ConnectionError):
                    sock.sendall(text)
                reply = answer(sock)
                if reply is None:
                    break
                lines.append(reply.json()["line"])
        return upstream.exchange(None, lines=lines)

    return act


def pipelined(*asked):
    """Send requests on one connection, all at once; notes what was answered, in order."""

    def act(front, echo):
        upstream = Watched(echo)
        with connect(front.port) as sock:
            sock.sendall(b"".join(asked))
            data = _rest(sock)
        found = sorted((data.find(b"GET /m/%d " % n), n) for n in range(len(asked)))
        return upstream.exchange(None, order=[n for at, n in found if at >= 0])

    return act


def again(asked, times):
    """Send the same request on a connection of its own each time; notes how many the upstream needed."""

    def act(front, echo):
        simply(asked)(front, echo)
        upstream = Watched(echo)
        for _ in range(times):
            found = simply(asked)(front, echo)
        return upstream.exchange(found.reply, reused=echo.connections - upstream.connections <= 1)

    return act
