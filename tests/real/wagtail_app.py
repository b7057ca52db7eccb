"""The project of `wagtail_site`, as a server loads it: bare, or strangled as `STRANGLE_TEST_TABLE` says."""

import os

from shop.wsgi import application as wsgi

if "STRANGLE_TEST_TABLE" in os.environ:
    from strangle_mw.django import wrap

    wsgi = wrap(wsgi)
