import functools

import pytest
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware

from strangle_mw import Route, strangle
from strangle_mw.asgi import ASGIStrangler
from strangle_mw.core.interface import detect_interface
from strangle_mw.wsgi import WSGIStrangler


async def asgi_function(scope, receive, send): ...


def wsgi_function(environ, start_response): ...


def asgi_by_arity(scope, receive, send): ...


def optional(environ, start_response, exc_info=None): ...


class ASGIObject:
    async def __call__(self, scope, receive, send): ...


class WSGIObject:
    def __call__(self, environ, start_response): ...

    def method(self, environ, start_response): ...


class OldASGI:
    def __init__(self, scope): ...

    async def __call__(self, receive, send): ...


@functools.wraps(asgi_function)
def wrapping(*args):
    return asgi_function(*args)


APPS = {
    "asgi function": (asgi_function, "asgi"),
    "asgi by arity": (asgi_by_arity, "asgi"),
    "asgi object": (ASGIObject(), "asgi"),
    "asgi partial": (functools.partial(asgi_function), "asgi"),
    "asgi wrapped": (wrapping, "asgi"),
    "starlette": (Starlette(), "asgi"),
    "starlette middleware": (GZipMiddleware(Starlette()), "asgi"),
    "wsgi function": (wsgi_function, "wsgi"),
    "wsgi object": (WSGIObject(), "wsgi"),
    "wsgi method": (WSGIObject().method, "wsgi"),
    "wsgi partial": (functools.partial(wsgi_function), "wsgi"),
    "wsgi with a default": (optional, "wsgi"),
    "wsgi lambda": (lambda environ, start_response: [], "wsgi"),
    "flask": (Flask("x"), "wsgi"),
    "flask's wsgi_app": (Flask("x").wsgi_app, "wsgi"),
}


@pytest.mark.parametrize(("app", "interface"), APPS.values(), ids=APPS)
def test_detected(app, interface):
    assert detect_interface(app) == interface


@pytest.mark.parametrize(
    "app",
    [None, 1, "module:app", OldASGI, WSGIObject, print, lambda scope: None, lambda *args: None],
    ids=["None", "number", "text", "old ASGI", "class", "builtin", "one argument", "any arguments"],
)
def test_not_an_app_names_the_remedy(app):
    with pytest.raises(TypeError, match="interface='asgi' or interface='wsgi'"):
        strangle(app, [])


@pytest.mark.parametrize(("interface", "kind"), [("asgi", ASGIStrangler), ("wsgi", WSGIStrangler)])
def test_interface_overrides(interface, kind):
    assert isinstance(strangle(lambda *args: None, [], interface=interface), kind)


def test_an_unknown_interface_is_named():
    with pytest.raises(TypeError, match="interface= must be 'asgi' or 'wsgi', not 'http'"):
        strangle(wsgi_function, [], interface="http")


def test_a_strangled_app_can_be_strangled_again():
    once = strangle(asgi_function, [Route("/a", to="http://m")])
    assert isinstance(strangle(once, []), ASGIStrangler)
    twice = strangle(strangle(wsgi_function, []), [])
    assert isinstance(twice, WSGIStrangler)


def test_the_file_may_say_the_interface():
    assert isinstance(strangle(lambda *args: None, {"strangle": {"interface": "wsgi"}}), WSGIStrangler)
