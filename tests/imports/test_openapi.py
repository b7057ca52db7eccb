"""OpenAPI and Swagger documents as tables."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imports.spaces import notes_of, problems_of, table_of
from strangle_mw.config import load
from strangle_mw.imports.openapi import METHODS, import_openapi

INTEGER = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer", "format": "int64"}}


def plan_of(paths, **more):
    options = {k: more.pop(k) for k in ("to", "url", "stage", "prefix") if k in more}
    document = {"openapi": "3.1.0", "info": {"title": "CRM"}, "paths": paths} | more
    return import_openapi("api.json", document, **({"to": "http://modern"} | options))


def test_a_route_for_each_path_and_method():
    plan = plan_of(
        {
            "/leads": {"post": {}, "get": {"operationId": "listLeads"}},
            "/events": {"get": {"deprecated": True}},
        }
    )
    assert table_of(plan)["routes"] == [
        {
            "name": "GET /events",
            "path": "/events",
            "methods": ["GET"],
            "to": "http://modern",
            "stage": "legacy",
        },
        {"name": "listLeads", "path": "/leads", "methods": ["GET"], "to": "http://modern", "stage": "legacy"},
        {
            "name": "POST /leads",
            "path": "/leads",
            "methods": ["POST"],
            "to": "http://modern",
            "stage": "legacy",
        },
    ]
    assert "# deprecated\n[[routes]]" in plan.finish()
    assert "# Every route is in stage legacy: nothing moves until you move it." in plan.finish()


@pytest.mark.parametrize(
    ("parameter", "path"),
    [
        (INTEGER, "/leads/{id:int}"),
        ({"name": "id", "in": "path", "type": "integer"}, "/leads/{id:int}"),
        ({"name": "id", "in": "path", "schema": {"type": ["integer", "null"]}}, "/leads/{id:int}"),
        ({"name": "id", "in": "path", "schema": {"type": ["integer", "string"]}}, "/leads/{id}"),
        ({"name": "id", "in": "path", "schema": {"type": "string", "format": "uuid"}}, "/leads/{id:uuid}"),
        ({"name": "id", "in": "path", "type": "string", "format": "uuid"}, "/leads/{id:uuid}"),
        ({"name": "id", "in": "path", "schema": {"type": "string"}}, "/leads/{id}"),
        ({"name": "id", "in": "path", "schema": {"$ref": "#/components/schemas/Id"}}, "/leads/{id:int}"),
        ({"$ref": "#/components/parameters/a~1id"}, "/leads/{id:int}"),
        ({"$ref": "#/components/list/0"}, "/leads/{id:int}"),
        ({"name": "id", "in": "path"}, "/leads/{id}"),
        ({"name": "id", "in": "path", "schema": True}, "/leads/{id}"),
        ({"name": "id", "in": "query", "schema": {"type": "integer"}}, "/leads/{id}"),
        ({"name": "other", "in": "path", "schema": {"type": "integer"}}, "/leads/{id}"),
    ],
)
@pytest.mark.parametrize("place", ["path", "operation"])
def test_types_of_parameters(parameter, path, place):
    components = {
        "schemas": {"Id": {"$ref": "#/components/schemas/Number"}, "Number": {"type": "integer"}},
        "parameters": {"a/id": INTEGER},
        "list": [INTEGER],
    }
    operation = {"parameters": [parameter]} if place == "operation" else {}
    item = {"get": operation} | ({"parameters": [parameter]} if place == "path" else {})
    assert table_of(plan_of({"/leads/{id}": item}, components=components))["routes"][0]["path"] == path


def test_an_operations_own_parameter_goes_before_its_paths():
    text = {"name": "id", "in": "path", "schema": {"type": "string"}}
    plan = plan_of({"/leads/{id}": {"parameters": [INTEGER], "get": {"parameters": [text]}, "put": {}}})
    assert [r["path"] for r in table_of(plan)["routes"]] == ["/leads/{id}", "/leads/{id:int}"]


def test_what_an_integer_takes_is_told_once():
    item = {"parameters": [INTEGER], "get": {}, "delete": {}}
    told = notes_of(plan_of({"/leads/{id}": item, "/events": {"get": {}}}))
    assert len([n for n in told if "integer" in str(n)]) == 1
    assert not any("integer" in str(n) for n in notes_of(plan_of({"/events": {"get": {}}})))


def test_swagger_2():
    document = {"swagger": 2.0, "basePath": "/v1/", "paths": {"/leads": {"get": {}}}}
    plan = import_openapi("api.yaml", document, to="http://modern")
    assert table_of(plan)["routes"][0]["path"] == "/leads"
    assert "basePath: names the prefix /v1; the routes have none (--prefix /v1)" in notes_of(plan)


def test_prefix():
    servers = [
        {"url": "https://crm.example.com/v1/"},
        {"url": "/v1"},
        {"url": "https://{host}/v2"},
        {"url": "http://["},
        7,
    ]
    plan = plan_of({"/leads": {"get": {}}}, servers=servers, prefix="/v1/")
    assert table_of(plan)["routes"][0] | {"stage": ""} == {
        "name": "GET /v1/leads", "path": "/v1/leads", "methods": ["GET"], "to": "http://modern", "stage": "",
    }  # fmt: skip
    assert [n for n in notes_of(plan) if n.startswith("servers")] == [
        "servers: names the prefix /v2; the routes have /v1 (--prefix /v2)"
    ]


def test_an_upstream_with_a_name():
    plan = plan_of({"/leads": {"get": {}}}, to="leads", url="http://leads.internal", stage="modern")
    table = table_of(plan)
    assert table["upstreams"] == {"leads": {"url": "http://leads.internal"}}
    assert (table["routes"][0]["to"], table["routes"][0]["stage"]) == ("leads", "modern")
    assert "nothing moves" not in plan.finish()
    assert table_of(plan_of({}, to="leads", url="http://leads.internal")) == {}


def test_names_are_unique_and_changes_told():
    plan = plan_of({"/a/{lead-id}": {"get": {"operationId": "x"}}, "/b": {"get": {"operationId": "x"}}})
    assert [r["name"] for r in table_of(plan)["routes"]] == ["x", "x-2"]
    assert notes_of(plan) == [
        "paths./a/{lead-id}.get: the parameter {lead-id} is {lead_id} here",
        "paths./b.get: another operation is named 'x'; this one is 'x-2'",
    ]


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        ([], "paths: must be a table, not a list"),
        (
            {"/a/{b}{c}": {"get": {}, "put": {}}},
            "paths./a/{b}{c}: the path /a/{b}{c} has two parameters in one segment",
        ),
        ({"a": {"get": {}}}, "paths.a: the path a must start with a slash"),
        ({"/a?b=1": {"get": {}}}, "paths./a?b=1: the path /a?b=1 contains '?'"),
        ({"/a/*": {"get": {}}}, "paths./a/*: the path /a/* ends with `/*`"),
        ({"/a/{b": {"get": {}}}, "has an unmatched brace"),
        ({"/a": {"get": []}}, "paths./a.get: must be a table, not a list"),
        ({"/a": 5}, "paths./a: must be a table, not a number"),
        ({"/a": {"parameters": {}, "get": {}}}, "paths./a.parameters: must be a list, not a table"),
        (
            {"/a": {"$ref": "other.yaml#/a"}},
            "paths./a: refers to 'other.yaml#/a', which is not in this document",
        ),
        ({"/a": {"$ref": "#/paths/~1a"}}, "paths./a: refers to itself"),
        ({"/a": {"$ref": 7}}, "paths./a: refers to 7"),
        ({"/a": {"$ref": "#/info/title/x"}}, "paths./a: refers to '#/info/title/x'"),
        (
            {"/a/{b}": {"get": {}}, "/a/{c}": {"get": {}}},
            "paths./a/{c}.get: 'GET /a/{c}' can never match: paths./a/{b}.get",
        ),
    ],
)
def test_what_cannot_be_expressed_is_told_with_its_place(paths, says):
    found = problems_of(plan_of(paths))
    assert len(found) == 1
    assert says in found[0]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            [],
            "must be an OpenAPI 3 document (`openapi: 3...`) or a Swagger 2 document (`swagger: '2.0'`); this is a list",
        ),
        ({}, "this is a table without either key"),
        ({"openapi": "4.0.0"}, "this is one of version '4.0.0'"),
        ({"swagger": "1.2"}, "this is one of version '1.2'"),
        ({"openapi": {"a": 1}}, "this is one of version"),
    ],
)
def test_what_is_no_such_document(data, says):
    assert says in str(problems_of(import_openapi("x", data, to="http://m")))


def test_what_is_not_used_is_told():
    item = {"get": {"servers": []}, "servers": [], "GET": {}, "x-own": 1, "summary": "s"}
    plan = plan_of({"/a": item, "x-own": 1}, webhooks={"w": {}})
    assert notes_of(plan) == [
        "webhooks: is not used: these are requests that the app sends",
        "paths./a.GET: is no method, and not used",
        "paths./a.servers: is not used: every route leads to the same upstream",
        "paths./a.get.servers: is not used: every route leads to the same upstream",
    ]


def test_methods_of_openapi_3_2():
    plan = plan_of({"/a": {"query": {}, "additionalOperations": {"COPY": {}}}})
    assert [r["methods"] for r in table_of(plan)["routes"]] == [["QUERY"], ["COPY"]]


def test_nothing_at_all():
    assert "paths: there are none: the wrapped app answers everything" in notes_of(plan_of({}))


FEW = settings(max_examples=60, deadline=None)
segments = st.sampled_from(["a", "b", "{x}", "{y-z}", "{x}.json", "v{n}"])
templates = st.lists(segments, min_size=1, max_size=3).map(lambda s: "/" + "/".join(s))


@FEW
@given(st.dictionaries(templates, st.sets(st.sampled_from(METHODS), min_size=1, max_size=3), max_size=5))
def test_each_operation_is_a_route_in_stage_legacy_or_a_problem(operations):
    plan = plan_of({p: {m: {} for m in ms} for p, ms in operations.items()})
    text = plan.finish()
    if plan.problems:
        assert "unresolved" in tomllib.loads(text)
        return
    table = load(tomllib.loads(text)).table
    assert len(table.routes) == sum(map(len, operations.values()))
    assert {r.declared.stage for r in table.routes} <= {"legacy"}
    for path, methods in operations.items():
        filled = path.replace("{x}", "1").replace("{y-z}", "2").replace("{n}", "3")
        for method in methods:
            assert method.upper() in table.match(filled.encode(), method.upper()).methods
