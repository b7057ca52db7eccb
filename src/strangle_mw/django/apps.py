"""The app that INSTALLED_APPS names: it registers the system checks, and brings `manage.py strangle`."""

from __future__ import annotations

from django.apps import AppConfig


class StrangleConfig(AppConfig):  # type: ignore[misc] # Django has no types
    """Registers the checks when Django starts."""

    name = "strangle_mw.django"
    label = "strangle"
    verbose_name = "strangle-mw"

    def ready(self) -> None:
        """Register the system checks (Django calls this once)."""
        from strangle_mw.django.checks import register_checks

        register_checks()
