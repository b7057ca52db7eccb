"""The two answers of the measurements: the app's own and the upstream's, of equal length and type."""

from __future__ import annotations

LEGACY = b'{"server": "legacy", "items": ["lead-1", "lead-2", "lead-3"]}'
MODERN = b'{"server": "modern", "items": ["lead-1", "lead-2", "lead-3"]}'
CONTENT_TYPE = "application/json"
