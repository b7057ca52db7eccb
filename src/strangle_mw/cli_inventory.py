"""The command `inventory`, and how an inventory is laid out: as text, in Markdown, as JSON.

Words and exit codes live here: 0 printed, 1 the table, the store or the app cannot be used, 2 wrong use. What
there is to say is `inventory`.
"""

from __future__ import annotations

import importlib
import json
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import get_terminal_size
from time import time
from typing import TYPE_CHECKING, Any, Final

import click

from strangle_mw.cli_status import columns, count
from strangle_mw.config import load
from strangle_mw.core.dials import dial_words
from strangle_mw.core.events import safe_text
from strangle_mw.core.overrides import apply_overrides
from strangle_mw.errors import StrangleError
from strangle_mw.follower import store_key
from strangle_mw.inventories import read_url_map
from strangle_mw.inventory import WINDOW, build, date
from strangle_mw.reach import read_held
from strangle_mw.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from strangle_mw.core.decision import Snapshot
    from strangle_mw.inventory import Entry, Group, Inventory
    from strangle_mw.stores.base import Store

IN_MEMORY: Final = (
    "no hits are known here: counts are kept inside each process; "
    'set store = "sqlite:///path.db" (or Redis) in the table or the app\'s settings'
)
_HEADING = ("ENDPOINT", "METHODS", "STAGE", "ROUTES", "LEGACY HITS", "LAST SEEN", "VIEW")
_KILLED = "the kill switch is on: every route is legacy now, whatever its stage here"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
"""The option `--json`."""
markdown_option = click.option(
    "--markdown", "as_markdown", is_flag=True, help="Print a table in Markdown instead of text."
)
"""The option `--markdown`."""
days_option = click.option(
    "--days", type=click.IntRange(1, 92), default=WINDOW, show_default=True, help="How far to look back."
)
"""The option `--days`."""


@click.command("inventory", short_help="List an app's endpoints, and how far each is migrated.")
@click.argument("app", metavar="MODULE:APP")
@click.argument("file", type=click.Path())
@json_option
@markdown_option
@click.option(
    "--store",
    envvar="STRANGLE_STORE",
    show_envvar=True,
    metavar="URL",
    help="Where hits are counted.  [default: the file's]",
)
@days_option
def inventory_command(
    app: str, file: str, store: str | None, days: int, *, as_json: bool, as_markdown: bool
) -> None:
    """List the endpoints of an app, which routes of the table FILE cover them, and who is still asked.

    MODULE:APP is imported, as a server does it.
    """
    opened: Store | None = None
    try:
        snapshot = load(Path(file))
        url = store or snapshot.settings.store
        opened = open_store(url) if url and url != "memory:" else None
        found = _imported(app)
        print_inventory(found, snapshot, opened, as_json=as_json, as_markdown=as_markdown, days=days)
    except StrangleError as exc:
        click.echo(click.style("error ", fg="red") + str(exc), err=True)
        sys.exit(1)
    finally:
        if opened is not None:
            opened.close()


def _imported(name: str) -> Any:
    """Import the app, whatever it does then, and tell in one line what went wrong."""
    if not all(name.partition(":")):
        raise click.UsageError(f"{name!r} must be MODULE:APP, as in shop.wsgi:application")
    try:
        with here_first():
            return import_app(name)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever the app does when it is imported
        what = safe_text(f"{name} cannot be imported: {type(exc).__name__}: {exc}", 500)
        raise StrangleError(what) from None


def print_inventory(
    app: Any,
    snapshot: Snapshot,
    store: Store | None,
    *,
    as_json: bool = False,
    as_markdown: bool = False,
    days: int = WINDOW,
) -> None:
    """Print the inventory of an app under a table; without a store no hits are known.

    Raises `StoreError`, for the caller to tell.
    """
    note, counts = IN_MEMORY, dict[str, int]()
    if store is not None and store.url != "memory:":
        held, counts = read_held(store, store_key()).overrides, store.counts()
        snapshot = replace(snapshot, dials=apply_overrides(snapshot.table, held).dials)
        note = _KILLED if held.kill is not None else ""
    found = build(read_url_map(app), snapshot, counts, time(), days, note)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
    elif as_markdown:
        click.echo("\n".join(markdown(found)))
    else:
        click.echo("\n".join(inventory_lines(found, _width())))


def _width() -> int | None:
    return get_terminal_size().columns if sys.stdout.isatty() else None


def import_app(name: str) -> Any:
    """Import `MODULE:ATTR`, where ATTR may have dots; raises `ValueError` for another form."""
    module, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise ValueError("must be MODULE:ATTR, as in shop.wsgi:application")
    app: Any = importlib.import_module(module)
    for part in attribute.split("."):
        app = getattr(app, part)
    return app


@contextmanager
def here_first() -> Iterator[None]:
    """Find modules in the working directory, as servers do."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        sys.path.remove("")


# --- text


def inventory_lines(found: Inventory, width: int | None = None) -> list[str]:
    """Lay out an inventory, at most `width` characters a line."""
    heading, *lines = columns([_HEADING, *_rows(found)])
    unread = [f"the app's URLs are not known: {found.problem}"] * bool(found.problem)
    if found.problem and found.entries:
        unread.append("listed are the templates learned from what it has answered")
    told = [
        found.headline,
        *unread,
        *([found.note] if found.note else []),
        "",
        *([heading, *lines] if found.entries else []),
        *_gone(found),
        *(f"warning {w}" for w in found.warnings),
    ]
    return [t if width is None or len(t) <= width else t[: width - 1] + "\u2026" for t in told]


def markdown(found: Inventory) -> list[str]:
    """Lay out an inventory as a page in Markdown."""
    rows = [_HEADING, *_rows(found)]
    bars = ["| " + " | ".join(_cell(c) for c in row) + " |" for row in rows]
    bars.insert(1, "|---" * len(_HEADING) + "|")
    about = [found.problem and f"The app's URLs are not known: {found.problem}", found.note, *_gone(found)]
    return [
        f"**{found.headline}** ({date(found.today)})",
        "",
        *(line for text in about if text for line in (_cell(text), "")),
        *(bars if found.entries else []),
        *([""] if found.warnings else []),
        *(f"- {_cell(str(w))}" for w in found.warnings),
    ]


def _cell(text: str) -> str:
    """Keep what stands in a cell from being read as Markdown or HTML."""
    for mark in ("\\", "|", "*", "_", "`", "<", "["):
        text = text.replace(mark, "\\" + mark)
    return text


def _rows(found: Inventory) -> Iterator[tuple[str, ...]]:
    for entry in found.entries:
        for group in entry.groups:
            yield _row(found, entry, group)


def _row(found: Inventory, entry: Entry, group: Group) -> tuple[str, ...]:
    counted = found.since is not None
    return (
        safe_text(_where(entry), 200),
        _methods(entry, group),
        _stage(group),
        safe_text(", ".join(group.routes[:3]) + ", ..." * (len(group.routes) > 3), 200),  # noqa: PLR2004
        str(group.hits) if counted else "",
        (date(group.last) or "never") if counted else "",
        safe_text(entry.endpoint.view, 200),
    )


def _where(entry: Entry) -> str:
    hosts = entry.endpoint.hosts
    return f"{'|'.join(hosts)}{entry.endpoint.text}"


def _methods(entry: Entry, group: Group) -> str:
    if not entry.endpoint.methods and len(entry.groups) == 1:
        return "any"
    return ",".join(m.lower() if m == "WEBSOCKET" else m for m in group.methods)


def _stage(group: Group) -> str:
    if group.extent == "unknown":
        return "unknown"
    if group.dial is None:
        return "legacy"
    return ("partly " if group.extent == "partly" else "") + dial_words(group.dial)


def _gone(found: Inventory) -> Sequence[str]:
    """Name what was counted and is no endpoint any more."""
    if not found.gone or found.problem:
        return ()
    shown = ", ".join(found.gone[:10]) + ", ..." * (len(found.gone) > 10)  # noqa: PLR2004
    return (f"counted, and no endpoint of the app by now ({count(len(found.gone), 'rule')}): {shown}",)
