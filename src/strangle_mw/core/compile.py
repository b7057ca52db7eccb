"""From a declared `Route` to a `CompiledRoute`, or every reason why not.

Checks of a single route live here; those that need the whole table are in `lint`, those of a file's shape
in `config`. Nothing raises: problems are collected with the field they are in.
"""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import blake2b
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING

from strangle_mw.core.compiled import (
    Action,
    CompiledRoute,
    ForwardTo,
    RedirectTo,
    RespondWith,
    Rewrite,
    Test,
)
from strangle_mw.core.events import UNSAFE, safe_text
from strangle_mw.core.hygiene import HOP_BY_HOP, HeaderPlan
from strangle_mw.core.identity import withheld_names
from strangle_mw.core.messages import STANDARD_METHODS, is_token, normalize_host
from strangle_mw.core.model import LEGACY_TARGET, MAX_SECONDS, Condition, HeaderRules, Route
from strangle_mw.core.overrides import MAX_NAME
from strangle_mw.core.patterns import PathPattern, PatternError, Template, parse_path, parse_template, undone
from strangle_mw.core.staging import compile_staging, unused_fields
from strangle_mw.core.sticky import is_address, is_source
from strangle_mw.core.upstreams import UpstreamRegistry
from strangle_mw.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from strangle_mw.core.compiled import CompiledUpstream

_HOST = re.compile(
    r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*|\[[0-9a-f:.]+\]"
)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OURS = {b"content-length", b"host", b"via", b"forwarded", *HOP_BY_HOP}


class RouteCompiler:
    """Compiles the routes of one table; `upstreams` are those with a name, `names` all that were declared.

    Of `known` upstreams, those declared as before are taken again. `session_cookies` are those that never
    cross; None: what is known as such, of routes that say who the user is.
    """

    def __init__(
        self,
        names: Iterable[str] = (),
        *,
        loose_slash: bool = False,
        known: Mapping[str, CompiledUpstream] | None = None,
        session_cookies: Sequence[str] | None = None,
    ) -> None:
        self.problems: list[Problem] = []
        self.upstreams = UpstreamRegistry(names, self.problem, known or {})
        self._loose_slash = loose_slash
        self._cookies = session_cookies
        self._where = ""

    def begin(self, where: str) -> None:
        """Say where the following problems are."""
        self._where = where

    def compile(self, route: Route, index: int) -> CompiledRoute | None:
        """Compile one route; return None and add to `problems` if it cannot be used."""
        self._where = f"routes[{index}]"
        before = len(self.problems)
        methods, path = self._pattern(route)
        pattern = self._path(route, path)
        regex = self._regex(route)
        hosts = tuple(self._hosts(route))
        tests = self._tests(route)
        names = _names(pattern, regex)
        action = self._action(route, pattern, names)
        self._sticky(route)
        if len(route.name) > MAX_NAME or UNSAFE.search(route.name):
            what = f"must have at most {MAX_NAME} characters, none of control: no override could name it"
            self.problem("name", what, "route-name")
        name = route.name or _derived_name(route, methods, pattern, hosts, tests)
        salt = ",".join(u.name for u in action.upstreams) if isinstance(action, ForwardTo) else name
        staging = compile_staging(route, salt, self.problem)
        self._when(route)
        if len(self.problems) > before:
            return None
        kinds = [t.kind for t in tests]
        weights = (
            kinds.count("header"),
            kinds.count("query"),
            kinds.count("cookie"),
            int(route.when is not None),
        )
        return CompiledRoute(
            index,
            name,
            route,
            staging,
            pattern,
            regex,
            frozenset(methods),
            hosts,
            tests,
            route.when,
            action,
            weights,
        )

    def problem(self, field: str, what: str, id_: str) -> None:
        """Note one thing that is wrong with a field of the current route."""
        self.problems.append(Problem(f"{self._where}.{field}" if field else self._where, what, id_))

    def _pattern(self, route: Route) -> tuple[list[str], str | None]:
        methods = [*route.methods]
        path = route.path
        if route.pattern is not None:
            before, blank, after = route.pattern.strip().rpartition(" ")
            if path is not None:
                self.problem("path", "give either `pattern` or `path`, not both", "path-twice")
            if blank and methods:
                self.problem(
                    "methods", "give methods in `pattern` or in `methods`, not in both", "methods-twice"
                )
            methods += [m.strip() for m in before.split(",")] if blank else []
            path = after
            if not blank and "/" not in after and after.upper() == after:
                self.problem("pattern", f"has no path; write '{after} /path'", "path-pattern")
                return methods, None
        for method in methods:
            if not is_token(method.encode("latin-1", "replace")):
                self.problem("methods", f"{method!r} is not a method; write `GET,POST /path`", "method-name")
            elif method.upper() in STANDARD_METHODS and method != method.upper():
                self.problem(
                    "methods", f"methods are case-sensitive; write {method.upper()!r}", "method-case"
                )
        return methods, path

    def _path(self, route: Route, path: str | None) -> PathPattern | None:
        if route.regex is not None:
            if path is not None:
                self.problem("regex", "give either a path or `regex`, not both", "path-and-regex")
            return None
        try:
            pattern = parse_path("/*" if path is None else path)
            return pattern.without_slash() if self._loose_slash else pattern
        except PatternError as exc:
            self.problem("pattern" if route.pattern is not None else "path", str(exc), "path-pattern")
            return None

    def _regex(self, route: Route) -> re.Pattern[str] | None:
        if route.regex is None:
            return None
        if not route.regex or route.regex[0].isalnum():
            self.problem("regex", "must match the whole path, which starts with a slash", "regex-slash")
        if route.encoded_slash:
            self.problem("encoded_slash", "needs `path`: it is about parameters", "field-unused")
        return self._compile_regex("regex", route.regex)

    def _compile_regex(self, field: str, text: str) -> re.Pattern[str] | None:
        try:
            return re.compile(text, re.ASCII)
        except (re.error, ValueError, OverflowError, RecursionError) as exc:
            self.problem(field, f"is not a regular expression: {exc}", "regex-syntax")
            return None

    def _hosts(self, route: Route) -> Iterable[str]:
        for at, host in enumerate(route.hosts):
            name = normalize_host(host)
            if not _HOST.fullmatch(name) or host.lower().removesuffix(".") != name:
                what = f"{host!r} must be a name or *.name in ASCII, without scheme, port or path"
                self.problem(f"hosts[{at}]", what, "host-name")
            yield name

    def _tests(self, route: Route) -> tuple[Test, ...]:
        found: list[Test] = []
        for field, kind in (("headers", "header"), ("query", "query"), ("cookies", "cookie")):
            conditions: Mapping[str, str | Condition] = getattr(route, field)
            for name, value in conditions.items():
                condition = Condition(equals=value) if isinstance(value, str) else value
                where = f"{field}.{name}"
                if kind == "header" and any(t.name.lower() == name.lower() for t in found):
                    self.problem(where, "is named twice; header names do not differ by case", "header-twice")
                if kind != "query" and not is_token(name.encode("latin-1", "replace")):
                    self.problem(where, f"{name!r} cannot be the name of a {kind}", f"{kind}-name")
                self._check_condition(where, condition)
                regex = None if condition.regex is None else self._compile_regex(where, condition.regex)
                found.append(Test(kind, name, condition, regex))  # type: ignore[arg-type]
        return tuple(found)

    def _check_condition(self, where: str, condition: Condition) -> None:
        texts = (condition.equals, condition.prefix, condition.regex)
        if sum(t is not None for t in texts) + condition.present + condition.absent != 1:
            self.problem(
                where,
                "give exactly one of a value, prefix, regex, present=true, absent=true",
                "condition-kind",
            )

    def _action(self, route: Route, pattern: PathPattern | None, names: Sequence[str]) -> Action | None:
        given = [f for f in ("to", "redirect", "respond") if getattr(route, f) is not None]
        if len(given) != 1:
            what = (
                "give one of `to`, `redirect`, `respond`"
                if not given
                else f"give only one of {', '.join(given)}"
            )
            self.problem(
                "" if not given else given[1], what, "target-missing" if not given else "target-twice"
            )
            return None
        if route.to is None or route.to == LEGACY_TARGET:
            self._unused(route)
        if route.redirect is not None:
            return self._redirect(route, names)
        if route.respond is not None:
            return self._respond(route)
        return self._forward(route, pattern, names)

    def _unused(self, route: Route) -> None:
        """Refuse what acts on forwarded requests only: a setting that does nothing would be believed."""
        for field in unused_fields(route):
            self.problem(field, "acts on forwarded requests only; remove it", "field-unused")

    def _when(self, route: Route) -> None:
        if iscoroutinefunction(route.when):
            self.problem(
                "when", "must be a plain function: it is asked before anything may wait", "when-async"
            )

    def _forward(self, route: Route, pattern: PathPattern | None, names: Sequence[str]) -> ForwardTo | None:
        request, response = self._rules("request_headers", route), self._rules("response_headers", route)
        rewrite = self._rewrite(route, pattern, names)
        if route.timeout is not None and not 0 < route.timeout <= MAX_SECONDS:
            self.problem("timeout", f"must be more than 0 and at most {MAX_SECONDS} seconds", "timeout-range")
        if route.to == LEGACY_TARGET:
            return None
        shares = self.upstreams.shares(route.to)
        upstreams = tuple(u for u, _ in shares)
        if not upstreams or rewrite is None:
            return None
        bases = tuple(dict.fromkeys(e.base for u in upstreams for e in u.endpoints))
        rewrite = replace(rewrite, bases=bases)
        bounds = tuple(b for _, b in shares)
        if route.identity and any(len({e.base for e in u.endpoints}) > 1 for u in upstreams):
            what = "the path is signed: give all addresses of the upstream one base path"
            self.problem("identity", what, "identity-base")
        withheld = withheld_names(self._cookies, identity=route.identity)
        return ForwardTo(
            upstreams, bounds, rewrite, request, response, route.timeout, route.identity, withheld
        )

    def _rewrite(self, route: Route, pattern: PathPattern | None, names: Sequence[str]) -> Rewrite | None:
        if route.rewrite and route.strip_prefix:
            self.problem("rewrite", "give either `strip_prefix` or `rewrite`, not both", "rewrite-twice")
        elif route.rewrite:
            template = self._template("rewrite", route.rewrite, names)
            if template is None:
                return None
            return Rewrite(template=template, public=undone(template, pattern))
        elif route.strip_prefix:
            return self._strip(route, pattern)
        else:
            return Rewrite()
        return None

    def _template(self, field: str, text: str, names: Sequence[str]) -> Template | None:
        try:
            return parse_template(text, names)
        except PatternError as exc:
            self.problem(field, str(exc), "template")
            return None

    def _strip(self, route: Route, pattern: PathPattern | None) -> Rewrite | None:
        text = route.strip_prefix
        try:
            prefix = parse_path(text.rstrip("/") or "/")
        except PatternError as exc:
            self.problem("strip_prefix", str(exc), "strip-prefix")
            return None
        strip = len(prefix.segments)
        if (
            (pattern is not None and pattern.segments[:strip] != prefix.segments)
            or any(prefix.names)
            or prefix.subtree
        ):
            self.problem(
                "strip_prefix",
                f"the route's path must start with {text!r} in whole literal segments",
                "strip-prefix",
            )
            return None
        if pattern is None:
            self.problem(
                "strip_prefix", "needs `path`; with `regex` use `rewrite` and named groups", "strip-prefix"
            )
            return None
        return Rewrite(strip=strip, prefix=text.rstrip("/").encode(), public=(b"", prefix.literal))

    def _rules(self, field: str, route: Route) -> HeaderPlan:
        rules: HeaderRules = getattr(route, field)
        before = len(self.problems)
        for part in ("set", "add"):
            for name, value in getattr(rules, part).items():
                self._check_rule(f"{field}.{part}", name)
                if sum(n.lower() == name.lower() for n in getattr(rules, part)) > 1:
                    self.problem(
                        f"{field}.{part}.{name}",
                        "is named twice; names do not differ by case",
                        "header-twice",
                    )
                if _CONTROL.search(value):
                    self.problem(
                        f"{field}.{part}.{name}", "must not contain control characters", "header-value"
                    )
        for name in rules.remove:
            self._check_rule(f"{field}.remove", name)
        return HeaderPlan.compile(rules) if len(self.problems) == before else HeaderPlan()

    def _check_rule(self, where: str, name: str) -> None:
        raw = name.lower().encode("latin-1", "replace")
        canonical = raw.replace(b"_", b"-").replace(b".", b"-")
        if not is_token(raw):
            self.problem(f"{where}.{name}", f"{name!r} cannot be the name of a header", "header-name")
        elif raw in _OURS or canonical.startswith((b"strangle-", b"x-forwarded-")):
            self.problem(
                f"{where}.{name}", f"{name} is set by the library and cannot be changed", "header-protected"
            )

    def _redirect(self, route: Route, names: Sequence[str]) -> RedirectTo | None:
        assert route.redirect is not None  # noqa: S101 - the caller has looked
        to, origin = route.redirect.to, ""
        if not to.startswith("/"):
            scheme, separator, rest = to.partition("://")
            host, slash, path = rest.partition("/")
            if scheme not in ("http", "https") or not separator or not host or _unusable_authority(host):
                self.problem("redirect.to", "must be a path or an http(s) URL", "redirect-target")
                return None
            origin, to = f"{scheme}://{host}", slash + path or "/"
        template = self._template("redirect.to", to, names)
        return None if template is None else RedirectTo(route.redirect.status, origin.encode(), template)

    def _respond(self, route: Route) -> RespondWith:
        assert route.respond is not None  # noqa: S101 - the caller has looked
        fixed = route.respond
        if not 200 <= fixed.status <= 599:  # noqa: PLR2004 - final status codes, RFC 9110 section 15
            self.problem("respond.status", "must be 200..599", "respond-status")
        if _CONTROL.search(fixed.content_type):
            self.problem("respond.content_type", "must not contain control characters", "header-value")
        body = fixed.body.encode()
        if fixed.status in (204, 304):
            if body:
                self.problem("respond.body", f"a {fixed.status} answer has no body", "respond-body")
            return RespondWith(fixed.status, (), b"")
        kind = (fixed.content_type or "text/plain; charset=utf-8").encode("latin-1", "replace")
        headers = ((b"content-type", kind), (b"content-length", str(len(body)).encode()))
        return RespondWith(fixed.status, headers, body)

    def _sticky(self, route: Route) -> None:
        for at, source in enumerate(route.sticky):
            if not is_source(source):
                what = f"{source!r} must be user, cookie, header:NAME, cookie:NAME or query:NAME"
                self.problem(f"sticky[{at}]", what, "sticky-source")
            elif is_address(source):
                what = f"{source!r} is the client's address, which many share; name a user or a session"
                self.problem(f"sticky[{at}]", what, "sticky-address")


def _unusable_authority(host: str) -> bool:
    return bool(re.search(r"[^A-Za-z0-9.:\[\]_-]", host))


def _names(pattern: PathPattern | None, regex: re.Pattern[str] | None) -> Sequence[str]:
    if pattern is not None:
        return (*pattern.names, "*") if pattern.subtree else pattern.names
    return tuple(regex.groupindex) if regex is not None else ()


def _derived_name(
    route: Route,
    methods: Sequence[str],
    pattern: PathPattern | None,
    hosts: Sequence[str],
    tests: Sequence[Test],
) -> str:
    """Make a name from what a route matches: stable as long as that is, and fit for overrides."""
    what = pattern.text if pattern is not None else f"regex {route.regex}"
    more = [*hosts, *map(str, tests), *(["when"] if route.when else [])]
    name = f"{','.join(methods)} {what}".strip() + (f" [{', '.join(more)}]" if more else "")
    if len(name) <= MAX_NAME and not UNSAFE.search(name):
        return name
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return f"{safe_text(name, MAX_NAME - len(digest) - 1)} {digest}"
