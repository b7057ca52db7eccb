"""Names the user of a request as the project itself does: `request.user`, or the user of its session.

Sessions are only read: nothing here renews, deletes or stores one.
"""

from __future__ import annotations

from importlib import import_module
from io import BytesIO
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.db import close_old_connections
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from strangle_mw.core.identity import Identity

if TYPE_CHECKING:
    from strangle_mw.core.messages import RequestHead


class DjangoUser:
    """An `identify` for Django: None for the anonymous.

    In the middleware it is `request.user`. Where the application is wrapped no middleware has run: the
    session is found by its cookie, and only if a route needs to know.
    """

    def __call__(self, head: RequestHead) -> Identity | None:
        if isinstance(head.source, HttpRequest):
            return _named(getattr(head.source, "user", None))
        return _of_session(head.source)

    async def aidentify(self, head: RequestHead) -> Identity | None:
        """Do the same where nothing may block."""
        request = head.source
        if not isinstance(request, HttpRequest):
            # One thread for all that is asked of the database; any will do, so requests need not queue.
            return await sync_to_async(_of_session, thread_sensitive=False)(request)
        user = getattr(request, "user", None)
        if type(user) is not SimpleLazyObject:  # a middleware's own choice
            return _named(user)
        if vars(user)["_setupfunc"].__module__ == AuthenticationMiddleware.__module__:
            return _named(await request.auser())
        return await sync_to_async(_named)(user)  # as well, and not that of `auser`


identify = DjangoUser()
"""What is used if `STRANGLE` names no IDENTIFY."""


def _named(user: Any) -> Identity | None:
    if user is None or not user.is_authenticated:
        return None
    return Identity(str(user.pk), user=user)


def _of_session(source: Any) -> Identity | None:
    """Find the user of a request that Django has not seen; its cookies are read as Django would."""
    request = _request(source)
    key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if not key:
        return None
    close_old_connections()  # outside of a request nobody else does
    try:
        request.session = _Session(import_module(settings.SESSION_ENGINE).SessionStore(key).load())
        return _named(get_user(request))
    finally:
        close_old_connections()


def _request(source: Any) -> Any:
    if "wsgi.input" in source:
        return WSGIRequest(dict(source))  # it writes into its environ
    return ASGIRequest({"method": "GET", **source}, BytesIO())  # a WebSocket has no method


class _Session(dict[str, Any]):
    """The data of a session; what `get_user` would change is the business of the legacy app."""

    def cycle_key(self) -> None:
        """Keep the key."""

    def flush(self) -> None:
        """Keep the session."""
