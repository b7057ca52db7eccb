"""Who the user of a request is, for Flask apps: Flask-Login, the session, or a function of the app's own.

All are asked as a view would be, in a request context: `session`, `g`, `current_app` and `current_user` work.
"""

from __future__ import annotations

import sys
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from flask import current_app, session
from werkzeug.test import create_environ
from werkzeug.utils import ImportStringError, import_string

from strangle_mw.asking import is_awaited
from strangle_mw.core.identity import Identity, sent_by_browser
from strangle_mw.engine import log
from strangle_mw.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from strangle_mw.core.messages import RequestHead

    Identify = Callable[[RequestHead], object]

_KEY = "STRANGLE_IDENTIFY"


def session_user(key: str) -> Identify:
    """Return an `identify` for an app that keeps the user's id in its session, under `key`."""

    def identify(_: RequestHead) -> Identity | None:
        found = session.get(key)
        return None if found is None else Identity(str(found))

    return identify


def nobody(_: RequestHead) -> None:
    """Name nobody."""


def find_identify(app: Flask, given: Any) -> Any:
    """Return what names the users of an app: `given` (a function, or its name), else Flask-Login, else None.

    Raises `ConfigError` if it is neither.
    """
    if given is None:
        # The extension may be set up after this one.
        return _InContext(app, _login_user) if _has_login(app) or "flask_login" in sys.modules else None
    if isinstance(given, str):
        try:
            given = import_string(given)
        except ImportStringError as exc:
            what = f"cannot be imported: {exc.exception}"
            raise ConfigError([Problem(_KEY, what, "identify-import")]) from exc
    if not callable(given):
        raise ConfigError([Problem(_KEY, "must be a function, or 'module:name' of one", "type")])
    if is_awaited(given):
        raise ConfigError([Problem(_KEY, "must be a plain function: Flask is WSGI", "identify-async")])
    return _InContext(app, given)


def framework_cookies(app: Flask) -> tuple[str, str]:
    """Return the names of the cookies that are the app's own business: its session, Flask-Login's memory."""
    name = app.session_interface.get_cookie_name(app)
    return name, app.config.get("REMEMBER_COOKIE_NAME", "remember_token")


def _has_login(app: Flask) -> bool:
    return hasattr(app, "login_manager")


def _login_user(head: RequestHead) -> Identity | None:
    """Name whom Flask-Login does: by the session, the remember-me cookie or a request loader.

    The user is loaded, since only that tells whether there still is one; the session alone does not know, nor
    does it know of `SESSION_PROTECTION`.
    """
    if not _has_login(current_app):
        return None
    from flask_login import current_user

    subject = current_user.get_id() if current_user.is_authenticated else None
    if subject is None:
        return None
    by_cookie = "_user_id" in session or sent_by_browser(head)
    return Identity(str(subject), user=current_user._get_current_object(), from_cookie=by_cookie)  # noqa: SLF001


class _InContext:
    """Asks an `identify` in a request context of its own: without the body, and its session is not saved."""

    def __init__(self, app: Flask, identify: Identify) -> None:
        self._app = app
        self._identify = identify

    def __call__(self, head: RequestHead) -> object:
        answers: list[object] = []
        try:
            # A context of the app's that is there would be taken, with another request's user in `g`.
            with self._app.app_context(), self._app.request_context(_environ(head)):
                answers.append(self._identify(head))
        except Exception:
            if not answers:
                raise
            # No `before_request` has run, and a `teardown_request` may miss what that makes.
            log.debug("a teardown function has raised after identify", exc_info=True)
        return answers[0]


def _environ(head: RequestHead) -> dict[str, Any]:
    if isinstance(head.source, dict):
        return {**head.source, "wsgi.input": BytesIO(), "CONTENT_LENGTH": "0"}
    return create_environ(  # a request that is only described: `flask strangle explain`
        unquote_to_bytes(head.path).decode("utf-8", "replace"),
        method=head.method,
        query_string=head.query.decode("latin-1"),
        headers=[(n.decode("latin-1"), v.decode("latin-1")) for n, v in head.headers],
    )
