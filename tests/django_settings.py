"""The settings of the Django project in `djangos`, for every test that needs Django in this process.

`from django_settings import setup; setup()` may be said as often as one likes: a process has one Django. What
differs from test to test goes through `override_settings`; child processes take theirs from the environment.
"""

import atexit
import json
import os
import shutil
import tempfile

# Child processes have the folder of the process that started them; processes of pytest-xdist one each.
_OWNER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
_OWNED = os.environ.get("STRANGLE_TEST_OWNER") == _OWNER
BASE_DIR = os.environ["STRANGLE_TEST_BASE"] if _OWNED else tempfile.mkdtemp(prefix="strangle-django-")
if not _OWNED:
    os.environ |= {"STRANGLE_TEST_BASE": BASE_DIR, "STRANGLE_TEST_OWNER": _OWNER}
    atexit.register(shutil.rmtree, BASE_DIR, ignore_errors=True)

SECRET_KEY = "for tests"
SECRET_KEY_FALLBACKS = []
ALLOWED_HOSTS = ["h.example", "testserver", "127.0.0.1", "localhost"]
USE_TZ = True
ROOT_URLCONF = "djangos.urls"
STATIC_URL = "/static/"
MEDIA_URL = "/media/"
WSGI_APPLICATION = "djangos.served.wsgi"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "strangle_mw.django",
]
OURS = "strangle_mw.django.StrangleMiddleware"
BEFORE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
BEHIND = ["django.middleware.clickjacking.XFrameOptionsMiddleware"]
MIDDLEWARE = [*BEFORE, *json.loads(os.environ.get("STRANGLE_TEST_MIDDLEWARE", "[]")), *BEHIND]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{BASE_DIR}/strangle-test.db"}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LOGGING = {"version": 1, "disable_existing_loggers": False, "loggers": {"django": {"level": "CRITICAL"}}}
STRANGLE = json.loads(os.environ.get("STRANGLE_TEST_SETTINGS", '{"ROUTES": []}'))


def setup():
    """Begin with Django, if nobody has; the environment, and so other projects' processes, are left alone."""
    from unittest import mock

    import django

    with mock.patch.dict(os.environ, {"DJANGO_SETTINGS_MODULE": "django_settings"}):
        django.setup()
