"""The route patterns and request paths that every measurement shares."""

from __future__ import annotations

DISTINCT = 1_000
"""How many different paths a measurement rotates over, so that no peer can live on one cached answer."""


def patterns(count: int) -> list[str]:
    """Return `count` patterns, literal and parameter ones in turn: `/v1/res7`, `/v1/res7/{id}`."""
    return [f"/v1/res{index // 2}" + ("/{id}" if index % 2 else "") for index in range(count)]


def hits(count: int) -> list[str]:
    """Return paths that `patterns(count)` knows, spread evenly over the table, both kinds in turn."""
    wanted = min(count, DISTINCT)
    chosen = (position * count // wanted // 2 * 2 + position % 2 for position in range(wanted))
    return [f"/v1/res{index // 2}" + (f"/{index * 7}" if index % 2 else "") for index in chosen]


def misses(count: int) -> list[str]:
    """Return paths that `patterns(count)` does not know: near ones below a known resource, and strangers."""
    step = max(1, count // 2 // DISTINCT)
    kinds = (
        lambda n: f"/v1/res{n * step % (count // 2)}/{n}/history",
        lambda n: f"/v1/other{n}",
        lambda n: f"/account/{n}/orders",
        lambda n: f"/static/js/app-{n}.js",
    )
    return [kinds[number % len(kinds)](number) for number in range(DISTINCT)]


def forwarded() -> list[str]:
    """Return the targets of the forwarding measurement, all below `/modern`."""
    return [f"/modern/leads/{number}?limit=20&sort=name" for number in range(DISTINCT)]
