"""What AWS needs to know before a function can be invoked, found as botocore finds it.

The address of the Invoke API, region, path, and credentials of one upstream; all of it blocks, and is done
in a thread that can be waited for (`aws_signing`). botocore is imported here and there alone, on first use.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from strangle_mw.core.patterns import PatternError
from strangle_mw.core.targets import parse_endpoint, shown
from strangle_mw.transports.aws_outcomes import one_line

if TYPE_CHECKING:
    from botocore.session import Session

    from strangle_mw.core.model import Endpoint, Upstream
    from strangle_mw.core.targets import LambdaFunction

Trouble = tuple[str, str, str]
"""A field of the upstream, what is wrong with it and the remedy, and a stable id."""

LOCAL = "local"
"""Region and keys for an address on this machine, which asks for neither."""


class Found(NamedTuple):
    """How one function is reached: `url` is the whole address, `target` what in it is below `endpoint`.

    `credentials` is botocore's object, which may know how to renew itself.
    """

    endpoint: Endpoint
    target: bytes
    url: str
    service: str
    region: str
    credentials: Any


_is_key = re.compile(r"[!-~]+").fullmatch


class LookupFailedError(Exception):
    """The function cannot be invoked as it is declared, here and now; `troubles` holds every reason."""

    def __init__(self, troubles: list[Trouble]) -> None:
        self.troubles = troubles
        super().__init__("; ".join(what for _, what, _ in troubles))


def look_up(declared: Upstream, function: LambdaFunction) -> Found:
    """Find everything for one function, waiting for files and services; raise `LookupFailedError`."""
    try:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session
    except ImportError:
        what = "needs botocore: pip install 'strangle-mw[lambda]'"
        raise LookupFailedError([("lambda", what, "lambda-extra")]) from None
    session = Session(profile=declared.profile or None)
    try:
        session.get_scoped_config()
        session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    except BotoCoreError as exc:
        raise LookupFailedError(
            [("profile", f"AWS profile: {one_line(str(exc))}", "lambda-profile")]
        ) from exc
    local = is_local(declared.endpoint_url)
    troubles: list[Trouble] = []
    address = _address(session, declared, function, troubles, local=local)
    credentials = _credentials(session, troubles, local=local)
    if address is None or troubles:
        raise LookupFailedError(troubles)
    return Found(*address, credentials)


@lru_cache
def _loader(path: str | None) -> Any:
    """Return what reads botocore's descriptions of services: 0.2 s for the first upstream, not for each."""
    from botocore.loaders import create_loader

    return create_loader(path)


def is_local(url: str) -> bool:
    """Tell whether an address is on this machine, by its name or number alone."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 section 6.3
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _region(session: Session, declared: Upstream, function: LambdaFunction, *, local: bool) -> str:
    """Return the region; what is nearest to the function counts.

    botocore itself does not look at AWS_REGION, which Lambda, ECS and every other SDK set and read.
    """
    environment = os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION")
    found = declared.region or function.region or environment or session.get_config_variable("region")
    return found or (LOCAL if local else "")


def _address(
    session: Session, declared: Upstream, function: LambdaFunction, troubles: list[Trouble], *, local: bool
) -> tuple[Endpoint, bytes, str, str, str] | None:
    """Find endpoint, target, URL, service and region; else add to `troubles`."""
    region = _region(session, declared, function, local=local)
    if not region:
        profile = session.get_config_variable("profile") or "default"
        what = (
            "no AWS region: looked at `region`, the ARN, AWS_DEFAULT_REGION, AWS_REGION and the profile "
            f"{profile!r}; set `region`"
        )
        troubles.append(("region", what, "lambda-region"))
    endpoint = _endpoint(declared.endpoint_url, troubles) if declared.endpoint_url else None
    if troubles:
        return None
    from botocore.exceptions import BotoCoreError, InvalidRegionError

    try:
        url, service, region = _presign(session, declared, function, region)
    except InvalidRegionError as exc:
        troubles.append(("region", one_line(str(exc)), "lambda-region"))
        return None
    except (BotoCoreError, ValueError) as exc:
        what = f"no address of the Invoke API is to be had: {one_line(str(exc))}"
        troubles.append(("endpoint_url", what, "lambda-endpoint"))
        return None
    start, _, query = url.partition("?")
    if endpoint is None:  # botocore's own, or one that the environment names
        endpoint = _endpoint(start[: start.index("/2015-03-31/")], troubles)
    if endpoint is None:
        return None
    base = endpoint.base.decode()
    target = urlsplit(start).path.removeprefix(base) + (f"?{query}" if query else "")
    return endpoint, target.encode(), url, service, region


def _endpoint(url: str, troubles: list[Trouble]) -> Endpoint | None:
    try:
        endpoint = parse_endpoint(url)
    except PatternError as exc:
        troubles.append(("endpoint_url", f"{shown(url)} {exc}", "lambda-endpoint"))
        return None
    if endpoint.scheme == "unix":
        what = f"{url!r} must be an address like https://host or http://host:port"
        troubles.append(("endpoint_url", what, "lambda-endpoint"))
        return None
    return endpoint


def _presign(
    session: Session, declared: Upstream, function: LambdaFunction, region: str
) -> tuple[str, str, str]:
    """Let botocore build the URL of one invocation, and say for which service and region it is signed.

    A presigned URL is the one public way to all that its client knows: partitions, FIPS and dual-stack
    endpoints, AWS_ENDPOINT_URL, how a name is quoted. What it adds for the signature is taken off again.
    """
    client = session.create_client(
        "lambda",
        region_name=region,
        endpoint_url=declared.endpoint_url or None,
        aws_access_key_id=LOCAL,  # else it would look for credentials by itself
        aws_secret_access_key=LOCAL,
    )
    asked = {"FunctionName": function.name}
    if function.qualifier:
        asked["Qualifier"] = function.qualifier
    url: str = client.generate_presigned_url("invoke", Params=asked, HttpMethod="POST")
    start, _, query = url.partition("?")
    pairs = [p.partition("=") for p in query.split("&")]
    kept = "&".join(f"{n}={v}" for n, _, v in pairs if not n.startswith("X-Amz-"))
    scope = next(v for n, _, v in pairs if n == "X-Amz-Credential")
    _, _, region, service, _ = scope.split("%2F")
    return f"{start}?{kept}" if kept else start, service, region


def unusable(keys: Any) -> str:
    """Say which part of credentials can stand in no header (promise P5), "" if all can.

    A line end behind a key that came from a file or a secret store is the usual one.
    """
    parts = {"access key": keys.access_key, "secret key": keys.secret_key, "session token": keys.token}
    bad = [name for name, part in parts.items() if part and not _is_key(part)]
    return f"a blank, line end or other character in the {bad[0]} that none has" if bad else ""


def _credentials(session: Session, troubles: list[Trouble], *, local: bool) -> Any:
    """Go along botocore's chain; nothing is renewed here, so a role is not assumed yet."""
    from botocore.credentials import Credentials
    from botocore.exceptions import BotoCoreError

    chain = session.get_component("credential_provider")
    if local:
        chain.remove(
            "iam-role"
        )  # nothing on this machine needs the instance's role, and asking may take seconds
    try:
        found = session.get_credentials()
    except (BotoCoreError, OSError, ValueError) as exc:
        what = f"no AWS credentials: {type(exc).__name__}: {one_line(str(exc))}"
        troubles.append(("profile", what, "lambda-credentials"))
        return None
    if found is None and local:
        return Credentials(LOCAL, LOCAL)
    if found is not None and not hasattr(found, "refresh_needed"):
        bad = unusable(found.get_frozen_credentials())
        if bad:
            troubles.append(("profile", f"AWS credentials ({found.method}): {bad}", "lambda-credentials"))
    if found is None:
        looked = ", ".join(p.METHOD for p in chain.providers)
        what = (
            f"no AWS credentials: looked for {looked} (botocore's chain); give this process a role, or set "
            "`profile` or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
        troubles.append(("profile", what, "lambda-credentials"))
    return found
