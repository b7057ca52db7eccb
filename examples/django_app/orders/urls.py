"""URLs of the orders."""

from django.urls import path
from django.views.decorators.http import require_safe

from . import views

urlpatterns = [
    path("", require_safe(views.order_list), name="orders"),
    path("<int:number>/", require_safe(views.detail), name="order"),
    path("new/", views.new, name="new-order"),
    path("export/", require_safe(views.export), name="export"),
    path("<int:number>/cancel/", views.cancel, name="cancel-order"),
    path("<int:number>/attachments/", views.attachments, name="attachments"),
    path("<int:number>/attachments/<int:key>/", require_safe(views.attachment), name="attachment"),
]
