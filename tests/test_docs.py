"""The reference names everything there is, and the security page names tests that exist."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from strangle_mw.core.model import Route, Upstream
from strangle_mw.core.settings import IdentityTokens, Settings, SigningKey

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("cls", "page"),
    [
        (Route, "routes.md"),
        (Upstream, "configuration.md"),
        (Settings, "configuration.md"),
        (IdentityTokens, "configuration.md"),
        (SigningKey, "configuration.md"),
    ],
)
def test_every_field_is_in_the_reference(cls, page):
    text = (ROOT / "docs" / "reference" / page).read_text("utf-8")
    keys = [f.metadata.get("key", f.name) for f in fields(cls)]
    assert [k for k in keys if f"`{k}`" not in text and k != "verify"] == []


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")], ids=lambda p: p.name
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_each_promise_names_a_test_that_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "SECURITY.md").read_text("utf-8"))
    assert len(named) >= 9
    assert all((ROOT / name).is_file() for name in named)
    assert {p.name for p in (ROOT / "tests" / "promises").glob("test_*.py")} <= {Path(n).name for n in named}


def test_the_readme_names_both_commands():
    text = (ROOT / "README.md").read_text("utf-8")
    assert "make demo" in text
    assert "make test" in text
