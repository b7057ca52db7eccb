"""Documents of overrides that must be refused whole, by what is wrong with them. Each also has a good part."""

import copy
import json

GOOD = {
    "format": 1,
    "revision": 7,
    "kill": None,
    "overrides": {
        "leads": {
            "stage": "canary",
            "weight": 500,
            "force": False,
            "by": "ann",
            "at": 1764000000.5,
            "why": "first users",
            "declared": {"stage": "legacy", "weight": 0},
        }
    },
}
KILL = {"by": "ann", "at": 1764000000.5, "why": "smoke"}


def document(**changes):
    return {**copy.deepcopy(GOOD), **changes}


def override(**changes):
    """A document whose override has these members; None takes one away."""
    made = document()
    members = {**made["overrides"]["leads"], **changes}
    made["overrides"]["leads"] = {k: v for k, v in members.items() if v is not ...}
    return made


def text(data):
    return json.dumps(data).encode()


# What a route or an upstream has and an override may not have: a document chooses, it does not empower.
EMPOWERING = {
    "to": "http://evil.example",
    "upstream": "evil",
    "url": "http://evil.example",
    "urls": ["http://evil.example"],
    "asgi": "os:system",
    "wsgi": "os:system",
    "lambda": "evil",
    "path": "/admin/*",
    "pattern": "GET /admin",
    "regex": "(a+)+",
    "hosts": ["*"],
    "when": "__import__('os').system('id')",
    "rewrite": "/internal",
    "strip_prefix": "/a",
    "request_headers": {"set": {"X-User": "root"}},
    "respond": {"status": 200, "body": "<script>"},
    "redirect": {"to": "https://evil.example"},
    "sticky": ["header:X-User"],
    "group": "other",
    "timeout": 86400,
    "fallback": "never",
    "identity": False,
    "tls": {"ca": "/tmp/evil.pem"},
    "verify": False,
    "admin": "/__strangle",
    "__class__": "Override",
    "py/object": "os.system",
}

HOSTILE = {
    "nothing but blanks": b"   ",
    "no JSON": b"{",
    "a byte order mark": b"\xef\xbb\xbf" + text(GOOD),
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "bytes that are no UTF-8": text(GOOD).replace(b"ann", b"a\xffn"),
    "two documents": text(GOOD) * 2,
    "something after it": text(GOOD) + b"\0",
    "a pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    "YAML": b"!!python/object/apply:os.system ['id']",
    "Python": b"{'format': 1, 'revision': 7, 'kill': None, 'overrides': {}}",
    "a comment": text(GOOD).replace(b"{", b"{/**/", 1),
    "a list": b"[]",
    "null": b"null",
    "a number": b"7",
    "an empty object": b"{}",
    "over 4 MiB": text(GOOD) + b" " * (4 << 20),
    "deep lists": b'{"format":' + b"[" * 500_000,
    "deep objects": b'{"a":' * 100_000,
    "one level too deep": text(override(declared={"stage": {"a": {}}, "weight": 0})),
    "a key twice at the root": text(GOOD)[:-1] + b',"revision":8}',
    "a route twice": text(GOOD).replace(b'"leads"', b'"leads":{},"leads"'),
    "a member twice": text(GOOD).replace(b'"weight": 500', b'"weight": 500, "weight": 501'),
    "a twin by escapes": text(GOOD)[:-1] + b',"revisio\\u006e":8}',
    "many keys and a twin": text({str(n): 0 for n in range(90_000)})[:-1] + b',"0":0}',
    "an unknown key at the root": text(document(upstreams={})),
    "an unknown key in an override": text(override(to="http://evil.example")),
    "an unknown key in what was declared": text(
        override(declared={"stage": "legacy", "weight": 0, "to": "x"})
    ),
    "an unknown key in the kill switch": text(document(kill={**KILL, "all": True})),
    "no format": text({k: v for k, v in GOOD.items() if k != "format"}),
    "another format": text(document(format=2)),
    "a format that is equal to 1": text(document(format=True)),
    "a format 1.0": text(document(format=1.0)),
    "no revision": text({k: v for k, v in GOOD.items() if k != "revision"}),
    "revision 0": text(document(revision=0)),
    "a negative revision": text(document(revision=-1)),
    "a revision that is no whole number": text(document(revision=7.0)),
    "a revision that is text": text(document(revision="7")),
    "a revision beyond all readers": text(document(revision=1 << 53)),
    "a number of a thousand digits": text(document(revision=7)).replace(b": 7", b": " + b"9" * 1000),
    "NaN": text(override(at=float("nan"))),
    "Infinity": text(override(at=float("inf"))),
    "-Infinity": text(override(at=float("-inf"))),
    "a number that overflows": text(GOOD).replace(b"1764000000.5", b"1e999"),
    "a time before all": text(override(at=-1)),
    "a time that no calendar has": text(override(at=1e12)),
    "a time that is true": text(override(at=True)),
    "overrides that are a list": text(document(overrides=[])),
    "overrides that are null": text(document(overrides=None)),
    "an override that is null": text(document(overrides={"leads": None})),
    "an override that is text": text(document(overrides={"leads": "modern"})),
    "neither stage nor weight": text(override(stage=..., weight=...)),
    "a stage that there is not": text(override(stage="live")),
    "a stage in capitals": text(override(stage="MODERN")),
    "a stage that is null": text(override(stage=None)),
    "a stage that is a list": text(override(stage=["modern"])),
    "a weight of more than all": text(override(weight=10_001)),
    "a weight of less than none": text(override(weight=-1)),
    "a weight with a fraction": text(override(weight=0.5)),
    "a weight that is text": text(override(weight="5")),
    "a weight that is true": text(override(weight=True)),
    "a force that is 1": text(override(force=1)),
    "no force": text(override(force=...)),
    "nobody": text(override(by=...)),
    "somebody who is a number": text(override(by=7)),
    "a name too long": text(override(by="a" * 201)),
    "a reason too long": text(override(why="a" * 1001)),
    "no reason": text(override(why=...)),
    "an escape sequence": text(override(why="\x1b[2J")),
    "a line break": text(override(why="a\nroute 'x' is modern")),
    "a C1 control": text(override(by="\x9b31m")),
    "text turned round": text(override(why="\u202egnp.exe")),
    "half a surrogate pair": text(GOOD).replace(b"ann", b"\\ud800"),
    "a route without a name": text(document(overrides={"": GOOD["overrides"]["leads"]})),
    "a route's name too long": text(document(overrides={"a" * 501: GOOD["overrides"]["leads"]})),
    "a route's name with control": text(document(overrides={"a\r": GOOD["overrides"]["leads"]})),
    "a kill switch that is true": text(document(kill=True)),
    "a kill switch without a name": text(document(kill={"at": 1.0, "why": ""})),
    "a mac that is a number": text(document(mac=7)),
    "a mac that is endless": text(document(mac="0" * 65)),
    **{f"an override with {key!r}": text(override(**{key: value})) for key, value in EMPOWERING.items()},
}
