"""The pages of the orders service, for those whom the monolith vouches for.

Each request brings a signed token (`Strangle-Identity`) that says whose it is; the middleware checks it, and
nobody gets here around the monolith. No session, no cookie, no password of the users' is known here.

    ORDERS_SECRET=... uvicorn orders_service.app:app --port 8082
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from strangle_mw.identity import Identity, Verifier
from strangle_mw.identity.asgi import IdentityMiddleware

from .orders import Orders

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

HERE = Path(__file__).resolve().parent
ORDERS = Orders(Path(os.environ.get("ORDERS_DATABASE", HERE.parent / "data" / "monolith.db")))
TEMPLATES = Jinja2Templates(HERE / "templates")
HEADERS = {
    "Cache-Control": "no-store",
    # What the monolith's middlewares add to its own pages: they never see these.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def orders(request: Request) -> Response:
    """List a user's orders; new here: `?status=open`."""
    if (user := user_of(request)) is None:
        return log_in_first(request)
    status = request.query_params.get("status", "")
    return page(request, "list.html", orders=ORDERS.find(customer_of(user), status), chosen=status)


def order(request: Request) -> Response:
    if (user := user_of(request)) is None:
        return log_in_first(request)
    found = ORDERS.get(customer_of(user), request.path_params["number"])
    if found is None:
        return page(request, "message.html", 404, title="No such order", text="Or it is somebody else's.")
    return page(request, "detail.html", order=found)


def healthz(_: Request) -> Response:
    return JSONResponse({"status": "ok", "pid": os.getpid()})


def user_of(request: Request) -> Identity | None:
    found: Identity | None = request.state.strangle_identity
    return found


def customer_of(user: Identity) -> int | None:
    """Return whose orders a user may see: None stands for everybody's."""
    return None if user.claims["staff"] else int(user.subject)


def log_in_first(request: Request) -> Response:
    text = "Orders are shown to those whom the monolith knows."
    return page(request, "message.html", 401, title="Log in first", text=text)


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """Render a page that is this user's only."""
    headers = {"WWW-Authenticate": "Strangle-Identity"} if status == 401 else {}  # RFC 9110 section 15.5.2
    values["user"] = user_of(request)
    return TEMPLATES.TemplateResponse(request, template, values, status, HEADERS | headers)


app = Starlette(
    routes=[
        Route("/orders/", orders),
        Route("/orders/{number:int}/", order),
        Route("/healthz", healthz),
    ],
    middleware=[
        Middleware(IdentityMiddleware, verifier=Verifier("orders", secrets=[os.environ["ORDERS_SECRET"]]))
    ],
)
