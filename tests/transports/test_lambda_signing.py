"""Signatures, addresses, regions and credentials of Lambda upstreams, against botocore itself."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import botocore.auth
import pytest
from botocore.config import Config
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.session import Session
from tests.transports.lambda_invoke_api import Recorder, signed
from tests.transports.upstream import PATIENCE, ScriptedUpstream, send

from strangle_mw.core.compiled import CompiledUpstream
from strangle_mw.core.model import Endpoint, Upstream
from strangle_mw.core.targets import LambdaFunction, parse_function
from strangle_mw.errors import ForwardError
from strangle_mw.transports.aws_lookup import _loader, is_local, look_up
from strangle_mw.transports.aws_signing import Signer, check_lambdas, signer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.transports.upstream import Peer

    from strangle_mw.transports.aws_lookup import Found

ARN = "arn:aws:lambda:eu-central-1:123456789012:function:events"
NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing of this machine's AWS settings; files of the test's own."""
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")


def compiled(function: LambdaFunction | str = "events", **settings: Any) -> CompiledUpstream:
    parsed = parse_function(function) if isinstance(function, str) else function
    declared = Upstream(lambda_=parsed.name, **settings)
    return CompiledUpstream("events", declared, (Endpoint("lambda", "events", 0, b""),), "lambda", parsed)


def found(function: LambdaFunction | str = "events", **settings: Any) -> Found:
    upstream = compiled(function, **settings)
    assert upstream.function is not None
    return look_up(upstream.declared, upstream.function)


def check_lambda(upstream: CompiledUpstream, **patience: float) -> list[Any]:
    return [trouble for _, trouble in check_lambdas([upstream], **patience)]


# --- the signature


FUNCTIONS = [
    LambdaFunction("events"),
    LambdaFunction("events", "live"),
    LambdaFunction("events", "$LATEST"),
    LambdaFunction("events", "7"),
    LambdaFunction("a_B-9", "x" * 128),
    parse_function(ARN),
    parse_function(ARN + ":live"),
    parse_function("123456789012:function:events:live"),
    parse_function("arn:aws-cn:lambda:cn-north-1:123456789012:function:events:$LATEST"),
    # What `parse_function` refuses, signed all the same as botocore does.
    LambdaFunction("a b~x/\N{LATIN SMALL LETTER U WITH DIAERESIS}%41", "1 2&x=y+\N{EURO SIGN}"),
    LambdaFunction("a;b=c?d#e", "*'()!"),
]


@pytest.mark.parametrize(
    ("base", "token"),
    [("", ""), ("/", "the/session+token=="), ("/some/base", ""), ("/some/base/", "the/session+token==")],
)
def test_an_invocation_is_what_botocores_client_sends(
    base: str, token: str, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: NOW)
    if token:
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    payload = '{"body":"gr\\u00fc\u00df"}'.encode()
    with Recorder() as api:
        url = f"{api.url}{base}"
        session = Session()
        session.register_component("data_loader", _loader(None))
        client = session.create_client(
            "lambda", "eu-west-1", endpoint_url=url, config=Config(retries={"total_max_attempts": 1})
        )
        for function in FUNCTIONS:
            asked = {"Qualifier": function.qualifier} if function.qualifier else {}
            client.invoke(FunctionName=function.name, Payload=payload, **asked)
        client.close()
        with socket.create_connection(("127.0.0.1", api.endpoint.port)) as sock:
            for function in FUNCTIONS:
                signer = Signer(compiled(function, region="eu-west-1", endpoint_url=url))
                sock.sendall(signer.sign(payload, signer.prepare().result(PATIENCE)) + payload)
                assert sock.recv(65_536).startswith(b"HTTP/1.1 200")
        theirs, ours = api.calls[: len(FUNCTIONS)], api.calls[len(FUNCTIONS) :]
    assert [signed(c) for c in ours] == [signed(c) for c in theirs]
    assert all((c.header(b"x-amz-security-token") is not None) == bool(token) for c in ours)
    assert len({c.header(b"authorization") for c in ours}) == len(FUNCTIONS)


def test_each_body_has_its_own_signature(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: NOW)
    signer = Signer(compiled(region="eu-west-1"))
    given = signer.prepare().result(PATIENCE)
    heads = {signer.sign(body, given) for body in (b"{}", b"{ }", b"[]")}
    assert len(heads) == 3
    assert {signer.sign(b"{}", given)} <= heads


# --- where it goes


ADDRESSES = {
    "eu-west-1": ("https", "lambda.eu-west-1.amazonaws.com", "eu-west-1"),
    "cn-north-1": ("https", "lambda.cn-north-1.amazonaws.com.cn", "cn-north-1"),
    "us-gov-west-1": ("https", "lambda.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
    "us-iso-east-1": ("https", "lambda.us-iso-east-1.c2s.ic.gov", "us-iso-east-1"),
    "eusc-de-east-1": ("https", "lambda.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"),
}


@pytest.mark.parametrize("region", ADDRESSES)
def test_each_partition_has_its_own_address(region: str, keys: None) -> None:
    at = found(region=region)
    scheme, host, signing = ADDRESSES[region]
    assert (at.endpoint.scheme, at.endpoint.host, at.endpoint.port) == (scheme, host, 443)
    assert at.endpoint.authority == host.encode()
    assert (at.region, at.service) == (signing, "lambda")
    assert at.target == b"/2015-03-31/functions/events/invocations"


@pytest.mark.parametrize(
    ("variables", "host"),
    [
        ({"AWS_USE_FIPS_ENDPOINT": "true"}, "lambda-fips.us-east-1.amazonaws.com"),
        ({"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "lambda.us-east-1.api.aws"),
        ({"AWS_ENDPOINT_URL": "http://vpce.internal:8080/base"}, "vpce.internal"),
        ({"AWS_ENDPOINT_URL_LAMBDA": "https://vpce.internal/base"}, "vpce.internal"),
    ],
)
def test_the_environment_chooses_the_address_as_for_botocore(
    variables: dict[str, str], host: str, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    at = found(LambdaFunction("events", "live"), region="us-east-1")
    assert (at.endpoint.host, at.region) == (host, "us-east-1")
    assert at.endpoint.base == (b"/base" if "vpce" in host else b"")
    assert at.target == b"/2015-03-31/functions/events/invocations?Qualifier=live"


def test_what_is_declared_goes_before_the_environments_address(
    keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere.internal")
    assert found(region="us-east-1", endpoint_url="http://here.internal").endpoint.host == "here.internal"


def test_the_region_nearest_to_the_function_counts(
    aws: Path, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (aws / "config").write_text("[default]\nregion = eu-north-1\n[profile other]\nregion = eu-south-1\n")
    assert found().region == "eu-north-1"
    (aws / "credentials").write_text("[other]\naws_access_key_id = a\naws_secret_access_key = b\n")
    assert found(profile="other").region == "eu-south-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    assert found(profile="other").region == "eu-west-3"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert found().region == "eu-west-2"
    assert found(ARN).region == "eu-central-1"
    assert found(ARN, region="eu-west-1").region == "eu-west-1"


# --- what is missing is told at the start


def ids(troubles: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    return [(field, id_) for field, _, id_ in troubles]


def test_everything_that_is_missing_is_told_at_once() -> None:
    troubles = check_lambda(compiled())
    assert ids(troubles) == [("region", "lambda-region"), ("profile", "lambda-credentials")]
    (_, region, _), (_, credentials, _) = troubles
    for place in ("`region`", "ARN", "AWS_REGION", "AWS_DEFAULT_REGION", "'default'"):
        assert place in region
    for place in ("env", "assume-role", "sso", "shared-credentials-file", "container-role", "iam-role"):
        assert place in credentials


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"profile": "nobody"}, [("profile", "lambda-profile")]),
        ({"region": "eu west 1"}, [("region", "lambda-region")]),
        ({"endpoint_url": "lambda.internal"}, [("endpoint_url", "lambda-endpoint")]),
        ({"endpoint_url": "unix:/run/lambda.sock"}, [("endpoint_url", "lambda-endpoint")]),
        ({"endpoint_url": "https://key:secret@lambda.internal"}, [("endpoint_url", "lambda-endpoint")]),
        ({"endpoint_url": "https://lambda.internal/?x=1"}, [("endpoint_url", "lambda-endpoint")]),
        ({"endpoint_url": "https://lambda.internal"}, []),
        ({}, []),
    ],
)
def test_what_cannot_be_used_is_told(
    settings: dict[str, str], expected: list[tuple[str, str]], keys: None
) -> None:
    assert ids(check_lambda(compiled(**{"region": "eu-west-1", **settings}))) == expected


@pytest.mark.parametrize(
    ("config", "profile"),
    [
        ("[profile bad]\nregion = [", "nobody"),
        ("nothing of a config file", ""),
        ("[profile half]\naws_access_key_id = AKID\n", "half"),
        ("[profile loop]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = gone\n", "loop"),
        ("[profile tool]\ncredential_process = /nowhere/at/all\n", "tool"),
    ],
)
def test_a_profile_that_cannot_be_read_is_told(aws: Path, config: str, profile: str) -> None:
    (aws / "config").write_text(config)
    troubles = check_lambda(compiled(region="eu-west-1", profile=profile))
    assert [field for field, _, _ in troubles] == ["profile"]
    assert all("\n" not in what for _, what, _ in troubles)


def test_a_profile_of_the_environment_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "gone")
    (trouble,) = check_lambda(compiled(region="eu-west-1"))
    assert trouble[0] == "profile"
    assert "gone" in trouble[1]


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:9001", True),
        ("http://127.9.9.9", True),
        ("http://localhost:9001/base", True),
        ("http://lambda.localhost", True),
        ("http://[::1]:9001", True),
        ("http://localhost.example.com", False),
        ("http://10.0.0.1", False),
        ("http://[::1", False),
        ("", False),
    ],
)
def test_only_this_machine_is_local(url: str, local: bool) -> None:
    assert is_local(url) == local


def test_an_address_on_this_machine_needs_neither_region_nor_credentials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Nobody is asked for the instance's role, either: this one would never answer.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        upstream = compiled(endpoint_url="http://127.0.0.1:9001")
        assert check_lambda(upstream) == []
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.accept()
    at = signer_of(upstream).find()
    assert (at.region, at.credentials.access_key) == ("local", "local")


def test_credentials_that_are_there_are_used_for_this_machine_too(keys: None) -> None:
    assert found(endpoint_url="http://127.0.0.1:9001").credentials.access_key == "AKIDEXAMPLE"


def test_a_metadata_service_that_hangs_does_not_hang_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "3600")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert check_lambda(compiled(region="eu-west-1"), patience=0.01) == []
        silent.settimeout(PATIENCE)
        silent.accept()[0].close()  # it was asked, and now the thread ends


def test_without_botocore_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "botocore.session", None)
    ((field, what, id_),) = check_lambda(compiled(region="eu-west-1"))
    assert (field, id_) == ("lambda", "lambda-extra")
    assert "strangle-mw[lambda]" in what


def test_metadata_services_that_hang_are_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "3600")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        silent.settimeout(PATIENCE)
        answers = check_lambdas([compiled(region="eu-west-1") for _ in range(3)], PATIENCE)
        asked: list[socket.socket] = []

        def answer_when_all_ask() -> None:
            asked.extend(silent.accept()[0] for _ in range(3))
            silent.close()
            for each in asked:
                each.close()

        server = threading.Thread(target=answer_when_all_ask)
        server.start()
        found = [trouble[2] for _, trouble in answers]
        server.join(PATIENCE)
    assert found == ["lambda-credentials"] * 3
    assert len(asked) == 3


BAD_KEYS = [
    ("AWS_ACCESS_KEY_ID", "AKID\n", "access key"),
    ("AWS_ACCESS_KEY_ID", "AK ID", "access key"),
    ("AWS_SECRET_ACCESS_KEY", "wJalr\n", "secret key"),
    ("AWS_SESSION_TOKEN", "tok\r\nx-evil: 1", "session token"),
    ("AWS_SESSION_TOKEN", "tök", "session token"),
]


@pytest.mark.parametrize(("name", "value", "part"), BAD_KEYS)
def test_keys_that_would_break_a_header_are_refused(
    name: str, value: str, part: str, keys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with Recorder() as api:
        upstream = compiled(endpoint_url=api.url)
        ((field, what, id_),) = check_lambda(upstream)
        assert (field, id_) == ("profile", "lambda-credentials")
        assert part in what
        assert value.strip() not in what
        with pytest.raises(ForwardError, match=part) as caught:
            signer_of(upstream).prepare().result(PATIENCE)
    assert caught.value.stage == "connect"
    assert api.calls == []


def test_renewed_keys_that_would_break_a_header_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    renewable = RefreshableCredentials(
        "AKID", "secret", "tok\n", datetime.now(UTC) + timedelta(hours=1), dict, "test"
    )
    monkeypatch.setattr(Session, "get_credentials", lambda _: renewable)
    signer = Signer(compiled(region="eu-west-1"))
    with pytest.raises(ForwardError, match="session token"):
        signer.prepare().result(PATIENCE)
    assert signer.keys() is None


# --- credentials that end


class Renewals:
    """Real `RefreshableCredentials` whose renewal waits until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, left: float) -> None:
        self.count = 0
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.error: Exception | None = None
        self.credentials = RefreshableCredentials(
            "first", "secret", "token", datetime.now(UTC) + timedelta(seconds=left), self._renew, "test"
        )
        monkeypatch.setattr(Session, "get_credentials", lambda _: self.credentials)
        self.signer = Signer(compiled(region="eu-west-1"))

    def _renew(self) -> dict[str, str]:
        self.count += 1
        self.begun.set()
        assert self.go_on.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        end = datetime.now(UTC) + timedelta(hours=1)
        name = f"renewed-{self.count}"
        return {"access_key": name, "secret_key": "s", "token": "t", "expiry_time": end.isoformat()}


@pytest.fixture
def renewals(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], Renewals]]:
    made: list[Renewals] = []

    def make(left: float) -> Renewals:
        made.append(Renewals(monkeypatch, left=left))
        return made[-1]

    yield make
    for each in made:
        each.go_on.set()
        each.signer.prepare().exception(PATIENCE)  # no thread is left behind


def test_static_credentials_cost_no_thread(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer(compiled(region="eu-west-1"))
    assert signer.keys() is None
    given = signer.prepare().result(PATIENCE)
    monkeypatch.setattr(threading, "Thread", None)
    assert signer.keys() is given
    assert signer.keys().access_key == "AKIDEXAMPLE"


def test_the_loop_goes_on_while_credentials_are_renewed(renewals: Callable[[float], Renewals]) -> None:
    renewing = renewals(0.0)

    async def use() -> list[str]:
        futures = [asyncio.wrap_future(renewing.signer.prepare()) for _ in range(3)]
        async with asyncio.timeout(PATIENCE):
            while not renewing.begun.is_set():  # noqa: ASYNC110 - a thread tells
                await asyncio.sleep(0)
        for _ in range(10):  # the renewal hangs, and this does not
            await asyncio.sleep(0)
        assert not any(f.done() for f in futures)
        futures.append(asyncio.wrap_future(renewing.signer.prepare()))
        renewing.go_on.set()
        return [k.access_key for k in await asyncio.gather(*futures)]

    assert asyncio.run(use()) == ["renewed-1"] * 4
    assert renewing.count == 1
    assert renewing.signer.keys().access_key == "renewed-1"


def test_credentials_near_their_end_are_used_while_they_are_renewed(
    renewals: Callable[[float], Renewals],
) -> None:
    renewing = renewals(3600.0)
    assert renewing.signer.prepare().result(PATIENCE).access_key == "first"
    renewing.credentials._expiry_time = datetime.now(UTC) + timedelta(minutes=12)
    assert renewing.signer.keys().access_key == "first"
    assert renewing.begun.wait(PATIENCE)
    assert renewing.signer.keys().access_key == "first"
    renewing.go_on.set()
    assert renewing.signer.prepare().result(PATIENCE).access_key == "renewed-1"
    assert (renewing.signer.keys().access_key, renewing.count) == ("renewed-1", 1)


def test_a_failed_renewal_near_the_end_is_not_tried_for_each_request(
    renewals: Callable[[float], Renewals], caplog: pytest.LogCaptureFixture
) -> None:
    renewing = renewals(3600.0)
    renewing.signer.prepare().result(PATIENCE)
    renewing.error = OSError("no route")
    renewing.go_on.set()
    renewing.credentials._expiry_time = datetime.now(UTC) + timedelta(minutes=12)
    assert renewing.signer.keys().access_key == "first"
    renewing.signer._work.result(PATIENCE)  # type: ignore[union-attr]
    assert [renewing.signer.keys().access_key for _ in range(5)] == ["first"] * 5
    assert renewing.count == 1
    assert "Refreshing temporary credentials failed" in caplog.text  # botocore's own words


def test_credentials_at_their_end_are_not_used(
    renewals: Callable[[float], Renewals], caplog: pytest.LogCaptureFixture
) -> None:
    renewing = renewals(3600.0)
    renewing.signer.prepare().result(PATIENCE)
    renewing.credentials._expiry_time = datetime.now(UTC) + timedelta(minutes=2)
    assert renewing.signer.keys() is None
    renewing.error = OSError("line\none\x1b[31m" + "x" * 500)
    renewing.go_on.set()
    error = renewing.signer.prepare().exception(PATIENCE)
    assert isinstance(error, ForwardError)
    assert (error.stage, error.status, error.request_sent) == ("connect", 502, False)
    assert error.reason.startswith("AWS credentials: OSError: line one [31mxxx")
    assert len(error.reason) < 210
    renewing.error = None
    assert renewing.signer.prepare().result(PATIENCE).access_key == "renewed-2"


class Keys(ScriptedUpstream):
    """Gives out credentials as a container's agent does or, as XML, like STS."""

    def __init__(self, left: float, *, xml: bool = False) -> None:
        self.given = 0
        self._left = left
        self._xml = xml
        super().__init__([self._give])

    def _give(self, peer: Peer) -> None:
        asked = peer.read_until(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", asked)
        peer.read(int(length[1]) if length else 0)
        self.given += 1
        end = (datetime.now(UTC) + timedelta(seconds=self._left)).strftime("%Y-%m-%dT%H:%M:%SZ")
        found = {"AccessKeyId": f"KEY{self.given}", "SecretAccessKey": "s", "Token": "t", "Expiration": end}
        body = json.dumps(found)
        if self._xml:
            found["SessionToken"] = found.pop("Token")
            inner = "".join(f"<{n}>{v}</{n}>" for n, v in found.items())
            body = f"<AssumeRoleResponse><AssumeRoleResult><Credentials>{inner}</Credentials></AssumeRoleResult></AssumeRoleResponse>"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        send((head + body).encode())(peer)

    @property
    def url(self) -> str:
        return f"http://{self.endpoint.authority.decode()}"


def test_a_containers_credentials_are_used_until_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with Keys(3600) as agent:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.url}/keys")
        signer = Signer(compiled(region="eu-west-1"))
        assert signer.prepare().result(PATIENCE).access_key == "KEY1"
        assert signer.keys().access_key == "KEY1"
        assert b"Credential=KEY1/" in signer.sign(b"{}", signer.keys())
        assert b"x-amz-security-token: t\r\n" in signer.sign(b"{}", signer.keys())
        assert agent.given == 1
        signer.find().credentials._expiry_time = datetime.now(UTC)
        assert signer.keys() is None
        assert signer.prepare().result(PATIENCE).access_key == "KEY2"


def test_a_role_is_assumed_by_the_first_request_and_not_at_the_start(
    aws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (aws / "config").write_text(
        "[profile base]\naws_access_key_id = a\naws_secret_access_key = b\n"
        "[profile app]\nrole_arn = arn:aws:iam::123456789012:role/app\nsource_profile = base\n"
    )
    with Keys(3600, xml=True) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        upstream = compiled(region="eu-west-1", profile="app")
        assert check_lambda(upstream) == []
        assert sts.given == 0
        signer = signer_of(upstream)
        assert signer.keys() is None
        assert signer.prepare().result(PATIENCE).access_key == "KEY1"
        assert signer.keys().access_key == "KEY1"
        assert sts.given == 1


def test_what_is_not_found_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer(compiled(region="eu-west-1"))
    error = signer.prepare().exception(PATIENCE)
    assert isinstance(error, ForwardError)
    assert (error.stage, error.status) == ("connect", 502)
    assert "no AWS credentials" in error.reason
    monkeypatch.setattr(Session, "get_credentials", lambda _: Credentials("late", "secret"))
    assert signer.prepare().result(PATIENCE).access_key == "late"


def test_all_pools_of_an_upstream_share_its_signer_but_no_child_does() -> None:
    upstream = compiled(region="eu-west-1")
    assert signer_of(upstream) is signer_of(upstream)
    assert signer_of(upstream) is not signer_of(compiled(region="eu-west-1"))
    read, write = os.pipe()
    before = signer_of(upstream)
    child = os.fork()
    if child == 0:
        os.write(write, b"new" if signer_of(upstream) is not before else b"old")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 3) == b"new"
    os.close(read)
    os.close(write)
