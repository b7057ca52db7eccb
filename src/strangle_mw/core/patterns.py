"""Path patterns that match (`/a/{id:int}/*`) and path templates that are filled (`/v2/{id}`).

Parsing, ranking and filling live here; walking many patterns at once is `routing`. Everything that users
get wrong in a pattern is a `PatternError` with the remedy in its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from strangle_mw.core.paths import readings, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

TYPES: Mapping[str, re.Pattern[str]] = {
    # ASCII only: \d would accept other scripts' digits, and `$` a final line feed; always use fullmatch.
    "int": re.compile(r"[0-9]+"),
    "uuid": re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"),
    "slug": re.compile(r"[A-Za-z0-9_-]+"),
}

LITERAL, PARTIAL, TYPED, PARAMETER, SUBTREE, REGEX = range(6)
"""Classes of a segment in order of precedence (design section 3.3 rule 2); a regex comes after every path."""

MAX_SEGMENTS = 128
"""Segments of a pattern; each is one step of the matcher."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_SAFE = "/%:@!$&'()*+,;=~"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(rb"%[0-9A-Fa-f]{2}|[\x00-\xff]")
_UNSAFE_LITERAL = re.compile(r"[\\?#\x00-\x20\x7f]|%(?![0-9A-Fa-f]{2})|%(?:2[Ff]|5[Cc]|00)")


class PatternError(ValueError):
    """A pattern or template cannot be used; the text says why and what to write instead."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a pattern: literal text, or a parameter with literal text around it."""

    prefix: str
    name: str = ""
    type: str = ""
    suffix: str = ""

    @property
    def rank(self) -> tuple[int, int]:
        """The segment's place in the order of precedence; smaller wins."""
        if not self.name:
            return (LITERAL, 0)
        literal = len(self.prefix) + len(self.suffix)
        if literal:
            return (PARTIAL, -literal)
        return (TYPED, 0) if self.type else (PARAMETER, 0)

    @property
    def shape(self) -> Segment:
        """The segment without its parameter's name: segments of one shape fit the same texts."""
        return Segment(self.prefix, "x", self.type, self.suffix) if self.name else self

    @property
    def is_empty(self) -> bool:
        """Tell whether this is what follows a trailing slash."""
        return not self.prefix and not self.name

    def matches(self, text: str) -> bool:
        """Tell whether one decoded segment of a path fits."""
        if not self.name:
            return text == self.prefix
        if not (self.prefix or self.suffix or self.type):
            return text != ""
        end = len(text) - len(self.suffix)
        if end <= len(self.prefix) or not (text.startswith(self.prefix) and text.endswith(self.suffix)):
            return False
        return not self.type or TYPES[self.type].fullmatch(text, len(self.prefix), end) is not None

    def covers(self, other: Segment) -> bool:
        """Tell whether every text that fits `other` fits this segment, too."""
        if not other.name:
            return self.matches(other.prefix)
        if not self.name or not (other.prefix.startswith(self.prefix) and other.suffix.endswith(self.suffix)):
            return False
        inner = other.prefix[len(self.prefix) :] + other.suffix[: len(other.suffix) - len(self.suffix)]
        return not self.type or self._type_covers(other.type, inner)

    def _type_covers(self, other: str, literal: str) -> bool:
        if self.type == "slug":
            return bool(other) and (not literal or TYPES["slug"].fullmatch(literal) is not None)
        return other == self.type and not literal

    def overlaps(self, other: Segment) -> bool:
        """Tell whether some text may fit both of two segments of equal rank."""
        starts, ends = (
            sorted((self.prefix, other.prefix), key=len),
            sorted((self.suffix, other.suffix), key=len),
        )
        types = {self.type, other.type}
        return (
            starts[1].startswith(starts[0])
            and ends[1].endswith(ends[0])
            and (len(types) == 1 or bool(types & {"", "slug"}))
        )


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A compiled `path`: its segments and whether everything below is included."""

    text: str
    segments: tuple[Segment, ...]
    subtree: bool

    @property
    def rank(self) -> tuple[tuple[int, int], ...]:
        """Orders patterns that fit one path: compare segment by segment from the left; smaller wins."""
        ranks = tuple(s.rank for s in self.segments)
        return (*ranks, (SUBTREE, 0)) if self.subtree else ranks

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters' names, from the left."""
        return tuple(s.name for s in self.segments if s.name)

    @property
    def literal(self) -> bytes:
        """The path of a pattern without parameters, without `/*` and final slash, as it is sent."""
        return "/".join(["", *(quote(s.prefix, safe=_SAFE) for s in self.segments)]).rstrip("/").encode()

    def matches(self, segments: Sequence[str]) -> bool:
        """Tell whether the decoded segments of a path fit this pattern."""
        if len(segments) != len(self.segments) and not (self.subtree and len(segments) > len(self.segments)):
            return False
        return all(p.matches(s) for p, s in zip(self.segments, segments, strict=False))

    def covers(self, other: PathPattern) -> bool:
        """Tell whether every path that fits `other` fits this pattern, too."""
        same_depth = len(self.segments) == len(other.segments) and (self.subtree or not other.subtree)
        deeper = self.subtree and len(other.segments) > len(self.segments)
        return (same_depth or deeper) and all(
            a.covers(b) for a, b in zip(self.segments, other.segments, strict=False)
        )

    def overlaps(self, other: PathPattern) -> bool:
        """Tell whether some path may fit both of two patterns of equal rank."""
        return all(a.overlaps(b) for a, b in zip(self.segments, other.segments, strict=True))

    def without_slash(self) -> PathPattern:
        """Return the pattern without a trailing slash, for tables that ignore it."""
        if len(self.segments) > 1 and self.segments[-1].is_empty:
            return PathPattern(self.text, self.segments[:-1], self.subtree)
        return self

    def capture(self, segments: Sequence[bytes]) -> dict[str, bytes]:
        """Take the parameters out of a path's *raw* segments, byte for byte; `*` is what `/*` matched."""
        values = {p.name: _inner(raw, p) for p, raw in zip(self.segments, segments, strict=False) if p.name}
        if self.subtree:
            rest = segments[len(self.segments) :]
            values["*"] = b"/" + b"/".join(rest) if rest else b""
        return values


def _inner(raw: bytes, segment: Segment) -> bytes:
    """Cut the literal text off a raw segment, which may have spelt it with percent-encoding."""
    before, after = len(segment.prefix.encode()), len(segment.suffix.encode())
    if not before and not after:
        return raw
    tokens = _TOKEN.findall(raw)
    return b"".join(tokens[before : len(tokens) - after])


def parse_path(text: str) -> PathPattern:
    """Parse a route's `path`; raise `PatternError` with the remedy."""
    if not text.startswith("/"):
        raise PatternError(f"must start with a slash: write {'/' + text!r}")
    subtree = text.endswith("/*")
    parts = (text[:-2] if subtree else text).split("/")[1:]
    if len(parts) > MAX_SEGMENTS:
        raise PatternError(f"has more than {MAX_SEGMENTS} segments")
    segments = tuple(_parse_segment(part) for part in parts)
    if any(not s.prefix and not s.name for s in segments[: None if subtree else -1]):
        raise PatternError("has an empty segment (two slashes in a row); remove one")
    names = [s.name for s in segments if s.name]
    if double := {n for n in names if names.count(n) > 1}:
        raise PatternError(f"names the parameter {min(double)!r} twice; give each its own name")
    return PathPattern(text, segments, subtree)


def _parse_segment(part: str) -> Segment:
    found = _PLACEHOLDER.findall(part)
    around = _PLACEHOLDER.split(part)
    literal = "".join(around[::2])
    _check_literal(literal)
    if "*" in literal:
        raise PatternError("`*` may only stand alone at the end, as `/*`; for one segment write `{name}`")
    if "{" in literal or "}" in literal:
        raise PatternError(
            f"has an unmatched brace in {part!r}; write a parameter as {{name}} or {{name:int}}"
        )
    if not found:
        if part in (".", ".."):
            raise PatternError("has a dot segment; write the path that it stands for")
        _check_readings("/" + part)
        return Segment(unquote(part))
    if len(found) > 1:
        raise PatternError(f"has two parameters in one segment, {part!r}; use `regex` for that")
    name, _, type_ = found[0].partition(":")
    if not _NAME.fullmatch(name):
        raise PatternError(f"has no usable parameter name in {part!r}; names are letters, digits and _")
    if ":" in found[0] and type_ not in TYPES:
        raise PatternError(f"has an unknown parameter type {type_!r}; use one of {', '.join(TYPES)}")
    return Segment(unquote(around[0]), name, type_, unquote(around[2]))


def _check_literal(text: str) -> None:
    """Refuse literal text that upstreams read in more than one way (promise P1)."""
    if bad := _UNSAFE_LITERAL.search(text):
        raise PatternError(
            f"contains {bad.group()!r}, which servers read in different ways; "
            "a path holds no query, fragment, backslash, encoded slash or bare %"
        )


def _check_readings(literal: str) -> None:
    """Refuse literal text that a standard server may read otherwise: no request for it could be forwarded."""
    quoted = quote(literal, safe=_SAFE).encode()
    if any(split(reading) != split(quoted) for reading in readings(quoted)):
        raise PatternError(
            f"contains {literal!r}, which servers read in different ways (`;`, an encoded `%`, `#` or dot, "
            "invalid UTF-8); leave this path to the wrapped app, or match it with a parameter"
        )


@dataclass(frozen=True, slots=True)
class Template:
    """A path to be filled: literal bytes and names, in turn.

    `fence` holds the decoded literal segments that every filled path starts with, whatever is filled in.
    """

    text: str
    parts: tuple[bytes | str, ...]
    fence: tuple[str, ...]

    def fill(self, values: Mapping[str, bytes]) -> bytes:
        """Fill in raw values in one pass; nothing is encoded or decoded (promise P2)."""
        return b"".join(p if isinstance(p, bytes) else values[p] for p in self.parts)


def parse_template(text: str, known: Iterable[str]) -> Template:
    """Parse a `rewrite` or a redirect's path; `known` are the names that the route's path provides."""
    if not text.startswith("/"):
        raise PatternError(f"must start with a slash: write {'/' + text!r}")
    names = set(known)
    pieces = re.split(r"(/?\{\*\}|\{[^{}]*\})", text)
    parts = tuple(part for p in pieces if (part := _template_part(p, names)) is not None)
    if "//" in text or re.search(r"/\.{1,2}(?:/|$)", text):
        raise PatternError("has an empty or dot segment; write the path that it stands for")
    if re.search(r"[^/]\{\*\}", text):
        raise PatternError("must have a slash before {*}, which starts a segment of its own")
    _check_readings(re.sub(r"\{[^{}]*\}", "x", text))
    whole = text.split("{", 1)[0]
    fixed = whole.rsplit("/", 1)[0] if "{" in text else whole
    return Template(text, parts, tuple(unquote(s) for s in fixed.split("/")[1:]))


def undone(template: Template, pattern: PathPattern | None) -> tuple[bytes, bytes] | None:
    """Tell how to undo a template: `(what it puts in front, what stood there)`; None if that is not all."""
    literal = b"".join(p for p in template.parts if isinstance(p, bytes))
    if template.parts not in ((literal, "*"), ("*",)) or pattern is None or pattern.names:
        return None
    return literal, pattern.literal


def _template_part(piece: str, names: set[str]) -> bytes | str | None:
    if not piece.endswith("}") or "{" not in piece:
        if "{" in piece or "}" in piece:
            raise PatternError("has an unmatched brace; write a parameter as {name}")
        _check_literal(piece)
        return quote(piece, safe=_SAFE).encode() or None
    name = piece.lstrip("/")[1:-1]
    if name not in names:
        wanted = ", ".join("{" + n + "}" for n in sorted(names)) or "no parameters"
        raise PatternError(f"uses {{{name}}}, which the route's path does not provide; it has {wanted}")
    # `{*}` brings its own slash (or none, when the bare prefix was asked for).
    return name
