"""What routes are compiled to: immutable values that decisions look up and never change.

Only types and the answers they give about one request live here; building them from declarations is
`compile`, walking many of them is `routing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from strangle_mw.core.paths import is_plain, readings, split

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Sequence

    from strangle_mw.core.hygiene import HeaderPlan
    from strangle_mw.core.messages import RequestHead
    from strangle_mw.core.model import Condition, Endpoint, Route, Upstream
    from strangle_mw.core.patterns import PathPattern, Template
    from strangle_mw.core.staging import Staging
    from strangle_mw.core.targets import LambdaFunction

Kind = Literal["http", "lambda", "asgi", "wsgi"]
"""What an upstream is: a service, a Lambda function, an app in this process."""


@dataclass(frozen=True, slots=True)
class Test:
    """One compiled condition on a header, query parameter or cookie."""

    kind: Literal["header", "query", "cookie"]
    name: str
    condition: Condition
    regex: re.Pattern[str] | None = None

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def value(self, head: RequestHead) -> str | None:
        """Return what the request has there, or None."""
        if self.kind == "header":
            return head.header(self.name)
        return (head.query_params if self.kind == "query" else head.cookies).get(self.name)

    def holds(self, head: RequestHead) -> bool:
        """Tell whether the request fulfils the condition."""
        value, wanted = self.value(head), self.condition
        if value is None:
            return wanted.absent
        if self.regex is not None:
            return self.regex.fullmatch(value) is not None
        if wanted.prefix is not None:
            return value.startswith(wanted.prefix)
        return wanted.present or value == wanted.equals

    def __str__(self) -> str:
        wanted = self.condition
        if wanted.equals is not None:
            return f"{self.kind} {self.name} = {wanted.equals!r}"
        if wanted.present or wanted.absent:
            return f"{self.kind} {self.name} {'present' if wanted.present else 'absent'}"
        test, value = ("prefix", wanted.prefix) if wanted.prefix is not None else ("regex", wanted.regex)
        return f"{self.kind} {self.name} {test} {value!r}"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class CompiledUpstream:
    """An upstream with its addresses taken apart; a function or an app is its own single endpoint."""

    name: str
    declared: Upstream = field(repr=False)
    endpoints: tuple[Endpoint, ...] = field(repr=False)
    kind: Kind = field(default="http", repr=False)
    function: LambdaFunction | None = field(default=None, repr=False)

    @property
    def in_process(self) -> bool:
        """Tell whether this is an app in this process."""
        return self.kind in ("asgi", "wsgi")


@dataclass(frozen=True, slots=True, eq=False)
class Rewrite:
    """How the path that is sent is made from the path that came (design section 3.1).

    `strip` is the number of leading segments that are dropped; `template` a whole new path; neither: as
    received. `bases` are the base paths of the upstreams, below which the sent path must stay under every
    reading (promises P1 and P3); `prefix` is what `strip` drops, as text. `public` undoes the rewrite: how
    sent paths start below the base, and what stands there in public; None if that cannot be told.
    """

    strip: int = 0
    template: Template | None = None
    bases: tuple[bytes, ...] = (b"",)
    prefix: bytes = b""
    public: tuple[bytes, bytes] | None = (b"", b"")

    def apply(self, route: CompiledRoute, path: bytes) -> bytes:
        """Return the path for the upstream, without its base; every byte of a parameter is kept."""
        if self.template is not None:
            made = self.template.fill(route.capture(path))
        elif self.strip:
            made = b"/".join(path.split(b"/")[1 + self.strip :])
        else:
            return path
        # What is left may start with more slashes; one is kept, `//host` would be an authority (trap 11).
        return b"/" + made.lstrip(b"/")

    def stays_inside(self, sent: bytes) -> bool:
        """Tell whether every reading of the sent path stays below the base and the literal start."""
        if is_plain(sent):
            return True
        fixed = self.template.fence if self.template is not None else ()
        if self.template is not None and any(map(_has_dot_segment, readings(sent))):
            return False  # a parameter that climbs over the template's text after it, or before
        return all(_fenced(base, fixed, sent) for base in self.bases)


def _has_dot_segment(path: bytes) -> bool:
    return not {b".", b".."}.isdisjoint(path.split(b"/"))


def _fenced(base: bytes, fixed: Sequence[str], sent: bytes) -> bool:
    fence = [*split(base), *fixed]
    return not fence or all(split(reading)[: len(fence)] == fence for reading in readings(base + sent))


@dataclass(frozen=True, slots=True, eq=False)
class ForwardTo:
    """Send the request to one of several upstreams; `shares` are their upper bounds in basis points.

    `identity` tells to say who the user is, `withheld` names the cookies that neither side gets of the other.
    """

    upstreams: tuple[CompiledUpstream, ...]
    shares: tuple[int, ...]
    rewrite: Rewrite
    request_headers: HeaderPlan
    response_headers: HeaderPlan
    timeout: float | None
    identity: bool = False
    withheld: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class RedirectTo:
    """Answer with a redirect; `origin` is "" or `https://host`."""

    status: int
    origin: bytes
    template: Template


@dataclass(frozen=True, slots=True, eq=False)
class RespondWith:
    """Answer with fixed bytes."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


Action = ForwardTo | RedirectTo | RespondWith


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class CompiledRoute:
    """A route, checked and ready; `action` is None when the wrapped app answers."""

    index: int
    name: str
    declared: Route
    staging: Staging
    pattern: PathPattern | None
    regex: re.Pattern[str] | None
    methods: frozenset[str]
    hosts: tuple[str, ...]
    tests: tuple[Test, ...]
    when: Callable[[RequestHead], bool] | None
    action: Action | None
    weights: tuple[int, int, int, int]
    conditional: bool = field(init=False)
    """Whether more than host, path and method decides."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditional", bool(self.tests) or self.when is not None)

    def __repr__(self) -> str:
        return f"<route {self.name!r}>"

    @property
    def encoded_slash(self) -> bool:
        """Tell whether an encoded slash inside a parameter is data."""
        return self.declared.encoded_slash

    def method_rank(self, method: str) -> int | None:
        """Order routes by method: listed, implied (HEAD by GET), any; None if the method does not fit."""
        if not self.methods:
            return 2
        if method in self.methods:
            return 0
        return 1 if method == "HEAD" and "GET" in self.methods else None

    def precedence(self, method: str) -> tuple[int, ...]:
        """Order routes of one path (design section 3.3 rules 3 to 5); smaller wins."""
        rank = self.method_rank(method)
        return (3 if rank is None else rank, *(-w for w in self.weights), self.index)

    def refusal(self, head: RequestHead) -> str | None:
        """Say which condition does not hold, or None if all do."""
        for test in self.tests:
            if not test.holds(head):
                value = test.value(head)
                return f"needs {test}; the request has {'none' if value is None else repr(value)}"
        if self.when is not None and not self.when(head):
            return "`when` said no"
        return None

    def capture(self, path: bytes) -> dict[str, bytes]:
        """Return the raw values of the parameters in a raw path that matches."""
        if self.pattern is not None:
            return self.pattern.capture(path.split(b"/")[1:])
        if self.regex is None:
            return {}
        text = path.decode("latin-1")
        # A table that ignores a trailing slash has matched without it.
        match = self.regex.fullmatch(text) or self.regex.fullmatch(text.removesuffix("/"))
        return {k: (v or "").encode("latin-1") for k, v in match.groupdict().items()} if match else {}
