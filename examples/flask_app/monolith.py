"""The monolith of the demo: an ordinary Flask application that grew for years.

Three services answer JSON, a few pages show it, and the rest is what a real application has besides:
a login with a session, a POST, an upload, a streamed export. One line in `create_app` lets it be strangled.

    flask --app monolith run
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    flash,
    jsonify,
    redirect,
    render_template,
    request,
    session,
    url_for,
)

from strangle_mw.flask import Strangle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from werkzeug.wrappers import Response as AnyResponse

HERE = Path(__file__).resolve().parent
SERVER = "monolith"
BLOCK = 64 * 1024

bp = Blueprint("monolith", __name__)


def create_app(routes: str | Path | list[Any] | None = None) -> Flask:
    """Build the application; `routes` replaces the table file, which tests find handy."""
    app = Flask(__name__)
    app.config["SECRET_KEY"] = os.environ.get("FLASK_SECRET_KEY", "good enough for a demo only")
    app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
    app.config["MAX_CONTENT_LENGTH"] = 256 * 1024 * 1024
    app.config["STRANGLE_ROUTES"] = table_file() if routes is None else routes
    app.extensions["notes"] = Notes(os.environ.get("NOTES_FILE", ":memory:"))
    app.register_blueprint(bp)
    Strangle(app)
    return app


def table_file() -> str:
    """Say where the table of routes is: the environment's word, else the file beside this module."""
    return os.environ.get("STRANGLE_ROUTES") or str(HERE / "strangle.toml")


# --- the three services -----------------------------------------------------------------------------
# Their keys disagree about upper and lower case. Clients rely on it by now, so every successor has to
# keep it; that, too, is what replacing an old endpoint is like.

LEADS = [
    {"firstName": "Amara", "lastName": "Okafor", "industry": "Energy", "phone": "+1-202-555-0114"},
    {"firstName": "Jonas", "lastName": "Lindqvist", "industry": "Shipping", "phone": "+1-202-555-0131"},
    {"firstName": "Mei", "lastName": "Tanaka", "industry": "Robotics", "phone": "+1-202-555-0158"},
    {"firstName": "Rosa", "lastName": "Delgado", "industry": "Energy", "phone": "+1-202-555-0172"},
    {"firstName": "Tomasz", "lastName": "Wilk", "industry": "Food", "phone": "+1-202-555-0196"},
]

EVENTS = [
    {"Date": "2026-02-12", "Industry": "Energy", "Location": "Rotterdam", "Name": "Offshore Wind Days"},
    {"Date": "2026-03-05", "Industry": "Robotics", "Location": "Nagoya", "Name": "Grip and Motion"},
    {"Date": "2026-04-21", "Industry": "Shipping", "Location": "Gothenburg", "Name": "Clean Harbours"},
    {"Date": "2026-06-09", "Industry": "Food", "Location": "Bologna", "Name": "From Field to Shelf"},
]

PROJECTS = [
    {"Client": "Brightwater Dairy", "StartDate": "2025-09-01", "EndDate": "2026-03-31", "Industry": "Food"},
    {"Client": "Kestrel Lines", "StartDate": "2025-11-15", "EndDate": "2026-08-14", "Industry": "Shipping"},
    {"Client": "Solvind", "StartDate": "2026-01-07", "EndDate": "2027-01-06", "Industry": "Energy"},
    {"Client": "Tact Robotics", "StartDate": "2026-02-02", "EndDate": "2026-05-29", "Industry": "Robotics"},
]


def stamped(**fields: Any) -> Response:
    """Answer JSON together with when and by whom it was made; never to be cached."""
    reason = request.environ.get("strangle.fallback")
    if reason:  # a modern service should have answered, and could not
        fields["fallback"] = reason
    answer = jsonify(**fields, timeStamp=datetime.now(UTC).isoformat(timespec="milliseconds"), server=SERVER)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@bp.get("/v1/getSalesLeads")
def get_sales_leads() -> Response:
    return stamped(numberLeads=len(LEADS), salesLeads=LEADS)


@bp.get("/v1/getMarketingEvents")
def get_marketing_events() -> Response:
    return stamped(numberEvents=len(EVENTS), marketingEvents=EVENTS)


@bp.get("/v1/getDeliveryProjects")
def get_delivery_projects() -> Response:
    return stamped(numberProjects=len(PROJECTS), projects=PROJECTS)


@bp.get("/healthz")
def healthz() -> Response:
    """Tell which worker this is, and which table of routes it follows."""
    table = current_app.extensions["strangle"].snapshot.revision
    return stamped(status="ok", pid=os.getpid(), table=table)


# --- the pages --------------------------------------------------------------------------------------


@bp.get("/")
def front_page() -> str:
    return render_template("front.html", notes=notes().latest())


@bp.get("/sales")
def sales() -> str:
    columns = {"firstName": "First name", "lastName": "Last name", "industry": "Industry", "phone": "Phone"}
    return service_page("Sales", "Leads to call back", ".get_sales_leads", "salesLeads", columns)


@bp.get("/marketing")
def marketing() -> str:
    columns = {"Date": "Date", "Name": "Event", "Location": "Location", "Industry": "Industry"}
    return service_page("Marketing", "Events we attend", ".get_marketing_events", "marketingEvents", columns)


@bp.get("/projects")
def projects() -> str:
    columns = {"Client": "Client", "StartDate": "Start", "EndDate": "End", "Industry": "Industry"}
    return service_page("Projects", "Projects in delivery", ".get_delivery_projects", "projects", columns)


def service_page(title: str, lead: str, endpoint: str, rows: str, columns: dict[str, str]) -> str:
    """One page for all: the browser fetches the JSON and fills the table."""
    return render_template(
        "service.html", title=title, lead=lead, source=url_for(endpoint), rows=rows, columns=columns
    )


# --- login ------------------------------------------------------------------------------------------


@bp.get("/login")
def login_form() -> str:
    return render_template("login.html")


@bp.post("/login")
def login() -> AnyResponse | tuple[str, int]:
    if request.form.get("password") != "demo":
        return render_template("login.html", refused=True), 403
    session.clear()
    session["user"] = request.form.get("user", "").strip()[:40] or "somebody"
    return redirect(url_for(".front_page"), 303)


@bp.post("/logout")
def logout() -> AnyResponse:
    session.clear()
    return redirect(url_for(".front_page"), 303)


@bp.get("/whoami")
def whoami() -> Response:
    return stamped(user=session.get("user"))


# --- a POST -----------------------------------------------------------------------------------------


class Notes:
    """The notes about leads: in memory, or in a file that several workers share."""

    def __init__(self, file: str) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._db.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, lead, note, author)")
        weakref.finalize(self, self._db.close)

    def add(self, lead: str, text: str, author: str) -> dict[str, Any]:
        with self._lock:
            made = self._db.execute("INSERT INTO notes VALUES (NULL, ?, ?, ?)", (lead, text, author))
        return {"id": made.lastrowid, "lead": lead, "note": text, "author": author}

    def latest(self, limit: int = 50) -> list[dict[str, Any]]:
        with self._lock:
            rows = self._db.execute("SELECT * FROM notes ORDER BY id DESC LIMIT ?", (limit,)).fetchall()
        return [dict(zip(("id", "lead", "note", "author"), row, strict=True)) for row in rows]


def notes() -> Notes:
    held: Notes = current_app.extensions["notes"]
    return held


@bp.get("/v1/leadNotes")
def list_lead_notes() -> Response:
    return stamped(leadNotes=notes().latest())


@bp.post("/v1/leadNotes")
def add_lead_note() -> AnyResponse | tuple[Response, int]:
    """Take JSON from programs and a form from the front page."""
    given = request.get_json() if request.is_json else request.form
    if not isinstance(given, Mapping):
        abort(400, "a lead note is an object")
    lead, text = (str(given.get(key, "")).strip()[:200] for key in ("lead", "note"))
    if not (lead and text):
        abort(400, "a lead note needs `lead` and `note`")
    note = notes().add(lead, text, session.get("user", "anonymous"))
    if request.is_json:
        return stamped(**note), 201
    flash("Note added.")
    return redirect(url_for(".front_page"), 303)


# --- an upload --------------------------------------------------------------------------------------


@bp.post("/upload")
def upload() -> Response:
    """Answer size and digest of a file, sent by a form or as the bare body; never all of it in memory."""
    # The form parser answers 400 by itself where there is no file; a large one it keeps on the disk.
    file = request.files["file"] if request.mimetype == "multipart/form-data" else None
    size, digest = measure(request.stream if file is None else file.stream)
    return stamped(name=file.filename if file else None, size=size, sha256=digest)


def measure(stream: IO[bytes]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while block := stream.read(BLOCK):
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()


# --- a streamed answer ------------------------------------------------------------------------------


@bp.get("/v1/exportProjects")
def export_projects() -> Response:
    """Send a report while it is still being made."""
    answer = Response(report(weeks=6), mimetype="text/csv")
    answer.headers["Content-Disposition"] = 'attachment; filename="projects.csv"'
    answer.headers["Cache-Control"] = "no-store"
    return answer


def report(weeks: int, pause: float = 0.03) -> Iterator[str]:
    """Yield one chunk a week. The pause stands for the query that takes its time."""
    yield "week,client,hours,madeAt\r\n"
    for week in range(1, weeks + 1):
        yield csv_lines([week, row["Client"], 40 - 2 * week, time.time()] for row in PROJECTS)
        time.sleep(pause)


def csv_lines(rows: Iterator[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


app = create_app()
