"""A monolith in Flask with Flask-Login; servers take it as `flask_shop:wsgi`."""

import os

from flask import Flask, g, request, session
from flask_login import LoginManager, UserMixin, current_user, login_user

from strangle_mw import Route
from strangle_mw.flask import Strangle

SECRET = "a secret that is 32 bytes long, or more"
UPSTREAM = "orders"


class User(UserMixin):
    def __init__(self, id_, *, staff=False, active=True):
        self.id = id_
        self.staff = staff
        self.active = active

    @property
    def is_active(self):
        return self.active


def name_of(_head):
    return session.get("name")


def shop(address, *routes, login=True, **config):
    """Make the app; `app.users` are those there are, `app.seen` what its own code has seen."""
    app = Flask("shop")
    app.secret_key = "x"
    app.users = {"7": User("7"), "8": User("8", staff=True), "9": User("9", active=False)}
    app.seen = []
    if login:
        manager = LoginManager(app)
        manager.user_loader(app.users.get)
        manager.request_loader(lambda r: app.users.get((r.headers.get("Authorization") or "")[7:]))
    tables = {
        "upstreams": {UPSTREAM: {"url": address}},
        "routes": list(routes) or [Route("/m/*", to=UPSTREAM, identity=True)],
    }
    app.config.update(
        {"STRANGLE_ROUTES": tables, "STRANGLE_IDENTITY": {"secrets": {UPSTREAM: SECRET}}, **config}
    )

    @app.route("/login/<name>", methods=["GET", "POST"])
    def log_in(name):
        session["name"] = name
        return {"ok": login_user(app.users[name], remember="remember" in request.args, force=True)}

    @app.route("/session/<name>")
    def remember(name):
        session["name"] = name
        return ""

    @app.route("/legacy", methods=["GET", "POST"])
    @app.route("/m/<name>", methods=["GET", "POST"])
    def legacy(name=""):
        app.seen.append(
            sorted(k for k in request.environ if k not in ("werkzeug.request", "flask._preserve_context"))
        )
        return {
            "legacy": True,
            "form": request.form.to_dict(),
            "user": current_user.get_id() if login and current_user.is_authenticated else None,
        }

    @app.teardown_request
    def end(_error):
        g.pop("x", None)
        app.seen.append("teardown")

    Strangle(app)
    return app


if "STRANGLE_TEST_UPSTREAM" in os.environ:
    wsgi = shop(os.environ["STRANGLE_TEST_UPSTREAM"])
