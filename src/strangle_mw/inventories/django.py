"""Reads Django's URL resolver; counted by `request.resolver_match.route`.

Includes are walked with their prefixes; what depends on the language (`i18n_patterns`, translated routes) is
read in each of `LANGUAGES`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.urls import LocalePrefixPattern, URLResolver, get_resolver
from django.urls.resolvers import RegexPattern
from django.utils import translation

from strangle_mw.core.inventory import AppEndpoint, Param, join
from strangle_mw.inventories.regexes import path_parts
from strangle_mw.inventories.views import class_methods, closed_over, decorators, view_name, without_noise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_VARIABLE = re.compile(r"<(?:[^>:]+:)?([^>]+)>")


def read(app: object) -> tuple[AppEndpoint, ...]:
    """Return the endpoints in the order in which the resolver tries them; a handler has the project's."""
    resolver = app if isinstance(app, URLResolver) else get_resolver()
    found: dict[object, AppEndpoint] = {}
    for language in _languages():
        with translation.override(language):
            for key, endpoint in _walk(resolver.url_patterns, "", ("/",), ""):
                known = found.get(key)
                if known is None:
                    found[key] = endpoint
                elif endpoint.rule not in (known.rule, *known.rules):
                    found[key] = replace(known, rules=(*known.rules, endpoint.rule))
    return tuple(found.values())


def _languages() -> list[str]:
    if not settings.USE_I18N:
        return [settings.LANGUAGE_CODE]
    return list(dict.fromkeys([settings.LANGUAGE_CODE, *(code for code, _ in settings.LANGUAGES)]))


def _walk(
    patterns: Sequence[Any], route: str, path: Sequence[str | Param], namespace: str
) -> Iterator[tuple[object, AppEndpoint]]:
    """Yield each endpoint with what it is the same by in every language: its place and its path."""
    for entry in patterns:
        text = str(entry.pattern)
        whole = route + text.removeprefix("^") if route else text
        parts = join(*path, *_parts(entry.pattern))
        if isinstance(entry, URLResolver):
            inner = f"{namespace}{entry.namespace}:" if entry.namespace else namespace
            yield from _walk(entry.url_patterns, whole, parts, inner)
        else:
            name = f"{namespace}{entry.name}" if entry.name else ""
            view = entry.callback
            yield (
                (id(entry), route_key(parts)),
                AppEndpoint(whole, parts, name, view_name(view), _methods(view)),
            )


def route_key(parts: Sequence[str | Param]) -> str:
    """Return a text that two paths share if they are the same."""
    return "".join(p if isinstance(p, str) else f"<{p.name}|{p.regex}>" for p in parts)


def _parts(pattern: Any) -> tuple[str | Param, ...]:
    if isinstance(pattern, LocalePrefixPattern):
        return _prefix(pattern)
    if isinstance(pattern, RegexPattern):
        return path_parts(str(pattern), ends=pattern._is_endpoint)  # noqa: SLF001 - there is no other way
    pieces = _VARIABLE.split(str(pattern))
    converters = pattern.converters
    return join(*(Param(p, converters[p].regex) if at % 2 else p for at, p in enumerate(pieces)))


def _prefix(pattern: LocalePrefixPattern) -> tuple[str | Param, ...]:
    """Return what a language's prefix looks like; the default language may have none."""
    if pattern.prefix_default_language:
        return Param("language", "|".join(map(re.escape, _languages()))), "/"
    others = [re.escape(code) for code in _languages() if code != settings.LANGUAGE_CODE]
    return (Param("language/", f"(?:(?:{'|'.join(others)})/)?" if others else ""),)


def _methods(view: Any) -> frozenset[str]:
    """Return what a view takes, as far as classes and `require_http_methods` tell; empty for any."""
    cls = getattr(view, "view_class", None) or getattr(view, "cls", None)
    actions = getattr(view, "actions", None)  # Django REST framework's view sets
    if isinstance(actions, dict) and actions:
        return without_noise(actions)
    if cls is not None:
        names = (getattr(view, "view_initkwargs", None) or {}).get("http_method_names", cls.http_method_names)
        return class_methods(cls, names)
    for function in decorators(view):
        allowed = closed_over(function, "request_method_list")
        if allowed is not None:
            return without_noise(allowed)
    return frozenset()
