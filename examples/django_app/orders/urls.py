"""URLs of the orders."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.order_list, name="orders"),
    path("<int:number>/", views.detail, name="order"),
    path("new/", views.new, name="new-order"),
    path("export/", views.export, name="export"),
    path("<int:number>/cancel/", views.cancel, name="cancel-order"),
    path("<int:number>/attachments/", views.attachments, name="attachments"),
    path("<int:number>/attachments/<int:key>/", views.attachment, name="attachment"),
]
