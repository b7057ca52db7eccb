"""The modern leads service: a process of its own that answers what the monolith answered, and more.

The shape of the JSON is the old one, because the clients are. New is the filter: `?industry=Energy`; and
`?pause=0.05` makes an answer take so many seconds, as if it came out of a busy database.

    flask --app leads_service run --port 8081
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from flask import Flask, request

SERVER = "leads-service"


@dataclass(frozen=True, slots=True)
class Lead:
    """Somebody to call back; the fields are named as they travel."""

    firstName: str  # noqa: N815
    lastName: str  # noqa: N815
    industry: str
    phone: str


LEADS = (
    Lead("Amara", "Okafor", "Energy", "+1-202-555-0114"),
    Lead("Jonas", "Lindqvist", "Shipping", "+1-202-555-0131"),
    Lead("Mei", "Tanaka", "Robotics", "+1-202-555-0158"),
    Lead("Rosa", "Delgado", "Energy", "+1-202-555-0172"),
    Lead("Tomasz", "Wilk", "Food", "+1-202-555-0196"),
)


def find(industry: str) -> list[Lead]:
    """Return the leads of one industry, or all if none is named."""
    wanted = industry.strip().casefold()
    return [lead for lead in LEADS if wanted in {"", lead.industry.casefold()}]


def create_app() -> Flask:
    app = Flask(__name__)
    app.add_url_rule("/v1/getSalesLeads", view_func=sales_leads)
    app.add_url_rule("/healthz", view_func=healthz)
    return app


def sales_leads() -> tuple[dict[str, Any], dict[str, str]]:
    time.sleep(min(max(0.0, request.args.get("pause", 0.0, float)), 1.0))
    found = find(request.args.get("industry", ""))
    body = {
        "numberLeads": len(found),
        "salesLeads": [asdict(lead) for lead in found],
        "timeStamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "server": SERVER,
    }
    return body, {"Cache-Control": "no-store"}


def healthz() -> dict[str, Any]:
    return {"status": "ok", "pid": os.getpid(), "server": SERVER}


app = create_app()
