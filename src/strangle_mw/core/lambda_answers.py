"""What a Lambda function returns, read as an HTTP answer, as API Gateway, Function URLs and ALB read it.

Pure, and the other direction of `lambda_events`. A function is not trusted to return what it should: whatever
is odd becomes one `ForwardError` that says which field, for the log. What the guides leave open was settled
by what AWS does, as far as others have seen and written it down:

- Statuses are numbers, or digits in a text.
- 2.0 without `statusCode`: the payload itself is the body, but a JSON text is decoded (aws/aws-lambda-dotnet
  #1934, compared with API Gateway; Function URLs the same in LocalStack).
- Without a type, an answer with a body gets the one of the front: `application/json` (Function URLs, REST),
  `text/plain` (HTTP APIs, ibid. #1903), `application/octet-stream` (ALB, ibid. #1923): browsers must not
  guess, and take JSON for a page.
- 2.0 has no `multiValueHeaders`, and they are not looked at; ALB looks at one of the two maps, never at both.
- A body that is no text is written as JSON in 2.0, as by Function URLs; elsewhere it is malformed.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from strangle_mw.core.hygiene import LEGAL_IN_VALUE
from strangle_mw.core.messages import Header, is_token
from strangle_mw.errors import ForwardError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strangle_mw.core.lambda_events import EventKind

_FINAL = range(200, 600)
_BODILESS = (204, 304)
_SHOWN = 40
MAX_FIELDS = 256
MAX_HEAD = 65_536
"""Header fields of an answer, and their bytes: as many as those of any upstream's answer."""
_PRELUDE_END = b"\0" * 8
_JSON_TYPE: Header = (b"content-type", b"application/json")
_TYPES: Mapping[str, Header] = {
    "2.0": _JSON_TYPE,
    "1.0": (b"content-type", b"text/plain; charset=utf-8"),
    "rest": _JSON_TYPE,
    "alb": (b"content-type", b"application/octet-stream"),
}
_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
_is_status = re.compile(r"[0-9]{3}").fullmatch
_is_length = re.compile(rb"[0-9]{1,18}").fullmatch
_is_description = re.compile(r"([0-9]{3}) ([\x20-\x7e]{1,64})").fullmatch


class LambdaResult(NamedTuple):
    """One answer: header names in lower case, the body decoded; `reason` is ALB's phrase, if there is one."""

    status: int
    headers: list[Header]
    body: bytes
    reason: bytes = b""


class _OddError(ValueError):
    """What is wrong with the answer, in words that start with the field."""


def read_answer(kind: EventKind, payload: bytes, method: str = "GET") -> LambdaResult:
    """Read what a function returned to a request of this format and method.

    `Content-Length` is that of the decoded body, whatever the function says; an answer to HEAD keeps the
    function's own. Answers to HEAD, 204 and 304 have no body. What else may not cross is left to
    `answers.answer_headers`. Raises `ForwardError` (stage "head", 502) with the field that is wrong.
    """
    try:
        return _read(kind, payload, method)
    except _OddError as odd:
        reason = f"the function's answer is malformed: {odd}"
    except RecursionError:
        reason = "the function's answer is malformed: it is nested too deeply"
    raise ForwardError("head", reason, request_sent=True)


def _read(kind: EventKind, payload: bytes, method: str) -> LambdaResult:
    answer = _parse(payload)
    if not isinstance(answer, dict) or "statusCode" not in answer:
        if kind == "2.0":
            body = _encode("body", answer) if isinstance(answer, str) else payload
            return _finish(200, [_JSON_TYPE], body, method)
        if isinstance(answer, dict):
            raise _OddError("statusCode is missing")
        raise _OddError(f"it must be an object with statusCode, not {_kind(answer)}")
    status = _status(answer["statusCode"])
    headers = _headers(kind, answer)
    body = _body(kind, answer)
    if body and not any(name == b"content-type" for name, _ in headers):
        headers.append(_TYPES[kind])
    result = _finish(status, headers, body, method)
    return result._replace(reason=_reason(answer, status)) if kind == "alb" else result


def _finish(status: int, headers: list[Header], body: bytes, method: str) -> LambdaResult:
    """Frame the answer: one length, or none."""
    said = [value for name, value in headers if name == b"content-length"]
    kept = [h for h in headers if h[0] != b"content-length"]
    if status in _BODILESS:
        return LambdaResult(status, kept, b"")
    length = b"%d" % len(body)
    if method == "HEAD":
        length = said[0] if len(said) == 1 and _is_length(said[0]) else length if body else b""
        body = b""
    return LambdaResult(status, [*kept, (b"content-length", length)] if length else kept, body)


# --- JSON


def _parse(payload: bytes) -> Any:
    try:
        return json.loads(payload.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise _OddError("it is not UTF-8") from None
    except ValueError:
        if _PRELUDE_END in payload:
            raise _OddError("response streaming is not supported") from None
        raise _OddError("it is not JSON") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a number")


def _show(value: object) -> str:
    """Write a value for the log: in one line, shortened."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _encode(field: str, text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise _OddError(f"{field} holds half a character (a lone surrogate)") from None


# --- fields


def _status(value: Any) -> int:
    number = value
    if isinstance(value, str) and _is_status(value):
        number = int(value)
    elif isinstance(value, float) and value.is_integer():
        number = int(value)  # some languages know no other numbers
    if type(number) is not int or number not in _FINAL:
        raise _OddError(f"statusCode must be a number from 200 to 599, not {_show(value)}")
    return number


def _reason(answer: Mapping[str, Any], status: int) -> bytes:
    """Return the phrase of ALB's "200 OK"; one that is none, or of another status, is not worth a failure."""
    described = answer.get("statusDescription")
    match = _is_description(described) if isinstance(described, str) else None
    return match[2].encode() if match and int(match[1]) == status else b""


def _headers(kind: EventKind, answer: Mapping[str, Any]) -> list[Header]:
    """Read both maps; for a name that is in both, `multiValueHeaders` wins."""
    single = _map(answer, "headers")
    multiple = _map(answer, "multiValueHeaders") if kind != "2.0" else {}
    if kind == "alb" and multiple:
        single = {}
    several = [
        _field(f"multiValueHeaders[{_show(name)}]", name, value)
        for name, values in multiple.items()
        for value in _list(f"multiValueHeaders[{_show(name)}]", values)
    ]
    taken = {name for name, _ in several}
    one = [_field(f"headers[{_show(name)}]", name, value) for name, value in single.items()]
    found = [h for h in one if h[0] not in taken] + several
    if kind == "2.0":
        found += [
            _field("cookies", "set-cookie", cookie) for cookie in _list("cookies", answer.get("cookies"))
        ]
    if len(found) > MAX_FIELDS or sum(len(n) + len(v) for n, v in found) > MAX_HEAD:
        raise _OddError(f"headers must be at most {MAX_FIELDS}, with {MAX_HEAD} bytes")
    return found


def _map(answer: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = answer.get(field)
    if value is not None and not isinstance(value, dict):
        raise _OddError(f"{field} must be an object, not {_kind(value)}")
    return value or {}


def _list(field: str, value: Any) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise _OddError(f"{field} must be a list, not {_kind(value)}")
    return value or []


def _field(field: str, name: str, value: Any) -> Header:
    written = name.encode("ascii", "replace").lower()  # "?", which is put for others, is no part of a name
    if not is_token(written):
        raise _OddError(f"{field} has no valid name")
    text = _encode(field, _scalar(field, value).strip(" \t"))
    if text.translate(None, LEGAL_IN_VALUE):
        raise _OddError(f"{field} holds control characters")
    return written, text


def _scalar(field: str, value: Any) -> str:
    """Return a header's value as text; API Gateway writes numbers and booleans as JSON does."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and isfinite(value)):
        return repr(value)
    raise _OddError(f"{field} must be a text, not {_kind(value)}")


def _body(kind: EventKind, answer: Mapping[str, Any]) -> bytes:
    body, is_base64 = answer.get("body"), answer.get("isBase64Encoded")
    if not (is_base64 is None or isinstance(is_base64, bool)):
        raise _OddError(f"isBase64Encoded must be a boolean, not {_kind(is_base64)}")
    if body is None:
        return b""
    if not isinstance(body, str):
        if kind == "2.0" and not is_base64:
            return _as_json(body)
        raise _OddError(f"body must be a text, not {_kind(body)}")
    return _from_base64(body) if is_base64 else _encode("body", body)


def _as_json(body: Any) -> bytes:
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        raise _OddError("body holds a number that is out of range") from None


def _from_base64(body: str) -> bytes:
    """Decode base64 strictly, but for line ends, which some encoders put in (RFC 2045 section 6.8)."""
    try:
        return b64decode(body.replace("\r", "").replace("\n", ""), validate=True)
    except ValueError:
        raise _OddError("body is not base64, as isBase64Encoded says") from None
