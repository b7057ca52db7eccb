"""`StrangleMiddleware`: forwards requests from inside Django, where the user is known.

Nothing is forwarded here (`exchange`); what the legacy app answers is counted, and marked where a canary has
chosen it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async

from strangle_mw.core.decision import LEGACY, Legacy
from strangle_mw.core.messages import status_class
from strangle_mw.django.conf import engine
from strangle_mw.django.exchange import aact, act, adecide, asgi_driver, decide, wsgi_driver
from strangle_mw.django.handler import count_endpoint, inside
from strangle_mw.django.responses import mark_response

if TYPE_CHECKING:
    from collections.abc import Callable

    from strangle_mw.core.decision import Decision


class StrangleMiddleware:
    """Forward what has a route; put it after AuthenticationMiddleware.

    Sync under WSGI and async under ASGI, without changing threads for either. Under `wrap` it only counts the
    endpoints that the legacy app answers. Raises `ConfigError` with every problem of `settings.STRANGLE`.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[..., Any]) -> None:
        self.get_response = get_response
        self._awaits = iscoroutinefunction(get_response)
        if self._awaits:
            markcoroutinefunction(self)
        (asgi_driver if self._awaits else wsgi_driver)(engine())  # what cannot be used is told now

    def __call__(self, request: Any) -> Any:
        """Answer a request of Django's."""
        if self._awaits:
            return self._acall(request)
        decision = LEGACY if inside.get() else decide(request)
        if decision is not LEGACY:
            return self._act(request, decision)
        response = self.get_response(request)
        count_endpoint(request)
        return response

    def _act(self, request: Any, decision: Decision) -> Any:
        if isinstance(decision, Legacy):
            outcome = "failed"
            try:
                response = self.get_response(request)
                outcome = status_class(response.status_code)
            finally:
                _count(decision, request, outcome)
        else:
            response = act(request, decision)
            if response is not None:
                return response
            response = self.get_response(request)
        return _finish(request, decision, response)

    async def _acall(self, request: Any) -> Any:
        under_wsgi = hasattr(request, "environ")  # of a middleware that can only be awaited
        asked = sync_to_async(decide) if under_wsgi else adecide
        decision = LEGACY if inside.get() else await asked(request)
        if decision is not LEGACY:
            return await self._aact(request, decision, sync_to_async(act) if under_wsgi else aact)
        response = await self.get_response(request)
        count_endpoint(request)
        return response

    async def _aact(self, request: Any, decision: Decision, forward: Callable[..., Any]) -> Any:
        if isinstance(decision, Legacy):
            outcome = "failed"
            try:
                response = await self.get_response(request)
                outcome = status_class(response.status_code)
            finally:
                _count(decision, request, outcome)
        else:
            response = await forward(request, decision)
            if response is not None:
                return response
            response = await self.get_response(request)
        return _finish(request, decision, response)


def _count(decision: Legacy, request: Any, outcome: str) -> None:
    """Count a request that a route's stage leaves to the legacy app, as the drivers do."""
    if decision.mark is None:
        engine().passed(decision, request.method)
    else:
        engine().count(decision, "legacy", outcome)


def _finish(request: Any, decision: Any, response: Any) -> Any:
    count_endpoint(request)
    mark_response(response, decision.mark, request.method)
    return response
