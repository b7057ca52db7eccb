"""Checked by mypy only: the other side of identity keeps its types."""

from collections.abc import Mapping
from typing import Any, assert_type

from strangle_mw.identity import Identity, IdentityError, Verifier, verify
from strangle_mw.identity.asgi import IdentityMiddleware
from strangle_mw.identity.fastapi import identity
from strangle_mw.identity.verifying import Reason

secret = "x" * 32
verifier = Verifier("orders", secrets=[secret, b"y" * 32], leeway=5.0, match_request=False)
Verifier("orders", keys={"a": "PEM"}, issuer="shop")
Verifier("orders", jwks_url="https://shop.example/keys")
found = verifier.verify("token", method="GET", path=b"/a%2Fb", query="a=b")
assert_type(found, Identity)
assert_type(found.claims, Mapping[str, Any])
assert_type(verify("token", audience="orders", secrets=secret, method="GET", path="/"), Identity)


async def app(scope: Any, receive: Any, send: Any) -> None:
    try:
        assert_type(await verifier.averify(b"token", method="GET", path="/"), Identity)
    except IdentityError as error:
        assert_type(error.reason, Reason)
        assert_type(error.status, int)


IdentityMiddleware(app, verifier, required=True)
assert_type(identity.__name__, str)
