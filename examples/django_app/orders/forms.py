"""The forms of the orders."""

from __future__ import annotations

from typing import Any

from django import forms

from .models import CATALOGUE


class OrderForm(forms.Form):  # type: ignore[misc]
    """How many of each product? At least one of something."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        for number, (product, price) in enumerate(CATALOGUE.items()):
            self.fields[f"product-{number}"] = forms.IntegerField(
                label=product, help_text=f"{price} each", min_value=0, max_value=99, initial=0, required=False
            )

    def clean(self) -> dict[str, int]:
        """Return how many of which product."""
        found = {
            product: wanted
            for number, product in enumerate(CATALOGUE)
            if (wanted := self.cleaned_data.get(f"product-{number}"))
        }
        if not (found or self.errors):
            raise forms.ValidationError("Nothing is ordered yet: choose how many of at least one product.")
        return found


class AttachmentForm(forms.Form):  # type: ignore[misc]
    """A file for an order."""

    file = forms.FileField(max_length=100)
