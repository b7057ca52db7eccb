"""Identity in a Django service: `strangle_mw.identity.django.identity_middleware` in `MIDDLEWARE`.

    STRANGLE_VERIFY = {"audience": "orders", "secrets": [os.environ["ORDERS_SECRET"]], "required": True}

The settings are those of `Verifier`, and `required`. `request.strangle_identity` is the user, or None.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.utils.decorators import sync_and_async_middleware

from strangle_mw.identity.gate import Seen, answer, read_scope
from strangle_mw.identity.verifying import IdentityError, Verifier


@sync_and_async_middleware  # type: ignore[untyped-decorator]
def identity_middleware(get_response: Any) -> Any:
    """Check the token of each request: a bad one is 401; so is none, if `required`."""
    verifier, required = _configured()
    if iscoroutinefunction(get_response):

        async def amiddleware(request: Any) -> Any:
            try:
                request.strangle_identity = await _read(request).acheck(verifier, required=required)
            except IdentityError as exc:
                return _refuse(exc)
            return await get_response(request)

        return amiddleware

    def middleware(request: Any) -> Any:
        try:
            request.strangle_identity = _read(request).check(verifier, required=required)
        except IdentityError as exc:
            return _refuse(exc)
        return get_response(request)

    return middleware


def _configured() -> tuple[Verifier, bool]:
    given = dict(getattr(settings, "STRANGLE_VERIFY", {}))
    required = given.pop("required", False)
    try:
        return Verifier(**given), required
    except (TypeError, ValueError) as exc:
        raise ImproperlyConfigured(f"STRANGLE_VERIFY: {exc}") from None


def _read(request: Any) -> Seen:
    """Read a request; under WSGI Django has made text of the path, in `environ`, too."""
    if hasattr(request, "scope"):
        return read_scope(request.scope)
    meta = request.META
    token, query = meta.get("HTTP_STRANGLE_IDENTITY"), meta.get("QUERY_STRING", "")
    return Seen(token, meta["REQUEST_METHOD"], quote(request.path), query)


def _refuse(error: IdentityError) -> Any:
    status, headers, body = answer(error)
    return HttpResponse(body, status=status, headers=headers)
