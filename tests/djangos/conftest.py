import pytest

pytest.importorskip("django")

from django_settings import setup

setup()  # the tests import models


@pytest.fixture(scope="session", autouse=True)
def database():
    """One database for all of these tests, with the users `ann` and `ben`."""
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", verbosity=0)
    for name in ("ann", "ben"):
        User.objects.create_user(name, password="x")
    connections.close_all()


@pytest.fixture
def session(database):
    """The session of `ann`, as a cookie."""
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client()
    client.force_login(User.objects.get(username="ann"))
    return f"{settings.SESSION_COOKIE_NAME}={client.cookies[settings.SESSION_COOKIE_NAME].value}"
