"""P10: a name with `_` or `.` is dropped unless allowed; conditions compare exact names and whole values."""

import pytest
from tests.transports.upstream import ScriptedUpstream, forever, head, send

from promises.drive import address
from strangle_mw import ConfigError, Route, strangle

SERVE = [forever(head(), send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))]
M = "http://127.0.0.1:1"


def names(strangled, headers, **settings):
    with ScriptedUpstream(SERVE) as server:
        side = strangled([Route("/m/*", to=address(server))], **settings)
        assert side.ask(headers=headers).status == 200
        side.close()
    return {line.partition(b":")[0] for line in server.heads[0].split(b"\r\n")[1:-2]}


# Behind WSGI `X_Id` and `X-Id` are one name before anything of ours runs (PEP 3333): it is the server that
# drops or merges there, and docs/servers.md says which does what. A dot survives.
@pytest.mark.parametrize("name", [b"x.id", b"x.forwarded.for", b"a.b.c", b"strangle.identity"])
def test_a_dot_is_dropped(strangled, name):
    assert name not in names(strangled, ((name, b"1"), (b"x-ok", b"1")))
    assert b"x-ok" in names(strangled, ((name, b"1"), (b"x-ok", b"1")))


@pytest.mark.parametrize("strangled", ["asgi"], indirect=True)
@pytest.mark.parametrize("name", [b"x_id", b"x_a-b", b"_", b"x_a.b", b"X_Upper"])
def test_an_underscore_is_dropped(strangled, name):
    assert names(strangled, ((name, b"1"), (b"x-ok", b"1"))) & {name.lower(), b"x-ok"} == {b"x-ok"}


@pytest.mark.parametrize("name", ["x.id", "X.Id"])
def test_unless_it_is_allowed(strangled, name):
    found = names(strangled, ((b"x.id", b"1"), (b"x.other", b"1")), allow_headers=[name])
    assert found & {b"x.id", b"x.other"} == {b"x.id"}


@pytest.mark.parametrize("name", ["x.forwarded.for", "remote.user", "transfer.encoding", "strangle.identity"])
def test_a_protected_name_passes_in_no_spelling_however_allowed(strangled, name):
    assert name.encode() not in names(strangled, ((name.encode(), b"1"),), allow_headers=[name])


@pytest.mark.parametrize("name", ["", "a b", "a:b", "x\r\ny", "\xe9"])
def test_only_names_can_be_allowed(name):
    with pytest.raises(ConfigError):
        strangle(lambda _environ, _start: [], [Route("/m", to=M)], allow_headers=[name])


CONDITIONS = {
    "exact": (((b"x-beta", b"1"),), True),
    "trimmed": (((b"x-beta", b" 1\t"),), True),
    "another case of the name": (((b"X-BETA", b"1"),), None),
    "a longer value": (((b"x-beta", b"12"),), False),
    "an empty value": (((b"x-beta", b""),), False),
    "two values are one joined value": (((b"x-beta", b"1"), (b"x-beta", b"1")), False),
    "a dot": (((b"x.beta", b"1"),), False),
    "a longer name": (((b"x-beta-2", b"1"),), False),
    "not there": ((), False),
}


@pytest.mark.parametrize(("headers", "forwarded"), CONDITIONS.values(), ids=CONDITIONS)
def test_conditions_compare_exact_name_and_whole_trimmed_value(strangled, headers, forwarded):
    if forwarded is None:
        # ASGI servers give names in lower case, as the specification says; an environ knows no case.
        forwarded = strangled.kind == "wsgi"
    side = strangled([Route("/m/*", headers={"X-Beta": "1"}, to=M, fallback="off")])
    assert side.ask(headers=headers).status == (502 if forwarded else 299)
    assert bool(side.legacy) is not forwarded


@pytest.mark.parametrize("strangled", ["asgi"], indirect=True)
def test_an_underscore_is_another_name_for_a_condition(strangled):
    side = strangled([Route("/m/*", headers={"X-Beta": "1"}, to=M, fallback="off")])
    assert side.ask(headers=((b"x_beta", b"1"),)).status == 299
