"""The orders on the admin site."""

from django.contrib import admin

from .models import Attachment, Order, OrderLine

admin.site.site_header = admin.site.site_title = "Harbour Supplies"


class Lines(admin.TabularInline):  # type: ignore[misc]
    """The lines of an order, below it."""

    model = OrderLine
    extra = 0


class Attachments(admin.TabularInline):  # type: ignore[misc]
    """The files of an order, below it."""

    model = Attachment
    extra = 0


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):  # type: ignore[misc]
    """Orders, to be looked through and to be marked as shipped."""

    list_display = ("__str__", "customer", "placed_at", "status")
    list_filter = ("status",)
    search_fields = ("customer__username", "lines__product")
    inlines = (Lines, Attachments)
    actions = ("mark_as_shipped",)

    def mark_as_shipped(self, request: object, chosen: object) -> None:
        """Ship those of the chosen orders that are open."""
        chosen.filter(status=Order.Status.OPEN).update(status=Order.Status.SHIPPED)  # type: ignore[attr-defined]
