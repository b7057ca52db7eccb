"""From services and routes of Refactor Spaces to a table (design section 2: one term, one term).

A service is an upstream, a route a route, the service of the default route the wrapped app. What AWS does not
document is decided here and told. Reading the files is `refactor_objects` and `cloudformation`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from strangle_mw.core.patterns import PatternError
from strangle_mw.core.targets import parse_endpoint
from strangle_mw.imports.cloudformation import Template, is_template
from strangle_mw.imports.collisions import MAX_ROUTES, covered_by, refused_by_aws
from strangle_mw.imports.fields import Unresolved, needs
from strangle_mw.imports.plan import Block, Names, Plan, key_name, path_of
from strangle_mw.imports.refactor_objects import Entry, Found, Service, of_application

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TIMEOUT: Final = 29.0
"""Seconds that API Gateway waits for a service, if nobody has had it raised (its quotas for REST APIs)."""

# `LambdaArn` of the service's model.
_ARN = re.compile(
    r"arn:(aws[a-zA-Z-]*)?:lambda:[a-z]{2}((-gov)|(-iso(b?)))?-[a-z]+-\d{1}:\d{12}:function:[a-zA-Z0-9-_]+"
    r"(:(\$LATEST|[a-zA-Z0-9-_]+))?"
)
# `UriPath` of the same.
_SOURCE_PATH = re.compile(r"(/([a-zA-Z0-9._:-]+|\{[a-zA-Z0-9._:-]+\}))+")
_TITLE = "From AWS Migration Hub Refactor Spaces, by `strangle import refactor-spaces`."


class SeveralApplicationsError(ValueError):
    """The files hold more than one application, and none or an unknown one was chosen."""


def import_refactor_spaces(
    files: Iterable[tuple[str, object]],
    *,
    application: str | None = None,
    values: Mapping[str, str] | None = None,
) -> Plan:
    """Make a plan of files, each a name and its plain data; `values` resolve references of templates.

    Raises `SeveralApplicationsError` if there are several applications and `application` names none of them.
    """
    plan = Plan([_TITLE])
    found = Found(plan)
    templates = []
    for name, data in files:
        if isinstance(data, dict) and is_template(data):
            templates.append(Template(name, data, values or {}, found))
            templates[-1].read()
        else:
            found.read(name, data)
    for value in (values or {}).keys() - {u for t in templates for u in t.used}:
        plan.note("--value", f"nothing refers to {value}")
    if plan.problems and not found.services and not found.entries:
        plan.title.clear()  # nothing of which a draft could be made
        return plan
    chosen = _choose(found, application)
    services = {s.id: s for s in of_application(found.services.values(), chosen)}
    entries = [*of_application(found.entries.values(), chosen)]
    if len(entries) > MAX_ROUTES:
        what = f"there are {len(entries)}, and at most {MAX_ROUTES} are taken"
        plan.problem("routes", what, "import-size")
        entries.clear()
    _Mapping(plan, services, entries).run()
    found.finish()
    return plan


def _choose(found: Found, application: str | None) -> str:
    objects: list[Service | Entry] = [*found.services.values(), *found.entries.values()]
    known = sorted({o.application for o in objects} - {""})
    if application is not None and application not in known:
        raise SeveralApplicationsError(
            f"there is no application {application!r}; there is {', '.join(known) or 'none'}"
        )
    if application is None and len(known) > 1:
        raise SeveralApplicationsError(
            f"there are several applications, choose one with --application: {', '.join(known)}"
        )
    if len(known) > 1:
        left = sum(o.application not in ("", application) for o in objects)
        found.plan.note("--application", f"{left} services and routes of other applications are left out")
    return application or "".join(known)


class _Mapping:
    """Turns the objects of one application into blocks of the table."""

    def __init__(self, plan: Plan, services: Mapping[str, Service], entries: Sequence[Entry]) -> None:
        self._plan = plan
        self._services = services
        self._defaults = [e for e in entries if e.is_default]
        routes = [e for e in entries if not e.is_default]
        self._entries = sorted(routes, key=lambda e: (e.path, e.methods, e.id))
        self._legacy = self._defaults[0].service if self._defaults else ""
        self._names = Names(["legacy"])
        self._upstreams: dict[str, Block] = {}
        self._rooted = {s.id: self._is_rooted(s) for s in services.values()}

    def run(self) -> None:
        self._default()
        for entry, what in refused_by_aws(self._entries):
            self._plan.note(entry.place, what)
        for service in sorted(self._services.values(), key=lambda s: (s.name, s.id)):
            if service.id != self._legacy:
                self._upstream(service)
        for entry in self._entries:
            self._route(entry)
        used = {b.fields.get("to") for b in self._plan.routes if b.active}
        for block in self._upstreams.values():
            block.active = block.name in used
            if not block.active:
                self._remark(block, "no active part of the table uses this service")
        if any(e.children and not e.append for e in self._entries):
            what = (
                "is false for routes with child paths: AWS does not document what is sent then; here it is "
                "the path of the service's URL, and below it what follows the source path"
            )
            self._plan.note("AppendSourcePath", what)
        if any("GET" in e.methods and "HEAD" not in e.methods for e in self._entries):
            self._plan.note("methods", "a route for GET also takes HEAD here; AWS would not forward that")
        if not self._plan.routes:
            self._plan.note("routes", "there are none: the wrapped app answers everything")

    def _remark(self, block: Block, what: str) -> None:
        """Say something about an upstream or a route, in the table and beside it."""
        block.comments.append(what)
        self._plan.note(block.place, what)

    # --- the default route

    def _default(self) -> None:
        title = self._plan.title
        for extra in self._defaults[1:]:
            what = f"is a second default route, beside {self._defaults[0].id}; an application has one"
            self._plan.problem(extra.place, what, "import-default")
        if not self._defaults:
            what = "is not among the files: every service is an upstream, and the wrapped app the default"
            self._plan.note("the DEFAULT route", what)
            title.append("Requests that no route takes go to the wrapped app.")
            return
        entry = self._defaults[0]
        service = self._services.get(self._legacy)
        name = service.name if service is not None else self._legacy
        title.append(f"The wrapped app is the service of the DEFAULT route, {name!r}, and needs no upstream.")
        self._plan.note(entry.place, f"is the DEFAULT route: its service {name!r} is the app that you wrap")
        if entry.state not in ("", "ACTIVE"):
            self._plan.note(
                entry.place, f"the DEFAULT route is {entry.state or 'in no known state'}; here it always acts"
            )
        if service is not None and service.kind == "LAMBDA":
            self._plan.note(
                service.place, "the DEFAULT route leads to a Lambda function; here it is the app you wrap"
            )
        elif service is not None and _split(service.url).path.strip("/"):
            what = f"the wrapped app gets paths as received, without {_split(service.url).path} in front"
            self._plan.note(service.place, what)

    # --- services

    def _is_rooted(self, service: Service) -> bool:
        """Tell whether the URL's path must stand in each route's rewrite, not in the upstream's URL."""
        base = _split(service.url).path.rstrip("/")
        health = _split(service.health_url)
        beside = bool(service.health_url) and not health.path.startswith(f"{base}/")
        return bool(base) and (beside or any(e.service == service.id and not e.append for e in self._entries))

    def _upstream(self, service: Service) -> None:
        name = self._names.take(key_name(service.name) or key_name(service.id) or "service")
        block = Block(name, service.place, {})
        block.comments.append(f"{service.name} ({service.id})" if service.name != service.id else service.id)
        if service.description:
            block.comments.append(service.description)
        if service.kind == "LAMBDA":
            self._function(service, block)
        elif service.kind == "URL":
            self._url(service, block)
        else:
            self._plan.problem(
                f"{service.place}.EndpointType", f"{service.kind!r} is not known", "import-type"
            )
        block.fields["timeout"] = TIMEOUT
        if service.state not in ("", "ACTIVE") or service.error:
            state = f"the service is {service.state or 'in no known state'}"
            self._remark(block, f"{state}: {service.error}" if service.error else state)
        if service.vpc:
            self._plan.note(
                service.place, f"is in {service.vpc}, which the app's process must reach by itself"
            )
        self._plan.upstreams.append(block)
        self._upstreams[service.id] = block

    def _function(self, service: Service, block: Block) -> None:
        block.fields = {"lambda": service.function, "format": "rest"}
        place = f"{service.place}.LambdaEndpoint.Arn"
        if needs(self._plan, place, service.function) and not _ARN.fullmatch(service.function):
            what = f"{service.function!r} must be the ARN of a function" if service.function else "is missing"
            self._plan.problem(place, what, "import-arn")

    def _url(self, service: Service, block: Block) -> None:
        place = f"{service.place}.UrlEndpoint.Url"
        block.fields["url"] = service.url
        healthy = needs(self._plan, f"{service.place}.UrlEndpoint.HealthUrl", service.health_url)
        if not needs(self._plan, place, service.url):
            return
        try:
            parse_endpoint(service.url)
        except PatternError as exc:
            what = f"{service.url!r} {exc}" if service.url else "is missing"
            self._plan.problem(place, what, "import-url")
            return
        url = _split(service.url)
        origin = f"{url.scheme}://{url.netloc}"
        rooted = self._rooted[service.id]
        block.fields["url"] = origin if rooted else f"{origin}{url.path.rstrip('/')}"
        if rooted:
            block.comments.append(f"the path of its URL, {url.path}, stands in the routes")
        if service.health_url and healthy:
            self._health(service, block, "" if rooted else url.path.rstrip("/"))

    def _health(self, service: Service, block: Block, base: str) -> None:
        health, url = _split(service.health_url), _split(service.url)
        if (health.scheme, _netloc(health)) != (url.scheme, _netloc(url)):
            what = f"HealthUrl {service.health_url} is at another address than the service: no health check"
            self._remark(block, what)
            return
        path = health.path.removeprefix(base) or "/"
        block.fields["health"] = {"path": f"{path}?{health.query}" if health.query else path}
        block.comments.append("AWS asks once, when a route is activated; here it is every 5 seconds")

    # --- routes

    def _route(self, entry: Entry) -> None:
        if entry.state == "DELETING":
            self._plan.note(entry.place, f"{entry.path} is being deleted, and left out")
            return
        path, renamed = path_of(entry.path)
        fields: dict[str, object] = {"name": entry.id, "path": path + ("/*" if entry.children else "")}
        block = Block(entry.id, entry.place, fields)
        if entry.methods:
            fields["methods"] = list(entry.methods)
        for old, new in renamed:
            self._remark(
                block, f"the parameter {{{old}}} is {{{new}}} here, also in a function's pathParameters"
            )
        if not _SOURCE_PATH.fullmatch(entry.path) and not isinstance(entry.path, Unresolved):
            what = f"{entry.path!r} is none of AWS: segments are letters, digits and ._:-, or {{parameter}}"
            self._plan.problem(
                f"{entry.place}.SourcePath", what if entry.path else "is missing", "import-path"
            )
        service = self._services.get(entry.service)
        if entry.service == self._legacy:
            self._exception(entry, block)
        elif service is None:
            self._unknown_service(entry)
        else:
            fields["to"] = self._upstreams[service.id].name
            fields["stage"] = self._stage(entry, block)
            if service.kind == "URL":
                self._target(entry, service, path, block)
            elif entry.append:
                self._plan.note(
                    entry.place, "AppendSourcePath says nothing of a function: its event has the whole path"
                )
        self._plan.routes.append(block)

    def _exception(self, entry: Entry, block: Block) -> None:
        """Take a route to the default route's service: an exception from a wider route."""
        block.fields["to"] = "legacy"
        if entry.state != "ACTIVE":
            block.active = False
            self._remark(
                block,
                f"{entry.state or 'in no state'} in Refactor Spaces, and leads to the wrapped app anyway",
            )
        if not entry.append:
            what = "leads to the wrapped app, which gets the path as received, whatever AppendSourcePath says"
            self._plan.note(entry.place, what)

    def _unknown_service(self, entry: Entry) -> None:
        if isinstance(entry.service, Unresolved):
            name = entry.service.missing[0]
            what = (
                f"its service is {name}, which is not said here: give --value '{name}=...' and its own file"
            )
        else:
            what = f"its service {entry.service} is not among the files; add what `list-services` prints"
        if entry.service:
            self._plan.problem(entry.place, what, "import-service")

    def _stage(self, entry: Entry, block: Block) -> str:
        if entry.state == "ACTIVE":
            return "modern"
        known = ("INACTIVE", "FAILED", "CREATING", "UPDATING")
        if entry.state not in known:
            what = (
                f"{entry.state!r} is not known"
                if entry.state
                else "neither State nor ActivationState is given"
            )
            self._plan.problem(f"{entry.place}.State", what, "import-state")
        elif entry.state != "INACTIVE" or entry.error:
            error = f" ({entry.error})" if entry.error else ""
            self._remark(block, f"{entry.state} in Refactor Spaces{error}: stage legacy until you move it")
        active = [e for e in self._entries if e.state == "ACTIVE" and e.service != self._legacy]
        wider = covered_by(entry, active)
        if wider is not None:
            block.active = False
            what = (
                f"{entry.state} in Refactor Spaces, where {wider.id} gets its requests; in stage legacy the "
                "wrapped app would get them. Left out: take the comment signs away when it is to move"
            )
            self._remark(block, what)
        return "legacy"

    def _target(self, entry: Entry, service: Service, path: str, block: Block) -> None:
        """Say which path is sent: AppendSourcePath, and the path of the service's URL."""
        base = _split(service.url).path
        below = "/{*}" if entry.children else ""
        if entry.append:
            if self._rooted[service.id]:
                block.fields["rewrite"] = f"{base.rstrip('/')}{path}{below}"
            return
        if base.strip("/"):
            block.fields["rewrite"] = f"{base.rstrip('/')}{below}" if below else base
        elif "{" in path:
            block.fields["rewrite"] = below or "/"
        else:
            block.fields["strip_prefix"] = path
        more = ", and below it what follows the source path" if entry.children else ""
        block.comments.append(f"AppendSourcePath is false: the service gets its URL's path{more}")


def _split(url: str) -> SplitResult:
    try:
        return urlsplit("" if isinstance(url, Unresolved) else url)
    except ValueError:
        return urlsplit("")  # told as a problem where the URL is used


def _netloc(url: SplitResult) -> str:
    default = {"http": ":80", "https": ":443"}.get(url.scheme, "")
    return url.netloc.lower().removesuffix(default)
