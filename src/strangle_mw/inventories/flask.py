"""Reads a Flask app's `url_map` (Werkzeug); counted by `request.url_rule.rule`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from strangle_mw.core.inventory import ANY_SEGMENT, WEBSOCKET, AppEndpoint, Param, join
from strangle_mw.inventories.views import view_name, without_noise

if TYPE_CHECKING:
    from flask import Flask
    from werkzeug.routing import Rule

# Werkzeug's own grammar of a rule: `<converter(arguments):name>`.
_VARIABLE = re.compile(r"<(?:[A-Za-z_]\w*(?:\(.*?\))?:)?([A-Za-z_]\w*)>")


def read(app: Flask) -> tuple[AppEndpoint, ...]:
    """Return the endpoints in the order of the map's declaration."""
    return tuple(_endpoint(app, rule) for rule in app.url_map.iter_rules() if not rule.build_only)


def _endpoint(app: Flask, rule: Rule) -> AppEndpoint:
    return AppEndpoint(
        rule.rule,
        _path(rule, rule.rule),
        str(rule.endpoint),
        _view(app, rule),
        frozenset((WEBSOCKET,)) if rule.websocket else without_noise(rule.methods),
        _hosts(app, rule),
        loose_slash=_loose(rule),
    )


def _view(app: Flask, rule: Rule) -> str:
    if rule.redirect_to is not None:
        return "(redirect)"
    view = app.view_functions.get(rule.endpoint)
    return view_name(view) if view is not None else "(no view)"


def _loose(rule: Rule) -> bool:
    """Tell whether both `/a` and `/a/` are answered: a rule with a slash that is not strict about it."""
    return rule.rule.endswith("/") and rule.rule != "/" and not rule.strict_slashes


def _path(rule: Rule, text: str) -> tuple[str | Param, ...]:
    literals = _VARIABLE.split(text)
    converters: dict[str, Any] = getattr(rule, "_converters", {})

    def param(name: str) -> Param:
        return Param(name, getattr(converters.get(name), "regex", ANY_SEGMENT))

    return join(*(param(part) if at % 2 else part for at, part in enumerate(literals)))


def _hosts(app: Flask, rule: Rule) -> tuple[str, ...]:
    """Return the host that a rule is for; of `<name>.example.com` the wildcard."""
    server = (app.config.get("SERVER_NAME") or "").partition(":")[0]
    if app.url_map.host_matching:
        host = rule.host or ""
    else:
        host = f"{rule.subdomain}.{server}" if app.subdomain_matching and rule.subdomain and server else ""
    host = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    if not _VARIABLE.search(host):
        return (host.lower(),) if host else ()
    fixed = _VARIABLE.split(host)[-1].partition(".")[2]  # what is surely there, by whole labels
    return (f"*.{fixed.lower()}",) if fixed else ()
