"""URLs of every kind that Django has, for the test that reads them."""

import functools

from django.conf.urls.i18n import i18n_patterns
from django.http import HttpResponse
from django.urls import include, path, re_path, register_converter
from django.urls.converters import StringConverter
from django.utils.translation import gettext_lazy
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST
from django.views.generic import TemplateView, View


class Quarter(StringConverter):
    regex = "[0-9]{4}q[1-4]"


register_converter(Quarter, "quarter")


def plain(request, *args, **kwargs):
    return HttpResponse("ok")


@csrf_exempt
@require_POST
def posted(request):
    return HttpResponse("ok")


@require_http_methods(["GET", "PUT"])
def both(request):
    return HttpResponse("ok")


class Orders(View):
    def get(self, request, **kwargs):
        return HttpResponse("ok")

    def delete(self, request, **kwargs):
        return HttpResponse("ok")


class ReadOnly(Orders):
    http_method_names = ("get", "head", "options")


class Called:
    def __call__(self, request, **kwargs):
        return HttpResponse("ok")


shop = [
    path("", plain, name="front"),
    path("orders/<int:id>/", csrf_exempt(Orders.as_view()), name="order"),
    path("read/<slug:s>", ReadOnly.as_view()),
    re_path(r"^archive/(?P<year>[0-9]{4})/(?P<kind>json|xml)/$", plain, name="archive"),
]
urlpatterns = [
    path("", plain, name="home"),
    path("posted/", posted),
    path("both", both),
    path("report/<quarter:q>", functools.partial(plain, x=1)),
    path("files/<path:rest>", Called()),
    path("page/", TemplateView.as_view(template_name="x", http_method_names=["get", "post"])),
    path("shop/<uuid:tenant>/", include((shop, "shop"), namespace="shop")),
    re_path(r"^old/", include([re_path(r"^(\d+)(?:-(\w+))?/?$", plain), re_path(r"^any", plain)])),
    re_path(r"^v(?:1|2)/x\.json$", plain),
    re_path("loose", plain),
    *i18n_patterns(path("i18n/<str:x>/", plain, name="i18n"), path(gettext_lazy("Monday"), plain)),
]
