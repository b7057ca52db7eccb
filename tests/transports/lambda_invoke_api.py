"""Lambda's Invoke API as far as a client sees it, on real sockets; what a function does is a callable.

    with InvokeApi(lambda call: answer({"statusCode": 200})) as api:
        ...
        assert api.calls[0].event["rawPath"] == "/x"

Every answer is written by one `send`: head and body in two would wait for a delayed ACK (40 ms).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.transports.upstream import ScriptedUpstream, forever, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.transports.upstream import Peer, Step

    Handler = Callable[["Call"], bytes]

VERSION = "42"


@dataclass(frozen=True)
class Call:
    """One invocation as it came."""

    line: bytes
    headers: list[tuple[bytes, bytes]]
    payload: bytes

    @property
    def event(self) -> Any:
        return json.loads(self.payload)

    def header(self, name: bytes) -> bytes | None:
        found = [v for n, v in self.headers if n == name]
        assert len(found) <= 1
        return found[0] if found else None


def read_call(peer: Peer) -> Call:
    head = peer.read_until(b"\r\n\r\n")
    line, *fields = head[:-4].split(b"\r\n")
    pairs = [(n.lower(), v.strip()) for n, _, v in (f.partition(b":") for f in fields)]
    length = int(dict(pairs)[b"content-length"])
    return Call(line, pairs, peer.read(length))


def raw(
    payload: bytes, *, status: int = 200, chunked: bool = False, version: str = VERSION, **fields: str
) -> bytes:
    """Write an answer of the Invoke API; `fields` are more headers, with `_` for `-`."""
    lines = [f"HTTP/1.1 {status} Whatever", "Content-Type: application/json"]
    lines += [f"{n.replace('_', '-')}: {v}" for n, v in fields.items()]
    if version:
        lines.append(f"X-Amz-Executed-Version: {version}")
    if chunked:
        payload = b"%x\r\n%b\r\n0\r\n\r\n" % (len(payload), payload)
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {len(payload)}")
    return "\r\n".join([*lines, "", ""]).encode() + payload


def answer(result: Any, **fields: Any) -> bytes:
    """Write the answer for what a function has returned."""
    return raw(json.dumps(result).encode(), **fields)


def function_error(facts: dict[str, object]) -> bytes:
    return answer(facts, X_Amz_Function_Error="Unhandled")


def refusal(status: int, type_: str, message: str, **fields: str) -> bytes:
    """Write an error of the Invoke API itself."""
    body = {"Type": "User", "Message": message}
    if "reason" in fields:
        body["Reason"] = fields.pop("reason")
    return answer(body, status=status, version="", x_amzn_ErrorType=type_, **fields)


def invoked(calls: list[Call], handler: Handler) -> Step:
    """Read an invocation, and send what the handler says."""

    def step(peer: Peer) -> None:
        call = read_call(peer)
        calls.append(call)
        send(handler(call))(peer)

    return step


class InvokeApi(ScriptedUpstream):
    """An Invoke API with one function behind it; further steps serve connections that go another way."""

    def __init__(self, handler: Handler, *scripts: list[Step], **options: Any) -> None:
        self.calls: list[Call] = []
        super().__init__(*scripts, [forever(invoked(self.calls, handler))], **options)

    @property
    def url(self) -> str:
        return f"http://{self.endpoint.authority.decode()}"


class Recorder(InvokeApi):
    """Keeps what is sent, and answers an empty object."""

    def __init__(self) -> None:
        super().__init__(lambda _: answer({}))


SIGNED = re.compile(rb"SignedHeaders=([a-z0-9;-]+)")


def signed(call: Call) -> dict[bytes, bytes | None]:
    """Return what the signature of an invocation covers, and the signature."""
    authorization = call.header(b"authorization") or b""
    names = SIGNED.search(authorization)
    assert names is not None
    covered = {n: call.header(n) for n in names[1].split(b";")}
    return {**covered, b"line": call.line, b"body": call.payload, b"authorization": authorization}
