"""The ways in which a Django project can have the library, each as something to be asked.

Requests come in as a server would hand them over, and what its client would see is told (`promises.drive`).
"""

from __future__ import annotations

import asyncio
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from django.conf import settings
from django.test import override_settings

from django_settings import OURS
from promises.drive import PATIENCE, Asgi, Wsgi

VIEWS = "djangos.views."

WAYS = {
    "wsgi wrapped": (Wsgi, True, []),
    "asgi wrapped": (Asgi, True, []),
    "wsgi middleware": (Wsgi, False, [OURS]),
    "asgi middleware": (Asgi, False, [OURS]),
    "asgi middleware, called from a thread": (Asgi, False, [OURS, VIEWS + "SyncOnly"]),
    "wsgi middleware, awaited": (Wsgi, False, [OURS, VIEWS + "async_only"]),
}
MIDDLEWARE_WAYS = [way for way in WAYS if "middleware" in way]


class DjangoAsgi(Asgi):
    def __init__(self, app):
        self.app = app
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def close(self):
        from strangle_mw.django import engine

        async def end():
            if settings.STRANGLE:
                await engine().aclose(self.loop)
            return asyncio.all_tasks() - {asyncio.current_task()}

        left = self.do(end)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        assert not left, "a task was left behind"

    @staticmethod
    def _scope(asked):
        return {**Asgi._scope(asked), "server": ("127.0.0.1", 80)}


class DjangoWsgi(Wsgi):
    def __init__(self, app):
        self.app = app
        self._threads = ThreadPoolExecutor(4)

    def close(self):
        self._threads.shutdown()

    @staticmethod
    def _environ(asked):
        given = io.BytesIO(b"".join(asked.body))  # Django asks for `readline`
        return {**Wsgi._environ(asked), "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "80", "wsgi.input": given}


@contextmanager
def project(way, routes, *, before=(), without=False, **strangle):
    """Start the project in one of the ways; `before` are middlewares further out, `without` is without us."""
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler

    from django_settings import BEFORE, BEHIND
    from strangle_mw.django import wrap

    side, wrapped, ours = WAYS[way]
    ours = [m for m in ours if not (without and m == OURS)]
    middleware = [*BEFORE, *before, *ours, *BEHIND]
    found = {} if without else {"ROUTES": routes, **strangle}
    with override_settings(MIDDLEWARE=middleware, STRANGLE=found):
        handler = WSGIHandler() if side is Wsgi else ASGIHandler()
        app = wrap(handler) if wrapped and not without else handler
        driver = DjangoWsgi(app) if side is Wsgi else DjangoAsgi(app)
        try:
            yield driver
        finally:
            driver.close()
