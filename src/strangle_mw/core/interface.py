"""Tells whether an object is an ASGI or a WSGI app, or says how to name it."""

from __future__ import annotations

import inspect
from typing import Any, Literal

_ASGI_ARITY, _WSGI_ARITY = 3, 2
_REMEDY = "pass the app itself and, if it is one, say which: interface='asgi' or interface='wsgi'"


def detect_interface(app: Any) -> Literal["asgi", "wsgi"]:
    """Return the interface of an app: a coroutine call is ASGI, else three parameters ASGI and two WSGI.

    Raises `TypeError` with the remedy for anything else: a class, a factory, an old double-callable ASGI app.
    """
    if inspect.isclass(app):
        raise TypeError(f"{app.__qualname__} is a class, not an app; {_REMEDY}")
    if not callable(app):
        raise TypeError(f"{type(app).__name__} is not an app: it cannot be called; {_REMEDY}")
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__):
        return "asgi"
    wrapped = inspect.unwrap(app, stop=lambda f: hasattr(f, "__signature__"))
    if inspect.iscoroutinefunction(wrapped) or inspect.iscoroutinefunction(getattr(app, "func", None)):
        return "asgi"
    arity = _arity(app)
    if arity == _ASGI_ARITY:
        return "asgi"
    if arity == _WSGI_ARITY:
        return "wsgi"
    raise TypeError(f"cannot tell whether {app!r} is a WSGI or an ASGI app; {_REMEDY}")


def _arity(app: Any) -> int | None:
    """Count the positional parameters that must be given; those with defaults count if they are needed."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    required = sum(p.default is p.empty for p in positional)
    return required if required in (_ASGI_ARITY, _WSGI_ARITY) else len(positional)
