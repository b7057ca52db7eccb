"""Sources of a table, and everything that can be wrong with their shape: all at once, with place and remedy."""

import importlib.util
import json

import pytest

from strangle_mw import Condition, ConfigError, HeaderRules, Redirect, Route, Split, Upstream
from strangle_mw.config import load

TOML = """
#:schema strangle.schema.json
trailing_slash = "ignore"

[strangle]
trusted_proxies = ["10.0.0.0/8", "::1", "unix"]
max_body = 1000

[upstreams.leads]
url = "http://10.0.0.1:8080/base"
connect_timeout = 0.5
timeout = 3
idle_timeout = 30
max_in_flight = 10
keepalive = 2
host = "preserve"

[[routes]]
pattern = "GET /v1/leads/{id:int}"
to = "leads"
timeout = 1.5
request_headers = { set = { X-Team = "a" }, add = { X-B = "1" }, remove = ["Cookie"] }

[[routes]]
name = "beta"
path = "/v1/*"
methods = ["GET", "POST"]
hosts = ["*.example.com"]
to = [{ upstream = "leads", weight = 1 }, { upstream = "http://other" }]
stage = "legacy"
weight = 5
headers = { X-Beta = "1", X-Tenant = { prefix = "eu-" } }
query = { q = { present = true } }
cookies = { c = { regex = "a+" } }

[[routes]]
regex = "/old/(?P<id>[0-9]+)"
redirect = { to = "/new/{id}", status = 301 }

[[routes]]
path = "/gone"
respond = { status = 410, body = "gone", content_type = "text/plain" }
"""


def as_data():
    import tomllib

    return tomllib.loads(TOML)


def as_python():
    return {
        "trailing_slash": "ignore",
        "strangle": {"trusted_proxies": ("10.0.0.0/8", "::1", "unix"), "max_body": 1000},
        "upstreams": {
            "leads": Upstream(
                url="http://10.0.0.1:8080/base", connect_timeout=0.5, timeout=3, idle_timeout=30, max_in_flight=10, keepalive=2, host="preserve"
            )
        },
        "routes": [
            Route(
                "GET /v1/leads/{id:int}", to="leads", timeout=1.5,
                request_headers=HeaderRules(set={"X-Team": "a"}, add={"X-B": "1"}, remove=["Cookie"]),
            ),
            Route(
                path="/v1/*", name="beta", methods=["GET", "POST"], hosts=["*.example.com"], stage="legacy", weight=5,
                to=[Split(upstream="leads", weight=1), Split(upstream="http://other")],
                headers={"X-Beta": "1", "X-Tenant": Condition(prefix="eu-")}, query={"q": Condition(present=True)}, cookies={"c": Condition(regex="a+")},
            ),
            Route(regex="/old/(?P<id>[0-9]+)", redirect=Redirect(to="/new/{id}", status=301)),
            {"path": "/gone", "respond": {"status": 410, "body": "gone", "content_type": "text/plain"}},
        ],
    }  # fmt: skip


def write(folder, suffix):
    path = folder / f"strangle{suffix}"
    if suffix == ".toml":
        path.write_text(TOML)
    elif suffix == ".json":
        path.write_text(json.dumps({"$schema": "x", **as_data()}))
    else:
        import yaml

        path.write_text(yaml.safe_dump(as_data()))
    return path


SOURCES = {
    "toml": lambda folder: write(folder, ".toml"),
    "toml as text": lambda folder: str(write(folder, ".toml")),
    "json": lambda folder: write(folder, ".json"),
    "yaml": lambda folder: write(folder, ".yaml"),
    "yml": lambda folder: write(folder, ".yml"),
    "dict": lambda _: as_data(),
    "python": lambda _: as_python(),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_source_gives_the_same_table(source, tmp_path):
    snapshot = load(source(tmp_path))
    first, beta, old, gone = snapshot.table.routes
    assert [r.name for r in snapshot.table.routes] == [
        "GET /v1/leads/{id:int}",
        "beta",
        "regex /old/(?P<id>[0-9]+)",
        "/gone",
    ]
    leads = snapshot.upstreams["leads"]
    assert str(leads.endpoints[0]) == "http://10.0.0.1:8080/base"
    assert (leads.declared.timeout, leads.declared.max_in_flight, leads.declared.host) == (3, 10, "preserve")
    assert first.action.timeout == 1.5
    assert first.action.request_headers.add == ((b"x-team", b"a"), (b"x-b", b"1"))
    assert beta.hosts == ("*.example.com",)
    assert [str(t) for t in beta.tests] == [
        "header X-Beta = '1'",
        "header X-Tenant prefix 'eu-'",
        "query q present",
        "cookie c regex 'a+'",
    ]
    assert beta.action.shares == (5000, 10000)
    assert old.action.status == 301
    assert gone.action.body == b"gone"
    assert snapshot.options.trailing_slash == "ignore"
    assert snapshot.settings.max_body == 1000
    assert "10.1.2.3" in snapshot.hygiene.trusted
    assert "" in snapshot.hygiene.trusted
    assert "192.0.2.1" not in snapshot.hygiene.trusted


def test_a_list_of_routes_is_enough():
    assert [
        r.name for r in load([Route("/a", to="http://m"), {"path": "/b", "to": "http://m"}]).table.routes
    ] == ["/a", "/b"]


def test_an_empty_table_is_the_default_route_alone():
    assert load([]).table.routes == ()
    assert load({}).table.routes == ()


def test_settings_in_code_go_before_the_files(tmp_path):
    path = write(tmp_path, ".toml")
    assert load(path, max_body=5).settings.max_body == 5
    assert load(path, max_body=5).settings.trusted_proxies == ["10.0.0.0/8", "::1", "unix"]


def test_the_revision_follows_the_content():
    one, two = load([Route("/a", to="http://m")]), load([Route("/b", to="http://m")])
    assert one.revision != two.revision
    assert one.revision == load([Route("/a", to="http://m")]).revision


def problems(source, **settings):
    with pytest.raises(ConfigError) as caught:
        load(source, **settings)
    return [(p.where, p.id) for p in caught.value.problems]


A = {"path": "/a", "to": "http://m"}
SHAPES = {
    "unknown key": ({"routs": []}, [("routs", "unknown-key")]),
    "unknown key of a route": ([{**A, "wieght": 1}], [("routes[0].wieght", "unknown-key")]),
    "unknown key deep inside": ([{**A, "request_headers": {"sett": {}}}], [("routes[0].request_headers.sett", "unknown-key")]),
    "unknown setting": ({"strangle": {"trusted": []}}, [("strangle.trusted", "unknown-key")]),
    "routes is no list": ({"routes": {"a": 1}}, [("routes", "type")]),
    "a route is no table": (["GET /a"], [("routes[0]", "type")]),
    "upstreams is no table": ({"upstreams": []}, [("upstreams", "type")]),
    "text for a number": ([{**A, "timeout": "1"}], [("routes[0].timeout", "type")]),
    "text for a list": ([{**A, "methods": "GET"}], [("routes[0].methods", "type")]),
    "number for text": ([{"path": 1, "to": "http://m"}], [("routes[0].path", "type")]),
    "wrong item of a list": ([{**A, "methods": [1]}], [("routes[0].methods[0]", "type")]),
    "unknown stage": ([{**A, "stage": "modren"}], [("routes[0].stage", "choice")]),
    "unknown choice": ({"ambiguous": "maybe"}, [("ambiguous", "choice")]),
    "unknown status": ([{"path": "/a", "redirect": {"to": "/b", "status": 200}}], [("routes[0].redirect.status", "choice")]),
    "missing key": ([{"path": "/a", "redirect": {}}], [("routes[0].redirect.to", "missing")]),
    "unused upstream": ({"upstreams": {"x": {"url": "http://x"}}, "routes": []}, [("upstreams.x", "upstream-unused")]),
    "upstream without target": ({"upstreams": {"x": {}}, "routes": [{**A, "to": "x"}]}, [("upstreams.x", "upstream-target")]),
    "upstream with two": ({"upstreams": {"x": {"url": "http://x", "asgi": "a:b"}}, "routes": [{**A, "to": "x"}]}, [("upstreams.x", "upstream-target")]),
    "upstream range": ({"upstreams": {"x": {"url": "http://x", "timeout": 0}}, "routes": [{**A, "to": "x"}]}, [("upstreams.x.timeout", "upstream-range")]),
    "upstream address": ({"upstreams": {"x": {"url": "x"}}, "routes": [{**A, "to": "x"}]}, [("upstreams.x.url", "upstream-address")]),
    "an address twice": ({"upstreams": {"x": {"urls": ["http://x", "http://x"]}}, "routes": [{**A, "to": "x"}]}, [("upstreams.x.urls[1]", "upstream-address-twice")]),
    "breaker": ({"upstreams": {"x": {"url": "http://x", "breaker": {"failures": -1, "open": 61}}}, "routes": [{**A, "to": "x"}]}, [("upstreams.x.breaker.failures", "upstream-range"), ("upstreams.x.breaker.open", "upstream-range")]),
    "health": ({"upstreams": {"x": {"url": "http://x", "health": {"path": "x", "interval": 0}}}, "routes": [{**A, "to": "x"}]}, [("upstreams.x.health.path", "health-path"), ("upstreams.x.health.interval", "upstream-range")]),
    "http 3": ({"upstreams": {"x": {"url": "http://x", "http": "3"}}, "routes": [{**A, "to": "x"}]}, [("upstreams.x.http", "choice")]),
    "transport in a table": ({"upstreams": {"x": {"url": "http://x", "transport": "y"}}, "routes": [{**A, "to": "x"}]}, [("upstreams.x.transport", "unknown-key")]),
    "lambda": ({"upstreams": {"x": {"lambda": "f:g:h"}}, "routes": [{**A, "to": "x"}]}, [("upstreams.x.lambda", "upstream-address")]),
    "threads": ({"strangle": {"threads": 0}}, [("strangle.threads", "threads-unused"), ("strangle.threads", "threads-range")]),
    "serve": ({"strangle": {"serve": "wsgi"}}, [("strangle.serve", "choice")]),
    "tls file": ({"upstreams": {"x": {"url": "https://x", "tls": {"ca": "/none"}}}, "routes": [{**A, "to": "x"}]}, [("upstreams.x.tls.ca", "tls-file")]),
    "max_body": ({"strangle": {"max_body": -1}}, [("strangle.max_body", "max-body-range")]),
    "trusted proxy": ({"strangle": {"trusted_proxies": ["10.0.0.0/99"]}}, [("strangle.trusted_proxies[0]", "trusted-proxy")]),
    "store": ({"strangle": {"store": "mysql://h"}}, [("strangle.store", "store-url")]),
    "admin": ({"strangle": {"admin": "/__strangle"}}, [("strangle.admin", "not-yet")]),
    "pin": ({"strangle": {"pin": {"secret": "short"}}}, [("strangle.pin.secret", "pin-secret")]),
    "replay_limit": ({"strangle": {"replay_limit": -1}}, [("strangle.replay_limit", "replay-range")]),
    "sample": ([{**A, "stage": "shadow", "shadow": {"sample": 101}}], [("routes[0].shadow.sample", "sample-range")]),
    "canary without weight": ([{**A, "stage": "canary"}], [("routes[0].weight", "weight-missing")]),
    "retired with fallback": ([{**A, "stage": "retired", "fallback": "auto"}], [("routes[0].fallback", "fallback-retired")]),
    "name twice": ([{**A, "name": "x"}, {"path": "/b", "to": "http://m", "name": "x"}], [("routes[1].name", "name-twice")]),
}  # fmt: skip


@pytest.mark.parametrize(("source", "found"), SHAPES.values(), ids=SHAPES)
def test_mistake(source, found):
    assert problems(source) == found


def test_all_problems_at_once_in_every_part():
    source = {
        "routs": 1,
        "upstreams": {"x": {"url": "ftp://x"}, "y": {"ulr": "http://y"}},
        "routes": [{"path": "a", "to": "z"}, {"pth": "/"}, {"path": "/b", "to": "x", "weight": 200}],
    }
    assert {id_ for _, id_ in problems(source)} == {
        "unknown-key", "upstream-address", "upstream-target", "upstream-unused", "path-pattern", "upstream-unknown",
        "target-missing", "weight-range",
    }  # fmt: skip


def test_a_problem_reads_well():
    with pytest.raises(ConfigError) as caught:
        load([{**A, "weight": 101}, {**A, "name": "b", "stage": "modren", "wieght": 1}])
    text = str(caught.value)
    assert text.startswith("3 problems in the route table:\n")
    assert "routes[0].weight: must be 0..100 percent (weight-range)" in text
    assert "routes[1].wieght: there is no such key; did you mean 'weight'? (unknown-key)" in text
    assert (
        "must be one of 'legacy', 'shadow', 'canary', 'modern', 'retired', not 'modren'; did you mean 'modern'?"
        in text
    )


@pytest.mark.parametrize("field", ["when", "verify"])
def test_what_only_python_can_say_is_refused_in_a_file(field, tmp_path):
    path = tmp_path / "t.json"
    upstream = {"url": "http://x", **({"verify": False} if field == "verify" else {})}
    route = {"path": "/a", "to": "x", **({"when": "f"} if field == "when" else {})}
    path.write_text(json.dumps({"upstreams": {"x": upstream}, "routes": [route]}))
    assert [id_ for _, id_ in problems(path)] == ["python-only"]


def test_unverified_tls_is_warned_of():
    snapshot = load([Route("/a", to=Upstream(url="https://x", verify=False))])
    assert [(p.where, p.id) for p in snapshot.warnings] == [("upstreams.https://x.verify", "tls-unverified")]


def test_upstreams_with_the_same_address_keep_their_own_settings():
    snapshot = load(
        [
            Route("/a", to="http://x"),
            Route("/b", to=Upstream(url="http://x", timeout=1)),
            Route("/c", to="http://x"),
        ]
    )
    a, b, c = (r.action.upstreams[0] for r in snapshot.table.routes)
    assert a is c
    assert (a.declared.timeout, b.declared.timeout) == (10, 1)
    assert b.name == "http://x (2)"


FILES = {
    "missing": ("none.toml", None, "file-missing"),
    "other kind": ("x.ini", "", "file-type"),
    "toml": ("x.toml", "a = [", "toml-syntax"),
    "toml key twice": ("x.toml", "a = 1\na = 2", "toml-syntax"),
    "json": ("x.json", "{", "json-syntax"),
    "json key twice": ("x.json", '{"routes": [], "routes": []}', "key-twice"),
    "json deep": ("x.json", "[" * 100_000, "json-syntax"),
    "json list": ("x.json", "[]", "file-shape"),
    "yaml": ("x.yaml", "a: [", "yaml-syntax"),
    "yaml key twice": ("x.yaml", "a: 1\na: 2", "key-twice"),
    "yaml object": ("x.yaml", "routes: !!python/object/apply:os.getcwd []", "yaml-syntax"),
    "no text": ("x.toml", b"\xff\xfe", "file-unreadable"),
}


@pytest.mark.parametrize(("name", "text", "id_"), FILES.values(), ids=FILES)
def test_file(name, text, id_, tmp_path):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = problems(path)
    assert [i for _, i in found] == [id_]
    assert str(path) in found[0][0]


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "x.toml").mkdir()
    assert problems(tmp_path / "x.toml")[0][1] == "file-unreadable"


def test_a_misspelt_file_is_guessed(tmp_path):
    (tmp_path / "strangle.toml").write_text("")
    with pytest.raises(ConfigError, match="did you mean '.*strangle.toml'"):
        load(tmp_path / "strangel.toml")


def test_something_else_is_no_source():
    assert problems(42) == [("routes", "source-type")]


def test_without_pyyaml_the_remedy_is_told(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "x.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"pip install 'strangle-mw\[yaml\]'"):
        load(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("name", "text", "id_"),
    [
        ("x.toml", "a = " + "[" * 3000 + "]" * 3000, "toml-syntax"),
        ("x.toml", "a = " + "9" * 5000, "toml-syntax"),
        ("x.yaml", "a: 2024-99-99", "yaml-syntax"),
        ("x.yaml", "? [a]\n: b", "key-type"),
        ("x.yaml", "1: b", "key-type"),
    ],
)
def test_odd_files_are_told_and_not_thrown(name, text, id_, tmp_path):
    (tmp_path / name).write_text(text)
    assert [i for _, i in problems(tmp_path / name)] == [id_]


def test_a_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbf" + b'[[routes]]\npath = "/a"\nto = "http://m"\n')
    assert load(tmp_path / "x.toml").table.routes[0].name == "/a"


def test_a_base_path_is_sent_quoted():
    assert (
        load([Route("/a", to="http://h/caf\u00e9")]).upstreams["http://h/caf\u00e9"].endpoints[0].base
        == b"/caf%C3%A9"
    )


@pytest.mark.parametrize("absent", ["", "httpx2", "h2"])
def test_http_2_needs_its_extra(monkeypatch, absent):
    found = importlib.util.find_spec
    monkeypatch.setattr("strangle_mw.config.find_spec", lambda name: None if name == absent else found(name))
    source = {"upstreams": {"x": {"url": "http://x", "http": "2"}}, "routes": [{**A, "to": "x"}]}
    if not absent:
        assert load(source).upstreams["x"].declared.http == "2"
        return
    with pytest.raises(ConfigError) as caught:
        load(source)
    assert [(p.where, p.id) for p in caught.value.problems] == [("upstreams.x.http", "http2-extra")]
    assert "pip install 'strangle-mw[http2]'" in caught.value.problems[0].what
