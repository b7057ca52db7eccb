"""Learns the path templates of an app whose URL map cannot be read, from what it answers: `learn=True`.

A template is all that is kept of a request (promises P17, P18): of its segments the plain words, and for
every other one what kind it is. Both are few: what is too many falls together.
"""

from __future__ import annotations

import re
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Literal

from strangle_mw.core.inventory import ANY_SEGMENT, ANYTHING, WEBSOCKET, AppEndpoint, Param, join

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from strangle_mw.states import States

MAX_TEMPLATES: Final = 500
"""Templates beyond which further ones are counted together."""

MAX_WORDS: Final = 64
"""Different words at one place of a path; more are taken for the values of a parameter."""

MAX_SEGMENTS: Final = 12

OTHERS: Final = "(other)"

_KINDS = (
    ("{int}", re.compile(r"[0-9]+")),
    ("{uuid}", re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")),
    ("{date}", re.compile(r"[0-9]{4}-[0-9]{2}(?:-[0-9]{2})?")),
)
# Short ones as they are, with two digits at most; longer ones of words as people write them (`getSalesLeads`,
# `how-to-2`), so that no token out of somebody's link is kept.
_SHORT = re.compile(r"(?!(?:[^0-9]*[0-9]){3})[A-Za-z0-9._~-]{1,12}")
_PIECE = r"(?:[A-Z]{1,12}|[A-Z]?[a-z]{1,20}(?:[A-Z][a-z]{2,20}|By|Id|In|Of|On|To)*)[0-9]{0,2}"
_LONG = re.compile(rf"(?=.{{1,40}}$)\.?{_PIECE}(?:[-._~]{{1,2}}{_PIECE})*")
_HEX = re.compile(r"(?=.*[0-9])[0-9A-Fa-f-]{8,}")


def kind_of(segment: str) -> str:
    """Return a segment that is a word, else a placeholder for what it is."""
    for name, regex in _KINDS:
        if regex.fullmatch(segment):
            return name
    word = (_SHORT.fullmatch(segment) or _LONG.fullmatch(segment)) and not _HEX.fullmatch(segment)
    return segment if word or not segment else "{id}"


class Templates:
    """The templates that were learned; shared by threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._words: dict[str, set[str]] = {}
        self._known: set[str] = set()

    def of(self, path: str) -> str:
        """Return the template of a decoded path, `OTHERS` if it would be one too many."""
        if not path.startswith("/"):
            return OTHERS
        segments = path.split("/", MAX_SEGMENTS + 1)[1:]
        kinds = [*map(kind_of, segments[:MAX_SEGMENTS]), *("{path}",) * (len(segments) > MAX_SEGMENTS)]
        with self._lock:
            template = self._put_together(kinds)
            if template not in self._known and len(self._known) >= MAX_TEMPLATES:
                return OTHERS
            self._known.add(template)
        return template

    def _put_together(self, kinds: Iterable[str]) -> str:
        at = ""
        for kind in kinds:
            words = self._words.setdefault(at, set()) if len(self._words) < 4 * MAX_TEMPLATES else set()
            if kind[:1] != "{" and kind not in words:
                if len(words) < MAX_WORDS:
                    words.add(kind)
                else:
                    kind = "{id}"  # noqa: PLW2901 - one of too many
            at += "/" + kind
        return at


def learning(app: Any, states: States, interface: Literal["asgi", "wsgi"]) -> Any:
    """Wrap an app so that what it answers is counted by templates, as by a framework's own rules.

    Answers 404, 405 and below 100 or above 499 teach nothing: they are counted for no endpoint.
    """
    return (LearningASGI if interface == "asgi" else LearningWSGI)(app, states)


class _Learning:
    def __init__(self, app: Any, states: States) -> None:
        self.app = app
        self._states = states
        self._templates = Templates()

    def _answered(self, method: str, path: str, status: int) -> None:
        known = status not in (404, 405) and status < 500  # noqa: PLR2004 - RFC 9110 section 15
        self._states.endpoint_hit(method, self._templates.of(path) if known else "")


class LearningWSGI(_Learning):
    """A WSGI app that counts what the app in it answers."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = (
            environ["REQUEST_METHOD"],
            environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
        )
        told = False

        def counted(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            nonlocal told
            if not told:
                told = True
                self._answered(method, path, int(status[:3]) if status[:3].isdigit() else 500)
            return start_response(status, headers, *more)

        answer: Iterable[bytes] = self.app(environ, counted)
        return answer


class LearningASGI(_Learning):
    """An ASGI app that counts what the app in it answers."""

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        method, path, root = scope.get("method", WEBSOCKET), scope["path"], scope.get("root_path", "")
        path = path if path.startswith(root) else root + path  # servers differ

        async def counted(message: dict[str, Any]) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                self._answered(method, path, message.get("status", 101))
            await send(message)

        await self.app(scope, receive, counted)


def learned(hits: Iterable[tuple[str, str]]) -> tuple[AppEndpoint, ...]:
    """Make endpoints of the templates that hits were counted under, by method and template."""
    methods: dict[str, set[str]] = {}
    for method, template in hits:
        if template.startswith("/"):
            methods.setdefault(template, set()).add("GET" if method == "HEAD" else method)
    return tuple(AppEndpoint(t, _path(t), methods=frozenset(m)) for t, m in sorted(methods.items()))


def _path(template: str) -> tuple[str | Param, ...]:
    """Take a template apart into text and parameters."""
    pieces = re.split(r"\{(\w+)\}", template)
    kinds = {name: regex.pattern for name, regex in _KINDS} | {"{path}": ANYTHING}
    return join(
        *(Param(p, kinds.get(f"{{{p}}}", ANY_SEGMENT)) if at % 2 else p for at, p in enumerate(pieces))
    )
