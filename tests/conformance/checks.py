"""The vocabulary of the table: what can be said of the upstream's side, and of the client's.

Each function makes a `Check`; none looks at which server it is.
"""

from __future__ import annotations

import hashlib
import json
import re

from tests.conformance.model import Check

# --- the upstream's side


def line(text):
    """The request line, to the byte."""
    return Check(f"line {text!r}", lambda x: x.upstream["line"] == f"{text} HTTP/1.1")


def has(name, *values):
    """A header with exactly these values, in this order; a blank after a comma makes no difference."""
    wanted = [v.replace(", ", ",") for v in values]
    return Check(f"{name}: {values}", lambda x: [v.replace(", ", ",") for v in x.sent(name)] == wanted)


def hex_digits(name, count):
    """A header of so many hexadecimal digits."""
    pattern = re.compile(f"[0-9a-f]{{{count}}}")
    return Check(
        f"{name}: {count} hex digits", lambda x: [bool(pattern.fullmatch(v)) for v in x.sent(name)] == [True]
    )


def cookies(*pairs):
    """These cookies, on one line or more."""
    return Check(
        f"cookies {pairs}",
        lambda x: [p.strip() for v in x.sent("cookie") for p in v.split(";")] == list(pairs),
    )


def lacks(*names):
    """None of these headers."""
    return Check(f"without {names}", lambda x: x.upstream is not None and not any(x.sent(n) for n in names))


def only(*names):
    """These headers and no others."""
    wanted = sorted(names)
    return Check(f"only {wanted}", lambda x: sorted({n.lower() for n, _ in x.upstream["headers"]}) == wanted)


def order(*pairs):
    """These headers in this order, whatever stands between them."""
    wanted = [list(p) for p in pairs]
    return Check(
        f"in order {pairs}",
        lambda x: [[n.lower(), v] for n, v in x.upstream["headers"] if [n.lower(), v] in wanted] == wanted,
    )


def never_says(text):
    """No header holds this text."""
    return Check(
        f"never {text!r}", lambda x: all(text not in n.lower() + v for n, v in x.upstream["headers"])
    )


def received(body):
    """The whole body, and no other."""
    digest = hashlib.sha256(body).hexdigest()
    return Check(
        f"{len(body)} bytes", lambda x: (x.upstream["length"], x.upstream["sha256"]) == (len(body), digest)
    )


def begins(name, value):
    """A header whose first line is this."""
    return Check(f"{name}: {value} first", lambda x: x.sent(name)[:1] == [value])


UPSTREAMS_HOST = Check("the upstream's own host", lambda x: x.sent("host") == [x.facts["authority"]])
NOTHING = Check("nothing was sent", lambda x: x.upstream is None)
SOMETHING = Check("a request came", lambda x: x.upstream is not None)

# --- the client's side


def status(*codes):
    """One of these statuses."""
    return Check(f"status {codes}", lambda x: x.reply.status in codes)


def answered(name, *values):
    """A header with exactly these values, in this order."""
    return Check(f"{name}: {values}", lambda x: x.reply.all(name) == list(values))


def at_most_one(*names):
    """No header of these stands there twice."""
    return Check(f"at most one of {names}", lambda x: all(len(x.reply.all(n)) <= 1 for n in names))


def not_from(name, value):
    """A header that is not the upstream's own."""
    return Check(f"{name} is not {value}", lambda x: value not in x.reply.all(name))


def body(data):
    """This body."""
    return Check(f"body {data[:40]!r}", lambda x: x.reply.body == data)


def problem(code, reason):
    """The library's own error: RFC 9457, not to be cached, and no address in it (promise P23)."""
    return Check(
        f"problem {code} {reason}",
        lambda x: (
            x.reply.status == code
            and x.reply.header("content-type") == "application/problem+json"
            and x.reply.header("cache-control") == "no-store"
            and x.reply.json()["type"] == f"urn:strangle-mw:{reason}"
            and b"127.0.0.1" not in x.reply.body
        ),
    )


def fact(name, value=True):
    """Something that the act has noticed."""
    return Check(f"{name} is {value}", lambda x: x.facts[name] == value)


WHOLE = Check("the whole answer", lambda x: x.reply.complete)
CUT = Check(
    "a cut answer, or none",
    lambda x: not x.facts["hangs"] and (x.reply is None or (x.reply.status == 200 and not x.reply.complete)),
)
REFUSED = Check("refused or hung up", lambda x: x.reply is None or x.reply.status in (400, 413, 501))
HANGS = Check("waits", lambda x: x.facts["hangs"])
LEGACY = Check("legacy answered", lambda x: json.loads(x.reply.body)["from"] == "legacy")
OK = status(200)
