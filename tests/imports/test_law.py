"""An imported table sends every request where Refactor Spaces would, to the same path.

`naive` is what AWS documents, in its plainest form: the user guide ("Step 5: Create a route") and the shapes'
documentation. Where AWS documents nothing, or the library differs on purpose, the comment says so.
"""

from urllib.parse import urlsplit

from hypothesis import example, given, note, settings
from hypothesis import strategies as st

from imports.spaces import MONOLITH, default, function, plan_of, route, service, table_of
from strangle_mw.config import load

SERVICES = [
    MONOLITH,
    service("one", "http://one.internal"),
    service(
        "two",
        "http://two.internal/base",
        UrlEndpoint={"Url": "http://two.internal/base", "HealthUrl": "http://two.internal/up"},
    ),
    service("three", "http://three.internal/base/"),
    function("four"),
]
BY_ID = {s["ServiceId"]: s for s in SERVICES}
TEXTS = ["a", "b", "c-1", "d.e"]
METHODS = ["GET", "POST", "HEAD", "PUT"]


@st.composite
def routes(draw):
    """Routes that AWS would create together."""
    made = []
    for number in range(draw(st.integers(0, 7))):
        # One name at each level, so that no level has two (the guide: "only 1 path parameter").
        segments = [
            f"{{p{level}}}" if draw(st.integers(0, 2)) == 0 else draw(st.sampled_from(TEXTS))
            for level in range(draw(st.integers(1, 3)))
        ]
        mine = route(
            number,
            "/" + "/".join(segments),
            draw(st.sampled_from(SERVICES))["ServiceId"],
            Methods=draw(st.lists(st.sampled_from(METHODS), unique=True, max_size=2)),
            IncludeChildPaths=draw(st.booleans()),
            AppendSourcePath=draw(st.booleans()),
            State=draw(st.sampled_from(["ACTIVE", "ACTIVE", "INACTIVE"])),
        )
        if not any(collide(mine, other) or collide(other, mine) for other in made):
            made.append(mine)
    return made


def collide(a, b):
    """A parameter beside the child paths of `b`, or the same path and method."""
    below = a["SourcePath"].removeprefix(b["SourcePath"])
    beside = b["IncludeChildPaths"] and below != a["SourcePath"] and below.startswith("/{")
    twice = a["SourcePath"] == b["SourcePath"] and (
        bool(a["Methods"]) == bool(b["Methods"])
        and (not a["Methods"] or set(a["Methods"]) & set(b["Methods"]))
    )
    return beside or twice


def is_parameter(segment):
    return segment.startswith("{")


def rank(one, path, method):
    """How well a route fits, smaller is better; None if it does not, or is not active."""
    wanted, asked = one["SourcePath"].split("/")[1:], path.split("/")[1:]
    if one["State"] != "ACTIVE" or len(asked) < len(wanted):
        return None  # "no traffic" before activation
    if len(asked) > len(wanted) and not one["IncludeChildPaths"]:
        return None  # "requests must match the source path exactly"
    if any(w != a and not is_parameter(w) for w, a in zip(wanted, asked, strict=False)):
        return None
    methods = one["Methods"]
    # Documented difference: HEAD follows GET.
    by_method = (
        2
        if not methods
        else 0
        if method in methods
        else 1
        if (method, "GET" in methods) == ("HEAD", True)
        else None
    )
    if by_method is None:
        return None  # "only HTTP requests using that method are forwarded"
    # API Gateway: full match, then parameters, then what is greedy.
    below = [2] if one["IncludeChildPaths"] else []
    return ([*map(int, map(is_parameter, wanted)), *below], by_method)


def naive(declared, path, method):
    """Return (service id, path at the service); the path is None for the wrapped app."""
    fitting = [(r, one) for one in declared if (r := rank(one, path, method)) is not None]
    best = min(fitting, key=lambda f: f[0])[1] if fitting else default()
    service_id = best["ServiceId"]
    if service_id == MONOLITH["ServiceId"]:
        return service_id, None
    if BY_ID[service_id]["EndpointType"] == "LAMBDA":
        return service_id, path
    base = urlsplit(BY_ID[service_id]["UrlEndpoint"]["Url"]).path
    if best["AppendSourcePath"]:
        return service_id, base.rstrip("/") + path
    # Not documented: what is sent for child paths. Ours: what follows the source path.
    rest = path.split("/")[1 + len(best["SourcePath"].split("/")[1:]) :]
    if rest:
        return service_id, "/".join([base.rstrip("/"), *rest])
    # Without child paths it is the service's URL itself, byte for byte; with them, without its last slash.
    return service_id, (base.rstrip("/") if best["IncludeChildPaths"] else base) or "/"


def ours(snapshot, path, method):
    found = snapshot.table.match(path.encode(), method)
    if found is None or found.action is None or found.declared.stage == "legacy":
        return MONOLITH["ServiceId"], None
    [upstream] = found.action.upstreams
    service_id = next(s["ServiceId"] for s in SERVICES if s["Name"] == upstream.name)
    sent = found.action.rewrite.apply(found, path.encode())
    base = b"" if upstream.kind == "lambda" else upstream.endpoints[0].base
    return service_id, (base + sent).decode()


FEW = settings(max_examples=60, deadline=None)
paths = st.lists(st.sampled_from([*TEXTS, "other"]), min_size=1, max_size=4).map(lambda s: "/" + "/".join(s))
ONE, TWO, THREE = (s["ServiceId"] for s in SERVICES[1:4])


@FEW
@given(routes(), st.lists(st.tuples(paths, st.sampled_from([*METHODS, "DELETE"])), min_size=4, max_size=4))
@example([route(1, "/a", TWO, AppendSourcePath=False)], [("/a", "GET"), ("/a/b", "GET")])
@example([route(1, "/a", THREE, AppendSourcePath=False)], [("/a", "GET"), ("/a/b", "GET")])
@example(
    [route(1, "/a", ONE, IncludeChildPaths=True), route(2, "/a/b/c", TWO, State="INACTIVE")],
    [("/a/b/c", "GET")],
)
def test_an_imported_table_routes_as_refactor_spaces_does(declared, asked):
    plan = plan_of([default(), *declared], SERVICES)
    snapshot = load(table_of(plan))
    note(plan.finish())
    for path, method in asked:
        expected, found = naive(declared, path, method), ours(snapshot, path, method)
        assert found == expected, (method, path)


@FEW
@given(routes())
def test_what_aws_would_create_is_imported_without_a_word_of_refusal(declared):
    plan = plan_of([default(), *declared], SERVICES)
    table_of(plan)
    assert not [n for n in plan.notes if "AWS refuses" in n.what]
