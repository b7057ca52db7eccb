"""Identity for both sides: the monolith's tokens are minted in `minting`, a service checks them here.

A service that gets `Strangle-Identity` needs `verify` or a `Verifier`, or one of the ready middlewares:
`identity.django`, `identity.flask`, `identity.asgi`, `identity.fastapi`. Cheap to import: PyJWT (extra
`identity`) is loaded by the first `Verifier`, a framework by its own module.
"""

from __future__ import annotations

from strangle_mw.core.identity import Identity
from strangle_mw.identity.verifying import IdentityError, Verifier, verify

__all__ = ["Identity", "IdentityError", "Verifier", "verify"]
