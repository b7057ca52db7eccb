"""Templates: what their references stand for, and what is told of those that stand for nothing."""

import json

import pytest
import yaml

from imports.spaces import ARN, notes_of, problems_of, table_of
from strangle_mw.imports.documents import read_document
from strangle_mw.imports.refactor_spaces import import_refactor_spaces

TEMPLATE = """
AWSTemplateFormatVersion: 2010-09-09
Parameters:
  LeadsHost:
    Type: String
  Port:
    Type: Number
    Default: 8080
Conditions:
  Moved: !Equals [!Ref Port, 8080]
Resources:
  Environment:
    Type: AWS::RefactorSpaces::Environment
    Properties: {Name: sales, NetworkFabricType: NONE}
  Application:
    Type: AWS::RefactorSpaces::Application
    DependsOn: Environment
    Properties:
      Name: crm
      EnvironmentIdentifier: !Ref Environment
      ProxyType: API_GATEWAY
      VpcId: !Ref Vpc
      ApiGatewayProxy: {StageName: prod}
  Monolith:
    Type: AWS::RefactorSpaces::Service
    Properties: &service
      ApplicationIdentifier: !GetAtt Application.ApplicationIdentifier
      EnvironmentIdentifier: !Ref Environment
      Name: monolith
      EndpointType: URL
      UrlEndpoint: {Url: !Sub 'http://${Balancer.DNSName}'}
  Leads:
    Type: AWS::RefactorSpaces::Service
    Properties:
      <<: *service
      Name: leads
      UrlEndpoint:
        Url: !Sub 'http://${LeadsHost}:${Port}'
        HealthUrl: !Join ['', ['http://', !Ref LeadsHost, ':', !Ref Port, /healthz]]
  Events:
    Type: AWS::RefactorSpaces::Service
    Properties:
      <<: *service
      Name: !Sub '${AWS::StackName}-events'
      EndpointType: LAMBDA
      UrlEndpoint: !Ref AWS::NoValue
      LambdaEndpoint: {Arn: !Ref EventsLiveAlias}
  Default:
    Type: AWS::RefactorSpaces::Route
    Properties: &route
      ApplicationIdentifier: !GetAtt Application.ApplicationIdentifier
      EnvironmentIdentifier: !Ref Environment
      RouteType: DEFAULT
      ServiceIdentifier: !GetAtt Monolith.ServiceIdentifier
  LeadsRoute:
    Type: AWS::RefactorSpaces::Route
    Condition: Moved
    DependsOn: Default
    Properties:
      <<: *route
      RouteType: URI_PATH
      ServiceIdentifier: !GetAtt Leads.ServiceIdentifier
      UriPathRoute:
        SourcePath: /v1/getSalesLeads
        Methods: [GET]
        AppendSourcePath: 'true'
        ActivationState: ACTIVE
  EventsRoute:
    Type: AWS::RefactorSpaces::Route
    Properties:
      <<: *route
      RouteType: URI_PATH
      ServiceIdentifier: !Ref Events
      UriPathRoute: {SourcePath: /v1/getMarketingEvents, ActivationState: INACTIVE, IncludeChildPaths: true}
"""
VALUES = {"LeadsHost": "leads.internal", "EventsLiveAlias": ARN}


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "crm.yaml"
    path.write_text(TEMPLATE)
    return read_document(str(path))


def plan_of(data, values=VALUES, name="crm.yaml"):
    return import_refactor_spaces([(name, data)], values=values)


def test_a_template(data):
    assert table_of(plan_of(data)) == {
        "upstreams": {
            "Events": {"lambda": ARN, "format": "rest", "timeout": 29.0},
            "leads": {"url": "http://leads.internal:8080", "health": {"path": "/healthz"}, "timeout": 29.0},
        },
        "routes": [
            {"name": "EventsRoute", "path": "/v1/getMarketingEvents/*", "to": "Events", "stage": "legacy"},
            {
                "name": "LeadsRoute",
                "path": "/v1/getSalesLeads",
                "methods": ["GET"],
                "to": "leads",
                "stage": "modern",
            },
        ],
    }
    notes = notes_of(plan_of(data))
    assert "crm.yaml: LeadsRoute: exists under the condition 'Moved' only; taken as if that holds" in notes
    assert (
        "crm.yaml: the parameter Port is not given; its default '8080' is taken (--value 'Port=...')" in notes
    )
    assert "crm.yaml: Application: application (name crm, API Gateway stage prod): " in str(notes)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda d: d,
        lambda d: {"TemplateBody": d},
        lambda d: {"TemplateBody": json.dumps(d)},
        lambda d: {"TemplateBody": yaml.safe_dump(d), "StagesAvailable": []},
    ],
)
def test_json_and_what_get_template_prints(data, wrap):
    long_form = json.loads(json.dumps(wrap(data)))
    assert plan_of(long_form).finish() == plan_of(data).finish()


def test_references_that_stand_for_nothing_are_named_and_refused(data):
    plan = plan_of(data, {})
    wheres = [p.where for p in (plan.finish() and plan.problems)]
    assert wheres == [
        "crm.yaml: Events.LambdaEndpoint.Arn",
        "crm.yaml: Leads.UrlEndpoint.HealthUrl",
        "crm.yaml: Leads.UrlEndpoint.Url",
    ]
    assert "refers to LeadsHost, which is not said here: give --value 'LeadsHost=...'" in problems_of(plan)[2]
    text = plan.draft()
    assert 'url = "http://${LeadsHost}:8080"' in text
    assert 'lambda = "${EventsLiveAlias}"' in text


RESOLVED = {"P": "given", "R.Attr": "attr", "export": "imported"}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"Ref": "P"}, "given"),
        ({"Fn::GetAtt": ["R", "Attr"]}, "attr"),
        ({"Fn::GetAtt": "R.Attr"}, "attr"),
        ({"Fn::Sub": "a ${P} ${R.Attr} ${!Literal} $ {} ${ P }"}, "a given attr ${Literal} $ {} given"),
        ({"Fn::Sub": ["${x}-${P}", {"x": {"Ref": "P"}}]}, "given-given"),
        ({"Fn::Join": ["/", ["a", {"Ref": "P"}, {"Fn::Join": ["", ["b", "c"]]}]]}, "a/given/bc"),
        ({"Fn::ImportValue": "export"}, "imported"),
        ({"Fn::ImportValue": {"Fn::Sub": "${Nope}-x"}}, "${${Nope}-x}"),
        ({"Ref": "Nope"}, "${Nope}"),
        ({"Fn::If": ["C", "a", "b"]}, "${Fn::If}"),
        ({"Fn::Join": ["", {"Ref": "List"}]}, "${Fn::Join}"),
        ({"Fn::Join": [1]}, "${Fn::Join}"),
        ({"Fn::Sub": {"a": 1}}, "${Fn::Sub}"),
        ({"Fn::GetAtt": [1, 2]}, "${Fn::GetAtt}"),
        ({"Ref": ["x"]}, "${Ref}"),
    ],
)
def test_functions(data, value, found):
    data["Resources"]["Leads"]["Properties"]["Description"] = value
    assert f"# {found}" in plan_of(data, VALUES | RESOLVED).finish().splitlines()


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda r: r.clear(), "crm.yaml: has no resource of a type AWS::RefactorSpaces::..."),
        (lambda r: r.update({"Fn::ForEach::X": []}), "is no resource as such; give the processed template"),
        (lambda r: r.update(X=5), "crm.yaml: X: is no resource as such"),
        (lambda r: r["Leads"].update(Properties=[]), "crm.yaml: Leads.Properties: must be a table"),
        (
            lambda r: r["LeadsRoute"]["Properties"].pop("ServiceIdentifier"),
            "crm.yaml: LeadsRoute: names no service",
        ),
        (
            lambda r: r["LeadsRoute"]["Properties"].update(ServiceIdentifier={"Ref": "Other"}),
            "crm.yaml: LeadsRoute: its service is Other, which is not said here: give --value 'Other=...'",
        ),
        (
            lambda r: r["LeadsRoute"]["Properties"].update(UriPathRoute={"Fn::If": []}),
            "crm.yaml: LeadsRoute.UriPathRoute: refers to Fn::If",
        ),
        (
            lambda r: r["LeadsRoute"]["Properties"]["UriPathRoute"].update(IncludeChildPaths={"Ref": "X"}),
            "crm.yaml: LeadsRoute.UriPathRoute.IncludeChildPaths: refers to X",
        ),
        (
            lambda r: r["LeadsRoute"]["Properties"]["UriPathRoute"].update(Methods=[{"Ref": "X"}]),
            "crm.yaml: LeadsRoute.UriPathRoute.Methods: refers to X",
        ),
    ],
)
def test_what_is_wrong_in_a_template(data, edit, says):
    edit(data["Resources"])
    assert says in str(problems_of(plan_of(data)))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (
            lambda r: r.update(N={"Type": "AWS::CloudFormation::Stack"}),
            "N: is a nested stack, which is not read",
        ),
        (
            lambda r: r.update(N={"Type": "AWS::RefactorSpaces::Other"}),
            "N: the type AWS::RefactorSpaces::Other is not known",
        ),
        (lambda r: r["Leads"].update(Colour=1), "Leads: the attribute 'Colour' is not known"),
        (lambda r: r["Leads"]["Properties"].update(Colour=1), "Leads: the field 'Colour' is not known"),
    ],
)
def test_what_is_told_of_a_template(data, edit, says):
    edit(data["Resources"])
    plan = plan_of(data)
    assert says in str(notes_of(plan))
    assert table_of(plan)


@pytest.mark.parametrize(("resources", "says"), [(5, "must be a table, not a number"), (None, "is missing")])
def test_a_template_without_resources(resources, says):
    assert says in str(
        problems_of(plan_of({"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources}))
    )


def test_methods_may_be_a_parameter_with_a_list(data):
    data["Parameters"]["Methods"] = {"Type": "CommaDelimitedList", "Default": "GET, PUT"}
    data["Resources"]["LeadsRoute"]["Properties"]["UriPathRoute"]["Methods"] = {"Ref": "Methods"}
    assert table_of(plan_of(data))["routes"][1]["methods"] == ["GET", "PUT"]


def test_a_value_that_nothing_refers_to_is_told(data):
    assert "--value: nothing refers to LeadHost" in notes_of(plan_of(data, VALUES | {"LeadHost": "x"}))


def test_a_service_of_another_file(data):
    """A parameter may hold the id of a service that the AWS CLI has listed."""
    data["Resources"]["LeadsRoute"]["Properties"]["ServiceIdentifier"] = {"Ref": "LeadsId"}
    listed = {
        "ServiceId": "svc-0123456789",
        "Name": "listed",
        "EndpointType": "URL",
        "UrlEndpoint": {"Url": "http://l"},
    }
    plan = import_refactor_spaces(
        [("crm.yaml", data), ("s.json", {"ServiceSummaryList": [listed]})],
        values=VALUES | {"LeadsId": "svc-0123456789"},
    )
    assert table_of(plan)["routes"][1]["to"] == "listed"
