"""The ASGI application, for uvicorn and its like: the same routes."""

import os

from django.core.asgi import get_asgi_application

from strangle_mw.django import wrap

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "monolith.settings")
application = wrap(get_asgi_application())
