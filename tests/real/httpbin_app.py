"""httpbin, as a server loads it: bare, or strangled as `STRANGLE_TEST_TABLE` says (the routes as JSON)."""

import json
import os

from httpbin import app

from strangle_mw import strangle

wsgi = asgi = app
if "STRANGLE_TEST_TABLE" in os.environ:
    table = json.loads(os.environ["STRANGLE_TEST_TABLE"])
    wsgi = strangle(app, table)
    asgi = strangle(app, table, serve="asgi")
