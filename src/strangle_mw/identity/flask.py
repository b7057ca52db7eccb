"""Identity in a Flask service: `guard(app, Verifier(...))`, then `g.strangle_identity` in each view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response, g, request

from strangle_mw.identity.gate import answer, read_environ
from strangle_mw.identity.verifying import IdentityError

if TYPE_CHECKING:
    from flask import Blueprint, Flask

    from strangle_mw.identity.verifying import Verifier


def guard(app: Flask | Blueprint, verifier: Verifier, *, required: bool = False) -> None:
    """Check the token of each request to an app or a blueprint, before its other functions that do so.

    `g.strangle_identity` is the user, or None. A bad token is 401; so is none, if `required`.
    """

    def check() -> Response | None:
        try:
            g.strangle_identity = read_environ(request.environ).check(verifier, required=required)
        except IdentityError as exc:
            status, headers, body = answer(exc)
            return Response(body, status, headers)
        return None

    app.before_request(check)
