"""The rule of design section 3.3 in its plainest form: rank every route, scan, take the first that fits.

Written from the rule's text and from declarations only; shares no code with `strangle_mw.core.routing`.
"""

import re

UUID = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
TYPES = {"int": "[0-9]+", "slug": "[A-Za-z0-9_-]+", "uuid": UUID, "": "[^/]+"}


def pieces(path):
    """Return (segments, subtree); a segment is (before, name, type, after), name None for a literal."""
    subtree = path.endswith("/*")
    found = []
    for text in (path[:-2] if subtree else path).split("/")[1:]:
        parameter = re.fullmatch(r"([^{]*)\{(\w+)(?::(\w+))?\}(.*)", text)
        found.append(
            (parameter[1], parameter[2], parameter[3] or "", parameter[4])
            if parameter
            else (text, None, "", "")
        )
    return found, subtree


def path_rank(path):
    segments, subtree = pieces(path)
    rank = []
    for before, name, type_, after in segments:
        if name is None:
            rank.append((0, 0))
        elif before or after:
            rank.append((1, -len(before + after)))
        else:
            rank.append((2, 0) if type_ else (3, 0))
    return [*rank, (4, 0)] if subtree else rank


def path_fits(path, request):
    segments, subtree = pieces(path)
    asked = request.split("/")[1:]
    if len(asked) < len(segments) or (len(asked) > len(segments) and not subtree):
        return False
    for (before, name, type_, after), text in zip(segments, asked, strict=False):
        pattern = re.escape(before) + ("" if name is None else TYPES[type_]) + re.escape(after)
        if not re.fullmatch(pattern, text):
            return False
    return True


def host_rank(route, host):
    if not route.hosts:
        return (2, 0)
    if host in route.hosts:
        return (0, 0)
    fitting = [len(h) for h in route.hosts if h.startswith("*.") and host.endswith(h[1:]) and host != h[2:]]
    return (1, -max(fitting)) if fitting else None


def method_rank(route, method):
    if not route.methods:
        return 2
    if method in route.methods:
        return 0
    return 1 if method == "HEAD" and "GET" in route.methods else None


def holds(wanted, value):
    if isinstance(wanted, str):
        return value == wanted
    if wanted.absent:
        return value is None
    if value is None:
        return False
    if wanted.prefix is not None:
        return value[: len(wanted.prefix)] == wanted.prefix
    return wanted.present


def key(route, method, host):
    """The route's rank for a request, without its place in the list; None if host or method do not fit."""
    hosts, methods = host_rank(route, host), method_rank(route, method)
    if hosts is None or methods is None:
        return None
    counts = (-len(route.headers), -len(route.query), -len(route.cookies), -(route.when is not None))
    # A regex comes after every path; the literals of a path are compared as the path itself is.
    return (hosts, (1, []) if route.regex else (0, path_rank(route.path)), methods, *counts)


def fits(route, request):
    """Does every condition of the route hold?"""
    path = re.fullmatch(route.regex, request.path) if route.regex else path_fits(route.path, request.path)
    return (
        key(route, request.method, request.host) is not None
        and bool(path)
        and all(holds(w, request.headers.get(n)) for n, w in route.headers.items())
        and all(holds(w, request.query.get(n)) for n, w in route.query.items())
        and all(holds(w, request.cookies.get(n)) for n, w in route.cookies.items())
        and (route.when is None or route.when(None))
    )


def match(routes, request):
    """Return the index of the best route whose every condition holds, or None."""
    ranked = [(key(r, request.method, request.host), i) for i, r in enumerate(routes) if fits(r, request)]
    return min(ranked)[1] if ranked else None
