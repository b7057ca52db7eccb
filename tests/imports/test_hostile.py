"""Whatever stands at whatever place of a document: problems and notes, never an exception."""

import tomllib

from hypothesis import given, settings
from hypothesis import strategies as st

from imports.spaces import MONOLITH, default, function, route, service
from strangle_mw.config import load
from strangle_mw.errors import ConfigError
from strangle_mw.imports.openapi import import_openapi
from strangle_mw.imports.refactor_spaces import SeveralApplicationsError, import_refactor_spaces

FEW = settings(max_examples=150, deadline=None)
texts = st.sampled_from(
    ["", "/", "/a", "/{", "{}", "/{a}{a}", "ACTIVE", "URL", "LAMBDA", "DEFAULT", "http://[", "http://h:x", "//", "é", "${A}",
     "#/paths", "#/a/0", "svc-Leads00000", "a\n[b]", "x" * 600, "\x00", "unix:/a", "legacy", "get", "$ref", "Ref", "Fn::Sub"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 10**20) | st.floats() | texts,
    lambda v: st.lists(v, max_size=2) | st.dictionaries(texts, v, max_size=2),
    max_leaves=4,
)
LISTS = {
    "RouteSummaryList": [default(), route(1, "/a/{b}"), route(2, "/c", "svc-Events0000", UriPathRoute=None)],
    "ServiceSummaryList": [MONOLITH, service(), function()],
}
TEMPLATE = {
    "Parameters": {"Host": {"Type": "String", "Default": "h"}},
    "Resources": {
        "Leads": {
            "Type": "AWS::RefactorSpaces::Service",
            "Properties": {
                "Name": {"Fn::Sub": ["${Host}-${x}", {"x": {"Ref": "Host"}}]},
                "UrlEndpoint": {"Url": {"Fn::Join": ["", ["http://", {"Ref": "Host"}]]}},
            },
        },
        "LeadsRoute": {
            "Type": "AWS::RefactorSpaces::Route",
            "Properties": {
                "ServiceIdentifier": {"Fn::GetAtt": ["Leads", "ServiceIdentifier"]},
                "UriPathRoute": {"SourcePath": "/a", "ActivationState": "ACTIVE", "Methods": ["GET"]},
            },
        },
    },
}
OPENAPI = {
    "openapi": "3.1.0",
    "servers": [{"url": "/v1"}],
    "paths": {
        "/a/{b}": {
            "parameters": [{"$ref": "#/components/parameters/b"}],
            "get": {
                "operationId": "x",
                "parameters": [{"name": "b", "in": "path", "schema": {"type": "integer"}}],
            },
        }
    },
    "components": {"parameters": {"b": {"name": "b", "in": "path", "schema": {"type": "string"}}}},
}


@st.composite
def spoilt(draw, document):
    """The document with something else at one place, or two."""
    for _ in range(draw(st.integers(1, 2))):
        document = spoil(draw, document)
    return document


def spoil(draw, data):
    if not isinstance(data, dict | list) or not data or draw(st.integers(0, 7)) == 0:
        return draw(values)
    if isinstance(data, list):
        at = draw(st.integers(0, len(data) - 1))
        return [*data[:at], spoil(draw, data[at]), *data[at + 1 :]]
    key = draw(st.sampled_from(sorted(data)))
    name = draw(texts) if draw(st.integers(0, 9)) == 0 else key
    return {k: v for k, v in data.items() if k != key} | {name: spoil(draw, data[key])}


def check(make):
    try:
        plan = make()
    except (ConfigError, SeveralApplicationsError):
        return
    text = plan.finish()
    if not plan.problems:
        load(tomllib.loads(text))
    elif plan.title:
        assert "unresolved" in tomllib.loads(text)


@FEW
@given(spoilt(LISTS))
def test_lists(data):
    check(lambda: import_refactor_spaces([("f.json", data)]))


@FEW
@given(spoilt(TEMPLATE))
def test_templates(data):
    check(lambda: import_refactor_spaces([("t.json", data)], values={"A": "b"}))


@FEW
@given(spoilt(OPENAPI))
def test_openapi(data):
    check(lambda: import_openapi("a.json", data, to="http://m"))
