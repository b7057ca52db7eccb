"""Measurements of strangle-mw beside its peers; `python -m bench` from the repository's root (README.md)."""
