"""The Invoke API of AWS Lambda in front of the functions: which one, how, and what the answer looks like.

`POST /2015-03-31/functions/NAME/invocations`, as the model of botocore 1.44 has it. Signatures are not
checked. A request that comes from a page in a browser is refused: this port runs code.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
import uuid
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote

import msgspec

from strangle_mw.errors import StrangleError
from strangle_mw.lambda_dev.http import Answer
from strangle_mw.lambda_dev.invocations import Invocation
from strangle_mw.lambda_dev.names import ACCOUNT, parse_reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strangle_mw.lambda_dev.function import Function
    from strangle_mw.lambda_dev.http import Reply, Request
    from strangle_mw.lambda_dev.invocations import Outcome

MAX_REQUEST: Final = 6 * 1024 * 1024
"""Bytes of an event that is waited for."""
MAX_EVENT: Final = 1024 * 1024
"""Bytes of an event for `X-Amz-Invocation-Type: Event`."""
MAX_CONTEXT: Final = 3583
"""Characters of X-Amz-Client-Context."""

_TYPES: Final = ("RequestResponse", "Event", "DryRun")
_JSON: Final = {"Content-Type": "application/json"}


class InvokeError(StrangleError):
    """The service, not the function, says no: `kind` is x-amzn-ErrorType, `more` stands in the body, too."""

    def __init__(self, status: int, kind: str, message: str, more: Mapping[str, str]) -> None:
        self.status = status
        self.kind = kind
        self.message = message
        self.more = more
        super().__init__(message)

    def answer(self, id_: str) -> Answer:
        """Write it as AWS does; botocore makes an exception of its own of it."""
        name = "Message" if self.kind == "ResourceNotFoundException" else "message"
        body = {"Type": "User", name: self.message, **self.more}
        headers = {**_JSON, "x-amzn-RequestId": id_, "x-amzn-ErrorType": self.kind}
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            headers["Retry-After"] = "1"
        return Answer(self.status, headers, json.dumps(body).encode())


def _error(status: int, kind: str, message: str, **more: str) -> InvokeError:
    return InvokeError(status, kind, message, more)


def _invalid(message: str) -> InvokeError:
    return _error(HTTPStatus.BAD_REQUEST, "InvalidParameterValueException", message)


def _throttled() -> InvokeError:
    reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
    return _error(HTTPStatus.TOO_MANY_REQUESTS, "TooManyRequestsException", "Rate Exceeded.", Reason=reason)


@dataclass(frozen=True, slots=True)
class _Call:
    """What a request asks for."""

    function: Function
    name: str
    qualifier: str
    type: str
    tail: bool


class InvokeAPI:
    """Answers requests; `functions` by name, the one called "" answers to any other name."""

    def __init__(self, functions: Mapping[str, Function], region: str, help_text: str) -> None:
        self._functions = functions
        self._region = region
        self._help = help_text.encode()

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request, now or when its function has."""
        id_ = str(uuid.uuid4())
        path, _, query = request.target.decode("latin-1").partition("?")
        try:
            if path == "/" and request.method in ("GET", "HEAD"):
                reply(Answer(HTTPStatus.OK, {"Content-Type": "text/plain; charset=utf-8"}, self._help))
            elif "origin" in request.headers:
                raise _error(HTTPStatus.FORBIDDEN, "AccessDeniedException", "a page in a browser may not")
            else:
                self._invoke(id_, self._call(request, path, query), request, reply)
        except InvokeError as exc:
            reply(exc.answer(id_))

    # --- what is asked for

    def _call(self, request: Request, path: str, query: str) -> _Call:
        match request.method, path.split("/"):
            case "POST", ["", "2015-03-31", "functions", name, "invocations"]:
                found = self._find(unquote(name), parse_qs(query).get("Qualifier", [""])[-1])
            case "POST", ["", "2021-11-15", "functions", _, "response-streaming-invocations"]:
                raise _invalid("lambda-dev does not support response streaming")
            case _:
                raise _error(HTTPStatus.NOT_FOUND, "UnknownOperationException", "lambda-dev has only Invoke")
        function, name, qualifier = found
        kind = request.headers.get("x-amz-invocation-type", _TYPES[0])
        if kind not in _TYPES:
            raise _invalid(f"X-Amz-Invocation-Type must be one of {', '.join(_TYPES)}")
        tail = kind == _TYPES[0] and request.headers.get("x-amz-log-type") == "Tail"
        return _Call(function, name, qualifier, kind, tail)

    def _find(self, text: str, asked: str) -> tuple[Function, str, str]:
        """Find the function, and which name and qualifier it was asked for by."""
        reference = parse_reference(text)
        if reference is None:
            what = f"Value '{text}' at 'functionName' failed to satisfy constraint: no function name or ARN"
            raise _error(HTTPStatus.BAD_REQUEST, "ValidationException", what)
        name, qualifier = reference
        if asked and (parse_reference(f"f:{asked}") is None or qualifier not in ("", asked)):
            what = "The derived qualifier from the function name does not match the specified qualifier."
            raise _invalid(what)
        function = self._functions.get(name, self._functions.get(""))
        if function is None:
            what = f"Function not found: {self._arn(name, asked or qualifier)}"
            raise _error(HTTPStatus.NOT_FOUND, "ResourceNotFoundException", what)
        return function, name, asked or qualifier

    def _arn(self, name: str, qualifier: str) -> str:
        arn = f"arn:aws:lambda:{self._region}:{ACCOUNT}:function:{name}"
        return f"{arn}:{qualifier}" if qualifier else arn

    # --- doing it

    def _invoke(self, id_: str, call: _Call, request: Request, reply: Reply) -> None:
        version = call.qualifier if call.qualifier.isdecimal() else "$LATEST"
        trace = f"Root=1-{int(time.time()):08x}-{secrets.token_hex(12)};Sampled=0"
        invocation = Invocation(
            id_,
            _payload(request, call.type),
            self._arn(call.name, call.qualifier),
            version,
            partial(_done, id_, version, call, reply),
            _client_context(request.headers.get("x-amz-client-context", "")),
            request.headers.get("x-amzn-trace-id", trace),
            call.type == "Event",
        )
        if call.type == "DryRun":
            reply(Answer(HTTPStatus.NO_CONTENT, {"x-amzn-RequestId": id_}))
            return
        if call.type == "RequestResponse":
            request.gone = partial(call.function.forget, invocation)
        call.function.invoke(invocation)
        if call.type == "Event":  # answered already if there was no room for it
            reply(Answer(HTTPStatus.ACCEPTED, {"x-amzn-RequestId": id_}))


def _payload(request: Request, kind: str) -> bytes:
    limit = MAX_EVENT if kind == "Event" else MAX_REQUEST
    if request.too_large or len(request.body) > limit:
        what = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
        raise _error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "RequestEntityTooLargeException", what)
    if not request.body:
        return b"{}"
    try:
        msgspec.json.decode(request.body, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError) as exc:
        what = f"Could not parse request body into json: {exc}"
        raise _error(HTTPStatus.BAD_REQUEST, "InvalidRequestContentException", what) from None
    return request.body


def _client_context(text: str) -> str:
    """Decode the client's context to JSON that fits into a header."""
    if not text:
        return ""
    try:
        context: Any = json.loads(base64.b64decode(text, validate=True))
    except (ValueError, RecursionError):
        context = None
    if not isinstance(context, dict) or len(text) > MAX_CONTEXT:
        what = "Client context must be a valid Base64-encoded JSON object."
        raise _error(HTTPStatus.BAD_REQUEST, "InvalidRequestContentException", what)
    return json.dumps(context)


def _done(id_: str, version: str, call: _Call, reply: Reply, outcome: Outcome) -> None:
    """Answer with what became of an invocation."""
    if outcome.throttled:
        reply(_throttled().answer(id_))
    elif call.type == "RequestResponse":
        headers = {**_JSON, "x-amzn-RequestId": id_, "X-Amz-Executed-Version": version}
        if outcome.failed:
            headers["X-Amz-Function-Error"] = "Unhandled"
        if call.tail:
            headers["X-Amz-Log-Result"] = base64.b64encode(outcome.log).decode()
        reply(Answer(HTTPStatus.OK, headers, outcome.payload))
