"""Management commands of Django, one a module; Django finds them by their names."""
