"""Lambda events: a request told as API Gateway, a Function URL or a load balancer tells it to a function.

Plain values in, plain data and bytes out; what a function returns is `lambda_answers`. The shapes are those
of AWS's guides (API Gateway: "Lambda proxy integrations", for HTTP and for REST APIs; Lambda: "Invoking
function URLs"; ELB: "Lambda functions as targets"). Where a guide is silent, or fronts differ:

- Paths stay percent-encoded, byte for byte, as REST APIs, Function URLs and ALB leave them. HTTP APIs decode
  `rawPath` and `path`, and cut them at a decoded `?` (middleapi/standard-server#93, honojs/hono#2156): then
  `%2F` and `%2520` are lost, and adapters that decode once, as they must for the others, decode twice.
- A function's own adapter may lose more: mangum reads the decoded path only, joins what is repeated in 1.0
  and REST headers, and does not keep the order of parameters but in 2.0.
- JSON is text. Bytes outside ASCII in a path or query are percent-encoded; header values are read as UTF-8,
  else as Latin-1 (RFC 9110 section 5.5). Percent-encoded bytes that are not UTF-8 become U+FFFD in decoded
  parameters; paths, `rawQueryString` and ALB's parameters, which are not decoded, keep them.
- `authentication` and `authorizer` of 2.0 are left out, as Function URLs without IAM do: nobody was
  authenticated by AWS. `accountId` is then "anonymous" there, and here in every format. `apiId` is
  "strangle", as is the partition in the ARN of ALB's target group; REST's `resourceId` is the route's name.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from strangle_mw.core.messages import Header, normalize_host
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

EventKind = Literal["2.0", "1.0", "rest", "alb"]
"""The format of an event: HTTP API or Function URL, HTTP API 1.0, REST API, Application Load Balancer."""

MAX_EVENT: Final = 6_291_456
"""Bytes of a payload, either way, of an invocation whose answer is waited for (Lambda quotas: 6 MB)."""
MAX_ALB_BODY: Final = 1_048_576
"""Bytes of a request's body that a load balancer hands to a function (ELB guide: 1 MB)."""

ACCOUNT: Final = "anonymous"
API: Final = "strangle"
STAGE: Final = "$default"

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_UNWRITABLE = re.compile(rb"[^\x21-\x7e]")
_TYPE_OF_PARAMETER = re.compile(r"\{(\w+):\w+\}")
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s\";]*)")
# What ALB's guide names; HTTP APIs do the same, also with forms and with bodies of no type, which are not
# text to them (ministackorg/ministack#766, seen at AWS).
_is_text = re.compile(r"text/[^/]+|application/(?:json|javascript|xml)").fullmatch
# A REST API without binary media types takes everything for text, at the cost of what is none.
_is_text_to_rest = re.compile(
    r"text/[^/]+|application/(?:json|javascript|xml|x-www-form-urlencoded)|[^/]+/[^/]+\+(?:json|xml)"
).fullmatch

# Who has signed the request: nobody, as far as we know.
_NOBODY = {
    "accessKey": None,
    "accountId": None,
    "caller": None,
    "cognitoAuthenticationProvider": None,
    "cognitoAuthenticationType": None,
    "cognitoIdentityId": None,
    "cognitoIdentityPoolId": None,
    "user": None,
    "userArn": None,
}
_UNAUTHORIZED = {"claims": None, "scopes": None}


class LambdaCall(NamedTuple):
    """One request as plain values, ready to be told to a function.

    `path` and `query` are the raw bytes that are sent, after the route's rewrite; `headers` lower-case
    pairs in their order, duplicates and `host` included, with a `content-length` that fits `body`. `peer` is
    the address of the other end, "" if it has none; `scheme` stands in no event, `x-forwarded-proto` says it.
    `template` is the route's `path` ("" for a `regex`), `parameters` what it has captured, raw; `route` the
    route's name; `now` seconds since 1970. `function` is a name or an ARN, `qualifier` an alias or version,
    or "".
    """

    method: str
    path: bytes
    query: bytes
    headers: Sequence[Header]
    peer: str
    http_version: str
    scheme: str
    body: bytes
    template: str
    parameters: Mapping[str, bytes]
    route: str
    request_id: str
    now: float
    function: str
    qualifier: str = ""


# --- limits


def body_limit(kind: EventKind) -> int:
    """Return how many bytes a request's body may have at the very most; nobody need read more of it."""
    return MAX_ALB_BODY if kind == "alb" else MAX_EVENT


def may_fit(kind: EventKind, length: int) -> bool:
    """Tell whether a body of a declared length can fit at all; one of unknown length (negative) may."""
    return length <= body_limit(kind)


def check_size(kind: EventKind, length: int, payload: bytes) -> None:
    """Raise `ForwardError` (413, nothing executed) if the body or the whole event is too large to be sent.

    `length` is that of the body, `payload` the encoded event: base64 costs a third, quotes and line ends in
    a text a byte each.
    """
    if not may_fit(kind, length):
        raise too_large(kind)
    if len(payload) > MAX_EVENT:
        raise ForwardError("pool", f"the event has {len(payload)} of {MAX_EVENT} bytes", status=413)


def too_large(kind: EventKind) -> ForwardError:
    """Make the error (413, nothing executed) for a body that passes `body_limit`."""
    return ForwardError("pool", f"the body passes the {body_limit(kind)} bytes of an event", status=413)


# --- events


def make_event(kind: EventKind, call: LambdaCall) -> dict[str, Any]:
    """Build the event for one request, with exactly the documented fields of the format (module docstring).

    - "2.0": names in lower case, what is repeated joined with commas; cookies, parameters and body are left
      out when there are none; the whole `Cookie` is kept, split at "; ".
    - "1.0": names in lower case, the last value and all of them; "rest" the same without `version` and with
      names in the case that HTTP/1.1 clients use (`Content-Type`): REST APIs hand on the client's case,
      which servers have folded by now. Empty maps and bodies are null.
    - "alb": the multi-value maps alone (the target group's attribute `lambda.multi_value_headers.enabled`),
      since the others lose what is repeated, even cookies.
    """
    if kind == "2.0":
        return _http_api(call)
    return _load_balancer(call) if kind == "alb" else _proxy(kind, call)


def encode_event(event: Mapping[str, object]) -> bytes:
    """Encode an event as compact JSON in UTF-8.

    Not escaped to ASCII, which would double or triple the bytes of most languages, and so halve the limit.
    """
    # A lone surrogate has no UTF-8, and could only be in a name that the server has made up.
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _http_api(call: LambdaCall) -> dict[str, Any]:
    path, query = _target(call.path), _target(call.query)
    fields = _grouped(_fields(call.headers))
    cookies = [pair for value in fields.pop("cookie", ()) for pair in value.split("; ")]
    parameters = _grouped(parse_qsl(query, keep_blank_values=True))
    body, is_base64 = _body("2.0", call)
    captured = _resource(call)[1]
    event: dict[str, Any] = {"version": "2.0", "routeKey": STAGE, "rawPath": path, "rawQueryString": query}
    if cookies:
        event["cookies"] = cookies
    event["headers"] = {name: ",".join(values) for name, values in fields.items()}
    if parameters:
        event["queryStringParameters"] = {name: ",".join(values) for name, values in parameters.items()}
    event["requestContext"] = {
        "accountId": ACCOUNT,
        "apiId": API,
        **_domain(call),
        "http": {
            "method": call.method,
            "path": path,
            "protocol": _protocol(call),
            "sourceIp": call.peer,
            "userAgent": _user_agent(call) or "",
        },
        "requestId": call.request_id,
        "routeKey": STAGE,
        "stage": STAGE,
        "time": _clf(call.now),
        "timeEpoch": int(call.now * 1000),
    }
    if body:
        event["body"] = body
    if captured:
        event["pathParameters"] = captured
    event["isBase64Encoded"] = is_base64
    return event


def _proxy(kind: EventKind, call: LambdaCall) -> dict[str, Any]:
    path = _target(call.path)
    resource, captured = _resource(call)
    fields = _grouped(_fields(call.headers))
    if kind == "rest":
        fields = {_title(name): values for name, values in fields.items()}
    parameters = _grouped(parse_qsl(_target(call.query), keep_blank_values=True))
    body, is_base64 = _body(kind, call)
    return {
        **({"version": "1.0"} if kind == "1.0" else {}),
        "resource": resource,
        "path": path,
        "httpMethod": call.method,
        "headers": _last(fields),
        "multiValueHeaders": fields,
        "queryStringParameters": _last(parameters) or None,
        "multiValueQueryStringParameters": parameters or None,
        "requestContext": _proxy_context(kind, call, path, resource),
        "pathParameters": captured or None,
        "stageVariables": None,
        "body": body or None,
        "isBase64Encoded": is_base64,
    }


def _proxy_context(kind: EventKind, call: LambdaCall, path: str, resource: str) -> dict[str, Any]:
    return {
        "accountId": ACCOUNT,
        "apiId": API,
        "authorizer": dict(_UNAUTHORIZED),
        **_domain(call),
        "extendedRequestId": call.request_id,
        "httpMethod": call.method,
        "identity": {
            **_NOBODY,
            ("apiKey" if kind == "rest" else "principalOrgId"): None,
            "sourceIp": call.peer,
            "userAgent": _user_agent(call),
        },
        "path": path,
        "protocol": _protocol(call),
        "requestId": call.request_id,
        "requestTime": _clf(call.now),
        "requestTimeEpoch": int(call.now * 1000),
        "resourceId": call.route if kind == "rest" else None,
        "resourcePath": resource,
        "stage": STAGE,
    }


def _load_balancer(call: LambdaCall) -> dict[str, Any]:
    body, is_base64 = _body("alb", call)
    group = f"{call.function.rpartition(':')[2]}/{call.qualifier or '$LATEST'}"
    return {
        "requestContext": {
            "elb": {"targetGroupArn": f"arn:strangle:elasticloadbalancing:::targetgroup/{group}"}
        },
        "httpMethod": call.method,
        "path": _target(call.path),
        "multiValueQueryStringParameters": _grouped(
            (name, value)
            for name, _, value in (part.partition("=") for part in _target(call.query).split("&") if part)
        ),
        "multiValueHeaders": _grouped(_fields(call.headers)),
        "body": body,
        "isBase64Encoded": is_base64,
    }


# --- parts of an event


def _target(raw: bytes) -> str:
    """Write a raw path or query as text; what `check_target` lets pass and ASCII cannot say is encoded."""
    return _UNWRITABLE.sub(lambda m: b"%%%02X" % m[0][0], raw).decode("ascii")


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _fields(headers: Iterable[Header]) -> Iterable[tuple[str, str]]:
    return ((name.decode("latin-1"), _text(value)) for name, value in headers)


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _last(values: Mapping[str, list[str]]) -> dict[str, str]:
    return {name: found[-1] for name, found in values.items()}


def _title(name: str) -> str:
    return "-".join(word.capitalize() for word in name.split("-"))


def _user_agent(call: LambdaCall) -> str | None:
    return next((_text(v) for n, v in call.headers if n == b"user-agent"), None)


def _domain(call: LambdaCall) -> dict[str, str]:
    """Name the host that was asked for: without port, and its first label."""
    host = normalize_host(next((_text(v) for n, v in call.headers if n == b"host"), ""))
    return {"domainName": host, "domainPrefix": host.partition(".")[0]}


def _protocol(call: LambdaCall) -> str:
    return f"HTTP/{call.http_version}" if "." in call.http_version else f"HTTP/{call.http_version}.0"


def _clf(now: float) -> str:
    """Write a time as in a Common Log Format line, in UTC; `%b` would follow the locale."""
    at = datetime.fromtimestamp(now, UTC)
    return f"{at:%d}/{_MONTHS[at.month - 1]}/{at:%Y:%H:%M:%S} +0000"


def _resource(call: LambdaCall) -> tuple[str, dict[str, str]]:
    """Return the route's template as API Gateway writes it, and its decoded parameters.

    A `/*` is `/{proxy+}`, whose value has no first slash. It is never empty: the path itself is a resource of
    its own at AWS, and so it looks. A route with a `regex` is taken for `/{proxy+}`, which is then the path.
    """
    template = call.template or "/*"
    values = dict(call.parameters) if call.template else {**call.parameters, "*": call.path}
    rest = values.pop("*", b"").removeprefix(b"/")
    resource = _TYPE_OF_PARAMETER.sub(r"{\1}", template)
    if resource.endswith("/*"):
        resource = resource[:-1] + "{proxy+}" if rest else resource[:-2] or "/"
    if rest:
        values.setdefault("proxy", rest)
    return resource, {name: _decoded(value) for name, value in values.items()}


def _decoded(raw: bytes) -> str:
    return unquote_to_bytes(raw).decode("utf-8", "replace")


def _body(kind: EventKind, call: LambdaCall) -> tuple[str, bool]:
    """Return the body as text, and whether that is base64."""
    if not call.body:
        return "", False
    if _says_text(kind, call.headers):
        try:
            return call.body.decode("utf-8"), False
        except UnicodeDecodeError:
            pass
    return b64encode(call.body).decode("ascii"), True


def _says_text(kind: EventKind, headers: Iterable[Header]) -> bool:
    """Tell whether the headers say that a body is text in UTF-8, and in no content coding (ELB guide)."""
    found = [(n, v) for n, v in headers if n in (b"content-type", b"content-encoding")]
    if len(found) != 1 or found[0][0] != b"content-type":
        return False
    type_, semicolon, parameters = found[0][1].decode("latin-1").lower().partition(";")
    fits = _is_text_to_rest if kind == "rest" else _is_text
    charsets = set(_CHARSET.findall(semicolon + parameters))
    return fits(type_.strip()) is not None and charsets <= {"utf-8", "us-ascii"}
