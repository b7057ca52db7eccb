import asyncio
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from identity.tokens import EC, EC_NEXT, ED, REQUEST, clock, keyed, token
from strangle_mw.identity import IdentityError, Verifier
from strangle_mw.identity.keys import private_key
from strangle_mw.identity.remote import FRESH, PAUSE, USABLE, RemoteKeys

NEW, OLD = keyed("ES256", new=EC_NEXT, old=EC), keyed("ES256", old=EC)


def private_jwks():
    key = private_key(EC.encode(), "ES256")
    jwk = {**key.worker.to_jwk(key.material, as_dict=True), "kid": "old", "alg": "ES256"}
    assert "d" in jwk
    return json.dumps({"keys": [jwk]}).encode()


class KeyServer:
    """Publishes `document` with `status`, counts who asks, and waits for `gate` if there is one."""

    def __init__(self):
        self.document, self.status, self.asked, self.gate = OLD.jwks, 200, 0, None
        self.headers, self.arrived, server = {}, threading.Semaphore(0), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked += 1
                server.arrived.release()
                if server.gate is not None:
                    server.gate.wait(20)
                self.send_response(server.status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(server.document)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def shared():
    server = KeyServer()
    yield server
    server.close()


@pytest.fixture
def server(shared):
    shared.document, shared.status, shared.asked, shared.gate, shared.headers = OLD.jwks, 200, 0, None, {}
    shared.arrived = threading.Semaphore(0)
    return shared


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Clock()


@pytest.fixture
def keys(server, time):
    return RemoteKeys(server.url, time)


@pytest.fixture
def verifier(server):
    return Verifier("orders", jwks_url=server.url, clock=clock)


def test_keys_are_fetched_once_and_when_they_are_old(server, keys, time):
    assert server.asked == 0
    assert [keys.find("old").algorithm for _ in range(3)] == ["ES256"] * 3
    assert server.asked == 1
    time.now += FRESH - 1
    keys.find("old")
    assert server.asked == 1
    time.now += 1
    keys.find("old")
    assert server.asked == 2


def test_an_unknown_key_asks_once_in_a_while(server, keys, time):
    keys.find("old")
    assert [keys.find(str(i)) for i in range(50)] == [None] * 50
    assert server.asked == 1
    time.now += PAUSE
    assert [keys.find(str(i)) for i in range(50)] == [None] * 50
    assert server.asked == 2


def test_keys_that_cannot_be_had_are_asked_for_once_in_a_while(server, keys, time, caplog):
    server.status = 500
    for _ in range(3):
        with pytest.raises(LookupError):
            keys.find("old")
    assert server.asked == 1
    assert [r.getMessage() for r in caplog.records] == ["identity: the keys cannot be had: HTTPError"]
    time.now += PAUSE
    server.status = 200
    assert keys.find("old")


def test_keys_are_used_while_no_new_ones_can_be_had_but_not_for_ever(server, keys, time):
    keys.find("old")
    server.status = 500
    time.now += USABLE - 1
    assert keys.find("old")
    with pytest.raises(LookupError):  # it may be one that was published meanwhile
        keys.find("new")
    time.now += PAUSE
    with pytest.raises(LookupError):
        keys.find("old")


def test_two_live_keys_are_changed_without_a_gap(server, keys, time):
    """The story of docs/identity.md: publish the next key, sign with it, drop the old one."""
    mint = keyed("ES256", old=EC, new=EC_NEXT)
    server.document = mint.jwks
    assert keys.find("old")
    assert keys.find("new")  # known before the first token is signed with it
    server.document = NEW.jwks
    time.now += FRESH
    assert keys.find("old")  # tokens on their way
    server.document = keyed("ES256", new=EC_NEXT).jwks
    time.now += FRESH
    assert keys.find("new")
    assert keys.find("old") is None
    assert server.asked == 3


@pytest.mark.parametrize(
    ("document", "logged"),
    [
        (b"", "JSONDecodeError"),
        (b"no JSON", "JSONDecodeError"),
        (b"[" * 60_000, "RecursionError"),
        (b"[]", "ValueError"),
        (b'{"keys": {}}', "ValueError"),
        (b'{"keys": [1]}', "ValueError"),
        (private_jwks(), "ValueError"),
        (b'{"keys": [{"kty": "oct", "kid": "old", "k": "c2VjcmV0"}]}', "ValueError"),
        (b'{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "old"}]}', "ValueError"),
        (OLD.jwks + b" " * 65_536 + b"x", None),
        (OLD.jwks[:-1] + b" " * 65_536 + b"}", "JSONDecodeError"),
    ],
)
def test_what_is_no_key_set_is_refused(server, keys, document, logged, caplog):
    server.document = document
    if logged is None:  # blanks at the end; more than this is not read
        assert keys.find("old")
        return
    with pytest.raises(LookupError):
        keys.find("old")
    assert [r.getMessage() for r in caplog.records] == [f"identity: the keys cannot be had: {logged}"]


@pytest.mark.parametrize(
    "other",
    [
        {"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "crv": "P-384", "kid": "a"},
        {"kty": "OKP", "crv": "X25519", "kid": "a", "x": "AA"},
        {"kty": ["EC"], "crv": {}, "kid": "a"},
        {**json.loads(OLD.jwks)["keys"][0], "kid": 1},
        {**json.loads(OLD.jwks)["keys"][0], "kid": "a", "use": "enc"},
        {**json.loads(OLD.jwks)["keys"][0], "kid": "a", "alg": "ES384"},
    ],
)
def test_keys_for_something_else_are_passed_over(server, keys, other):
    server.document = json.dumps({"keys": [other, *json.loads(OLD.jwks)["keys"]]}).encode()
    assert keys.find("old")
    assert keys.find("a") is None


def test_no_proxy_of_the_environment_is_asked(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert RemoteKeys(server.url).find("old")


def test_redirects_are_not_followed(server, keys):
    server.status, server.headers = 302, {"Location": server.url}
    with pytest.raises(LookupError):
        keys.find("old")
    assert server.asked == 1


def test_nobody_is_asked_when_the_url_is_refused():
    with pytest.raises(LookupError):
        RemoteKeys("http://127.0.0.1:9/keys").find("a")


def test_tokens_are_checked_with_fetched_keys(server, verifier):
    server.document = NEW.jwks
    assert verifier.verify(token(NEW.minter), **REQUEST).subject == "42"
    assert verifier.verify(token(OLD.minter), **REQUEST).subject == "42"
    for found, reason in [
        (token(keyed("ES256", other=EC).minter), "key"),
        (token(keyed("ES256", new=EC).minter), "signature"),
        (token(keyed("EdDSA", new=ED).minter), "algorithm"),
        (token(), "key"),
    ]:
        with pytest.raises(IdentityError, match=f"{reason}$"):
            verifier.verify(found, **REQUEST)
    assert server.asked == 1


def test_without_keys_nobody_is_refused_for_good(server, verifier, caplog):
    server.status = 404
    for _ in range(2):
        with pytest.raises(IdentityError, match="keys") as caught:
            verifier.verify(token(OLD.minter), **REQUEST)
        assert caught.value.status == 503
    assert server.asked == 1
    assert {r.levelno for r in caplog.records} == {logging.WARNING}


def test_the_event_loop_goes_on_while_keys_are_fetched(server, verifier):
    server.gate = threading.Event()

    async def main():
        checks = [asyncio.ensure_future(verifier.averify(token(OLD.minter), **REQUEST)) for _ in range(3)]
        await asyncio.to_thread(server.arrived.acquire, timeout=20)
        assert not any(check.done() for check in checks)
        server.gate.set()  # by the same event loop that waits for the answer
        return [found.subject for found in await asyncio.gather(*checks)]

    assert asyncio.run(main()) == ["42"] * 3
    assert server.asked == 1
    assert asyncio.run(verifier.averify(token(OLD.minter), **REQUEST)).subject == "42"


def test_others_go_on_with_the_old_keys_while_one_asks(server, time):
    keys = RemoteKeys(server.url, time)
    keys.find("old")
    server.arrived.acquire()
    time.now += FRESH
    server.gate = threading.Event()
    asking = threading.Thread(target=keys.find, args=("old",))
    asking.start()
    try:
        assert server.arrived.acquire(timeout=20)
        assert keys.find("old")  # does not wait: the gate is shut
    finally:
        server.gate.set()
        asking.join()
    assert server.asked == 2
