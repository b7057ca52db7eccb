"""Events as documented by AWS, field by field, for one request in every format; what each field may hold."""

import base64
import json

import pytest

from strangle_mw.core.lambda_events import (
    MAX_ALB_BODY,
    MAX_EVENT,
    LambdaCall,
    body_limit,
    check_size,
    encode_event,
    make_event,
    may_fit,
    too_large,
)
from strangle_mw.errors import ForwardError

KINDS = ["2.0", "1.0", "rest", "alb"]
PROXIES = ["1.0", "rest"]

ORDER = LambdaCall(
    method="POST",
    path=b"/shops/s%C3%BCd%2Fwest/orders/2026/7",
    query=b"tag=a%20b&tag=c+d&empty=&x%5B%5D=%26&flag",
    headers=[
        (b"host", b"shop.example.com:8443"),
        (b"content-type", b"application/json"),
        (b"content-length", b"15"),
        (b"accept", b"text/html"),
        (b"accept", b"application/json;q=0.5"),
        (b"user-agent", b"curl/8.5"),
        (b"cookie", b"sid=1; theme=dark"),
        (b"cookie", b"sid=2"),
        (b"x-forwarded-for", b"203.0.113.9"),
        (b"x-forwarded-proto", b"https"),
        (b"x-request-id", b"r-1"),
    ],
    peer="203.0.113.9",
    http_version="1.1",
    scheme="https",
    body='{"name":"Küche"}'.encode(),
    template="/shops/{shop}/orders/*",
    parameters={"shop": b"s%C3%BCd%2Fwest", "*": b"/2026/7"},
    route="orders",
    request_id="r-1",
    now=1428582896.25,
    function="arn:aws:lambda:eu-west-1:123456789012:function:orders",
    qualifier="live",
)

PARAMETERS = {"shop": "süd/west", "proxy": "2026/7"}
QUERY = {"tag": ["a b", "c d"], "empty": [""], "x[]": ["&"], "flag": [""]}
CONTEXT = {
    "accountId": "anonymous",
    "apiId": "strangle",
    "authorizer": {"claims": None, "scopes": None},
    "domainName": "shop.example.com",
    "domainPrefix": "shop",
    "extendedRequestId": "r-1",
    "httpMethod": "POST",
    "identity": {
        "accessKey": None,
        "accountId": None,
        "caller": None,
        "cognitoAuthenticationProvider": None,
        "cognitoAuthenticationType": None,
        "cognitoIdentityId": None,
        "cognitoIdentityPoolId": None,
        "sourceIp": "203.0.113.9",
        "user": None,
        "userAgent": "curl/8.5",
        "userArn": None,
    },
    "path": "/shops/s%C3%BCd%2Fwest/orders/2026/7",
    "protocol": "HTTP/1.1",
    "requestId": "r-1",
    "requestTime": "09/Apr/2015:12:34:56 +0000",
    "requestTimeEpoch": 1428582896250,
    "resourceId": None,
    "resourcePath": "/shops/{shop}/orders/{proxy+}",
    "stage": "$default",
}
FIELDS = {
    "host": ["shop.example.com:8443"],
    "content-type": ["application/json"],
    "content-length": ["15"],
    "accept": ["text/html", "application/json;q=0.5"],
    "user-agent": ["curl/8.5"],
    "cookie": ["sid=1; theme=dark", "sid=2"],
    "x-forwarded-for": ["203.0.113.9"],
    "x-forwarded-proto": ["https"],
    "x-request-id": ["r-1"],
}
TITLED = {
    "Host": ["shop.example.com:8443"],
    "Content-Type": ["application/json"],
    "Content-Length": ["15"],
    "Accept": ["text/html", "application/json;q=0.5"],
    "User-Agent": ["curl/8.5"],
    "Cookie": ["sid=1; theme=dark", "sid=2"],
    "X-Forwarded-For": ["203.0.113.9"],
    "X-Forwarded-Proto": ["https"],
    "X-Request-Id": ["r-1"],
}


def last(values):
    return {name: found[-1] for name, found in values.items()}


def test_format_2_0():
    assert make_event("2.0", ORDER) == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/shops/s%C3%BCd%2Fwest/orders/2026/7",
        "rawQueryString": "tag=a%20b&tag=c+d&empty=&x%5B%5D=%26&flag",
        "cookies": ["sid=1", "theme=dark", "sid=2"],
        "headers": {
            "host": "shop.example.com:8443",
            "content-type": "application/json",
            "content-length": "15",
            "accept": "text/html,application/json;q=0.5",
            "user-agent": "curl/8.5",
            "x-forwarded-for": "203.0.113.9",
            "x-forwarded-proto": "https",
            "x-request-id": "r-1",
        },
        "queryStringParameters": {"tag": "a b,c d", "empty": "", "x[]": "&", "flag": ""},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "strangle",
            "domainName": "shop.example.com",
            "domainPrefix": "shop",
            "http": {
                "method": "POST",
                "path": "/shops/s%C3%BCd%2Fwest/orders/2026/7",
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.9",
                "userAgent": "curl/8.5",
            },
            "requestId": "r-1",
            "routeKey": "$default",
            "stage": "$default",
            "time": "09/Apr/2015:12:34:56 +0000",
            "timeEpoch": 1428582896250,
        },
        "body": '{"name":"Küche"}',
        "pathParameters": PARAMETERS,
        "isBase64Encoded": False,
    }


def proxy_event(fields, context):
    return {
        "resource": "/shops/{shop}/orders/{proxy+}",
        "path": "/shops/s%C3%BCd%2Fwest/orders/2026/7",
        "httpMethod": "POST",
        "headers": last(fields),
        "multiValueHeaders": fields,
        "queryStringParameters": last(QUERY),
        "multiValueQueryStringParameters": QUERY,
        "requestContext": context,
        "pathParameters": PARAMETERS,
        "stageVariables": None,
        "body": '{"name":"Küche"}',
        "isBase64Encoded": False,
    }


def test_format_1_0():
    context = {**CONTEXT, "identity": {**CONTEXT["identity"], "principalOrgId": None}}
    assert make_event("1.0", ORDER) == {"version": "1.0", **proxy_event(FIELDS, context)}


def test_format_rest():
    identity = {**CONTEXT["identity"], "apiKey": None}
    context = {**CONTEXT, "identity": identity, "resourceId": "orders"}
    assert make_event("rest", ORDER) == proxy_event(TITLED, context)


def test_format_alb():
    assert make_event("alb", ORDER) == {
        "requestContext": {
            "elb": {"targetGroupArn": "arn:strangle:elasticloadbalancing:::targetgroup/orders/live"}
        },
        "httpMethod": "POST",
        "path": "/shops/s%C3%BCd%2Fwest/orders/2026/7",
        "multiValueQueryStringParameters": {
            "tag": ["a%20b", "c+d"],
            "empty": [""],
            "x%5B%5D": ["%26"],
            "flag": [""],
        },
        "multiValueHeaders": FIELDS,
        "body": '{"name":"Küche"}',
        "isBase64Encoded": False,
    }


BARE = LambdaCall(
    "GET", b"/", b"", [], "", "2", "http", b"", "/", {}, "root", "r-2", 951782400.0, "orders", ""
)  # fmt: skip


def test_a_request_with_nothing_in_it():
    event = make_event("2.0", BARE)
    assert {"cookies", "queryStringParameters", "body", "pathParameters"}.isdisjoint(event)
    assert (event["headers"], event["rawQueryString"], event["isBase64Encoded"]) == ({}, "", False)
    context = event["requestContext"]
    assert (context["domainName"], context["domainPrefix"]) == ("", "")
    assert context["http"] == {
        "method": "GET",
        "path": "/",
        "protocol": "HTTP/2.0",
        "sourceIp": "",
        "userAgent": "",
    }
    assert context["time"] == "29/Feb/2000:00:00:00 +0000"
    for kind in PROXIES:
        event = make_event(kind, BARE)
        assert [
            event[f]
            for f in (
                "queryStringParameters",
                "multiValueQueryStringParameters",
                "pathParameters",
                "stageVariables",
                "body",
            )
        ] == [None] * 5
        assert (event["headers"], event["multiValueHeaders"], event["isBase64Encoded"]) == ({}, {}, False)
        assert event["requestContext"]["identity"]["userAgent"] is None
    event = make_event("alb", BARE)
    assert (event["body"], event["isBase64Encoded"]) == ("", False)
    assert (event["multiValueQueryStringParameters"], event["multiValueHeaders"]) == ({}, {})
    assert event["requestContext"]["elb"]["targetGroupArn"].endswith(":targetgroup/orders/$LATEST")


# --- the path and what was captured

TEMPLATES = [
    # template, captured, path -> resource, pathParameters
    ("/users", {}, b"/users", "/users", None),
    ("/", {}, b"/", "/", None),
    ("/users/", {}, b"/users/", "/users/", None),
    ("/users/{id}", {"id": b"a%20b+c"}, b"/users/a%20b+c", "/users/{id}", {"id": "a b+c"}),
    ("/users/{id:int}/*", {"id": b"7", "*": b"/x%2Fy//z"}, b"/", "/users/{id}/{proxy+}", {"id": "7", "proxy": "x/y//z"}),
    ("/r/{id:uuid}.json", {"id": b"1"}, b"/r/1.json", "/r/{id}.json", {"id": "1"}),
    ("/files/*", {"*": b"/a"}, b"/files/a", "/files/{proxy+}", {"proxy": "a"}),
    ("/files/*", {"*": b""}, b"/files", "/files", None),
    ("/files/*", {"*": b"/"}, b"/files/", "/files", None),
    ("/files/*", {"*": b"//a"}, b"/files//a", "/files/{proxy+}", {"proxy": "/a"}),
    ("/*", {"*": b"/a/b"}, b"/a/b", "/{proxy+}", {"proxy": "a/b"}),
    ("/*", {"*": b"/"}, b"/", "/", None),
    ("/{proxy}/*", {"proxy": b"p", "*": b"/q"}, b"/p/q", "/{proxy}/{proxy+}", {"proxy": "p"}),
    ("/x/{v}", {"v": b"%ff\xe9%zz%"}, b"/x/1", "/x/{v}", {"v": "\ufffd\ufffd%zz%"}),
    ("", {}, b"/any/%C3%A9", "/{proxy+}", {"proxy": "any/é"}),
    ("", {"year": b"2026"}, b"/a/2026", "/{proxy+}", {"year": "2026", "proxy": "a/2026"}),
    ("", {}, b"/", "/", None),
]  # fmt: skip


@pytest.mark.parametrize(("template", "captured", "path", "resource", "parameters"), TEMPLATES)
def test_the_template_and_its_parameters(template, captured, path, resource, parameters):
    call = BARE._replace(template=template, parameters=captured, path=path)
    for kind in PROXIES:
        event = make_event(kind, call)
        assert (event["resource"], event["pathParameters"]) == (resource, parameters)
        assert event["requestContext"]["resourcePath"] == resource
    assert make_event("2.0", call).get("pathParameters") == parameters
    assert "pathParameters" not in make_event("alb", call)


PATHS = [
    (b"/a%2Fb%2fc", "/a%2Fb%2fc"),
    (b"/%2520%25", "/%2520%25"),
    (b"/a b", "/a%20b"),
    (b"/\xc3\xa9\xff", "/%C3%A9%FF"),
    (b"/%e2%82%ac;v=1,2!$&'()*+:@~\"<>[]^`{|}", "/%e2%82%ac;v=1,2!$&'()*+:@~\"<>[]^`{|}"),
    (b"/%zz%", "/%zz%"),
    (b"//a/../b", "//a/../b"),
]


@pytest.mark.parametrize(("raw", "told"), PATHS)
def test_a_path_is_told_as_it_was_sent(raw, told):
    for kind in KINDS:
        event = make_event(kind, BARE._replace(path=raw))
        if kind == "2.0":
            assert (event["rawPath"], event["requestContext"]["http"]["path"]) == (told, told)
        else:
            assert event["path"] == told
        if kind in PROXIES:
            assert event["requestContext"]["path"] == told


QUERIES = [
    # raw, decoded (1.0, REST, 2.0 joined), as it is (ALB)
    (b"a=1&a=2&b=3", {"a": ["1", "2"], "b": ["3"]}, {"a": ["1", "2"], "b": ["3"]}),
    (b"a", {"a": [""]}, {"a": [""]}),
    (b"=v&&&", {"": ["v"]}, {"": ["v"]}),
    (b"a=b=c", {"a": ["b=c"]}, {"a": ["b=c"]}),
    (b"a=1;b=2", {"a": ["1;b=2"]}, {"a": ["1;b=2"]}),
    (b"a+b=c%2Bd+e", {"a b": ["c+d e"]}, {"a+b": ["c%2Bd+e"]}),
    (b"%C3%A9=%e2%82%ac", {"é": ["€"]}, {"%C3%A9": ["%e2%82%ac"]}),
    (b"\xc3\xa9=1", {"é": ["1"]}, {"%C3%A9": ["1"]}),
    (b"a=%ff%zz%", {"a": ["\ufffd%zz%"]}, {"a": ["%ff%zz%"]}),
]


@pytest.mark.parametrize(("raw", "decoded", "kept"), QUERIES)
def test_a_query(raw, decoded, kept):
    call = BARE._replace(query=raw)
    for kind in PROXIES:
        event = make_event(kind, call)
        assert event["multiValueQueryStringParameters"] == decoded
        assert event["queryStringParameters"] == last(decoded)
    event = make_event("2.0", call)
    assert event["queryStringParameters"] == {name: ",".join(found) for name, found in decoded.items()}
    assert event["rawQueryString"] == raw.decode("latin-1").replace("Ã©", "%C3%A9")
    assert make_event("alb", call)["multiValueQueryStringParameters"] == kept


# --- headers


def test_header_values_are_read_as_utf_8_else_as_latin_1():
    for kind in KINDS:
        call = BARE._replace(headers=[(b"x-a", "é€".encode()), (b"x-b", b"\xe9"), (b"x-c", b"")])
        event = make_event(kind, call)
        found = event["multiValueHeaders"] if kind != "2.0" else {n: [v] for n, v in event["headers"].items()}
        assert {n.lower(): v for n, v in found.items()} == {"x-a": ["é€"], "x-b": ["é"], "x-c": [""]}


NAMES = [
    ("etag", "Etag"),
    ("x-b3-traceid", "X-B3-Traceid"),
    ("x_under", "X_under"),
    ("1-a-", "1-A-"),
    ("x--y", "X--Y"),
]


@pytest.mark.parametrize(("name", "titled"), NAMES)
def test_names_in_rest_events_are_written_as_clients_write_them(name, titled):
    event = make_event("rest", BARE._replace(headers=[(name.encode(), b"1")]))
    assert (event["headers"], event["multiValueHeaders"]) == ({titled: "1"}, {titled: ["1"]})


COOKIES = [
    ([b"a=1"], ["a=1"]),
    ([b"a=1; b=2"], ["a=1", "b=2"]),
    ([b"a=1", b"b=2; c=3"], ["a=1", "b=2", "c=3"]),
    ([b"a=1;b=2"], ["a=1;b=2"]),  # not split where the client has not: joined again, it is as it came
    ([b'a="x; y"'], ['a="x', 'y"']),
    ([b""], [""]),
]


@pytest.mark.parametrize(("sent", "told"), COOKIES)
def test_cookies_of_2_0_stand_apart(sent, told):
    event = make_event("2.0", BARE._replace(headers=[(b"cookie", v) for v in sent]))
    assert (event["cookies"], event["headers"]) == (told, {})
    assert "; ".join(event["cookies"]) == b"; ".join(sent).decode()


HOSTS = [
    (b"shop.example.com", "shop.example.com", "shop"),
    (b"SHOP.Example.com.:80", "shop.example.com", "shop"),
    (b"localhost:8000", "localhost", "localhost"),
    (b"[::1]:8000", "[::1]", "[::1]"),
]


@pytest.mark.parametrize(("host", "name", "prefix"), HOSTS)
def test_the_domain(host, name, prefix):
    for kind in ["2.0", *PROXIES]:
        context = make_event(kind, BARE._replace(headers=[(b"host", host)]))["requestContext"]
        assert (context["domainName"], context["domainPrefix"]) == (name, prefix)


# --- bodies

EVERYWHERE, NOWHERE, REST = set(KINDS), set(), {"rest"}
TEXTS = [
    # headers -> where a UTF-8 body is told as text
    ({"content-type": "application/json"}, EVERYWHERE),
    ({"content-type": 'Application/JSON; Charset="UTF-8"'}, EVERYWHERE),
    ({"content-type": "text/plain"}, EVERYWHERE),
    ({"content-type": "text/html ; charset=us-ascii"}, EVERYWHERE),
    ({"content-type": "text/csv;header=present;charset=utf-8"}, EVERYWHERE),
    ({"content-type": "application/xml"}, EVERYWHERE),
    ({"content-type": "application/javascript"}, EVERYWHERE),
    ({"content-type": "application/vnd.api+json"}, REST),
    ({"content-type": "image/svg+xml"}, REST),
    ({"content-type": "application/x-www-form-urlencoded"}, REST),
    ({}, NOWHERE),
    ({"content-type": ""}, NOWHERE),
    ({"content-type": "text"}, NOWHERE),
    ({"content-type": "text/"}, NOWHERE),
    ({"content-type": "multipart/form-data; boundary=x"}, NOWHERE),
    ({"content-type": "application/octet-stream"}, NOWHERE),
    ({"content-type": "application/jsonp"}, NOWHERE),
    ({"content-type": "x-text/plain"}, NOWHERE),
    ({"content-type": "text/plain; charset=iso-8859-1"}, NOWHERE),
    ({"content-type": "text/plain; charset=utf-8; charset=utf-16"}, NOWHERE),
    ({"content-type": "text/plain; charset="}, NOWHERE),
    ({"content-type": "text/plain", "content-encoding": "gzip"}, NOWHERE),
    ({"content-type": "text/plain", "content-encoding": "identity"}, NOWHERE),
]  # fmt: skip


@pytest.mark.parametrize(("headers", "where"), TEXTS)
def test_which_bodies_are_text(headers, where):
    fields = [(n.encode(), v.encode()) for n, v in headers.items()]
    sent = "ä\x00€".encode()
    found = {kind: make_event(kind, BARE._replace(headers=fields, body=sent)) for kind in KINDS}
    assert {kind for kind, event in found.items() if not event["isBase64Encoded"]} == where
    for event in found.values():
        read = base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"].encode()
        assert read == sent


@pytest.mark.parametrize("body", [b"\xff", b"\xed\xa0\x80", b"caf\xe9"])
def test_a_text_that_is_not_utf_8_is_told_in_base64(body):
    for kind in KINDS:
        call = BARE._replace(headers=[(b"content-type", b"text/plain")], body=body)
        event = make_event(kind, call)
        assert event["isBase64Encoded"]
        assert base64.b64decode(event["body"]) == body


def test_a_body_of_two_types_is_told_in_base64():
    for kind in KINDS:
        headers = [(b"content-type", b"text/plain"), (b"content-type", b"text/html")]
        assert make_event(kind, BARE._replace(headers=headers, body=b"x"))["isBase64Encoded"]


# --- encoding and limits


def test_encoding():
    for kind in KINDS:
        event = make_event(kind, ORDER)
        encoded = encode_event(event)
        assert json.loads(encoded) == event
        assert "Küche".encode() in encoded
        assert b'": ' not in encoded


def test_encoding_never_fails():
    assert encode_event({"a": "\ud800"}) == b'{"a":"?"}'


def test_limits():
    assert (MAX_EVENT, MAX_ALB_BODY) == (6 * 2**20, 2**20)
    for kind in KINDS:
        limit = MAX_ALB_BODY if kind == "alb" else MAX_EVENT
        assert body_limit(kind) == limit
        assert may_fit(kind, 0)
        assert may_fit(kind, limit)
        assert not may_fit(kind, limit + 1)
        assert may_fit(kind, -1)  # chunked
        assert may_fit(kind, -2)  # HTTP/2 that does not say


def test_what_does_not_fit_is_refused_before_anything_runs():
    for kind in KINDS:
        check_size(kind, body_limit(kind), bytes(MAX_EVENT))
        for length, payload in ((body_limit(kind) + 1, b""), (0, bytes(MAX_EVENT + 1))):
            with pytest.raises(ForwardError) as caught:
                check_size(kind, length, payload)
            assert (caught.value.status, caught.value.stage, caught.value.request_sent) == (
                413,
                "pool",
                False,
            )
        assert str(body_limit(kind)) in too_large(kind).reason
