"""Which URLs name a store, and that no message quotes a password, wherever in the URL it stands."""

import subprocess
import sys
from pathlib import Path

import pytest

from strangle_mw.stores import check_store_url, open_store
from strangle_mw.stores.base import StoreError
from strangle_mw.stores.urls import redis_address, sqlite_path

SHOWN = {
    "memory:": "memory:",
    "sqlite:////var/lib/s.db": "sqlite:////var/lib/s.db",
    "sqlite:////var/../lib//s.db?timeout=0.5": "sqlite:////lib/s.db",
    "sqlite:////a%20b.db": "sqlite:////a b.db",
    "sqlite:////a%0Ab.db": "sqlite:////a\\nb.db",
    "redis://": None,
    "redis://h": "redis://h",
    "redis://h:1/2?socket_timeout=0.5&protocol=3&prefix=p:q": "redis://h:1/2",
    "redis://[::1]:6379": "redis://[::1]:6379",
    "redis://ann:pa55@h:1": "redis://***@h:1",
    "redis://:p%4055@h": "redis://***@h",
    "redis://ann@h": "redis://***@h",
    "redis://h/?password=pa55&username=ann": "redis://h/",
    "rediss://:pa55@h/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required&ssl_check_hostname=True": "rediss://***@h/0",
    "unix:///run/redis.sock?db=1&password=pa55": "unix:///run/redis.sock",
    "unix://ann:pa55@/run/redis.sock": "unix://***@/run/redis.sock",
}
BAD = {
    "": "must be",
    "memory": "must be",
    "memory://": "must be",
    "postgres://ann:pa55@h/db": "must be",
    "pa55": "must be",
    "sqlite:": "needs a file",
    "sqlite://": "needs a file",
    "sqlite:///": "needs a file",
    "sqlite://store.db": "needs a file",
    "sqlite://pa55@h/store.db": "needs a file",
    "sqlite:///:memory:": "needs a file",
    "sqlite:///a/": "needs a file",
    "sqlite:///a%00b": "needs a file",
    "sqlite:///a.db#b": "needs a file",
    "sqlite:///a.db?timeout=": "option 'timeout'",
    "sqlite:///a.db?timeout=0": "option 'timeout'",
    "sqlite:///a.db?timeout=nan": "option 'timeout'",
    "sqlite:///a.db?timeout=inf": "option 'timeout'",
    "sqlite:///a.db?timeout=61": "option 'timeout'",
    "sqlite:///a.db?timeout=1&timeout=2": "one twice",
    "sqlite:///a.db?mode=ro": "unknown option",
    "redis://:pa55#x@h": "percent-encode",
    "redis://:pa55/x@h": "percent-encode",
    "redis://:pa55?x@h": "percent-encode",
    "redis://ann:55?pa55=x@h": "unknown option",
    "redis://ann:55?pa55&x@h": "unknown option",
    "redis://ann:pa55": "percent-encode",
    "redis://:pa55": "percent-encode",
    "redis://h:pa55": "percent-encode",
    "redis://h:99999": "percent-encode",
    "redis://[pa55": "percent-encode",
    "redis://pa55 word@h i": "percent-encode",
    "redis://h/pa55": "number of a database",
    "redis://h/0/1": "number of a database",
    "redis://h?db=pa55": "option 'db'",
    "redis://h?socket_timeout=pa55": "option 'socket_timeout'",
    "redis://h?socket_timeout=-1": "option 'socket_timeout'",
    "redis://h?prefix=": "option 'prefix'",
    "redis://h?prefix=a%0Ab": "option 'prefix'",
    "redis://h?password=": "option 'password'",
    "redis://h?connection_class=pa55": "unknown option",
    "redis://h?retry=3": "unknown option",
    "redis://h?credential_provider=pa55": "unknown option",
    "redis://h?ssl_ca_certs=/ca.pem": "unknown option",
    "rediss://h?ssl_cert_reqs=none": "option 'ssl_cert_reqs'",
    "rediss://h?ssl_cert_reqs=optional": "option 'ssl_cert_reqs'",
    "rediss://h?ssl_cert_reqs=required&ssl_cert_reqs=none": "one twice",
    "rediss://h?ssl_check_hostname=False": "option 'ssl_check_hostname'",
    "rediss://h?ssl_min_version=768": "unknown option",
    "unix://": "path of a socket",
    "unix://h/run/redis.sock": "must be",
    "unix:///": "path of a socket",
}


@pytest.mark.parametrize(("url", "shown"), SHOWN.items(), ids=range(len(SHOWN)))
def test_a_url_names_a_store_and_is_shown_without_its_secrets(url, shown):
    if shown is None:
        assert "must be 'redis://host" in check_store_url(url)
        return
    assert check_store_url(url) is None
    store = open_store(url)
    assert store.url == shown
    store.close()


@pytest.mark.parametrize(("url", "reason"), BAD.items(), ids=range(len(BAD)))
def test_a_url_that_names_none_is_refused_and_not_quoted(url, reason):
    problem = check_store_url(url)
    assert reason in problem
    assert "pa55" not in problem
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert str(caught.value) == problem
    assert caught.value.__cause__ is None


def test_the_three_forms_are_named():
    assert check_store_url("x:y") == "a store must be 'memory:', 'sqlite:///path.db' or 'redis://host:6379/0'"


def test_a_relative_file_is_in_the_folder_of_now():
    assert sqlite_path("sqlite:///a/b.db?timeout=2.5") == (f"{Path.cwd()}/a/b.db", 2.5)


def test_what_is_hidden_is_every_form_of_a_secret():
    address = redis_address("rediss://ann:p%4055@h?ssl_password=pem&prefix=p")
    assert set(address.secrets) == {"ann", "p%4055", "p@55", "pem"}
    assert list(address.secrets) == sorted(address.secrets, key=len, reverse=True)
    assert (address.prefix, address.secure) == ("p", True)
    assert "55" not in repr(address)
    assert "prefix" not in address.url


@pytest.mark.parametrize("url", ["memory:", "sqlite:///never-made.db"])
def test_each_kind_loads_only_its_own(url):
    script = (
        f"import sys\nfrom strangle_mw.stores import open_store\nopen_store({url!r}).close()\n"
        "print(*sorted({'redis', 'sqlite3', 'ssl', 'asyncio'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == (["sqlite3"] if url.startswith("sqlite") else [])
