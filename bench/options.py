"""What one run of the measurements was asked for."""

from __future__ import annotations

from dataclasses import dataclass

HEADERS = {
    "bare": {},
    "browser": {
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language": "en-GB,en;q=0.5",
        "Accept-Encoding": "gzip, deflate, br",
        "Cookie": "session=eyJ1c2VyIjo0Mn0.aRqz3w.0f2e4a6c8b; theme=dark",
    },
}
"""Request headers beside `Host`: none, or what a browser sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the command line that the measurements need."""

    seconds: int
    rounds: int
    connections: int
    threads: int
    headers: str
    only: tuple[str, ...]
    mebibytes: int
    """Size of one body of `big`."""
    idle: int
    """Connections that `idle` holds open."""

    def wants(self, name: str) -> bool:
        """Tell whether `--only` leaves this row or measurement."""
        return not self.only or any(related(name, one) for one in self.only)


def related(left: str, right: str) -> bool:
    """Tell whether one name is the other or a part above it: `forward` and `forward/asgi/aiohttp`."""
    return all(one == other for one, other in zip(left.split("/"), right.split("/"), strict=False))
