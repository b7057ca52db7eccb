"""What becomes of services and routes of Refactor Spaces."""

import pytest

from imports.spaces import (
    ARN,
    MONOLITH,
    default,
    function,
    notes_of,
    plan_of,
    problems_of,
    route,
    service,
    table_of,
)
from strangle_mw.imports.collisions import MAX_ROUTES
from strangle_mw.imports.refactor_spaces import SeveralApplicationsError, import_refactor_spaces

DOCS = service("docs", "https://docs.example.com/base")


def one_route(**more):
    """Import one route to `leads` and return its fields."""
    path = more.pop("SourcePath", "/v1/leads")
    plan = plan_of([default(), route(1, path, **more)], [MONOLITH, service()])
    [found] = table_of(plan)["routes"]
    assert found.pop("name") == "rte-0000000001"
    assert found.pop("to") == "leads"
    return found


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, {"path": "/v1/leads", "stage": "modern"}),
        ({"Methods": ["GET", "PUT"]}, {"path": "/v1/leads", "methods": ["GET", "PUT"], "stage": "modern"}),
        ({"IncludeChildPaths": True}, {"path": "/v1/leads/*", "stage": "modern"}),
        ({"State": "INACTIVE"}, {"path": "/v1/leads", "stage": "legacy"}),
        ({"AppendSourcePath": False}, {"path": "/v1/leads", "stage": "modern", "strip_prefix": "/v1/leads"}),
        ({"AppendSourcePath": None}, {"path": "/v1/leads", "stage": "modern", "strip_prefix": "/v1/leads"}),
        (
            {"SourcePath": "/l/{id}", "AppendSourcePath": False},
            {"path": "/l/{id}", "stage": "modern", "rewrite": "/"},
        ),
        (
            {"SourcePath": "/l/{id}", "AppendSourcePath": False, "IncludeChildPaths": True},
            {"path": "/l/{id}/*", "stage": "modern", "rewrite": "/{*}"},
        ),
        ({"SourcePath": "/{a.b:c}/{0-d}"}, {"path": "/{a_b_c}/{p_0_d}", "stage": "modern"}),
        ({"SourcePath": "/{a.b}/{a-b}"}, {"path": "/{a_b}/{a_b_2}", "stage": "modern"}),
        ({"SourcePath": "/a.b:c-d_e"}, {"path": "/a.b:c-d_e", "stage": "modern"}),
    ],
)
def test_a_route(given, found):
    assert one_route(**given) == found


@pytest.mark.parametrize("state", ["FAILED", "CREATING", "UPDATING"])
def test_a_route_without_traffic_is_legacy_and_told(state):
    failed = route(1, "/a", State=state, Error={"Code": "NOT_AUTHORIZED", "Message": "no"})
    plan = plan_of([default(), failed], [MONOLITH, service()])
    assert table_of(plan)["routes"][0]["stage"] == "legacy"
    assert f"rte-0000000001: {state} in Refactor Spaces (NOT_AUTHORIZED: no): stage legacy" in str(
        notes_of(plan)
    )


def test_a_route_that_is_being_deleted_is_left_out():
    plan = plan_of([default(), route(1, "/a", State="DELETING"), route(2, "/b")], [MONOLITH, service()])
    assert [r["path"] for r in table_of(plan)["routes"]] == ["/b"]
    assert "routes.json: rte-0000000001: /a is being deleted, and left out" in notes_of(plan)


@pytest.mark.parametrize("state", ["SLEEPING", None])
def test_an_unknown_state_is_a_problem(state):
    plan = plan_of([default(), route(1, "/a", State=state)], [MONOLITH, service()])
    assert "rte-0000000001.State: " in str(problems_of(plan))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"Url": "http://h"}, {"url": "http://h"}),
        ({"Url": "https://h:8443/"}, {"url": "https://h:8443"}),
        ({"Url": "http://h/base/"}, {"url": "http://h/base"}),
        (
            {"Url": "http://h", "HealthUrl": "http://H:80/up?full=1"},
            {"url": "http://h", "health": {"path": "/up?full=1"}},
        ),
        ({"Url": "http://h", "HealthUrl": "http://h"}, {"url": "http://h", "health": {"path": "/"}}),
        (
            {"Url": "http://h/b", "HealthUrl": "http://h/b/up"},
            {"url": "http://h/b", "health": {"path": "/up"}},
        ),
        ({"Url": "http://h/b", "HealthUrl": "http://h/up"}, {"url": "http://h", "health": {"path": "/up"}}),
        ({"Url": "http://h", "HealthUrl": "https://h/up"}, {"url": "http://h"}),
        ({"Url": "http://h", "HealthUrl": "http://other/up"}, {"url": "http://h"}),
    ],
)
def test_a_service_with_a_url(given, found):
    plan = plan_of([default(), route(1, "/a")], [MONOLITH, service(UrlEndpoint=given)])
    upstream = table_of(plan)["upstreams"]["leads"]
    assert upstream == found | {"timeout": 29.0}
    if "HealthUrl" in given and "health" not in found:
        assert "is at another address than the service" in str(notes_of(plan))


def test_the_path_of_a_url_stands_in_the_routes_where_one_of_them_drops_it():
    routes = [
        default(),
        route(1, "/a", DOCS["ServiceId"], AppendSourcePath=False),
        route(2, "/b/{x-y}", DOCS["ServiceId"], IncludeChildPaths=True),
        route(3, "/c", DOCS["ServiceId"], AppendSourcePath=False, IncludeChildPaths=True),
    ]
    table = table_of(plan_of(routes, [MONOLITH, DOCS]))
    assert table["upstreams"]["docs"]["url"] == "https://docs.example.com"
    assert [r["rewrite"] for r in table["routes"]] == ["/base", "/base/b/{x_y}/{*}", "/base/{*}"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://h",
        "http://u:p@h",
        "http://h?x=1",
        "http://h#x",
        "http://h:0",
        "http://h/%2e%2e",
        "http://[",
        "h",
    ],
)
def test_a_url_that_cannot_be_used(url):
    plan = plan_of([default(), route(1, "/a")], [MONOLITH, service(UrlEndpoint={"Url": url})])
    [problem] = problems_of(plan)
    assert problem.startswith("services.json: svc-Leads00000.UrlEndpoint.Url: ")


@pytest.mark.parametrize(
    "arn", [ARN, ARN.removesuffix(":live"), ARN.replace("live", "$LATEST"), ARN.replace("live", "7")]
)
def test_a_function(arn):
    plan = plan_of([default(), route(1, "/a", "svc-Events0000")], [MONOLITH, function(arn=arn)])
    assert table_of(plan)["upstreams"] == {"events": {"lambda": arn, "format": "rest", "timeout": 29.0}}


@pytest.mark.parametrize("arn", ["", "marketing-events", "arn:aws:s3:::bucket", ARN + ":x:y"])
def test_what_is_no_function(arn):
    plan = plan_of([default(), route(1, "/a", "svc-Events0000")], [MONOLITH, function(arn=arn)])
    assert "svc-Events0000.LambdaEndpoint.Arn: " in str(problems_of(plan))


def test_the_default_routes_service_is_the_wrapped_app():
    plan = plan_of([default(), route(1, "/a")], [MONOLITH, service()])
    assert [*table_of(plan)["upstreams"]] == ["leads"]
    assert "rte-Default000: is the DEFAULT route: its service 'monolith' is the app that you wrap" in str(
        notes_of(plan)
    )


def test_without_default_route_every_service_is_an_upstream():
    plan = plan_of([route(1, "/a"), route(2, "/b", MONOLITH["ServiceId"])], [MONOLITH, service()])
    assert sorted(table_of(plan)["upstreams"]) == ["leads", "monolith"]
    assert "the DEFAULT route: is not among the files" in str(notes_of(plan))


@pytest.mark.parametrize(
    ("monolith", "says"),
    [
        (function("monolith"), "leads to a Lambda function; here it is the app you wrap"),
        (service("monolith", "http://crm.internal/app"), "gets paths as received, without /app in front"),
    ],
)
def test_a_default_service_that_is_more_than_an_address(monolith, says):
    assert says in str(notes_of(plan_of([default(), route(1, "/a")], [monolith, service()])))


def test_a_default_route_that_does_not_act():
    plan = plan_of([default(State="INACTIVE")], [MONOLITH])
    assert "the DEFAULT route is INACTIVE; here it always acts" in str(notes_of(plan))


def test_two_default_routes():
    plan = plan_of([default(), default(RouteId="rte-Default001")], [MONOLITH])
    assert "rte-Default001: is a second default route, beside rte-Default000" in str(problems_of(plan))


def test_routes_to_the_monolith_are_exceptions():
    routes = [
        default(),
        route(1, "/a", IncludeChildPaths=True),
        route(2, "/a/old", MONOLITH["ServiceId"], AppendSourcePath=False),
        route(3, "/a/older", MONOLITH["ServiceId"], State="INACTIVE"),
    ]
    plan = plan_of(routes, [MONOLITH, service()])
    assert table_of(plan)["routes"][1:] == [{"name": "rte-0000000002", "path": "/a/old", "to": "legacy"}]
    assert '# path = "/a/older"' in plan.finish()


INACTIVE = {"State": "INACTIVE"}


@pytest.mark.parametrize(
    ("wider", "inactive", "left_out"),
    [
        (("/u", {"IncludeChildPaths": True}), ("/u/{id}/orders", INACTIVE), True),
        (
            ("/u", {"IncludeChildPaths": True, "Methods": ["POST"]}),
            ("/u/x", INACTIVE | {"Methods": ["GET"]}),
            False,
        ),
        (
            ("/u", {"IncludeChildPaths": True, "Methods": ["HEAD"]}),
            ("/u/x", INACTIVE | {"Methods": ["GET"]}),
            True,
        ),
        (("/u/{id}", {}), ("/u/me", INACTIVE), True),
        (("/u/me", {}), ("/u/{id}", INACTIVE), False),
        (("/u", {}), ("/u", INACTIVE | {"Methods": ["GET"]}), True),
        (("/u", {"Methods": ["GET"]}), ("/u", INACTIVE), False),
        (("/{a}/b", {}), ("/u", INACTIVE | {"IncludeChildPaths": True}), True),
        (("/{a}/b", {}), ("/u", INACTIVE), False),
        (("/v/w", {}), ("/u", INACTIVE | {"IncludeChildPaths": True}), False),
        (("/u", {"IncludeChildPaths": True, "ServiceId": MONOLITH["ServiceId"]}), ("/u/x", INACTIVE), False),
    ],
)
def test_an_inactive_route_takes_no_request_from_an_active_one(wider, inactive, left_out):
    routes = [default(), route(1, wider[0], **wider[1]), route(2, inactive[0], **inactive[1])]
    plan = plan_of(routes, [MONOLITH, service()])
    names = [r["name"] for r in table_of(plan)["routes"]]
    assert ("rte-0000000002" not in names) is left_out
    assert ("where rte-0000000001 gets its requests" in str(notes_of(plan))) is left_out


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["/u/{id}/v/{id}"], "AWS refuses a path that names {id} twice"),
        (["/u/{id}", "/u/{name}/x"], "AWS refuses {name} at the place of {id} of rte-0000000000"),
        (["/u+", "/u/{id}"], "AWS refuses a parameter beside the child paths of rte-0000000000"),
    ],
)
def test_what_aws_refuses_is_told_and_works(paths, says):
    routes = [route(at, p.rstrip("+"), IncludeChildPaths="+" in p) for at, p in enumerate(paths)]
    plan = plan_of([default(), *routes], [MONOLITH, service()])
    assert len(table_of(plan)["routes"]) == len(paths)
    assert says in str(notes_of(plan))


@pytest.mark.parametrize(
    "paths", [["/u", "/u/{id}", "/u/{id}/p", "/u/{id}/p/{q}"], ["/u+", "/u/a/{id}"], ["/u/{id}", "/w/{name}"]]
)
def test_what_aws_takes_is_not_told(paths):
    routes = [route(at, p.rstrip("+"), IncludeChildPaths="+" in p) for at, p in enumerate(paths)]
    plan = plan_of([default(), *routes], [MONOLITH, service()])
    assert "refuses" not in str(notes_of(plan))


def test_two_routes_alike_are_a_problem_that_names_both():
    plan = plan_of([default(), route(1, "/u/{a}"), route(2, "/u/{b}")], [MONOLITH, service()])
    [problem] = problems_of(plan)
    assert problem.startswith(
        "routes.json: rte-0000000002: 'rte-0000000002' can never match: routes.json: rte-0000000001"
    )


@pytest.mark.parametrize("path", ["", "/a/../b", "/a//b", "a", "/a/{b", "/a/{b}{c}", "/a/*", "/a b"])
def test_a_path_that_cannot_be_expressed(path):
    plan = plan_of([default(), route(1, path), route(2, "/fine")], [MONOLITH, service()])
    [problem] = problems_of(plan)
    assert problem.startswith("routes.json: rte-0000000001")
    assert "path" in problem.lower()


def test_services_that_are_missing_or_unused():
    routes = [default(), route(1, "/a", "svc-Missing000")]
    plan = plan_of(
        routes,
        [
            MONOLITH,
            service(State="DELETING"),
            service("gone", "http://g", State="FAILED", Error={"Code": "RESOURCE_IN_USE"}),
        ],
    )
    [problem] = problems_of(plan)
    assert problem.startswith(
        "routes.json: rte-0000000001: its service svc-Missing000 is not among the files"
    )
    notes = notes_of(plan)
    assert "services.json: svc-Leads00000: the service is DELETING" in notes
    assert "services.json: svc-Gone000000: the service is FAILED: RESOURCE_IN_USE" in notes
    assert "# [upstreams.leads]" in plan.finish()


def test_names_of_upstreams_are_plain_and_unique():
    services = [
        service("Sales leads", "http://a", ServiceId="svc-1"),
        service("Sales-leads", "http://b", ServiceId="svc-2"),
        service("legacy", "http://c", ServiceId="svc-3"),
        service("é", "http://d", ServiceId="svc-4"),
    ]
    routes = [route(at, f"/{at}", s["ServiceId"]) for at, s in enumerate(services)]
    table = table_of(plan_of(routes, services))
    assert sorted(table["upstreams"]) == ["Sales-leads", "Sales-leads-2", "legacy-2", "svc-4"]


def test_a_description_is_a_comment_and_nothing_else():
    hostile = 'old\n[strangle]\nstore = "sqlite:///x.db"\r\x1b[2J'
    plan = plan_of([default(), route(1, "/a")], [MONOLITH, service(Description=hostile)])
    assert sorted(table_of(plan)) == ["routes", "upstreams"]


def test_several_applications():
    other = {"ApplicationId": "app-Other00001"}
    routes = [default(), route(1, "/a"), default(RouteId="rte-D2", ServiceId="svc-M2", **other)]
    services = [MONOLITH, service(), service("m", "http://m", ServiceId="svc-M2", **other)]
    with pytest.raises(SeveralApplicationsError, match="app-Other00001, app-Shop000001"):
        plan_of(routes, services)
    with pytest.raises(SeveralApplicationsError, match="no application 'app-x'"):
        plan_of(routes, services, application="app-x")
    plan = plan_of(routes, services, application="app-Shop000001")
    assert [r["path"] for r in table_of(plan)["routes"]] == ["/a"]
    assert "--application: 2 services and routes of other applications are left out" in notes_of(plan)


def test_the_same_object_twice():
    twice = [
        ("a.json", {"RouteSummaryList": [default(), route(1, "/a")]}),
        ("b.json", route(1, "/a", Tags=None)),
    ]
    services = ("s.json", {"ServiceSummaryList": [MONOLITH, service()]})
    assert len(table_of(import_refactor_spaces([*twice, services]))["routes"]) == 1
    twice[1] = ("b.json", route(1, "/b"))
    assert "b.json: rte-0000000001: rte-0000000001 is told in another way in a.json" in str(
        problems_of(import_refactor_spaces([*twice, services]))
    )


def test_pages_of_a_list():
    pages = [
        ("1.json", {"RouteSummaryList": [default()], "NextToken": "abc"}),
        ("2.json", [{"RouteSummaryList": [route(1, "/a")]}]),
        ("3.json", service()),
        ("4.json", [MONOLITH]),
    ]
    assert len(table_of(import_refactor_spaces(pages))["routes"]) == 1
    del pages[1]
    assert "RouteSummaryList: is one page of several (NextToken)" in str(
        problems_of(import_refactor_spaces(pages))
    )


def test_other_objects_are_told():
    application = {
        "ApplicationId": "app-Shop000001",
        "Name": "crm",
        "ApiGatewayProxy": {
            "ProxyUrl": "https://x.execute-api.eu-west-1.amazonaws.com/prod",
            "StageName": "prod",
        },
    }
    environment = {"EnvironmentId": "env-1", "Name": "sales", "NetworkFabricType": "TRANSIT_GATEWAY"}
    files = [
        ("a.json", {"ApplicationSummaryList": [application]}),
        ("e.json", environment),
        ("v.json", {"EnvironmentVpcList": [{"VpcId": "vpc-1", "VpcName": "x"}]}),
        ("r.json", {"RouteSummaryList": [default(), route(1, "/a")]}),
        ("s.json", {"ServiceSummaryList": [MONOLITH, service()]}),
    ]
    plan = import_refactor_spaces(files)
    assert len(table_of(plan)["routes"]) == 1
    told = " ".join(notes_of(plan))
    assert "address https://x.execute-api.eu-west-1.amazonaws.com/prod, API Gateway stage prod" in told
    assert "network TRANSIT_GATEWAY" in told
    assert "vpc (id vpc-1)" in told


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("text", "this is text"),
        (None, "this is NoneType"),
        ([1], "this is a number"),
        ({}, "this is a table with nothing in it"),
        ({"a": 1, "b": 2}, "this is a table with 'a', 'b'"),
        ({"RouteSummaryList": {}}, "RouteSummaryList: must be a list, not a table"),
        ({"RouteSummaryList": [7]}, "RouteSummaryList[0]: must be a table, not a number"),
        ({"RouteSummaryList": [{}]}, "RouteSummaryList[0]: has no RouteId"),
        ({"ServiceSummaryList": [{"Name": "x"}]}, "ServiceSummaryList[0]: has no ServiceId"),
        (route(1, "/a", Methods={}), "rte-0000000001.Methods: must be a list of text, not a table"),
        (route(1, "/a", Methods=[1]), "rte-0000000001.Methods: must be a list of text, not a list"),
        (route(1, "/a", SourcePath=["/a"]), "rte-0000000001.SourcePath: must be text, not a list"),
        (route(1, "/a", IncludeChildPaths="maybe"), "IncludeChildPaths: must be true or false, not text"),
        (route(1, "/a", ServiceId=7), "rte-0000000001.ServiceId: must be text, not a number"),
        (route(1, "/a", RouteType="REGEX"), "rte-0000000001.RouteType: 'REGEX' is not known"),
        (route(1, "/a", UriPathRoute=[]), "rte-0000000001.UriPathRoute: must be a table, not a list"),
        (
            route(1, "/a", Methods=["get"]),
            "rte-0000000001: `methods` methods are case-sensitive; write 'GET'",
        ),
        (service(EndpointType="FTP"), "svc-Leads00000.EndpointType: 'FTP' is not known"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(data, says):
    files = [("f.json", data), ("s.json", {"ServiceSummaryList": [MONOLITH, service()]})]
    assert says in str(problems_of(import_refactor_spaces(files)))


def test_a_draft_is_never_a_table():
    """Whoever sends the draft to a file gets one that does not load."""
    plan = plan_of([default(), route(1, "/a", "svc-Missing000")], [MONOLITH, service()])
    assert plan.finish().count("unresolved = [") == 1
    plan = plan_of([default(), route(1, "/a")], [MONOLITH, service()])
    assert "unresolved" not in plan.finish()


def test_fields_that_nobody_knows_are_told():
    plan = plan_of([default(), route(1, "/a", Colour="red")], [MONOLITH, service()])
    assert "routes.json: rte-0000000001: the field 'Colour' is not known, and not used" in notes_of(plan)
    [line] = [n for n in notes_of(plan) if n.startswith("not needed here")]
    assert line == (
        "not needed here: CreatedByAccountId, CreatedTime, EnvironmentId, LastUpdatedTime, "
        "OwnerAccountId, PathResourceToId, Tags"
    )


def test_nothing_at_all():
    plan = plan_of([], [])
    assert table_of(plan) == {}
    assert "routes: there are none: the wrapped app answers everything" in notes_of(plan)


def test_too_many_routes():
    plan = plan_of([route(n, f"/{n}") for n in range(MAX_ROUTES + 1)], [service()])
    assert problems_of(plan) == ["routes: there are 1001, and at most 1000 are taken (import-size)"]
