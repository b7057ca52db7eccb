"""The whole table."""

from __future__ import annotations

from tests.conformance import answers, connections, requests

CASES = (*requests.CASES, *answers.CASES, *connections.CASES)
