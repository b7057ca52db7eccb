from django.urls import include, path, re_path

from djangos import views

shop = [
    path("hello/", views.hello),
    path("hello/<str:name>/", views.hello),
    re_path(r"^old/(?P<name>[a-z]+)/$", views.hello),
]
urlpatterns = [
    path("ready", views.awaited),
    path("shop/", include(shop)),
    path("awaited/", views.awaited),
    path("stream/", views.stream),
    path("file/", views.file),
    path("away/", views.away),
    path("missing/", views.missing),
    path("broken/", views.broken),
    path("visits/", views.visits),
    path("who/", views.who),
    path("cached/", views.cached),
    path("upload/", views.upload),
    re_path(r"^(?:m|down|canary|told)/.*", views.told),
]
