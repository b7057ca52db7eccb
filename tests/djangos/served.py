"""What servers and Django's own commands load: the project, wrapped unless STRANGLE_TEST_BARE is set."""

import os

from django_settings import setup

setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402

from strangle_mw.django import wrap  # noqa: E402

wsgi, asgi = get_wsgi_application(), get_asgi_application()
if "STRANGLE_TEST_BARE" not in os.environ:
    wsgi, asgi = wrap(wsgi), wrap(asgi)
