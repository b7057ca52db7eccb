"""What servers and Django's own commands load: the project wrapped, for either interface."""

from django_settings import setup

setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402

from strangle_mw.django import wrap  # noqa: E402

wsgi = wrap(get_wsgi_application())
asgi = wrap(get_asgi_application())
