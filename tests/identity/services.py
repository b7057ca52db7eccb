"""A service on the other side in each framework, asked as servers ask it: raw target, headers as they came.

`ask[kind](request, **settings)` returns an `Answer`; the service says whom it sees, or null.
"""

from __future__ import annotations

import asyncio
import io
import json
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated
from urllib.parse import unquote_to_bytes

from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse
from django.test import override_settings
from fastapi import Depends, FastAPI, Request
from flask import Blueprint, Flask, g
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from django_settings import setup
from identity.tokens import SECRET, clock
from strangle_mw.identity import Identity, Verifier
from strangle_mw.identity.asgi import IdentityMiddleware
from strangle_mw.identity.django import identity_middleware
from strangle_mw.identity.fastapi import identity
from strangle_mw.identity.flask import guard

setup()


@dataclass
class Asked:
    """One request as it comes over the wire; `prefix` is the part of the path that the server mounts at."""

    target: str
    headers: list = field(default_factory=list)
    method: str = "GET"
    prefix: str = ""

    def environ(self):
        path, _, query = self.target.partition("?")
        decoded = unquote_to_bytes(path.removeprefix(self.prefix)).decode("latin-1")
        environ = {
            "REQUEST_METHOD": self.method,
            "SCRIPT_NAME": self.prefix,
            "PATH_INFO": decoded,
            "QUERY_STRING": query,
            "SERVER_NAME": "h",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
        }
        for name, value in self.headers:
            key = "HTTP_" + name.upper().replace("-", "_")
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        return environ

    def scope(self):
        path, _, query = self.target.partition("?")
        return {
            "type": "http",
            "method": self.method,
            "path": unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": path.encode("latin-1"),
            "root_path": self.prefix,
            "query_string": query.encode("latin-1"),
            "headers": [(n.lower().encode(), v.encode("latin-1")) for n, v in self.headers],
            "http_version": "1.1",
            "scheme": "http",
        }


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    def json(self):
        return json.loads(self.body)


def verifier(settings):
    return Verifier("orders", **{"secrets": SECRET, "clock": clock, **settings})


def tell(found):
    assert found is None or isinstance(found, Identity)
    return {"user": None if found is None else found.subject}


# --- Flask, plain and by a blueprint


@cache
def _flask_app(*, required=False, blueprint=False, **settings):
    app = Flask("orders")
    part = Blueprint("part", "orders") if blueprint else app
    guard(part, verifier(settings), required=required)

    @part.route("/", defaults={"path": ""}, methods=["GET", "POST"])
    @part.route("/<path:path>", methods=["GET", "POST"])
    def view(path):
        return tell(g.strangle_identity)

    if blueprint:
        app.register_blueprint(part)
    return app


def flask(asked, **settings):
    return _wsgi(_flask_app(**settings), asked)


def blueprint(asked, **settings):
    return _wsgi(_flask_app(blueprint=True, **settings), asked)


def _wsgi(app, asked):
    said = []
    body = b"".join(app(asked.environ(), lambda status, headers: said.extend((status, headers))))
    return Answer(int(said[0][:3]), {n.lower(): v for n, v in said[1]}, body)


# --- Django: under WSGI; under ASGI with a view of either kind


def _django(make, request, *, required=False, **settings):
    with override_settings(STRANGLE_VERIFY={"audience": "orders", "secrets": SECRET, "clock": clock, "required": required, **settings}):  # fmt: skip
        response = make(request)
    return Answer(response.status_code, {n.lower(): v for n, v in response.items()}, response.content)


def _sync(request):
    return identity_middleware(lambda r: HttpResponse(json.dumps(tell(r.strangle_identity))))(request)


def _async(request):
    async def view(request):
        return HttpResponse(json.dumps(tell(request.strangle_identity)))

    return asyncio.run(identity_middleware(view)(request))


def django_wsgi(asked, **settings):
    return _django(_sync, WSGIRequest(asked.environ()), **settings)


def django_asgi(asked, **settings):
    return _django(_async, ASGIRequest(asked.scope(), io.BytesIO()), **settings)


def django_sync_under_asgi(asked, **settings):
    return _django(_sync, ASGIRequest(asked.scope(), io.BytesIO()), **settings)


# --- ASGI: Starlette, mounted below a prefix of its own, FastAPI


def talk(app, scope):
    """Ask an ASGI app; returns what it has sent."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent


def _asgi(app, asked):
    start, *bodies = talk(app, asked.scope())
    headers = {n.decode(): v.decode() for n, v in start["headers"]}
    return Answer(start["status"], headers, b"".join(m.get("body", b"") for m in bodies))


async def _starlette_view(request):
    assert request.scope["strangle_identity"] == request.state.strangle_identity
    return JSONResponse(tell(request.state.strangle_identity))


@cache
def _starlette_app(*, required=False, **settings):
    app = Starlette(routes=[Route("/{path:path}", _starlette_view, methods=["GET", "POST"])])
    app.add_middleware(IdentityMiddleware, verifier=verifier(settings), required=required)
    return app


def starlette(asked, **settings):
    return _asgi(_starlette_app(**settings), asked)


def mounted(asked, **settings):
    first = asked.target.removeprefix(asked.prefix).split("/")[1].partition("?")[0]
    inner = _starlette_app(**settings)
    return _asgi(Starlette(routes=[Mount(f"/{first}", inner), Mount("/", inner)]), asked)


@cache
def _fastapi_app(*, required=False, **settings):
    """With `required` by the dependency; the middleware lets nobody pass."""
    app = FastAPI()
    app.add_middleware(IdentityMiddleware, verifier=verifier(settings))

    async def view(request: Request):
        return tell(request.state.strangle_identity)

    async def strict(user: Annotated[Identity, Depends(identity)]):
        return tell(user)

    app.add_api_route("/{path:path}", strict if required else view, methods=["GET", "POST"])
    return app


def fastapi(asked, **settings):
    return _asgi(_fastapi_app(**settings), asked)


KINDS = {
    "flask": flask,
    "blueprint": blueprint,
    "django-wsgi": django_wsgi,
    "django-asgi": django_asgi,
    "django-sync-under-asgi": django_sync_under_asgi,
    "starlette": starlette,
    "mounted": mounted,
    "fastapi": fastapi,
}
