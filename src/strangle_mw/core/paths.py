"""The request path: which bytes count as it, and in how many ways servers may read them.

Raw bytes in, raw bytes out: nothing here knows of routes. A *reading* is what some standard server would
take a raw path for, written as a raw path again, so that every reading is matched by the same code as the
path itself (promise P1, `SECURITY.md`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A path without any of `[?%\\;#\x00-\x20\x7f-\xff]|//|/\.` has one reading only. This is that language said
# positively: possessive runs of a character class need half the time of a search that visits every byte.
is_plain: Callable[[bytes], re.Match[bytes] | None] = re.compile(
    rb"(?=/)(?:/[!\"$&-\-0-:<->@-\[\]-~][!\"$&-.0-:<->@-\[\]-~]*+)*+/?+"
).fullmatch

_LEFT_ENCODED = re.compile(rb"%2[Ff]")
_ABSOLUTE_FORM = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(.*)", re.DOTALL)
_PARAMS = re.compile(rb";[^/]*")
_SLASHES = re.compile(rb"//+")
_ENCODED_DOT = re.compile(rb"%2[Ee]")
_ENCODED_SLASH = re.compile(rb"%2[Ff]|%5[Cc]")
_UNQUOTED = re.compile(rb"[\x00-\x20\x7f-\xff\"<>\\^`{|}#?]")
_OVERLONG = re.compile(rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f][\x80-\xbf]|\xf0[\x80-\x8f][\x80-\xbf]{2}")


def request_path(raw: bytes | None, decoded: bytes) -> tuple[bytes, bytes]:
    """Choose the bytes that count as the request's path: `(path, authority of an absolute-form target)`.

    The raw target counts if the server gave one and it says the same as the decoded path that the wrapped
    app sees; otherwise the decoded one is quoted once (promise P2). RFC 9112 section 3.2.2 for absolute form.
    """
    if raw is None:
        return quote_path(decoded), b""
    path, authority = _reduce(raw.partition(b"?")[0])
    if _says(path, decoded) or _says(raw, decoded):
        return path, authority
    return quote_path(_reduce(decoded)[0]), authority


def _reduce(target: bytes) -> tuple[bytes, bytes]:
    if target.startswith(b"/") or not (match := _ABSOLUTE_FORM.fullmatch(target)):
        return target, b""
    return match[2] or b"/", match[1]


def _says(raw: bytes, decoded: bytes) -> bool:
    """Tell whether a server that decodes `raw` once gets `decoded`.

    Some put U+FFFD for invalid UTF-8; cheroot leaves an encoded slash as it is, in upper case.
    """
    once = unquote_to_bytes(raw)
    if once == decoded or once.decode("utf-8", "replace").encode() == decoded:
        return True
    return b"%2F".join(unquote_to_bytes(part) for part in _LEFT_ENCODED.split(raw)) == decoded


def quote_path(decoded: bytes) -> bytes:
    """Percent-encode a decoded path once; what may stand in a path (RFC 3986 section 3.3) stays."""
    return quote_from_bytes(decoded, safe="/!$&'()*+,;=:@~").encode()


def split(path: bytes, most: int = -1) -> list[str]:
    """Split a raw path on slashes, then decode each segment: an encoded slash makes no new segment.

    At most `most` slashes are looked at; what follows stays one element.
    """
    return [decode_segment(s) for s in path.split(b"/", most)[1:]]


def decode_segment(raw: bytes) -> str:
    """Decode one raw segment once; invalid UTF-8 becomes lone surrogates, which equal no literal."""
    return (unquote_to_bytes(raw) if b"%" in raw else raw).decode("utf-8", "surrogateescape")


def requote(reading: bytes) -> bytes:
    """Spell a reading as a client would have sent it, for regular expressions over the raw path."""
    return _UNQUOTED.sub(lambda m: b"%%%02X" % m[0][0], reading)


def neutralize_slashes(segment: bytes) -> bytes:
    """Replace encoded slashes and backslashes by data, for routes that say `encoded_slash = true`."""
    return _ENCODED_SLASH.sub(b"_", segment)


def readings(path: bytes) -> Iterator[bytes]:
    """Yield every standard reading of a raw path, itself first, each once.

    The single steps of design section 3.4, and every combination of them in the order in which servers
    apply them: one alone is too few, since a path can be made whose step A and whose steps A+B+C look
    harmless while A+B does not. The number of readings is bounded by the number of steps, so the work is
    linear in the length of the path.
    """
    seen = [path]
    known = {path}
    yield path
    for step in _STEPS:
        for reading in tuple(seen):
            result = step(reading)
            if result not in known:
                known.add(result)
                seen.append(result)
                yield result


def _cut_fragment(path: bytes) -> bytes:
    return path.partition(b"#")[0]


def _strip_parameters(path: bytes) -> bytes:
    return _PARAMS.sub(b"", path)


def _decode_once(path: bytes) -> bytes:
    # A percent sign that decoding produced is data: quoting it keeps the result a raw path.
    return unquote_to_bytes(path).replace(b"%", b"%25") if b"%" in path else path


def _decode_lenient_utf8(path: bytes) -> bytes:
    if path.isascii():
        return path
    return _OVERLONG.sub(_overlong_character, path).decode("utf-8", "replace").encode()


def _overlong_character(match: re.Match[bytes]) -> bytes:
    first, *rest = match[0]
    code = first & {2: 0x1F, 3: 0x0F, 4: 0x07}[len(match[0])]
    for byte in rest:
        code = code << 6 | byte & 0x3F
    return chr(code).encode("utf-8", "replace").replace(b"%", b"%25")


def _cut_nul(path: bytes) -> bytes:
    return path.partition(b"\x00")[0]


def _backslash_to_slash(path: bytes) -> bytes:
    return path.replace(b"\\", b"/")


def _merge_slashes(path: bytes) -> bytes:
    return _SLASHES.sub(b"/", path)


def _remove_dot_segments(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4, for literal dots."""
    if b"/." not in path:
        return path
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)


def _remove_encoded_dot_segments(path: bytes) -> bytes:
    return _remove_dot_segments(_ENCODED_DOT.sub(b".", path))


_STEPS: tuple[Callable[[bytes], bytes], ...] = (
    _cut_fragment,
    _strip_parameters,
    _decode_once,
    _decode_lenient_utf8,
    _cut_nul,
    _cut_fragment,
    _backslash_to_slash,
    _strip_parameters,
    _merge_slashes,
    _remove_dot_segments,
    _remove_encoded_dot_segments,
)
