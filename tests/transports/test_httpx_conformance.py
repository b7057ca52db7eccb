"""The tests of both own pools over transports of httpx2 and httpx, but for a table of differences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from tests.transports import test_both_pools
from tests.transports.clients import CLIENTS, Clients

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = tuple(k for k in CLIENTS if k.startswith("httpx"))
DIFFERENCES: dict = {}

globals().update({n: v for n, v in vars(test_both_pools).items() if n.startswith("test_") or n == "authority"})


@pytest.fixture(params=ALL)
def clients(request: pytest.FixtureRequest) -> Iterator[Clients]:
    with Clients(request.param) as made:
        yield made
