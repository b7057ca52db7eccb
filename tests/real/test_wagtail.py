"""Wagtail, an application that nobody here wrote, as its own `wagtail start` makes it: used in a browser.

It is visited bare and wrapped by `strangle_mw.django.wrap`, from two copies of one database: the same steps find
the same pages. Then one path of it is answered by a new service, which knows the user.
"""

import json
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import Flask, g, request
from werkzeug.serving import make_server

from browser import page_of
from servers import serve
from strangle_mw.identity import Verifier
from strangle_mw.identity.flask import guard

pytest.importorskip("wagtail", reason="Wagtail is not installed (pip install wagtail)")

SECRET = "a secret of thirty-two bytes, or more"
PAGES = {
    "/": 200,
    "/first-page/": 200,
    "/none/": 404,
    "/admin/": 200,
    "/admin/login/": 302,
    "/admin/pages/2/": 200,
    "/admin/pages/3/edit/": 200,
    "/admin/pages/3/history/": 200,
    "/admin/reports/site-history/": 200,
    "/admin/images/": 200,
    "/admin/account/": 200,
    "/admin/api/main/pages/?child_of=2": 200,
    "/admin/none/": 404,
    "/admin/jsi18n/": 200,
    "/django-admin/": 200,
    "/static/wagtailadmin/images/bg-body.svg": 200,
}
RANDOM = re.compile(
    r"\b[A-Za-z0-9]{64}\b|csrftoken=\w+"  # masked CSRF tokens, and what they mask
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\?v=[0-9a-f]{8}"  # ids of pages, start of the process
    r"|\d{4}-\d\d-\d\dT[\d:.]+|[A-Z][a-z]{2,}\.? \d\d?, \d{4}, (?:[\d:]+ [ap]\.m\.|noon|midnight)"
    r"|(?:page|model) log entries"  # Wagtail names one kind of a set
    r"|(?<=Content-Length: )\d+|\d\d:\d\d by|\d+\xa0(?:second|minute)s? ago|[Jj]ust now|\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT"
)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Serve the shop from a copy of its database: `with start(name) as address`."""
    shop = tmp_path_factory.mktemp("wagtail") / "shop"
    subprocess.run(
        [sys.executable, Path(__file__).with_name("wagtail_site.py"), shop], check=True, timeout=120
    )

    @contextmanager
    def started(name, **environment):
        database = shop / f"{name}.sqlite3"
        shutil.copy(shop / "db.sqlite3", database)
        # Some attributes of Wagtail's pages are written from sets: one seed for their order.
        environment |= {"SHOP_DATABASE": str(database), "PYTHONHASHSEED": "0"}
        folder = ("--chdir", str(shop))
        with serve("gunicorn-gthread", "real.wagtail_app", more=folder, **environment) as port:
            yield f"http://localhost:{port}"

    return started


class Visit:
    """What an editor sees who makes a page: titles on the way, troubles, and pages as they were sent."""

    def __init__(self, page, troubles, address):
        self.page, self.troubles, self.address = page, troubles, address
        self.titles = []
        self._edit()
        self.pages = {path: self._read(path) for path in PAGES}

    def _edit(self):
        page = self.page
        self._go("/")
        self._go("/admin/")
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", "secret")
        self._press(page.locator("button[type=submit]"))
        self._go("/admin/pages/add/home/homepage/2/")
        page.fill("#id_title", "First page")
        page.locator("footer [data-w-dropdown-target=toggle]").click()
        self._press(page.get_by_role("button", name="Publish"))
        self._go("/first-page/")

    def _go(self, path):
        self.page.goto(path)
        self.titles.append(self.page.title())

    def _press(self, button):
        with self.page.expect_navigation():
            button.click()
        self.titles.append(self.page.title())

    def _read(self, path):
        reply = self.page.request.get(path, max_redirects=0)
        fields = "\n".join(f"{h['name']}: {h['value']}" for h in reply.headers_array)
        authority = self.address.removeprefix("http:")
        return reply.status, RANDOM.sub("*", fields), RANDOM.sub("*", reply.text().replace(authority, ""))


@pytest.fixture(scope="module")
def bare(browser, start):
    with start("bare") as address, page_of(browser, address) as (page, troubles):
        yield Visit(page, troubles, address)


@pytest.fixture(scope="module")
def modern():
    """The service that replaces the search: it says for whom it searches, takes votes, and notes cookies."""
    app = Flask("search")
    guard(app, Verifier("search", secrets=[SECRET]))
    app.cookies = set()

    @app.route("/search/", methods=["GET", "POST"])
    def search():
        app.cookies |= set(request.cookies)
        user = g.strangle_identity.subject if g.strangle_identity else "nobody"
        done = request.form.get("vote") or request.args["query"]
        return (
            f"<!doctype html><title>{user}: {done}</title>"
            "<form method=post><button name=vote value=up>Vote</button></form>"
        )

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield app, f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def wrapped(browser, start, modern):
    routes = {
        "routes": [{"path": "/search/*", "to": "search", "identity": True}],
        "upstreams": {"search": {"url": modern[1]}},
    }
    table = json.dumps({"ROUTES": routes, "IDENTITY": {"secrets": {"search": SECRET}}})
    with (
        start("wrapped", STRANGLE_TEST_TABLE=table) as address,
        page_of(browser, address) as (page, troubles),
    ):
        yield Visit(page, troubles, address)


def test_an_editor_makes_a_page_as_ever(bare, wrapped):
    assert wrapped.titles == bare.titles
    assert wrapped.titles[-2:] == ["Exploring: Home - Wagtail", "First page"]
    assert set(wrapped.troubles.console) <= set(bare.troubles.console)
    assert set(wrapped.troubles.failed) <= set(bare.troubles.failed)


@pytest.mark.parametrize(("path", "status"), PAGES.items())
def test_a_page_is_sent_as_ever(bare, wrapped, path, status):
    assert wrapped.pages[path] == bare.pages[path]
    assert wrapped.pages[path][0] == status


def test_a_new_service_answers_one_path_and_knows_the_user(browser, wrapped, modern):
    page = wrapped.page
    page.goto("/search/?query=first")
    assert page.title() == "1: first"
    with page.expect_navigation():
        page.click("button")
    assert page.title() == "1: up"
    assert {cookie["name"] for cookie in page.context.cookies()} == {"sessionid", "csrftoken"}
    assert modern[0].cookies == set()
    with page_of(browser, wrapped.address) as (stranger, troubles):
        stranger.goto("/search/?query=first")
        assert stranger.title() == "nobody: first"
        assert not troubles
