"""The Django integration: `strangle_mw.django` in INSTALLED_APPS, and what a project names in its settings.

`wrap` is for `wsgi.py` and `asgi.py`, `StrangleMiddleware` for MIDDLEWARE; both read `settings.STRANGLE`. No
decisions live in this package: settings are translated (`conf`), users are named (`identify`), and requests
and answers of Django's are handed to the drivers (`exchange`, `responses`).
"""

from strangle_mw.django.conf import engine
from strangle_mw.django.handler import wrap
from strangle_mw.django.middleware import StrangleMiddleware

__all__ = ["StrangleMiddleware", "engine", "wrap"]
