"""Random tables and requests that meet often: few literals, every kind of segment, every kind of condition.

Small things are listed and one of them is drawn: to draw their parts takes longer than the laws themselves.
"""

from dataclasses import dataclass, field
from itertools import permutations, product

from hypothesis import strategies as st

from strangle_mw import Condition, Route
from strangle_mw.core.compile import RouteCompiler
from strangle_mw.core.messages import RequestHead
from strangle_mw.core.routing import RouteTable

UUID = "6f1ed002-ab5b-4f1f-9e1d-5b2f3c3b8a10"
PATTERN_SEGMENTS = [
    "a",
    "b",
    "ab",
    "{P}",
    "{P:int}",
    "{P:slug}",
    "{P:uuid}",
    "a{P}",
    "{P}b",
    "a{P}b",
    "{P:int}b",
    "a{P:slug}",
]
TEXTS = ["a", "b", "ab", "aab", "abb", "1", "12", "1b", "a1", "x.y", UUID, ""]
HOSTS = ["a.example", "b.a.example", "c.b.a.example", "other.example"]
HOST_RULES = ["a.example", "b.a.example", "*.example", "*.a.example", "*.b.a.example"]
CONDITIONS = ["1", "2", Condition(present=True), Condition(absent=True), Condition(prefix="1")]
REGEXES = ["/a/.*", "/[ab]+", "/(a|b)/1?", ".*b"]


@dataclass
class Asked:
    method: str
    path: str
    host: str = "a.example"
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)

    def head(self, path=None):
        fields = [(b"host", self.host.encode())]
        fields += [(n.encode(), v.encode()) for n, v in self.headers.items()]
        if self.cookies:
            fields.append((b"cookie", "; ".join(f"{n}={v}" for n, v in self.cookies.items()).encode()))
        query = "&".join(f"{n}={v}" for n, v in self.query.items()).encode()
        return RequestHead(self.method, (path or self.path).encode(), query, fields, peer="192.0.2.1")


def yes(_head):
    return True


def no(_head):
    return False


def evenly(found):
    """Draw one of these: half of them empty, the other sizes as often as each other."""
    sizes = [[one for one in found if len(one) == size] for size in (0, 0, 1, 2)]
    most = max(map(len, sizes))
    return st.sampled_from([one for same in sizes for one in same * (most // len(same))])


def some_of(values):
    """Every list of at most two of these."""
    return evenly([list(found) for size in range(3) for found in permutations(values, size)])


def dicts_of(values):
    """Every dict of at most `x` and `y` with these values."""
    pairs = [[None, *((name, value) for value in values)] for name in "xy"]
    return evenly([dict(filter(None, both)) for both in product(*pairs)])


sizes = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 3, 3])
segments_of = [st.sampled_from(list(product(PATTERN_SEGMENTS, repeat=size))) for size in range(4)]


@st.composite
def paths(draw):
    segments = draw(segments_of[draw(sizes)])
    text = "".join("/" + s.replace("P", f"p{i}") for i, s in enumerate(segments))
    return draw(st.sampled_from([text + "/*", text + "/*", (text or "/"), (text or "/"), text + "/"]))


conditions = dicts_of(CONDITIONS)
host_lists = some_of(HOST_RULES)
method_lists = some_of(["GET", "HEAD", "POST"])


@st.composite
def routes(draw, *, conditional=True):
    what = (
        {"regex": draw(st.sampled_from(REGEXES))} if draw(st.integers(0, 9)) == 0 else {"path": draw(paths())}
    )
    more = {}
    if conditional:
        for name in ("headers", "query", "cookies"):
            more[name] = draw(conditions) if draw(st.integers(0, 3)) == 0 else {}
        more["when"] = draw(st.sampled_from([None, None, None, yes, no]))
        more["hosts"] = draw(host_lists)
    methods = draw(method_lists)
    return Route(
        to=draw(st.sampled_from(["http://m", "http://m", "legacy"])), methods=methods, **what, **more
    )


tables = st.lists(routes(), max_size=8)
values = dicts_of(["1", "2", "12"])


@st.composite
def requests(draw):
    segments = draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4))
    # Only paths with one reading: no empty segment but the last.
    path = "".join("/" + s for i, s in enumerate(segments) if s or i == len(segments) - 1)
    return Asked(
        draw(st.sampled_from(["GET", "HEAD", "POST", "PUT"])),
        path or "/",
        draw(st.sampled_from(HOSTS)),
        draw(values),
        draw(values),
        draw(values),
    )


def compile_routes(declared, **options):
    compiler = RouteCompiler(**options)
    compiled = [compiler.compile(r, i) for i, r in enumerate(declared)]
    assert not compiler.problems, compiler.problems
    return compiled


def table(declared):
    return RouteTable(compile_routes(declared))
