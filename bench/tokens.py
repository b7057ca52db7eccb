"""Microseconds that it takes to tell an upstream who the user is: one request at a time, in this process."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import library_tokens
from bench.calls import in_rounds
from bench.heads import scope
from bench.report import Table, spread
from bench.rounds import Series
from bench.served import Group, failures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.options import Options
    from bench.report import Progress

    Timing = tuple[Callable[[Any], object], list[Any]]

NAME = "tokens"
USERS = 100
REPEATS = 20
NOBODY, WITHHELD, HS256, ES256, EDDSA = "nobody", "withheld", "HS256", "ES256", "EdDSA"
ENCODE = "pyjwt"
GROUPS = (
    Group(f"{NAME}/prepare", "decision.prepare", (NOBODY, WITHHELD, HS256, ES256, EDDSA)),
    Group(f"{NAME}/mint", "one token", (HS256, ES256, EDDSA, ENCODE)),
    Group(f"{NAME}/verify", "Verifier.verify", (HS256, ES256, EDDSA)),
)
COLUMNS = ["measured", "row", "us", "added us", "note"]


def measure(options: Options, progress: Progress, _folder: object) -> Iterator[Table]:
    """Measure every wanted row in turn, in one table."""
    wanted = [(group, peer) for group in GROUPS for peer in _wanted(group, options)]
    if not wanted:
        return
    table = Table("tokens: CPU microseconds to say who the user is", COLUMNS)
    table.notes.append(
        f"{options.rounds} rounds, all rows in turn; median (least..greatest). A GET with four headers, the"
        f" session among its four cookies; {USERS} users. 'added' is above {NOBODY!r}, paired by round:"
        f" {WITHHELD!r} keeps the session cookie back and sends no token, the others do both."
    )
    series = _rounds(wanted, options, progress)
    for group, peer in wanted:
        _fill(table, group, peer, series)
    table.notes.extend(failures(series))
    yield table


def _wanted(group: Group, options: Options) -> list[str]:
    left = group.wanted(options)
    return [peer for peer in group.peers if peer in left or (left and peer == NOBODY)]


def _rounds(rows: list[tuple[Group, str]], options: Options, progress: Progress) -> dict[str, Series]:
    series = {name: Series(name) for name in (f"{group.name}/{peer}" for group, peer in rows)}
    in_rounds(series, _timing, options, progress, NAME, REPEATS)
    return series


def _timing(name: str) -> Timing:
    _, measured, peer = name.split("/")
    return MEASURED[measured](peer)


def _fill(table: Table, group: Group, peer: str, series: dict[str, Series]) -> None:
    one, base = series[f"{group.name}/{peer}"], series.get(f"{group.name}/{NOBODY}")
    added = one.above(base) if base is not None and base is not one and not (base.error or one.error) else []
    cells = (
        ["-", "-", "FAILED"]
        if one.error
        else [spread(one.column("cpu")), spread(added) if added else "-", ""]
    )
    if peer == ENCODE and not one.error:
        cells[2] = f"{median(one.column('cpu')) / _ours(series):.1f}x of ours"
    table.rows.append([group.label, peer, *cells])
    table.data.append({**asdict(one), "added": added})
    table.failed |= bool(one.error)


def _ours(series: dict[str, Series]) -> float:
    one = series.get(f"{NAME}/mint/{HS256}")
    return median(one.column("cpu")) if one is not None and one.samples else float("nan")


# --- what is measured


def _prepare(peer: str) -> Timing:
    cookies = "theme=dark; strangle_id=0123456789abcdef0123456789abcdef; sessionid=0123456789abcdef; lang=en"
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    headers = {"User-Agent": agent, "Accept": "text/html,*/*;q=0.8", "Cookie": cookies}
    questions = [scope(f"/orders/{user}", headers) for user in range(USERS)]
    algorithm = "" if peer in (NOBODY, WITHHELD) else peer
    return library_tokens.telling(algorithm, withheld=peer != NOBODY), questions


def _mint(peer: str) -> Timing:
    users = [f"user-{number}" for number in range(USERS)]
    return library_tokens.encoding() if peer == ENCODE else library_tokens.minting(peer), users


def _verify(peer: str) -> Timing:
    mint, verify = library_tokens.minting(peer), library_tokens.verifying(peer)
    return verify, [mint(f"user-{number}") for number in range(USERS)]


MEASURED: dict[str, Callable[[str], Timing]] = {
    "prepare": _prepare,
    "mint": _mint,
    "verify": _verify,
}
