"""The monolith's URLs."""

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.contrib.staticfiles.views import serve
from django.urls import include, path
from django.views.generic import TemplateView

urlpatterns = [
    path("", login_not_required(TemplateView.as_view(template_name="home.html")), name="home"),
    path("accounts/", include("accounts.urls")),
    path("orders/", include("orders.urls")),
    path("admin/", admin.site.urls),
    # A web server's task elsewhere; `insecure` makes it work without DEBUG.
    path("static/<path:path>", login_not_required(serve), {"insecure": True}),
]
