"""Forwarding under every supported server, over real sockets: one table of cases for all of them.

A declared difference is asserted as strictly as the rule: a server that becomes better fails here until the
table, and with it docs/servers.md, says so.
"""

import pytest
from tests.conformance.acts import perform
from tests.conformance.model import Front, surprises
from tests.conformance.table import CASES


@pytest.mark.parametrize("case", CASES, ids=[c.id for c in CASES])
def test_conformance(server, case, echo):
    front = Front(server, server.name, differs=case.difference(server.name) is not None)
    found = perform(case, front, echo)
    assert surprises(case, server.name, found) == [], found
