"""Services and routes of Refactor Spaces, taken from what the AWS CLI prints and from templates.

Shapes of `migration-hub-refactor-spaces`, version 2021-10-26 of its model. What they mean here is
`refactor_spaces`; intrinsic functions of templates are `cloudformation`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

from strangle_mw.decoding import kind_of
from strangle_mw.imports.fields import Fields, Unresolved

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from strangle_mw.imports.plan import Plan

NOT_NEEDED: Final = frozenset({
    "AccountId", "AdditionalDetails", "ApiGatewayId", "Arn", "CidrBlocks", "ClientToken",
    "CreatedByAccountId", "CreatedTime", "Description", "EndpointType", "EnvironmentId",
    "EnvironmentIdentifier", "LastUpdatedTime", "NlbArn", "NlbName", "OwnerAccountId",
    "PathResourceToId", "ProxyType", "ResourceIdentifier", "ResourceType", "State", "Tags", "VpcId",
    "VpcLinkId", "VpcName",
})  # fmt: skip
"""Fields that a table has no use for, where they are not asked for; told in one line."""

LISTS: Final = {
    "RouteSummaryList": "route",
    "ServiceSummaryList": "service",
    "ApplicationSummaryList": "application",
    "EnvironmentSummaryList": "environment",
    "EnvironmentVpcList": "vpc",
}
"""What `list-...` prints, by the key of the list."""

_SINGLE = {
    "RouteId": "route",
    "ServiceId": "service",
    "ApplicationId": "application",
    "EnvironmentId": "environment",
}
EXPECTED: Final = (
    "what `aws migration-hub-refactor-spaces list-routes` or `list-services` prints as JSON or YAML, "
    "or a CloudFormation template with AWS::RefactorSpaces resources"
)


@dataclass(frozen=True, slots=True)
class Service:
    """A service; `kind` is URL or LAMBDA, and its endpoint is `url` or `function`."""

    id: str
    application: str
    name: str
    kind: str
    url: str
    health_url: str
    function: str
    description: str
    state: str
    error: str
    vpc: str
    place: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """A route; `append` is AppendSourcePath, `state` ACTIVE, INACTIVE, or what keeps it from being either."""

    id: str
    application: str
    service: str
    is_default: bool
    path: str
    methods: tuple[str, ...]
    children: bool
    append: bool
    state: str
    error: str
    place: str = field(compare=False)


Kind = TypeVar("Kind", Service, Entry)


class Found:
    """What the files hold, object by object."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.services: dict[str, Service] = {}
        self.entries: dict[str, Entry] = {}
        self.unneeded: set[str] = set()
        self._pages: dict[str, list[bool]] = {}

    def read(self, name: str, data: object) -> None:
        """Read a file of the AWS CLI: a list, a page of one, or one object."""
        for value in data if isinstance(data, list) else [data]:
            if not isinstance(value, dict):
                self._neither(name, kind_of(value))
                continue
            lists = [k for k in LISTS if k in value]
            for key in lists:
                self._page(name, key, value)
            single = next((kind for key, kind in _SINGLE.items() if value.get(key) is not None), None)
            if not lists and single is not None:
                self.take(single, value, name)
            elif not lists:
                self._neither(name, f"a table with {', '.join(map(repr, [*value][:5])) or 'nothing in it'}")

    def _neither(self, name: str, found: str) -> None:
        self.plan.problem(name, f"must be {EXPECTED}; this is {found}", "import-format")

    def _page(self, name: str, key: str, page: Mapping[str, object]) -> None:
        items = page[key]
        self._pages.setdefault(key, []).append(bool(page.get("NextToken")))
        for other in page.keys() - LISTS.keys() - {"NextToken"}:
            self.plan.note(name, f"the field {other!r} is not known, and not used")
        if not isinstance(items, list):
            self.plan.problem(f"{name}.{key}", f"must be a list, not {kind_of(items)}", "import-type")
            return
        for at, item in enumerate(items):
            place = f"{name}.{key}[{at}]"
            if isinstance(item, dict):
                self.take(LISTS[key], item, name, place)
            else:
                self.plan.problem(place, f"must be a table, not {kind_of(item)}", "import-type")

    def finish(self) -> None:
        """Tell what holds for all files together."""
        for key, more in self._pages.items():
            if all(more):
                what = "is one page of several (NextToken); give the others, too, or list without --max-items"
                self.plan.problem(key, what, "import-page")
        for entry in self.entries.values():
            if not entry.service:
                self.plan.problem(entry.place, "names no service", "import-missing")
        if self.unneeded:
            self.plan.note("not needed here", ", ".join(sorted(self.unneeded)))

    def take(self, kind: str, data: Mapping[str, object], name: str, place: str = "", id_: str = "") -> None:
        """Take one object of a file; `id_` is its logical id in a template."""
        keys = {"route": "RouteId", "service": "ServiceId"}
        given = data.get(keys.get(kind, ""))
        id_ = id_ or (given if isinstance(given, str) else "")
        fields = Fields(data, f"{name}: {id_}" if id_ else place or name, self.plan)
        if kind == "route":
            self._keep(self.entries, self._entry(fields, id_), "RouteId")
        elif kind == "service":
            self._keep(self.services, self._service(fields, id_), "ServiceId")
        else:
            self._tell(fields, kind)

    def _keep(self, known: dict[str, Kind], item: Kind, key: str) -> None:
        if not item.id:
            self.plan.problem(item.place, f"has no {key}", "import-missing")
        elif known.setdefault(item.id, item) != item:
            other = known[item.id].place.partition(":")[0]
            what = f"{item.id} is told in another way in {other}; keep the newer one"
            self.plan.problem(item.place, what, "import-twice")

    def _service(self, fields: Fields, id_: str) -> Service:
        fields.text("ServiceId")
        url, function = fields.table("UrlEndpoint"), fields.table("LambdaEndpoint")
        name = fields.text("Name", open_=True)
        kind = fields.text("EndpointType") or ("LAMBDA" if "LambdaEndpoint" in fields else "URL")
        service = Service(
            id_,
            fields.text("ApplicationId", "ApplicationIdentifier", open_=True),
            id_ if isinstance(name, Unresolved) else name,
            kind,
            url.text("Url", open_=True),
            url.text("HealthUrl", open_=True),
            function.text("Arn", open_=True),
            fields.text("Description", open_=True),
            fields.text("State"),
            self._error(fields),
            fields.text("VpcId", open_=True),
            fields.place,
        )
        self._rest(fields, url, function)
        return service

    def _entry(self, fields: Fields, id_: str) -> Entry:
        fields.text("RouteId")
        route, default = fields.table("UriPathRoute"), fields.table("DefaultRoute")
        source = route if "UriPathRoute" in fields else fields
        kind = fields.text("RouteType") or ("DEFAULT" if "DefaultRoute" in fields else "URI_PATH")
        state = fields.text("State")
        active = [t.text("ActivationState") for t in (route, default)]
        entry = Entry(
            id_,
            fields.text("ApplicationId", "ApplicationIdentifier", open_=True),
            fields.text("ServiceId", "ServiceIdentifier", open_=True),
            kind == "DEFAULT",
            source.text("SourcePath"),
            tuple(source.texts("Methods")),
            source.flag("IncludeChildPaths") or False,
            source.flag("AppendSourcePath") or False,
            state if state in ("FAILED", "DELETING") else active[0] or active[1] or state,
            self._error(fields),
            fields.place,
        )
        if kind not in ("DEFAULT", "URI_PATH"):
            self.plan.problem(f"{fields.place}.RouteType", f"{kind!r} is not known", "import-type")
        if "DefaultRoute" in fields and not entry.state:
            entry = replace(entry, state="ACTIVE")  # "defaults to an active state" (CreateRoute)
        self._rest(fields, route, default)
        return entry

    def _error(self, fields: Fields) -> str:
        error = fields.table("Error")
        text = ": ".join(t for t in (error.text("Code"), error.text("Message")) if t)
        self._rest(error)
        return text

    def _tell(self, fields: Fields, kind: str) -> None:
        """Tell of an application, an environment or a VPC what a reader may miss: it becomes nothing here."""
        proxy = fields.table("ApiGatewayProxy")
        told = {
            "id": fields.text("VpcId" if kind == "vpc" else f"{kind.capitalize()}Id", open_=True),
            "name": fields.text("Name", open_=True),
            "network": fields.text("NetworkFabricType", open_=True),
            "transit gateway": fields.text("TransitGatewayId", open_=True),
            "address": proxy.text("ProxyUrl", open_=True),
            "API Gateway stage": proxy.text("StageName", open_=True),
            "error": self._error(fields),
        }
        words = ", ".join(f"{k} {v}" for k, v in told.items() if v)
        what = {
            "application": "your own app takes its place; paths here have no API Gateway stage in front",
            "environment": "becomes nothing here: the process reaches upstreams over its own network",
        }.get(kind, "becomes nothing here")
        self.plan.note(fields.place, f"{kind} ({words}): {what}")
        self._rest(fields, proxy)

    def _rest(self, *tables: Fields) -> None:
        for table in tables:
            self.unneeded |= table.rest(NOT_NEEDED)


def of_application(items: Iterable[Kind], application: str) -> Iterator[Kind]:
    """Yield the objects of one application; those that do not say theirs count as its own."""
    return (item for item in items if item.application in ("", application))
