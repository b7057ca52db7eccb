"""Answers of a driver as responses of Django's, and what a canary adds to a response of the legacy app.

Every field arrives as it came: repeated ones stay several, cookies are not written anew. A middleware further
out may change what it likes, as with any response.
"""

from __future__ import annotations

import weakref
from http.cookies import Morsel, SimpleCookie
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import ResponseHeaders

from strangle_mw.core.sticky import mark_wsgi_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from strangle_mw.core.sticky import Mark

    Fields = Sequence[tuple[str, str]]

_COOKIE = "set-cookie"


class _Seen(Morsel[str]):
    """A cookie of an upstream's, for those who look at `response.cookies`."""


class _Cookies(SimpleCookie):
    """Cookies of which those of the upstream are not sent again: they are among the `items`."""

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(self.get(key), _Seen):  # it would be filled anew, and stay unsent
            del self[key]
        super().__setitem__(key, value)

    def values(self) -> Any:
        """Return the cookies to be sent."""
        return [cookie for cookie in super().values() if not isinstance(cookie, _Seen)]


class _Received:
    """A response that was received, to the byte; a field that was changed since is sent as it is now."""

    headers: Any
    cookies: Any
    status_code: int
    reason_phrase: str

    def receive(self, status: int, reason: str, fields: Fields) -> None:
        """Take over status and fields."""
        self.status_code = status
        if reason:
            self.reason_phrase = reason
        self.headers = ResponseHeaders({})
        self.cookies = _Cookies()
        self._lines = [line for line in fields if line[0].lower() == _COOKIE]
        self._came: dict[str, tuple[str, list[tuple[str, str]]]] = {}
        for name, value in fields:
            low = name.lower()
            if low == _COOKIE:
                self._note(value)
            else:
                joined, lines = self._came.get(low, ("", []))
                self._came[low] = (f"{joined}, {value}" if lines else value, [*lines, (name, value)])
        for joined, lines in self._came.values():
            self.headers[lines[0][0]] = joined

    def _note(self, line: str) -> None:
        name, equals, value = line.partition(";")[0].partition("=")
        if equals:
            cookie = _Seen()
            value = value.strip()
            state = {"key": name.strip(), "value": value.strip('"'), "coded_value": value}
            cookie.__setstate__(state)  # type: ignore[attr-defined] # unlike `set`, it takes any name
            self.cookies[name.strip()] = cookie

    def items(self) -> list[tuple[str, str]]:
        """Return the fields to be sent, those cookies among them that were received."""
        found: list[tuple[str, str]] = []
        for name, value in self.headers.items():
            joined, lines = self._came.get(name.lower(), ("", []))
            found += lines if lines and joined == value else [(name, value)]
        return found + self._lines


class _Whole(_Received, HttpResponse):  # type: ignore[misc] # Django has no types
    pass


class _Streamed(_Received, StreamingHttpResponse):  # type: ignore[misc] # as above
    pass


def respond(method: str, status: int, reason: str, fields: Fields, body: Any, nothing: Any = ()) -> Any:
    """Make a response; a body in bytes is whole, another one is streamed and closed with the response.

    `nothing` is a body of no parts, of the kind that who sends the response can wait for.
    """
    if isinstance(body, bytes) and method != "HEAD" and status not in (204, 304):
        made: Any = _Whole(body)
    else:
        # Django would give an empty whole body a length, which is that of the GET (RFC 9110 section 8.6).
        made = _Streamed(nothing if isinstance(body, bytes) else body)
    made.receive(status, reason, fields)
    return made


def mark_response(response: Any, mark: Mark | None, method: str) -> None:
    """Add to a response of the legacy app what a canaried answer gets."""
    if mark is None:
        return
    fields = [*response.items()]
    for name, value in mark_wsgi_headers(fields, mark, method)[len(fields) :]:
        if name == _COOKIE:
            response.cookies.load(value)
        else:
            before = response.headers.get(name)
            response.headers[name] = f"{before}, {value}" if before else value


def close_with(response: Any, close: Callable[[], None]) -> None:
    """Have something closed with a response, or when nobody has it any more: some middlewares drop one."""
    once = weakref.finalize(response, close)
    once.atexit = False
    response._resource_closers.append(once)  # noqa: SLF001 - as Django's own handlers do


def text_fields(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    """Return the headers of an ASGI message as text."""
    return [(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers]
