"""The whole table, and the rows of the matrix in its order."""

from __future__ import annotations

from tests.conformance import answers, bodies, connections, requests

CASES = (*requests.CASES, *bodies.CASES, *answers.CASES, *connections.CASES)
