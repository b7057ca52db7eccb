"""The WSGI application, for gunicorn and `runserver`: wrapped, so that what is forwarded streams."""

import os

from django.core.wsgi import get_wsgi_application

from strangle_mw.django import wrap

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "monolith.settings")
application = wrap(get_wsgi_application())
