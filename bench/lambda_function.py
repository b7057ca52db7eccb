"""The Lambda function of `lambda`: run by AWS's runtime client under `strangle lambda-dev`, it does nothing."""

from __future__ import annotations

from typing import Any

from bench.payload import FUNCTION_ANSWER


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Answer at once, the same always."""
    return FUNCTION_ANSWER
