"""The matrix in docs/servers.md: how it is written, and what the table implies for it."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.model import YES
from tests.conformance.table import CASES
from tests.servers import SERVERS

PAGE = Path(__file__).parents[2] / "docs" / "servers.md"
START = "<!-- matrix: written by `make conformance` -->"
END = "<!-- end of the matrix -->"


def declared():
    """Return the word of each (case, server) as the table declares it."""
    return {(c.id, s): d.word if (d := c.difference(s)) else YES for c in CASES for s in SERVERS}


def render(words):
    """Write the matrix and its legend as Markdown; `words` are those of each (case id, server)."""
    rows = dict.fromkeys(c.what for c in CASES)
    lines = [f"| | {' | '.join(map(title, SERVERS))} |", "|---" * (len(SERVERS) + 1) + "|"]
    for what in rows:
        cells = [_cell([words[c.id, s] for c in CASES if c.what == what]) for s in SERVERS]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_legend()])


def title(server):
    """Return a server's name as users write it."""
    name, _, kind = server.partition("-")
    return f"{name} {kind.upper() if kind in ('asgi', 'wsgi') else kind}".strip()


def _cell(words):
    others = list(dict.fromkeys(w for w in words if w != YES))
    return "; ".join(others) or YES


def _legend():
    """Say what each word means, and of whom, in the order of the rows."""
    found = {}
    for difference in (d for c in CASES for d in c.differs):
        found.setdefault((difference.word, difference.why), set()).update(difference.servers)
    return [
        f"- **{word}** ({', '.join(title(s) for s in SERVERS if s in servers)}): {why}"
        for (word, why), servers in found.items()
    ]


def read(page=PAGE):
    """Return the matrix as it stands in the page."""
    return page.read_text("utf-8").partition(f"{START}\n\n")[2].partition(f"\n\n{END}")[0]


def write(matrix, page=PAGE):
    """Put a matrix in place of the one in the page."""
    before, _, rest = page.read_text("utf-8").partition(f"{START}\n\n")
    page.write_text(f"{before}{START}\n\n{matrix}\n\n{END}{rest.partition(END)[2]}", "utf-8")
