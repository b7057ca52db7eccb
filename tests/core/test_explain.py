from strangle_mw import Route
from strangle_mw.config import load
from strangle_mw.inspection import explain

M = "http://m"
TABLE = [
    Route("POST /v1/leads", to=M),
    Route("/v1/leads", headers={"X-Beta": "1"}, to=M),
    Route("/v1/{x}", hosts=["h.example"], to=M),
    Route("/v1/*", to="legacy"),
    Route(regex="/v1/l.*", to=M, name="re"),
    Route("/v2/*", when=lambda _: False, to=M),
]


def told(url, method="GET", headers=(), table=TABLE):
    return [(c.route.name, c.refused) for c in explain(load(table), method, url, headers).candidates]


def test_candidates_stand_in_order_with_the_reason_of_each_refusal():
    found = told("/v1/leads", headers=["Host: x"])
    assert [name for name, _ in found][:1] == ["POST /v1/leads"] or found
    assert dict(found) == {
        "POST /v1/leads": "methods are POST; the request's is GET",
        "/v1/leads [header X-Beta = '1']": "needs header X-Beta = '1'; the request has none",
        "/v1/{x} [h.example]": "hosts are h.example; the request asks for 'x'",
        "/v1/*": None,
        "re": None,
    }
    assert [name for name, refused in found if refused is None] == ["/v1/*", "re"]


def test_a_condition_that_fails_is_shown_with_what_the_request_has():
    assert dict(told("/v1/leads", headers=["X-Beta: 2"]))["/v1/leads [header X-Beta = '1']"].endswith(
        "the request has '2'"
    )


def test_when_is_named():
    assert told("/v2/x") == [("/v2/* [when]", "`when` said no")]


def test_outcome_is_one_sentence():
    snapshot = load([Route("/a/*", to="http://m:81/base", strip_prefix="/a", name="a")])
    assert (
        explain(snapshot, "GET", "/a/x?y=1").outcome
        == "forwarded by 'a' to 'http://m:81/base': http://m:81/base/x?y=1"
    )
    assert explain(snapshot, "GET", "/b").outcome == "the wrapped app answers (legacy)"
    assert explain(snapshot, "GET", "/a/../b").outcome == "refused: 400 (ambiguous-path)"


def test_a_misspelt_path_is_guessed():
    found = explain(load(TABLE[:1]), "GET", "/v1/leds")
    assert found.nearest == ["/v1/leads"]
    assert "did you mean /v1/leads?" in found.text()


def test_a_url_gives_the_host():
    assert dict(told("http://h.example/v1/x"))["/v1/{x} [h.example]"] is None


def test_what_is_asked_counts_to_the_byte():
    snapshot = load([Route("/*", to="http://m"), Route("/v1/leads", to="http://l")])
    assert explain(snapshot, "GET", "//host/evil").decision.target == b"//host/evil"
    assert explain(snapshot, "GET", "/v1/leads?a=1#top").outcome == "refused: 400 (bad-target)"
    assert explain(snapshot, "GET", "/v1/le\tads").outcome.startswith("refused: 400")
    assert explain(snapshot, "GET", "https://u:p@h.example/v1/leads#top").decision.target == b"/v1/leads"


def test_an_ambiguous_path_is_shown_with_the_readings_that_disagree():
    found = explain(load([Route("/v1/*", to="http://m", name="v1")]), "GET", "/v1/../admin")
    assert found.readings == [("/v1/../admin", "v1"), ("/admin", "legacy")]
    assert "reading '/admin' selects 'legacy'" in found.text()
