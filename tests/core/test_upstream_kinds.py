"""Functions and apps in this process as upstreams: how they are written, named, and refused."""

import sys
from functools import partial

import pytest

from strangle_mw import ConfigError, Route, Split, Upstream
from strangle_mw.config import load
from strangle_mw.core.targets import LambdaFunction, is_target, parse_function

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:events"


async def asgi_app(scope, receive, send):
    """Stands for an ASGI app; never called."""


def wsgi_app(environ, start_response):
    """Stands for a WSGI app; never called."""


class App:
    """An app that is false, as one with a length may be."""

    def __len__(self):
        return 0

    def __call__(self, environ, start_response):
        return []


def upstream(to, **named):
    snapshot = load({"upstreams": named, "routes": [{"path": "/a", "to": to}]})
    (found,) = snapshot.table.routes[0].action.upstreams
    return found


def problems(to, **named):
    with pytest.raises(ConfigError) as caught:
        load({"upstreams": named, "routes": [{"path": "/a", "to": to}]})
    assert all(len(p.what) > 5 for p in caught.value.problems)
    return [(p.where, p.id) for p in caught.value.problems]


FUNCTIONS = {
    "events": LambdaFunction("events"),
    "events:live": LambdaFunction("events", "live"),
    "events:7": LambdaFunction("events", "7"),
    "events:$LATEST": LambdaFunction("events", "$LATEST"),
    "123456789012:function:events": LambdaFunction("123456789012:function:events"),
    "123456789012:function:events:live": LambdaFunction("123456789012:function:events", "live"),
    ARN: LambdaFunction(ARN, "", "eu-west-1"),
    f"{ARN}:live": LambdaFunction(ARN, "live", "eu-west-1"),
    "arn:aws-cn:lambda:cn-north-1:123456789012:function:e:$LATEST": LambdaFunction(
        "arn:aws-cn:lambda:cn-north-1:123456789012:function:e", "$LATEST", "cn-north-1"
    ),
}


@pytest.mark.parametrize("text", FUNCTIONS)
def test_a_function_is_taken_apart(text):
    assert parse_function(text) == FUNCTIONS[text]
    assert upstream("x", x={"lambda": text}).function == FUNCTIONS[text]


@pytest.mark.parametrize("text", FUNCTIONS)
def test_a_function_as_a_route_names_it(text):
    to = text if text.startswith("arn:") else f"lambda:{text}"
    assert is_target(to)
    found = upstream(to)
    assert (found.kind, found.function, found.name) == ("lambda", FUNCTIONS[text], to)
    assert [str(e) for e in found.endpoints] == [f"lambda:{text}"]


@pytest.mark.parametrize(
    "text",
    [":", "a b", "a:", ":live", "a:b:c", "x" * 141, "ä", "a/b", "a?b", "arn:aws:lambda:eu-west-1:1:function:e",
     "arn:aws:s3:::bucket", "arn:aws:lambda:eu-west-1:123456789012:layer:e", f"{ARN}:a:b", "events\n"],
)  # fmt: skip
def test_what_is_no_function(text):
    assert problems("x", x={"lambda": text}) == [("upstreams.x.lambda", "upstream-address")]


@pytest.mark.parametrize(
    "url", ["lambda.internal", "ftp://x", "unix:/run/x.sock", "https://x/?y=1", "https://user:pass@x"]
)
def test_an_address_of_the_invoke_api_is_checked_with_the_table(url):
    found = problems("x", x={"lambda": "events", "endpoint_url": url})
    assert found == [("upstreams.x.endpoint_url", "lambda-endpoint")]


@pytest.mark.parametrize("key", ["url", "endpoint_url"])
def test_a_password_in_an_address_is_in_no_message(key):
    declared = {key: "https://user:geheim@x.example/a", **({"lambda": "f"} if key != "url" else {})}
    with pytest.raises(ConfigError) as caught:
        load({"upstreams": {"x": declared}, "routes": [{"path": "/a", "to": "x"}]})
    assert "geheim" not in str(caught.value)
    assert "'https://***@x.example/a' must not hold" in str(caught.value)


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize("text", ["orders:app", "orders.api.main:app", "orders:site.app", "größe:app"])
def test_an_app_by_its_name(kind, text):
    for found in (upstream(f"{kind}:{text}"), upstream("x", x={kind: text})):
        assert (found.kind, found.in_process) == (kind, True)
        assert [str(e) for e in found.endpoints] == [f"{kind}:{text}"]


@pytest.mark.parametrize(
    "text", ["orders", "orders:", ":app", "orders:app()", "orders/api:app", "a b:c", "a:b:c", "1:2"]
)
def test_what_is_no_name_of_an_app(text):
    assert problems(f"asgi:{text}") == [("routes[0].to", "upstream-address")]
    assert problems("x", x={"wsgi": text}) == [("upstreams.x.wsgi", "upstream-address")]


def test_no_module_is_imported_by_loading_a_table():
    upstream("asgi:a_module_that_is_not_there:app")
    assert "a_module_that_is_not_there" not in sys.modules


@pytest.mark.parametrize(
    ("app", "kind"), [(asgi_app, "asgi"), (wsgi_app, "wsgi"), (App(), "wsgi"), (partial(asgi_app), "asgi")]
)
def test_an_app_itself(app, kind):
    assert upstream(app).kind == kind
    assert upstream(Upstream(**{kind: app})).kind == kind
    assert upstream("x", x=Upstream(**{kind: app})).kind == kind


def test_an_app_is_named_by_its_code_and_not_by_its_address():
    found = load([Route("/a", to=asgi_app), Route("/b", to=App()), Route("/c", to=asgi_app)])
    assert list(found.upstreams) == [f"asgi:{__name__}:asgi_app", f"wsgi:{__name__}:App"]
    again = load([Route("/a", to=App()), Route("/b", to=App())])
    assert list(again.upstreams) == [f"wsgi:{__name__}:App", f"wsgi:{__name__}:App (2)"]


@pytest.mark.parametrize("app", [print, App, lambda: None, object])
def test_what_is_no_app(app):
    assert problems(app) == [("routes[0].to", "app-interface")]


def test_a_number_is_no_app():
    assert problems(Upstream(asgi=7)) == [("routes[0].to.asgi", "type")]


def test_shares_may_be_of_any_kind():
    splits = [Split(upstream="lambda:f"), Split(upstream="asgi:a:b"), Split(upstream="http://h")]
    snapshot = load([Route("/a", to=splits)])
    assert [u.kind for u in snapshot.table.routes[0].action.upstreams] == ["lambda", "asgi", "http"]


@pytest.mark.parametrize("to", ["lambda:f", "asgi:a:b", "wsgi:a:b"])
def test_a_target_is_no_url(to):
    assert problems("x", x={"url": to}) == [("upstreams.x.url", "upstream-address")]


UNFIT = {
    "lambda": {"host": "preserve", "health": {"path": "/"}, "tls": {"cert": "c"}, "http": "2"},
    "asgi": {"host": "preserve", "health": {"path": "/"}, "tls": {"cert": "c"}, "http": "2", "region": "r",
             "profile": "p", "endpoint_url": "http://h", "format": "rest"},
    "url": {"region": "r", "profile": "p", "endpoint_url": "http://h", "format": "alb"},
}  # fmt: skip
TARGETS = {"lambda": "f", "asgi": "a:b", "wsgi": "a:b", "url": "https://h"}


@pytest.mark.parametrize(
    ("kind", "setting"), [(kind, s) for kind, settings in UNFIT.items() for s in settings]
)
def test_a_setting_that_does_not_act_is_refused(kind, setting):
    found = problems("x", x={kind: TARGETS[kind], setting: UNFIT[kind][setting]})
    assert (f"upstreams.x.{setting}", "upstream-setting") in found


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        *(("lambda", s) for s in ({"region": "eu-west-1"}, {"profile": "p"}, {"format": "alb"}, {"endpoint_url": "http://h"})),
        *((k, s) for k in TARGETS for s in ({"timeout": 3}, {"max_in_flight": 2}, {"connect_timeout": 2}, {"breaker": {"failures": 2}})),
    ],
)  # fmt: skip
def test_a_setting_that_acts(kind, setting):
    (name,) = setting
    found = upstream("x", x={kind: TARGETS[kind], **setting})
    assert getattr(found.declared, name) != getattr(Upstream(), name)


def test_the_region_of_an_arn_and_another_one():
    assert problems("x", x={"lambda": ARN, "region": "us-east-1"}) == [
        ("upstreams.x.region", "lambda-region")
    ]
    assert upstream("x", x={"lambda": ARN, "region": "eu-west-1"}).function.region == "eu-west-1"


@pytest.mark.parametrize("pair", [("url", "lambda"), ("lambda", "asgi"), ("asgi", "wsgi")])
def test_two_targets(pair):
    found = problems("x", x={k: TARGETS[k] for k in pair})
    assert ("upstreams.x", "upstream-target") in found


def test_a_function_without_its_package(monkeypatch):
    monkeypatch.setattr("strangle_mw.config.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'strangle-mw\[lambda\]'") as caught:
        load([Route("/a", to="lambda:f")])
    assert [p.id for p in caught.value.problems] == ["lambda-extra"]
