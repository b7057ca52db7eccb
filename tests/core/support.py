"""Small helpers for tests of `core`: a table from declarations, a request from plain values."""

from urllib.parse import unquote

from strangle_mw import Route
from strangle_mw.config import load
from strangle_mw.core.decision import prepare
from strangle_mw.core.messages import RequestHead


class Reader:
    encoding = "utf-8"

    @staticmethod
    def head(source, path, authority):
        return RequestHead(path=path, authority=authority, **source)


def request(method="GET", query="", headers=(), **more):
    fields = [(n.lower().encode(), v.encode("latin-1")) for n, v in headers]
    return {"method": method, "query": query.encode("latin-1"), "headers": fields, **more}


def decide(source, target, method="GET", headers=(), decoded=None, **more):
    """Decide on a raw target under a table given as anything `load` takes."""
    snapshot = load([source] if isinstance(source, Route) else source, **more.pop("settings", {}))
    path, _, query = target.partition("?")
    asked = request(method, query, headers, **more)
    return prepare(
        snapshot,
        method,
        path.encode("latin-1"),
        unquote(path) if decoded is None else decoded,
        asked,
        Reader(),
    )
