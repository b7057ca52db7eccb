"""Makes a Wagtail project as its own `wagtail start` does, and a database for it: `python wagtail_site.py FOLDER`.

The tables are made from today's models: Wagtail's 180 migrations take four times as long. What those would
have put into them (its first page, site, locale and collection) is made through the models, too.
"""

import os
import subprocess
import sys
from pathlib import Path

LOCAL = '''
import json
import os

from .base import *


class FromModels(dict):
    """No app has migrations."""

    def __contains__(self, _):
        return True

    def __getitem__(self, _):
        return None


MIGRATION_MODULES = FromModels()
DATABASES["default"]["NAME"] = os.environ["SHOP_DATABASE"]
DATABASES["default"]["OPTIONS"] = {"init_command": "PRAGMA synchronous=OFF"}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
WAGTAILSEARCH_BACKENDS = {"default": {"BACKEND": "wagtail.search.backends.database.fallback"}}
WAGTAIL_ENABLE_UPDATE_CHECK = False
WAGTAIL_GRAVATAR_PROVIDER_URL = None
if "STRANGLE_TEST_TABLE" in os.environ:
    INSTALLED_APPS += ["strangle_mw.django"]
    STRANGLE = json.loads(os.environ["STRANGLE_TEST_TABLE"])
'''


def start(folder):
    """Make the project `shop` in a folder, in a process of its own: it configures Django."""
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "wagtail.bin.wagtail", "start", "shop", folder], check=True)
    (folder / "shop/settings/local.py").write_text(LOCAL)


def fill():
    """Make the tables, and in them the site and who may work on it: admin, secret."""
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from wagtail.models import Collection, Locale, Page, Site

    call_command("migrate", run_syncdb=True, verbosity=0)
    from home.models import HomePage

    Locale.objects.create(language_code="en")
    Collection.add_root(name="Root")
    root = Page.add_root(title="Root", slug="root")
    home = root.add_child(instance=HomePage(title="Home", slug="home"))
    Site.objects.create(hostname="localhost", root_page=home, is_default_site=True)
    get_user_model().objects.create_superuser("admin", "admin@shop.example", "secret")


if __name__ == "__main__":
    site = Path(sys.argv[1])
    start(site)
    sys.path.insert(0, str(site))
    os.environ |= {"DJANGO_SETTINGS_MODULE": "shop.settings.dev", "SHOP_DATABASE": str(site / "db.sqlite3")}
    import django

    django.setup()
    fill()
