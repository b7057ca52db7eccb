"""A headless Chromium for tests, and pages that remember what went wrong in them.

Playwright's synchronous API keeps an event loop running in this thread while it is open: `browser` lives as
long as one module of tests, in which nothing else may use `asyncio`.
"""

import gc
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from programs import require

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_ARGS = ["--disable-dev-shm-usage", "--disable-background-networking"]


def chromium():
    """Return the path of a Chromium; skip the test without one, or fail under STRANGLE_REQUIRE_SERVERS=1."""
    return require(next(filter(shutil.which, PROGRAMS), PROGRAMS[0]))


@pytest.fixture(scope="module")
def browser():
    """A Chromium (Playwright's `Browser`) for the tests of the module that imports this fixture."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    args = [*_ARGS, "--no-sandbox"] if os.geteuid() == 0 else _ARGS  # Chromium refuses a sandbox to root
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=args)
        try:
            yield opened
        finally:
            opened.close()
    gc.collect()  # Playwright's greenlets are not to end in the midst of what other tests do


@dataclass
class Troubles:
    """What pages complained of: `console` errors with uncaught exceptions, and requests that `failed`.

    A failed request is told as "GET URL: 404", or with what Chromium says if no answer came. URLs of the
    context's own server are told without its origin, so that two servers' troubles compare.
    """

    console: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __bool__(self):
        return bool(self.console or self.failed)

    def watch(self, context, origin):
        def fail(request, why):
            if why == "net::ERR_ABORTED":  # its page was left, or has given it up: no answer was bad
                return
            self.failed.append(f"{request.method} {request.url.removeprefix(origin)}: {why}")

        def say(text):
            # A failed request is in `failed`; only the console knows of favicons, which no page has asked for.
            if not text.startswith("Failed to load resource"):
                self.console.append(text.replace(origin, "") if origin else text)

        context.on("console", lambda m: say(m.text) if m.type == "error" else None)
        context.on("weberror", lambda e: say(str(e.error)))
        context.on("requestfailed", lambda r: fail(r, r.failure))
        context.on("response", lambda r: fail(r.request, r.status) if r.status >= 400 else None)


@contextmanager
def page_of(browser, base_url="", **context):
    """Open a page that shares no cookies, nor anything else, with others; yields it and its `Troubles`.

    Those of pages opened by it are there, too. `context` is what `Browser.new_context` takes.
    """
    opened = browser.new_context(base_url=base_url or None, **context)
    try:
        opened.set_default_timeout(20_000)
        troubles = Troubles()
        troubles.watch(opened, base_url.rstrip("/"))
        yield opened.new_page(), troubles
    finally:
        opened.close()
