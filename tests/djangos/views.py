"""The legacy app of the tests: what Django can answer, and what of a request can be seen there."""

import hashlib
from pathlib import Path

from django.http import (
    FileResponse,
    Http404,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.utils.functional import SimpleLazyObject
from django.views.decorators.csrf import csrf_exempt


def hello(request, name="world"):
    response = HttpResponse(f"hello {name}", status=299, reason="Fine")
    response.set_cookie("a", "1", path="/x")
    response.set_cookie("b", "2", httponly=True)
    response["X-Seen"] = "yes"
    return response


async def awaited(request):
    return HttpResponse(b"awaited")


def stream(request):
    return StreamingHttpResponse(iter([b"one ", b"two"]), content_type="text/plain")


def file(request):
    return FileResponse(Path(__file__).open("rb"), as_attachment=True)


def away(request):
    return HttpResponseRedirect("/elsewhere/")


def missing(request):
    raise Http404("nothing here")


def broken(request):
    raise ZeroDivisionError("broken")


def visits(request):
    request.session["n"] = request.session.get("n", 0) + 1
    return JsonResponse({"n": request.session["n"]})


def who(request):
    return HttpResponse(str(request.user.pk))


@csrf_exempt
def told(request):
    """Say what has come, above all of the body."""
    body = request.body
    fallback = request.META.get("strangle.fallback")
    return JsonResponse(
        {
            "fallback": fallback,
            "length": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "post": dict(request.POST),
            "method": request.method,
        }
    )


@csrf_exempt
def upload(request):
    """Say what has come, read as a stream."""
    digest, length = hashlib.sha256(), 0
    while chunk := request.read(65536):
        digest.update(chunk)
        length += len(chunk)
    return JsonResponse(
        {"fallback": request.META.get("strangle.fallback"), "length": length, "sha256": digest.hexdigest()}
    )


def cached(request):
    response = HttpResponse("for all")
    response["Cache-Control"] = "public, max-age=60"
    response["Vary"] = "Accept-Language"
    return response


# --- middlewares that make Django change threads, or that come in the way


class SyncOnly:
    """As old middlewares are: whatever stands before it is called from a thread."""

    async_capable = False

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return self.get_response(request)


def async_only(get_response):
    async def middleware(request):
        return await get_response(request)

    return middleware


async_only.sync_capable = False
async_only.async_capable = True


def reading(get_response):
    """Read the body before anybody else."""

    def middleware(request):
        request.POST  # noqa: B018
        return get_response(request)

    return middleware


def peeking(get_response):
    """Read the body before anybody else, in the way that keeps it."""

    def middleware(request):
        request.body  # noqa: B018
        return get_response(request)

    return middleware


def changing(get_response):
    """Change an answer, whoever has given it."""

    def middleware(request):
        response = get_response(request)
        response.set_cookie("a", "ours")
        response.headers["X-Empty"] = "filled"
        response.headers["X-Ours"] = "1"
        return response

    return middleware


def impersonating(get_response):
    """Make everybody another user, as support staff does."""
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.contrib.auth.models import User

    user = User(pk=77, username="other")
    if iscoroutinefunction(get_response):

        async def middleware(request):
            request.user = user
            return await get_response(request)

        return markcoroutinefunction(middleware)

    def middleware(request):
        request.user = user
        return get_response(request)

    return middleware


impersonating.async_capable = True


def lazily(get_response):
    """Name the user late, by a query."""
    from django.contrib.auth.models import User

    def middleware(request):
        request.user = SimpleLazyObject(lambda: User.objects.get(username="ben"))
        return get_response(request)

    return middleware


def discarding(get_response):
    """Give another answer than the one that has come, and forget about that."""
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction

    if iscoroutinefunction(get_response):

        async def middleware(request):
            await get_response(request)
            return HttpResponse("another")

        return markcoroutinefunction(middleware)

    def middleware(request):
        get_response(request)
        return HttpResponse("another")

    return middleware


discarding.async_capable = True
