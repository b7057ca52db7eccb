"""Every field of every shape of the service's own model is used, or known as not needed."""

import gzip
import json
from pathlib import Path

import pytest

from imports.spaces import ARN, MONOLITH, default, function, plan_of, route, service
from strangle_mw.imports.refactor_objects import LISTS, NOT_NEEDED
from strangle_mw.imports.refactor_spaces import SeveralApplicationsError, import_refactor_spaces

botocore = pytest.importorskip("botocore")
FILE = "data/migration-hub-refactor-spaces/2021-10-26/service-2.json.gz"
SHAPES = json.loads(gzip.decompress((Path(botocore.__file__).parent / FILE).read_bytes()))["shapes"]
VALUES = {
    "UriPath": "/a/{b}",
    "Uri": "http://h/x",
    "LambdaArn": ARN,
    "Timestamp": "2024-03-01T09:30:00+00:00",
}
PRINTED = [
    name
    for name in SHAPES
    if name.startswith(("List", "Get", "Create"))
    and name.endswith("Response")
    and "Tags" not in name
    and "Policy" not in name
]
TEMPLATES = {
    f"Create{kind}Request": f"AWS::RefactorSpaces::{kind}"
    for kind in ("Route", "Service", "Application", "Environment")
}


def sample(name):
    """A value of a shape with every field there is."""
    shape = SHAPES[name]
    if shape["type"] == "structure":
        return {field: sample(member["shape"]) for field, member in shape["members"].items()}
    if shape["type"] == "list":
        return [sample(shape["member"]["shape"])]
    if shape["type"] == "map":
        return {"key": sample(shape["value"]["shape"])}
    if shape["type"] in ("boolean", "integer"):
        return True if shape["type"] == "boolean" else 1
    return VALUES.get(name) or shape.get("enum", [f"a-{name}"])[0]


def unknown(plan):
    return [str(n) for n in plan.notes if "is not known" in n.what]


@pytest.mark.parametrize("name", PRINTED)
def test_nothing_that_is_printed_is_unknown(name):
    plan = import_refactor_spaces([("f.json", sample(name))])
    assert unknown(plan) == []
    assert not [p for p in plan.problems if p.id in ("import-format", "import-type")]


@pytest.mark.parametrize(("name", "type_"), TEMPLATES.items())
def test_nothing_in_a_template_is_unknown(name, type_):
    properties = sample(name)
    plan = import_refactor_spaces(
        [("t.json", {"Resources": {"A": {"Type": type_, "Properties": properties}}})]
    )
    assert unknown(plan) == []
    assert not [p for p in plan.problems if p.id in ("import-format", "import-type")]


def test_the_model_was_walked():
    assert {"ListRoutesResponse", "GetRouteResponse", "CreateRouteResponse", "ListServicesResponse"} <= {
        *PRINTED
    }
    fields = {f for s in SHAPES.values() for f in s.get("members", {})}
    assert fields >= NOT_NEEDED
    assert {k for k in fields if k.endswith("List")} == {*LISTS}


def told(route_, service_):
    """Everything that an import says."""
    try:
        plan = plan_of([default(), route_, route(2, "/other")], [MONOLITH, service(), service_])
    except SeveralApplicationsError as exc:
        return str(exc)
    return plan.finish() + "".join(map(str, [*plan.notes, *plan.problems]))


OTHERS = {
    "route": {
        "ApplicationId": "app-Other00001",
        "AppendSourcePath": False,
        "Error": {"Code": "NOT_AUTHORIZED", "Message": "no"},
        "IncludeChildPaths": True,
        "Methods": ["PUT"],
        "RouteId": "rte-0000000009",
        "RouteType": "DEFAULT",
        "ServiceId": "svc-Other00000",
        "SourcePath": "/b",
        "State": "INACTIVE",
    },
    "service": {
        "ApplicationId": "app-Other00001",
        "Description": "another",
        "EndpointType": "LAMBDA",
        "Error": {"Code": "NOT_AUTHORIZED", "Message": "no"},
        "Name": "another",
        "ServiceId": "svc-Other00000",
        "State": "DELETING",
        "UrlEndpoint": {"Url": "http://another"},
        "VpcId": "vpc-1",
    },
}
USED_AS_WELL = {"route": {"State"}, "service": {"Description", "EndpointType", "State", "VpcId"}}


@pytest.mark.parametrize(("kind", "shape"), [("route", "RouteSummary"), ("service", "ServiceSummary")])
def test_every_other_field_makes_a_difference(kind, shape):
    members = {*SHAPES[shape]["members"]}
    needed = members - NOT_NEEDED | USED_AS_WELL[kind]
    assert needed - {"LambdaEndpoint"} == OTHERS[kind].keys()
    objects = {
        "route": route(1, "/a", "svc-Api0000000", State="FAILED"),
        "service": service("api", "http://api"),
    }
    before = told(objects["route"], objects["service"])
    for field, value in OTHERS[kind].items():
        assert (
            told(**{f"{k}_": o | {field: value} if k == kind else o for k, o in objects.items()}) != before
        ), field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("UrlEndpoint", {"Url": "http://api", "HealthUrl": "http://api/up"}),
        ("Error", {"Message": "only"}),
    ],
)
def test_inner_fields_make_a_difference(field, value):
    api = service("api", "http://api")
    mine = route(1, "/a", api["ServiceId"])
    assert told(mine, api | {field: value}) != told(mine, api)


def test_a_functions_arn_makes_a_difference():
    mine = route(1, "/a", "svc-Events0000")
    assert told(mine, function()) != told(mine, function(arn=ARN.replace("live", "7")))
