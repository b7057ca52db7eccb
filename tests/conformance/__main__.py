"""`make conformance`: run the whole table under each server, and write the matrix into docs/servers.md.

What is written is what was seen. A server that does something else than the table declares is told, and the
page stays as it is: the table is changed first.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from io import StringIO

from tests.conformance.acts import perform
from tests.conformance.matrix import render, write
from tests.conformance.model import YES, Front, surprises
from tests.conformance.table import CASES
from tests.echo import Echo
from tests.servers import SERVERS, serve

MODULE = "tests.drivers.strangled"


def run(server, echo):
    """Run all cases under one server; returns the words, and what was not as declared."""
    words, wrong = {}, []
    with serve(server, MODULE, STRANGLE_TEST_UPSTREAM=echo.address) as port:
        for case in CASES:
            difference = case.difference(server)
            found = perform(case, Front(port, server, differs=difference is not None), echo)
            words[case.id, server] = YES if difference is None else difference.word
            wrong += [f"{server}: {case.id}: {what}" for what in surprises(case, server, found)]
    return words, wrong


def main():
    """Run everything; returns the exit code."""
    echo, words, wrong = Echo(), {}, []
    for server in SERVERS:
        with redirect_stdout(StringIO()) as log:
            seen, surprising = run(server, echo)
        words |= seen
        wrong += surprising
        sys.stderr.write(f"{server}: {len(seen)} cases, {len(surprising)} surprises\n")
        if surprising:
            sys.stderr.write(log.getvalue())
    echo.close()
    if wrong:
        sys.stderr.write("\n".join(["", *wrong, "The page is left as it was.", ""]))
        return 1
    write(render(words))
    return 0


sys.exit(main())
