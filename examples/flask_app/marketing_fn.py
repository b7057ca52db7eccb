"""The modern marketing events: an AWS Lambda function, invoked with payload format 2.0.

It speaks the old JSON, capital letters included, and keeps its own tidy names inside. New is the
filter: `?industry=Food`. On this machine, without AWS and without Docker:

    strangle lambda-dev marketing=marketing_fn:handler
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

SERVER = "marketing-function"


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


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Answer `GET /v1/getMarketingEvents`."""
    query = event.get("queryStringParameters") or {}  # the key is absent when there is no query
    wanted = query.get("industry", "").strip().casefold()
    found = [event.in_old_words() for event in EVENTS if wanted in {"", event.industry.casefold()}]
    print(f"{len(found)} events, request {context.aws_request_id}")
    body = {
        "numberEvents": len(found),
        "marketingEvents": found,
        "timeStamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "server": SERVER,
    }
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return {"statusCode": 200, "headers": headers, "body": json.dumps(body)}
