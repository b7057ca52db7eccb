"""The Django demo in a browser: logged in on the monolith, orders by a service, taken back while it runs."""

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from browser import Troubles, browser, page_of  # noqa: F401 - `browser` is a fixture

pytest.importorskip("django")
pytest.importorskip("gunicorn")
pytest.importorskip("uvicorn")
pytest.importorskip("jwt")

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "django_app"
DEADLINE = 240.0


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo after its replay: what it printed. It has to end at Ctrl-C, and to take everything along."""
    folder = tmp_path_factory.mktemp("django-demo")
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", str(FOLDER / "demo.py")],
        env=os.environ | {"TMPDIR": str(folder), "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    watchdog = threading.Timer(DEADLINE, process.terminate)
    watchdog.start()
    with process:
        try:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "Ctrl-C" in line:
                    break
            else:
                pytest.fail(f"the demo did not stay up:\n{''.join(lines)}\n{process.stderr.read()}")
            yield "".join(lines)
        finally:
            watchdog.cancel()
            process.send_signal(signal.SIGINT)
            ended = process.stderr.read()
    assert (process.returncode, ended) == (130, "\ndemo: stopped, no process is left\n")
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def address(demo):
    return re.search(r"Open (http://\S+)/ ", demo)[1]


@pytest.fixture(scope="module")
def alice(browser, address):  # noqa: F811
    """Be asked by the service to log in, and come back: what the browser has to remember of that."""
    with page_of(browser, address) as (page, troubles):
        assert page.goto("/orders/6/").status == 401
        page.get_by_role("main").get_by_role("link", name="Log in").click()
        log_in(page, "alice")
        assert page.url == f"{address}/orders/6/"
        assert footer(page) == MODERN.format("alice")
        assert troubles == Troubles(failed=["GET /orders/6/: 401"])
        return page.context.storage_state()


def manage(demo, *arguments):
    """Run what the demo tells its visitors to type, here with other arguments."""
    script = re.search(r"^ +(\S+/manage) strangle status$", demo, re.MULTILINE)[1]
    done = subprocess.run(
        [*shlex.split(script), *arguments], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def footer(page):
    return page.locator("footer").inner_text()


MODERN = "Served by the orders service for {}, whom the monolith knows."
LEGACY = "Served by the monolith for {}."
GUARDS = ["cross-origin-opener-policy", "referrer-policy", "x-content-type-options", "x-frame-options"]


def log_in(page, name):
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill("demo")
    page.get_by_role("button", name="Log in").click()


def column(page, number=1):
    return page.locator(f"tbody td:nth-child({number})").all_inner_texts()


def test_the_replay_shows_what_it_should(demo):
    assert "All as it should be.\n" in demo
    assert "\n  NO " not in demo
    assert re.search(r"^ +2 of \d+ endpoints modern;", demo, re.MULTILINE)
    assert re.search(r"^ +/orders/\{number\}/ +GET +modern +orders ", demo, re.MULTILINE)
    assert re.search(
        r"\$ manage.py strangle rollback orders .*\n +orders: modern -> legacy \(by demo: ", demo
    )
    assert re.search(r"^ +2 of 2 workers follow$", demo, re.MULTILINE)


def test_migrations_are_complete_and_no_check_complains(demo):
    assert manage(demo, "makemigrations", "--check", "--dry-run") == "No changes detected\n"


def test_orders_are_of_the_service_as_the_user_of_the_monolith(browser, address, alice):  # noqa: F811
    with page_of(browser, address, storage_state=alice) as (page, troubles):
        page.goto("/orders/")
        assert footer(page) == MODERN.format("alice")
        mine = column(page)
        assert mine[-4:] == ["6", "4", "3", "1"]
        page.get_by_role("link", name="shipped").click()
        assert column(page) == ["4", "1"]

        page.goto("/orders/new/")
        assert footer(page) == LEGACY.format("alice")
        page.get_by_label("Hand grinder").fill("2")
        page.get_by_role("button").click()
        assert footer(page) == MODERN.format("alice")
        assert column(page) == ["Hand grinder"]
        assert column(page, 4) == ["76.00"]

        page.get_by_role("link", name="Files (0)").click()
        page.get_by_label("File").set_input_files(
            {"name": "note.txt", "mimeType": "text/plain", "buffer": b"left at the door"}
        )
        page.get_by_role("button", name="Upload").click()
        assert page.get_by_role("status").inner_text() == "note.txt is uploaded."
        with page.expect_download() as download:
            page.get_by_role("link", name="note.txt").click()
        assert download.value.path().read_bytes() == b"left at the door"
        page.get_by_role("link", name="Back to the order").click()
        assert page.get_by_role("link", name="Files (1)").is_visible()

        page.get_by_role("link", name="Cancel this order").click()
        page.get_by_role("button").click()
        assert footer(page) == MODERN.format("alice")
        assert page.locator(".lead").inner_text().startswith("cancelled")

        page.goto("/orders/")
        with page.expect_download() as download:
            page.get_by_role("link", name="Export as CSV").click()
        exported = download.value.path().read_text().splitlines()
        assert {row.split(",")[0] for row in exported[1:]} == {*column(page)}
        # What becomes a download ends as a page.
        assert [f for f in troubles.failed if "net::ERR_ABORTED" not in f] == troubles.console == []


def test_a_rollback_changes_the_side_and_not_the_user(browser, demo, address, alice):  # noqa: F811
    with page_of(browser, address, storage_state=alice) as (page, troubles):
        modern = page.goto("/orders/").headers
        seen, cookies = column(page), page.context.cookies()
        assert footer(page) == MODERN.format("alice")
        try:
            manage(demo, "strangle", "rollback", "orders", "--wait", "10")
            legacy = page.reload().headers
            assert footer(page) == LEGACY.format("alice")
            assert {n: legacy.get(n) for n in GUARDS} == {n: modern[n] for n in GUARDS}
            assert column(page) == seen
            assert page.context.cookies() == cookies
        finally:
            manage(demo, "strangle", "rollback", "orders", "--to-file", "--wait", "10")
        page.reload()
        assert footer(page) == MODERN.format("alice")
        assert not troubles, troubles


def test_staff_acts_on_the_admin_site_and_logs_out_for_both_sides(browser, address):  # noqa: F811
    with page_of(browser, address) as (page, troubles):
        page.goto("/accounts/login/")
        log_in(page, "bob")
        assert footer(page) == MODERN.format("bob")
        assert {*column(page, 2)} == {"alice", "bob"}
        page.get_by_role("link", name="Admin").click()
        page.locator(".model-order").get_by_role("link", name="Orders").click()
        page.get_by_role("row", name="Order 5").get_by_role("checkbox").check()
        page.locator("select[name=action]").select_option("mark_as_shipped")
        page.locator("[name=index]").click()  # "Go" in Django 5, "Run" in 6
        page.goto("/orders/5/")
        assert footer(page) == MODERN.format("bob")
        assert page.locator(".lead").inner_text().startswith("shipped")

        page.get_by_role("link", name="bob").click()
        page.get_by_role("button", name="Log out").click()
        assert footer(page) == "Served by the monolith."
        assert not troubles, troubles
        assert page.goto("/orders/5/").status == 401
