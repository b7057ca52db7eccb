"""The modern marketing service, in a process of its own.

It speaks the old JSON, capital letters included, and keeps its own tidy names inside. New is the
filter: `?industry=Food`.

    flask --app marketing_service run --port 8082
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from flask import Flask, request

SERVER = "marketing-service"


@dataclass(frozen=True, slots=True)
class Event:
    """A fair or conference we attend."""

    day: date
    industry: str
    place: str
    name: str

    def in_old_words(self) -> dict[str, str]:
        """Translate for the clients of the monolith."""
        return {
            "Date": self.day.isoformat(),
            "Industry": self.industry,
            "Location": self.place,
            "Name": self.name,
        }


EVENTS = (
    Event(date(2026, 2, 12), "Energy", "Rotterdam", "Offshore Wind Days"),
    Event(date(2026, 3, 5), "Robotics", "Nagoya", "Grip and Motion"),
    Event(date(2026, 4, 21), "Shipping", "Gothenburg", "Clean Harbours"),
    Event(date(2026, 6, 9), "Food", "Bologna", "From Field to Shelf"),
)


def create_app() -> Flask:
    app = Flask(__name__)
    app.add_url_rule("/v1/getMarketingEvents", view_func=marketing_events)
    app.add_url_rule("/healthz", view_func=healthz)
    return app


def marketing_events() -> tuple[dict[str, Any], dict[str, str]]:
    wanted = request.args.get("industry", "").strip().casefold()
    found = [event.in_old_words() for event in EVENTS if wanted in {"", event.industry.casefold()}]
    body = {
        "numberEvents": len(found),
        "marketingEvents": found,
        "timeStamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "server": SERVER,
    }
    return body, {"Cache-Control": "no-store"}


def healthz() -> dict[str, Any]:
    return {"status": "ok", "pid": os.getpid(), "server": SERVER}


app = create_app()
