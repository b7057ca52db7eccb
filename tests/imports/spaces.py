"""Objects in the shapes that `aws migration-hub-refactor-spaces` prints, with values of our own."""

import tomllib

from strangle_mw.config import load
from strangle_mw.imports.refactor_spaces import import_refactor_spaces

APPLICATION = "app-Shop000001"
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:marketing-events:live"
COMMON = {
    "ApplicationId": APPLICATION,
    "EnvironmentId": "env-Shop000001",
    "OwnerAccountId": "123456789012",
    "CreatedByAccountId": "123456789012",
    "CreatedTime": "2024-03-01T09:30:00+00:00",
    "LastUpdatedTime": "2024-03-02T09:30:00+00:00",
    "State": "ACTIVE",
    "Tags": {"team": "sales"},
}


def route(number, path, service="svc-Leads00000", **more):
    return (
        COMMON
        | {
            "RouteId": f"rte-{number:010d}",
            "RouteType": "URI_PATH",
            "ServiceId": service,
            "SourcePath": path,
            "Methods": [],
            "IncludeChildPaths": False,
            "AppendSourcePath": True,
            "PathResourceToId": {path: "abcdefghij"},
        }
        | more
    )


def default(**more):
    found = COMMON | {"RouteId": "rte-Default000", "RouteType": "DEFAULT", "ServiceId": "svc-Monolith00"}
    return found | more


def service(name="leads", url="http://leads.internal:8080", **more):
    made = COMMON | {"ServiceId": f"svc-{name.title():0<10}", "Name": name, "EndpointType": "URL"}
    return made | {"UrlEndpoint": {"Url": url}, "VpcId": "vpc-0123456789abcdef0"} | more


def function(name="events", arn=ARN, **more):
    made = COMMON | {"ServiceId": f"svc-{name.title():0<10}", "Name": name, "EndpointType": "LAMBDA"}
    return made | {"LambdaEndpoint": {"Arn": arn}} | more


MONOLITH = service("monolith", "http://crm.internal")


def plan_of(routes, services, **options):
    files = [
        ("routes.json", {"RouteSummaryList": routes}),
        ("services.json", {"ServiceSummaryList": services}),
    ]
    return import_refactor_spaces(files, **options)


def table_of(plan):
    """The plan's table as plain data, after it has been loaded."""
    text = plan.finish()
    assert not plan.problems, [*map(str, plan.problems)]
    load(tomllib.loads(text))
    return tomllib.loads(text)


def problems_of(plan):
    plan.finish()
    return [str(p) for p in plan.problems]


def notes_of(plan):
    plan.finish()
    return [str(n) for n in plan.notes]
