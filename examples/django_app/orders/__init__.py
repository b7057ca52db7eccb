"""Orders: the part of the monolith that is moving out, list and details first."""
